//! Nodes for the tests of the texts.

use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuIndex, GpuUuid, Health, LinkLayer, LinkMatrix, MiB, Nic, NicName,
    NodeName, NodeTopology, Parts, PciAddress, PortState, Zone, ZoneId,
};

/// A node in the making: change `parts`, then build.
pub(crate) struct Sample {
    pub(crate) parts: Parts,
}

const CPUS: [&str; 2] = ["0-7,16-23", "8-15,24-31"];

impl Sample {
    /// A node of two zones with the given matrix; the zones of its GPUs and NICs give their number.
    pub(crate) fn new(rows: &[&str], gpu_zones: &[u16], nic_zones: &[u16]) -> Self {
        let cpus = |zone: u16| CpuSet::parse(CPUS[usize::from(zone)]).unwrap();
        let zone = |id: u16| Zone {
            id: ZoneId(id),
            cpus: cpus(id),
            memory: Some(MiB(65_536)),
            huge_pages: None,
            distances: vec![10, 20],
        };
        let address = |bus: usize| PciAddress { domain: 0, bus: u8::try_from(bus).unwrap(), device: 0, function: 0 };
        let gpu = |(i, zone): (usize, &u16)| Gpu {
            index: GpuIndex(u8::try_from(i).unwrap()),
            uuid: GpuUuid::parse(&format!("GPU-{i}")).unwrap(),
            pci: address(0x10 + i),
            product: "NVIDIA Test".to_owned(),
            memory: Some(MiB(81_559)),
            zone: Some(ZoneId(*zone)),
            cpus: cpus(*zone),
            memory_zone: None,
            nearest_zones: None,
            mig_enabled: Some(false),
            health: Health::Healthy,
            detail: berth_model::GpuDetail::default(),
        };
        let nic = |(i, zone): (usize, &u16)| Nic {
            name: NicName::parse(&format!("mlx5_{i}")).unwrap(),
            pci: Some(address(0x80 + i)),
            zone: Some(ZoneId(*zone)),
            link_layer: LinkLayer::InfiniBand,
            state: PortState::Active,
            rate_gbps: Some(400),
            function: berth_model::NicFunction::default(),
        };
        let rows: Vec<String> = rows.iter().map(|r| (*r).to_owned()).collect();
        let parts = Parts {
            node: NodeName::parse("sample").unwrap(),
            boot_id: BootId::parse("boot").unwrap(),
            generation: Generation(1),
            driver: Driver::Loaded("580.1".into()),
            zones: vec![zone(0), zone(1)],
            gpus: gpu_zones.iter().enumerate().map(gpu).collect(),
            nics: nic_zones.iter().enumerate().map(nic).collect(),
            links: LinkMatrix::parse(&rows).unwrap(),
            host: berth_model::Host::default(),
            findings: Vec::new(),
            drifts: Vec::new(),
            refusals: Vec::new(),
            device_plugin: None,
        };
        Self { parts }
    }

    /// The checked node.
    pub(crate) fn build(self) -> NodeTopology {
        NodeTopology::try_new(self.parts).unwrap()
    }
}

/// A node in the shape of a DGX H100: one GPU and one NIC under each switch, a dual-port card per zone.
pub(crate) fn dgx_h100() -> NodeTopology {
    let nic_rail = [Some(0), None, None, Some(1), Some(2), Some(3), Some(4), None, None, Some(5), Some(6), Some(7)];
    let zone_of_nic = |nic: usize| nic / 6;
    let cell = |a: usize, b: usize| {
        let (a, b) = (a.min(b), a.max(b));
        let level = |near: bool, same_zone: bool, word: &str| match (near, same_zone) {
            (true, _) => word.to_owned(),
            (false, true) => "NODE".to_owned(),
            (false, false) => "SYS".to_owned(),
        };
        if a == b {
            return "X".to_owned();
        }
        if b < 8 {
            return format!("NV18/{}", level(false, a / 4 == b / 4, ""));
        }
        if a < 8 {
            return level(nic_rail[b - 8] == Some(a), a / 4 == zone_of_nic(b - 8), "PXB");
        }
        let (a, b) = (a - 8, b - 8);
        let card = nic_rail[a].is_none() && nic_rail[b].is_none() && b == a + 1;
        level(card, zone_of_nic(a) == zone_of_nic(b), "PIX")
    };
    let rows: Vec<String> = (0..20).map(|a| (0..20).map(|b| cell(a, b)).collect::<Vec<_>>().join(" ")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let mut sample = Sample::new(&rows, &[0, 0, 0, 0, 1, 1, 1, 1], &[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    for (i, nic) in sample.parts.nics.iter_mut().enumerate() {
        if let Some(pci) = nic.pci.as_mut().filter(|_| i == 2 || i == 8) {
            (pci.bus, pci.function) = (pci.bus - 1, 1);
        }
    }
    sample.build()
}
