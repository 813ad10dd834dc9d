//! Claims about what facts become, over one small machine that each test bends.

mod nvlinks;

use std::collections::BTreeMap;

use berth_model::{GpuIndex, Health, LinkLayer, MiB, PciAddress, PciPath, PortState};

use super::*;
use crate::facts::{
    Answer, DeviceDetail, NvmlDevice, NvmlFailure, NvmlNode, PciFacts, PortFacts, RdmaFacts, SysfsFault, ZoneFacts,
};

const GPU_CLASS: u32 = 0x03_0200;

fn address(bus: u8) -> PciAddress {
    PciAddress { domain: 0, bus, device: 0, function: 0 }
}

/// Each device on a host bridge of its own, named after its bus.
fn pci(bus: u8, class: u32, zone: Option<u16>) -> (PciAddress, PciFacts) {
    let path = PciPath { host_bridge: format!("pci0000:{bus:02x}"), bridges: Vec::new(), device: address(bus) };
    let vendor = Some(PciFacts::VENDOR_NVIDIA);
    (
        address(bus),
        PciFacts {
            path,
            vendor,
            class: Some(class),
            zone: zone.map(ZoneId),
            is_virtual: false,
            physical: None,
            sriov: None,
            driver: None,
            iommu_group: None,
            vgpu: None,
            slot: None,
        },
    )
}

fn device(bus: u8) -> NvmlDevice {
    NvmlDevice {
        uuid: Ok(format!("GPU-{bus}")),
        pci: Ok(address(bus)),
        product: Ok("Test".to_owned()),
        memory_bytes: Ok(1 << 30),
        mig_enabled: Ok(false),
        memory_affinity: Err(NvmlFailure::NotSupported),
        memory_zone: Err(NvmlFailure::NotSupported),
        nvlinks: Ok(Vec::new()),
        detail: DeviceDetail::silent(&NvmlFailure::NotSupported),
    }
}

fn zone(id: u16, cpus: &str) -> ZoneFacts {
    ZoneFacts { id: ZoneId(id), cpus: CpuSet::parse(cpus).ok(), memory: None, huge_pages: None, distances: None }
}

/// Two zones, four GPUs on buses 1 to 4, the first two in zone 0.
fn facts() -> RawFacts {
    RawFacts {
        nvml: NvmlFacts::Read(NvmlNode {
            driver_version: Ok("1.2".to_owned()),
            nvml_version: Ok("12.1.2".to_owned()),
            cuda_version: Ok(12_080),
            devices: (1..=4).map(|bus| Ok(device(bus))).collect(),
        }),
        sysfs: SysfsFacts {
            boot_id: Some("boot".to_owned()),
            zones: vec![zone(0, "0-3"), zone(1, "4-7")],
            pci: (1..=4).map(|bus| pci(bus, GPU_CLASS, Some(u16::from(bus > 2)))).collect(),
            ..SysfsFacts::default()
        },
    }
}

fn devices(facts: &mut RawFacts) -> &mut Vec<Answer<NvmlDevice>> {
    match &mut facts.nvml {
        NvmlFacts::Read(node) => &mut node.devices,
        NvmlFacts::NoDriver(_) => unreachable!("the facts of these tests have a driver"),
    }
}

fn judge(facts: &RawFacts) -> Parts {
    judge_after(facts, None)
}

fn judge_after(facts: &RawFacts, previous: Option<&NodeTopology>) -> Parts {
    assemble(facts, previous, NodeName::parse("n").unwrap()).unwrap().into_parts()
}

fn codes(parts: &Parts) -> Vec<&str> {
    parts.findings.iter().map(|f| f.code.as_str()).collect()
}

fn bent(bend: impl FnOnce(&mut NvmlDevice)) -> Parts {
    let mut facts = facts();
    if let Ok(device) = &mut devices(&mut facts)[0] {
        bend(device);
    }
    judge(&facts)
}

#[test]
fn a_gpu_that_answers_is_reported_as_it_answers() {
    let parts = judge(&facts());
    let gpu = &parts.gpus[2];
    assert_eq!((gpu.index, gpu.uuid.as_str(), gpu.pci), (GpuIndex(2), "GPU-3", address(3)));
    assert_eq!((gpu.memory, gpu.zone, gpu.cpus.to_string()), (Some(MiB(1024)), Some(ZoneId(1)), "4-7".to_owned()));
    assert_eq!((gpu.mig_enabled, &gpu.health), (Some(false), &Health::Healthy));
    assert_eq!(
        parts.driver,
        Driver::Loaded(DriverVersions {
            driver: "1.2".to_owned(),
            nvml: Some("12.1.2".to_owned()),
            cuda: Some("12.8".to_owned()),
        })
    );
    assert_eq!(codes(&parts), [""; 0]);
}

#[test]
fn unreadable_facts_are_unknown_and_never_zero() {
    assert_eq!(bent(|d| d.memory_bytes = Ok(0)).gpus[0].memory, None);
    let unsupported = bent(|d| d.memory_bytes = Err(NvmlFailure::NotSupported));
    assert_eq!((unsupported.gpus[0].memory, &unsupported.gpus[0].health), (None, &Health::Healthy));
    let other = bent(|d| d.memory_bytes = Err(NvmlFailure::Other("odd".to_owned())));
    assert_eq!(other.gpus[0].health, Health::Unknown("NVML: memory: odd".to_owned()));
    assert_eq!(other.gpus[0].memory, None);
    let mig = bent(|d| d.mig_enabled = Err(NvmlFailure::NotSupported));
    assert_eq!((mig.gpus[0].mig_enabled, &mig.gpus[0].health), (None, &Health::Healthy));
    assert_eq!(bent(|d| d.product = Ok("  \n".to_owned())).gpus[0].product, "unknown");
    assert_eq!(bent(|d| d.product = Ok("a\u{7}b".to_owned())).gpus[0].product, "a b");
}

#[test]
fn one_answer_that_says_lost_or_reset_is_enough() {
    let lost = bent(|d| d.mig_enabled = Err(NvmlFailure::Lost));
    assert_eq!(lost.gpus[0].health, Health::Unhealthy("NVML: the GPU is lost".to_owned()));
    let reset = bent(|d| d.nvlinks = Err(NvmlFailure::ResetRequired));
    assert_eq!(reset.gpus[0].health, Health::Unhealthy("NVML: the GPU needs a reset".to_owned()));
}

#[test]
fn a_zone_comes_from_the_kernel_then_from_the_only_zone_then_from_nvml_or_stays_unknown() {
    let without = |facts: &mut RawFacts| {
        for device in facts.sysfs.pci.values_mut() {
            device.zone = None;
        }
    };
    let mut two = facts();
    without(&mut two);
    assert_eq!(judge(&two).gpus[0].zone, None);
    assert!(judge(&two).gpus[0].cpus.is_empty());

    // Grace: the list starts with a zone that is GPU memory only.
    two.sysfs.zones.push(zone(2, ""));
    if let Ok(device) = &mut devices(&mut two)[0] {
        device.memory_affinity = Ok(vec![ZoneId(9), ZoneId(2), ZoneId(1)]);
        device.memory_zone = Ok(ZoneId(2));
    }
    let parts = judge(&two);
    assert_eq!((parts.gpus[0].zone, parts.gpus[0].memory_zone), (Some(ZoneId(1)), Some(ZoneId(2))));

    let mut one = facts();
    without(&mut one);
    one.sysfs.zones.truncate(1);
    assert_eq!(judge(&one).gpus[3].zone, Some(ZoneId(0)));
}

#[test]
fn a_zone_that_the_node_does_not_have_is_a_finding() {
    let mut facts = facts();
    facts.sysfs.pci.get_mut(&address(1)).unwrap().zone = Some(ZoneId(9));
    let parts = judge(&facts);
    assert_eq!((parts.gpus[0].zone, codes(&parts)), (None, vec!["zone-unknown"]));
}

#[test]
fn lost_gpus_are_found_by_address_by_elimination_or_by_index() {
    let before = NodeTopology::try_new(judge(&facts())).unwrap();

    // By the address that still answers.
    let mut by_address = facts();
    devices(&mut by_address)[1].as_mut().unwrap().uuid = Err(NvmlFailure::Lost);
    let parts = judge_after(&by_address, Some(&before));
    assert_eq!((parts.gpus[1].uuid.as_str(), parts.gpus[1].health.word()), ("GPU-2", "unhealthy"));

    // By elimination: a GPU is gone from NVML's list, so indexes moved, and another one gives no handle.
    let mut moved = facts();
    drop(devices(&mut moved).remove(0));
    devices(&mut moved)[1] = Err(NvmlFailure::Lost);
    moved.sysfs.pci.remove(&address(1));
    let parts = judge_after(&moved, Some(&before));
    let uuids: Vec<&str> = parts.gpus.iter().map(|g| g.uuid.as_str()).collect();
    assert_eq!(uuids, ["GPU-2", "GPU-3", "GPU-4"]);
    assert_eq!(parts.gpus[1].health.reason(), "NVML: the GPU is lost");

    // By index, where the bus shows nothing.
    let mut blind = facts();
    blind.sysfs.pci.clear();
    devices(&mut blind)[3] = Err(NvmlFailure::Lost);
    let parts = judge_after(&blind, Some(&before));
    assert_eq!((parts.gpus[3].uuid.as_str(), parts.gpus[3].health.word()), ("GPU-4", "unhealthy"));
    assert_eq!(parts.gpus[3].zone, Some(ZoneId(1)), "what was known of it stays");
}

#[test]
fn an_unlisted_gpu_is_unhealthy_when_known_and_a_finding_when_not() {
    let before = NodeTopology::try_new(judge(&facts())).unwrap();
    let mut gone = facts();
    drop(devices(&mut gone).remove(1));
    let parts = judge_after(&gone, Some(&before));
    let told: Vec<(&str, &str)> = parts.gpus.iter().map(|g| (g.uuid.as_str(), g.health.reason())).collect();
    assert_eq!(told, [("GPU-1", ""), ("GPU-3", ""), ("GPU-4", ""), ("GPU-2", "the driver no longer lists it")]);

    let parts = judge(&gone);
    assert_eq!((parts.gpus.len(), codes(&parts)), (3, vec!["gpu-unlisted"]));
    assert_eq!(parts.findings[0].device, "0000:02:00.0");

    gone.sysfs.pci.remove(&address(2));
    let parts = judge_after(&gone, Some(&before));
    assert_eq!((parts.gpus.len(), codes(&parts)), (3, vec![]), "a GPU that was taken out is no fault");
}

#[test]
fn twins_and_crowds_cost_only_themselves() {
    let mut twin = facts();
    devices(&mut twin)[3].as_mut().unwrap().uuid = Ok("GPU-1".to_owned());
    let parts = judge(&twin);
    assert_eq!(parts.gpus.len(), 3);
    assert_eq!(codes(&parts), ["gpu-refused", "gpu-unlisted"]);

    let mut crowd = facts();
    *devices(&mut crowd) = (1..=40).map(|bus| Ok(device(bus))).collect();
    crowd.sysfs.pci.clear();
    let parts = judge(&crowd);
    assert_eq!((parts.gpus.len(), codes(&parts).len()), (32, 8));
}

fn rdma(name: &str, bus: Option<u8>, ports: &[(PortState, u32)]) -> RdmaFacts {
    let path = bus.map(|b| pci(b, 0, None).1.path);
    let port = |(state, rate): &(PortState, u32)| PortFacts {
        state: *state,
        rate_gbps: Some(*rate),
        link_layer: LinkLayer::InfiniBand,
    };
    RdmaFacts {
        name: name.to_owned(),
        path,
        zone: None,
        ports: ports.iter().map(port).collect(),
        ..RdmaFacts::default()
    }
}

#[test]
fn nics_stand_in_the_order_in_which_people_count() {
    let mut facts = facts();
    let names = ["mlx5_10", "rocep2s0", "mlx5_2", "mlx5_bond_0", "mlx5_0", "rocep10s0", "mlx5_02", "a b"];
    facts.sysfs.rdma = names.iter().map(|n| rdma(n, None, &[])).collect();
    let parts = judge(&facts);
    let sorted: Vec<&str> = parts.nics.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(sorted, ["mlx5_0", "mlx5_02", "mlx5_2", "mlx5_10", "mlx5_bond_0", "rocep2s0", "rocep10s0"]);
    assert_eq!(codes(&parts), ["nic-refused"]);
    assert_eq!(parts.links.device_count(), 4 + 7);
}

#[test]
fn a_nic_is_as_good_as_its_best_port() {
    let mut facts = facts();
    facts.sysfs.pci.insert(address(9), pci(9, 0x02_0700, Some(1)).1);
    let ports = [(PortState::Down, 400), (PortState::Active, 100), (PortState::Active, 200)];
    facts.sysfs.rdma = vec![rdma("mlx5_0", Some(9), &ports), rdma("mlx5_1", None, &[])];
    let parts = judge(&facts);
    assert_eq!((parts.nics[0].state, parts.nics[0].rate_gbps), (PortState::Active, Some(200)));
    assert_eq!((parts.nics[0].pci, parts.nics[0].zone), (Some(address(9)), Some(ZoneId(1))));
    assert_eq!((parts.nics[1].state, parts.nics[1].pci, parts.nics[1].zone), (PortState::Unknown, None, None));
    assert_eq!(parts.links.link(0, 5).unwrap().pcie, None, "a NIC without a place is not far, it is unknown");
}

#[test]
fn devices_without_a_way_on_pci_are_as_far_as_their_zones_say() {
    let mut facts = facts();
    facts.sysfs.pci.remove(&address(4));
    let Ok(unseen) = &mut devices(&mut facts)[3] else { unreachable!("all devices answer") };
    unseen.memory_affinity = Ok(vec![ZoneId(1)]);
    let on_chip = |name: &str, id| RdmaFacts { zone: Some(ZoneId(id)), ..rdma(name, None, &[]) };
    facts.sysfs.rdma = vec![on_chip("hns_0", 0), on_chip("hns_1", 0), on_chip("hns_2", 1)];
    let links = judge(&facts).links;
    let rows = ["NODE SYS SYS NODE NODE SYS", "X SYS SYS NODE NODE SYS", "SYS X ? SYS SYS NODE", "SYS ? X SYS SYS ?"];
    for (row, expected) in links.rows().iter().zip(rows) {
        assert!(row.ends_with(expected), "{row} does not end with {expected}");
    }
    assert_eq!(
        links.rows()[4],
        "NODE NODE SYS SYS X ? SYS",
        "two devices of one zone off PCI may share a bus of their own"
    );
}

#[test]
fn zones_that_the_driver_names_are_reported_where_they_say_more_than_the_zone() {
    let nearest = |named: Answer<Vec<ZoneId>>| bent(|d| d.memory_affinity = named).gpus[0].nearest_zones.clone();
    assert_eq!(nearest(Ok(vec![ZoneId(0)])), None);
    assert_eq!(nearest(Ok(vec![ZoneId(0), ZoneId(1), ZoneId(9)])), Some(vec![ZoneId(0), ZoneId(1)]));
    assert_eq!(nearest(Err(NvmlFailure::NotSupported)), Some(Vec::new()));
    assert_eq!(nearest(Err(NvmlFailure::NoSymbol)), None, "an old library is no kernel without NUMA");
}

#[test]
fn virtual_functions_and_crowds_of_nics_are_left_out() {
    let mut facts = facts();
    let (at, mut function) = pci(9, 0x02_0700, Some(1));
    function.is_virtual = true;
    facts.sysfs.pci.insert(at, function);
    facts.sysfs.rdma = vec![rdma("mlx5_0", Some(9), &[])];
    assert!(judge(&facts).nics.is_empty());

    facts.sysfs.rdma = (0..200).map(|i| rdma(&format!("rxe{i}"), None, &[])).collect();
    let parts = judge(&facts);
    assert_eq!((parts.nics.len(), codes(&parts)), (96, vec!["nic-refused"]));
}

#[test]
fn zones_with_distances_that_do_not_fit_lose_only_those() {
    let mut facts = facts();
    facts.sysfs.zones[0].distances = Some(vec![10, 20]);
    facts.sysfs.zones[1].distances = Some(vec![10, 20, 30]);
    let parts = judge(&facts);
    assert_eq!((parts.zones[0].distances.as_slice(), parts.zones[1].distances.len()), (&[10, 20][..], 0));
    assert_eq!(codes(&parts), ["zone-refused"]);
}

#[test]
fn a_node_that_is_broken_all_over_has_a_bounded_report() {
    let mut facts = facts();
    facts.sysfs.boot_id = Some("two words".to_owned());
    let fault = |i| SysfsFault { path: format!("{i}"), problem: "x".repeat(5000) };
    facts.sysfs.faults = (0..500).map(fault).collect();
    let parts = judge(&facts);
    assert_eq!((parts.boot_id.as_str(), parts.findings.len()), (BOOT_ID_UNKNOWN, FINDINGS_MAX));
    assert_eq!(parts.findings[0].code, "boot-id-unknown");
    assert!(parts.findings.iter().all(|f| f.text.len() <= 160));
    assert_eq!(parts.gpus.len(), 4);
}

#[test]
fn without_a_driver_zones_and_nics_are_reported_and_gpus_are_counted() {
    let mut facts = facts();
    facts.nvml = NvmlFacts::NoDriver("why".to_owned());
    let parts = judge(&facts);
    assert_eq!((parts.driver, parts.gpus.len(), parts.zones.len()), (Driver::Absent("why".to_owned()), 0, 2));
    assert_eq!(parts.findings[0].text, "4 NVIDIA GPUs on the PCI bus are not reported: why");
    facts.sysfs.pci = BTreeMap::new();
    assert!(judge(&facts).findings.is_empty(), "a machine without GPUs needs no driver");
}
