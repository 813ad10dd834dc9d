//! Claims about what parts make a topology.

use super::*;
use crate::{CpuSet, GpuIndex, GpuUuid, Health, Link, PciAddress, PcieLevel, ZoneId};

fn parts(gpu_count: u8) -> Parts {
    let gpu = |i: u8| Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(&format!("GPU-{i}")).unwrap(),
        pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
        product: "NVIDIA Test".to_owned(),
        memory: Some(MiB(1000 + u64::from(i))),
        zone: Some(ZoneId(0)),
        cpus: CpuSet::default(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: Some(false),
        health: Health::Healthy,
        detail: crate::GpuDetail::default(),
    };
    Parts {
        node: NodeName::parse("n").unwrap(),
        boot_id: BootId::parse("b").unwrap(),
        generation: Generation(1),
        driver: Driver::Loaded("1".into()),
        zones: vec![Zone {
            id: ZoneId(0),
            cpus: CpuSet::default(),
            memory: None,
            huge_pages: None,
            distances: vec![10],
        }],
        gpus: (0..gpu_count).map(gpu).collect(),
        nics: Vec::new(),
        links: LinkMatrix::build(usize::from(gpu_count), |a, b| Link {
            nvlinks: if a + 1 == b && a % 2 == 0 { 4 } else { 0 },
            pcie: Some(PcieLevel::Phb),
        }),
        host: Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    }
}

#[test]
fn the_first_wrong_field_is_named() {
    type Break = fn(&mut Parts);
    let cases: [(&str, Break); 7] = [
        ("gpus[1].index", |p| p.gpus[1].index = GpuIndex(5)),
        ("gpus[1].uuid", |p| p.gpus[1].uuid = p.gpus[0].uuid.clone()),
        ("gpus[1].pci", |p| p.gpus[1].pci = p.gpus[0].pci),
        ("gpus[0].zone", |p| p.gpus[0].zone = Some(ZoneId(7))),
        ("zones[0].distances", |p| p.zones[0].distances = vec![10, 20]),
        ("zones[1].id", |p| p.zones.push(p.zones[0].clone())),
        ("links", |p| p.links = LinkMatrix::default()),
    ];
    for (field, break_it) in cases {
        let mut broken = parts(4);
        if field == "zones[1].id" {
            broken.zones[0].distances.clear();
        }
        break_it(&mut broken);
        assert_eq!(NodeTopology::try_new(broken).unwrap_err().field, field);
    }
}

#[test]
fn more_gpus_than_a_set_can_hold_are_refused() {
    let error = NodeTopology::try_new(parts(33)).unwrap_err();
    assert_eq!(error.to_string(), "gpus: 33 GPUs, at most 32 are taken");
}

#[test]
fn the_weakest_pair_decides_a_set() {
    let node = NodeTopology::try_new(parts(4)).unwrap();
    assert_eq!(node.weakest_link(GpuSet::from_bits(0b11)), Some(LinkClass::NvLink(4)));
    assert_eq!(node.weakest_link(GpuSet::from_bits(0b111)), Some(LinkClass::Pcie(PcieLevel::Phb)));
    assert_eq!(node.weakest_link(GpuSet::from_bits(0b1)), None);
    assert_eq!(node.link_class(), "NV4");
}

#[test]
fn sick_and_mig_gpus_are_not_usable_whole() {
    let mut p = parts(4);
    p.gpus[0].health = Health::Unhealthy("xid 79".to_owned());
    p.gpus[1].mig_enabled = Some(true);
    p.gpus[2].health = Health::Unknown("no answer".to_owned());
    let node = NodeTopology::try_new(p).unwrap();
    assert_eq!(node.usable_gpus(), GpuSet::from_bits(0b1000));
}

#[test]
fn the_generation_is_no_fact_of_the_hardware() {
    let node = NodeTopology::try_new(parts(2)).unwrap();
    let later = node.clone().with_generation(Generation(9));
    assert!(node.same_facts(&later));
    let mut other = parts(2);
    other.gpus[0].memory = None;
    assert!(!node.same_facts(&NodeTopology::try_new(other).unwrap()));
}
