//! The machines of the `sets` bench, as reports.

use anyhow::Result;
use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuDetail, GpuIndex, GpuUuid, Health, Host, Link, LinkLayer, LinkMatrix,
    MiB, Nic, NicFunction, NicName, NodeName, NodeTopology, Parts, PciAddress, PcieLevel, PortState, Zone, ZoneId,
};

/// GPUs of every machine.
pub const GPUS: usize = 8;

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DGX-1 with V100: two quads in a hybrid cube mesh of one or two NVLinks.
    Dgx1v,
    /// PCIe cards bridged crosswise in pairs (0,2) (1,3) (4,6) (5,7). Source: layout of github.com/NVIDIA/k8s-device-plugin issue 546.
    Bridged,
    /// No NVLink: two GPUs to a switch, two switches to a socket, two sockets.
    Pcie,
    /// DGX H100: NVSwitch, a NIC under the switch of every GPU, four GPUs to a socket.
    DgxH100,
}

impl Kind {
    /// All kinds with their names.
    pub const ALL: [(&str, Self); 4] =
        [("dgx-1v", Self::Dgx1v), ("bridged", Self::Bridged), ("pcie", Self::Pcie), ("dgx-h100", Self::DgxH100)];
}

/// NVLinks of the DGX-1V. Source: tests/captures/dgx-1v-8gpu-4nic.txt. Checked: 2026-11-21.
const MESH: [(usize, usize, u8); 16] = [
    (0, 1, 1),
    (0, 2, 1),
    (0, 3, 2),
    (0, 4, 2),
    (1, 2, 2),
    (1, 3, 1),
    (1, 5, 2),
    (2, 3, 2),
    (2, 6, 1),
    (3, 7, 1),
    (4, 5, 1),
    (4, 6, 1),
    (4, 7, 2),
    (5, 6, 2),
    (5, 7, 1),
    (6, 7, 2),
];

fn link(kind: Kind, a: usize, b: usize) -> Link {
    let pcie = Some(match kind {
        _ if a / 4 != b / 4 => PcieLevel::Sys,
        Kind::DgxH100 => PcieLevel::Node,
        Kind::Dgx1v | Kind::Bridged | Kind::Pcie if a / 2 == b / 2 => PcieLevel::Pix,
        Kind::Dgx1v | Kind::Bridged | Kind::Pcie => PcieLevel::Phb,
    });
    let nvlinks = match kind {
        Kind::Dgx1v => MESH.iter().find(|(x, y, _)| (*x, *y) == (a, b)).map_or(0, |(_, _, n)| *n),
        Kind::Bridged if a / 4 == b / 4 && b - a == 2 => 12,
        Kind::Bridged | Kind::Pcie => 0,
        Kind::DgxH100 => 18,
    };
    Link { nvlinks, pcie }
}

fn gpu(position: usize, zone: ZoneId) -> Result<Gpu> {
    let i = u8::try_from(position)?;
    Ok(Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(&format!("GPU-{i}"))?,
        pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
        product: "bench".to_owned(),
        memory: Some(MiB(81_920)),
        zone: Some(zone),
        cpus: CpuSet::default(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: Some(false),
        health: Health::Healthy,
        detail: GpuDetail::default(),
    })
}

fn nic(i: usize) -> Result<Nic> {
    Ok(Nic {
        name: NicName::parse(&format!("mlx5_{i}"))?,
        pci: None,
        zone: None,
        link_layer: LinkLayer::InfiniBand,
        state: PortState::Active,
        rate_gbps: Some(400),
        function: NicFunction::default(),
    })
}

/// The report of one machine of the kind.
///
/// # Errors
/// Never for the kinds here: they are consistent.
pub fn report(kind: Kind) -> Result<NodeTopology> {
    let nic_count = match kind {
        Kind::DgxH100 => GPUS,
        Kind::Dgx1v | Kind::Bridged | Kind::Pcie => 0,
    };
    build(GPUS, nic_count, |a, b| link(kind, a, b))
}

/// A machine of sixteen GPUs: two DGX-1V side by side. None is known; it is the largest that tables are made for.
///
/// # Errors
/// Never: it is consistent.
pub fn sixteen() -> Result<NodeTopology> {
    build(2 * GPUS, 0, |a, b| {
        if a / GPUS == b / GPUS {
            link(Kind::Dgx1v, a % GPUS, b % GPUS)
        } else {
            Link { nvlinks: 0, pcie: Some(PcieLevel::Sys) }
        }
    })
}

fn build(gpu_count: usize, nic_count: usize, link: impl Fn(usize, usize) -> Link) -> Result<NodeTopology> {
    let zone_id = |i: usize| u16::try_from(i / 4).unwrap_or(u16::MAX);
    let zone =
        |id| Zone { id: ZoneId(id), cpus: CpuSet::default(), memory: None, huge_pages: None, distances: Vec::new() };
    let links = LinkMatrix::build(gpu_count + nic_count, |a, b| {
        if b < gpu_count {
            return link(a, b);
        }
        Link { nvlinks: 0, pcie: Some(if b - gpu_count == a { PcieLevel::Pxb } else { PcieLevel::Sys }) }
    });
    Ok(NodeTopology::try_new(Parts {
        node: NodeName::parse("bench")?,
        boot_id: BootId::parse("bench")?,
        generation: Generation(1),
        driver: Driver::Loaded("".into()),
        zones: (0..gpu_count / 4).map(|i| zone(zone_id(4 * i))).collect(),
        gpus: (0..gpu_count).map(|i| gpu(i, ZoneId(zone_id(i)))).collect::<Result<_>>()?,
        nics: (0..nic_count).map(nic).collect::<Result<_>>()?,
        links,
        host: Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })?)
}
