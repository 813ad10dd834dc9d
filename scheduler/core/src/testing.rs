//! Named machines for this crate's tests, built from the model.

use std::sync::Arc;

use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuIndex, GpuUuid, Health, Link, LinkLayer, LinkMatrix, MiB, Nic, NicName,
    NodeName, NodeTopology, Parts, PciAddress, PcieLevel, PortState, Zone, ZoneId,
};

use crate::fabric::Fabric;
use crate::view::{Compute, Hardware, Knowledge, NodeView};

/// Shapes of 8-GPU machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Box8 {
    /// DGX-1V: two quads, one or two NVLinks, hybrid cube mesh. Source: tests/captures/dgx-1v-8gpu-4nic.txt.
    HybridMesh,
    /// Four bridged pairs (0,1) (2,3) .. under two sockets.
    PciePairs,
    /// NVSwitch: all equal, one NIC per GPU.
    Switched,
}

/// NVLinks of the DGX-1V, upper triangle. Source: tests/captures/dgx-1v-8gpu-4nic.txt.
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

fn link(kind: Box8, a: usize, b: usize) -> Link {
    let same_socket = a / 4 == b / 4;
    let pcie = Some(match kind {
        Box8::HybridMesh if a / 2 == b / 2 => PcieLevel::Pix,
        Box8::HybridMesh if same_socket => PcieLevel::Phb,
        Box8::PciePairs if same_socket => PcieLevel::Node,
        Box8::Switched if same_socket => PcieLevel::Node,
        _ => PcieLevel::Sys,
    });
    let nvlinks = match kind {
        Box8::HybridMesh => MESH.iter().find(|(x, y, _)| (*x, *y) == (a, b)).map_or(0, |(_, _, n)| *n),
        Box8::PciePairs => {
            if a / 2 == b / 2 {
                4
            } else {
                0
            }
        }
        Box8::Switched => 18,
    };
    Link { nvlinks, pcie }
}

/// A topology of the kind; GPUs 0 to 5 have a NIC under their switch.
pub(crate) fn topology(kind: Box8) -> NodeTopology {
    build(8, &|a, b| link(kind, a, b))
}

/// A topology of so many GPUs and NICs, all links unknown.
pub(crate) fn bare(gpus: usize, nics: usize) -> NodeTopology {
    let mut parts = build(u8::try_from(gpus).unwrap(), &|_, _| Link::default()).into_parts();
    let one = parts.nics[0].clone();
    let nic = |i: usize| Nic { name: NicName::parse(&format!("mlx5_{i}")).unwrap(), ..one.clone() };
    parts.nics = (0..nics).map(nic).collect();
    parts.zones = (0..4).map(|id| Zone { id: ZoneId(id), ..parts.zones[0].clone() }).collect();
    parts.links = LinkMatrix::build(gpus + nics, |_, _| Link::default());
    NodeTopology::try_new(parts).unwrap()
}

fn build(count: u8, link: &dyn Fn(usize, usize) -> Link) -> NodeTopology {
    let gpus = usize::from(count);
    let nics = gpus.min(6);
    let gpu = |i: u8| Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(&format!("GPU-{i}")).unwrap(),
        pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
        product: if i < 4 { "NVIDIA A100".to_owned() } else { "NVIDIA H100".to_owned() },
        memory: Some(MiB(if i < 2 { 40_960 } else { 81_920 })),
        zone: Some(ZoneId(u16::from(i) * 2 / u16::from(count))),
        cpus: CpuSet::default(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: Some(false),
        health: Health::Healthy,
        detail: berth_model::GpuDetail::default(),
    };
    let nic = |i: usize| Nic {
        name: NicName::parse(&format!("mlx5_{i}")).unwrap(),
        pci: None,
        zone: None,
        link_layer: LinkLayer::InfiniBand,
        state: PortState::Active,
        rate_gbps: Some(400),
        function: berth_model::NicFunction::default(),
    };
    let zone =
        |id| Zone { id: ZoneId(id), cpus: CpuSet::default(), memory: None, huge_pages: None, distances: Vec::new() };
    let links = LinkMatrix::build(gpus + nics, |a, b| {
        if b < gpus {
            return link(a, b);
        }
        let is_own = a < gpus && a == b - gpus;
        Link { nvlinks: 0, pcie: Some(if is_own { PcieLevel::Pxb } else { PcieLevel::Sys }) }
    });
    NodeTopology::try_new(Parts {
        node: NodeName::parse("n1").unwrap(),
        boot_id: BootId::parse("b").unwrap(),
        generation: Generation(7),
        driver: Driver::Loaded("580".into()),
        zones: vec![zone(0), zone(1)],
        gpus: (0..count).map(gpu).collect(),
        nics: (0..nics).map(nic).collect(),
        links,
        host: berth_model::Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
    .unwrap()
}

/// The fabric of the kind.
pub(crate) fn fabric(kind: Box8) -> Fabric {
    Fabric::of(&topology(kind))
}

/// A fabric of many GPUs: bridged pairs, two zones.
pub(crate) fn ring_of_pairs(count: u8) -> Fabric {
    let half = usize::from(count) / 2;
    Fabric::of(&build(count, &move |a, b| Link {
        nvlinks: if a / 2 == b / 2 { 4 } else { 0 },
        pcie: Some(if a / half == b / half { PcieLevel::Node } else { PcieLevel::Sys }),
    }))
}

/// An idle node of the kind: 96 cores, 1 TiB, 8 GPUs offered.
pub(crate) fn idle(kind: Box8) -> NodeView {
    view_of(topology(kind))
}

/// An idle node with this topology.
pub(crate) fn view_of(topology: NodeTopology) -> NodeView {
    let gpus = u64::from(topology.all_gpus().gpu_count());
    NodeView {
        name: topology.parts().node.clone(),
        hardware: Some(Hardware::of(Arc::new(topology))),
        knowledge: Knowledge::Current,
        held: berth_model::GpuSet::EMPTY,
        shared: Vec::new(),
        instances: Vec::new(),
        nics_held: berth_model::NicSet::EMPTY,
        unplanned_instances: std::collections::BTreeMap::new(),
        unplanned_gpu_count: 0,
        is_imprecise: false,
        has_stray_lease: false,
        offered: Arc::new([("nvidia.com/gpu".to_owned(), gpus)].into()),
        allocatable: Compute { cpu_milli: 96_000, memory: MiB(1 << 20) },
        requested: Compute::default(),
        labels: crate::level::LabelSet::default(),
        site: None,
    }
}

/// An idle node of the kind whose GPUs from `first_cut` on are H100s under MIG, each cut into these instances: profile, start.
pub(crate) fn cut(first_cut: u8, layout: &[(&str, u8)]) -> NodeView {
    let capability = berth_model::mig::catalog::KnownBoard::by_name("h100-80").unwrap().capability().unwrap();
    let board = berth_model::gpu::detail::Board { mig: capability.clone(), ..Default::default() };
    let board = Arc::new(board);
    let mut parts = topology(Box8::Switched).into_parts();
    for gpu in parts.gpus.iter_mut().filter(|gpu| gpu.index.0 >= first_cut) {
        gpu.mig_enabled = Some(true);
        gpu.detail.board = Arc::clone(&board);
        let instance = |(name, start): &(&str, u8)| {
            let profile = capability.by_name(name).unwrap();
            let placement = profile.placements().iter().copied().find(|p| p.start() == *start).unwrap();
            let uuids = vec![format!("MIG-{}-{start}", gpu.index.0)];
            berth_model::MigInstance { placement, profile: (*name).to_owned(), uuids }
        };
        gpu.detail.mig_instances = layout.iter().map(instance).collect();
    }
    let cut_count = 8 - u64::from(first_cut);
    let mut view = view_of(NodeTopology::try_new(parts).unwrap());
    let mut offered: std::collections::BTreeMap<String, u64> =
        [("nvidia.com/gpu".to_owned(), u64::from(first_cut))].into();
    for (name, _) in layout {
        *offered.entry(format!("nvidia.com/mig-{}", name.replace('+', "."))).or_default() += cut_count;
    }
    view.offered = Arc::new(offered);
    view
}
