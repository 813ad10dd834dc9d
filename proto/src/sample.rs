//! Topologies for this crate's tests: one full machine, and a strategy for every legal one; hosts and NIC functions in [`host`].

mod host;

mod detail;

use std::collections::BTreeSet;

use berth_model::{
    BootId, CpuSet, DevicePlugin, Drift, Driver, DriverVersions, Finding, Generation, Gpu, GpuIndex, GpuUuid, Health,
    HugePages, Level, Link, LinkLayer, LinkMatrix, MiB, Nic, NicName, NodeName, NodeTopology, Parts, PciAddress,
    PcieLevel, PortState, Refusal, RefusalReason, Zone, ZoneId,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A machine of the size that the object's budget is stated for: 8 GPUs and 10 NICs on two zones, every text as long as in the field.
pub(crate) fn eight_gpus_ten_nics() -> NodeTopology {
    let zone = |id: u16, cpus: &str| Zone {
        id: ZoneId(id),
        cpus: CpuSet::parse(cpus).unwrap(),
        memory: Some(MiB(1_031_868)),
        huge_pages: Some(vec![HugePages { page_kib: 1_048_576, page_count: 128 }]),
        distances: if id == 0 { vec![10, 21] } else { vec![21, 10] },
    };
    let zones = vec![zone(0, "0-55,112-167"), zone(1, "56-111,168-223")];
    let side = |i: u8, half: u8| ZoneId(u16::from(i >= half));
    let gpu = |i: u8| Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(&format!("GPU-4a3f1c9e-7b52-11ef-9d0{i}-0242ac12000{i}")).unwrap(),
        pci: PciAddress { domain: 0, bus: 0x1b + 16 * i, device: 0, function: 0 },
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        memory: Some(MiB(81_559)),
        zone: Some(side(i, 4)),
        cpus: zones[usize::from(side(i, 4).0)].cpus.clone(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: Some(false),
        health: Health::Healthy,
        detail: detail::healthy(i),
    };
    let nic = |i: u8| Nic {
        name: NicName::parse(&format!("mlx5_{i}")).unwrap(),
        pci: Some(PciAddress { domain: 0, bus: 0x18 + 16 * i, device: 0, function: 0 }),
        zone: Some(side(i, 5)),
        link_layer: LinkLayer::InfiniBand,
        state: PortState::Active,
        rate_gbps: Some(400),
        function: host::full_function(i),
    };
    let gpus: Vec<Gpu> = (0..8).map(gpu).collect();
    let nics: Vec<Nic> = (0..10).map(nic).collect();
    let zone_of = |d: usize| if d < 8 { gpus[d].zone } else { nics[d - 8].zone };
    let links = LinkMatrix::build(18, |a, b| {
        let pcie = if zone_of(a) == zone_of(b) { PcieLevel::Node } else { PcieLevel::Sys };
        Link { nvlinks: if b < 8 { 18 } else { 0 }, pcie: Some(pcie) }
    });
    NodeTopology::try_new(Parts {
        node: NodeName::parse("gpu-node-0017.pool-a.cluster.example").unwrap(),
        boot_id: BootId::parse("6f2c9f0e-5d3b-4a9b-8d1e-0a7c5b3e9f10").unwrap(),
        generation: Generation(12),
        driver: Driver::Loaded(DriverVersions {
            driver: "570.172.08".to_owned(),
            nvml: Some("12.570.172.08".to_owned()),
            cuda: Some("12.8".to_owned()),
        }),
        zones,
        gpus,
        nics,
        links,
        host: host::full(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: Some(DevicePlugin { level: Level::Preferred, is_accepting: true }),
    })
    .unwrap()
}

/// Every legal topology of a node of moderate size whose texts keep the limits.
pub(crate) fn topology() -> impl Strategy<Value = NodeTopology> {
    let zones = proptest::collection::btree_set(0_u16..40, 1..5);
    (zones, 0_usize..9, 0_usize..6, any::<bool>()).prop_flat_map(|(zones, gpu_count, nic_count, loaded)| {
        let ids: Vec<u16> = zones.iter().copied().collect();
        let devices = gpu_count + nic_count;
        let driver =
            "[ -~]{0,40}".prop_map(move |t| if loaded { Driver::Loaded(t.as_str().into()) } else { Driver::Absent(t) });
        (
            zone_list(zones),
            vec(gpu(ids.clone()), gpu_count),
            vec(nic(ids), nic_count),
            vec(link(), devices * devices),
            driver,
            (vec(finding(), 0..3), vec(drift(), 0..3), vec(refusal(), 0..3), device_plugin()),
            host::any(),
            (0..=i64::MAX).prop_map(i64::cast_unsigned),
        )
            .prop_map(
                move |(
                    zones,
                    mut gpus,
                    mut nics,
                    cells,
                    driver,
                    (findings, drifts, refusals, device_plugin),
                    host,
                    generation,
                )| {
                    for (i, gpu) in (0_u8..).zip(&mut gpus) {
                        gpu.index = GpuIndex(i);
                        gpu.pci.bus = i;
                        gpu.uuid = GpuUuid::parse(&format!("{}-{i}", gpu.uuid)).unwrap();
                    }
                    for (i, nic) in nics.iter_mut().enumerate() {
                        nic.name = NicName::parse(&format!("{}_{i}", nic.name)).unwrap();
                    }
                    NodeTopology::try_new(Parts {
                        node: NodeName::parse("node").unwrap(),
                        boot_id: BootId::parse("boot").unwrap(),
                        generation: Generation(generation),
                        driver,
                        zones,
                        gpus,
                        nics,
                        links: LinkMatrix::build(devices, |a, b| cells[a * devices + b]),
                        host,
                        findings,
                        drifts,
                        refusals,
                        device_plugin,
                    })
                    .unwrap()
                },
            )
    })
}

fn zone_list(ids: BTreeSet<u16>) -> impl Strategy<Value = Vec<Zone>> {
    let count = ids.len();
    let distances = proptest::option::of(vec(10_u16..255, count));
    let unnamed = (cpus(), mib(), host::huge_pages(), distances).prop_map(|(cpus, memory, huge_pages, distances)| {
        Zone { id: ZoneId(0), cpus, memory, huge_pages, distances: distances.unwrap_or_default() }
    });
    vec(unnamed, count).prop_map(move |mut zones| {
        for (zone, id) in zones.iter_mut().zip(&ids) {
            zone.id = ZoneId(*id);
        }
        zones
    })
}

fn cpus() -> impl Strategy<Value = CpuSet> {
    vec(0_u32..300, 0..12).prop_map(CpuSet::from_cpus)
}

fn mib() -> impl Strategy<Value = Option<MiB>> {
    proptest::option::of((0..=i64::MAX).prop_map(|m| MiB(m.cast_unsigned())))
}

fn health() -> impl Strategy<Value = Health> {
    let reason = "[ -~é]{0,60}";
    prop_oneof![Just(Health::Healthy), reason.prop_map(Health::Unhealthy), reason.prop_map(Health::Unknown)]
}

fn gpu(zones: Vec<u16>) -> impl Strategy<Value = Gpu> {
    let zone = proptest::option::of(proptest::sample::select(zones).prop_map(ZoneId));
    let place = (zone, cpus(), proptest::option::of((0..100_u16).prop_map(ZoneId)));
    ("[!-~]{1,40}", "NVIDIA [AB]", mib(), place, any::<Option<bool>>(), health(), 0_u32..70_000, detail::detail())
        .prop_map(|(uuid, product, memory, (zone, cpus, memory_zone), mig_enabled, health, domain, detail)| Gpu {
            index: GpuIndex(0),
            uuid: GpuUuid::parse(&uuid).unwrap(),
            pci: PciAddress { domain, bus: 0, device: 0, function: 0 },
            product,
            memory,
            zone,
            cpus,
            memory_zone,
            nearest_zones: memory_zone
                .map(|z| if zone < Some(z) { zone.into_iter().chain([z]).collect() } else { Vec::new() }),
            mig_enabled,
            health,
            detail,
        })
}

fn nic(zones: Vec<u16>) -> impl Strategy<Value = Nic> {
    let layer = prop_oneof![Just(LinkLayer::InfiniBand), Just(LinkLayer::Ethernet), Just(LinkLayer::Unknown)];
    let state = prop_oneof![Just(PortState::Active), Just(PortState::Down), Just(PortState::Unknown)];
    let pci = (any::<u8>(), 0_u8..32, 0_u8..8).prop_map(|(bus, device, function)| PciAddress {
        domain: 0,
        bus,
        device,
        function,
    });
    let zone = proptest::option::of(proptest::sample::select(zones).prop_map(ZoneId));
    let rate_gbps = proptest::option::of(0_u32..1_000_000);
    ("[!-~]{1,20}", proptest::option::of(pci), zone, layer, state, rate_gbps, host::any_function()).prop_map(
        |(name, pci, zone, link_layer, state, rate_gbps, function)| Nic {
            name: NicName::parse(&name).unwrap(),
            pci,
            zone,
            link_layer,
            state,
            rate_gbps,
            function,
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    let level = proptest::option::of(proptest::sample::select(PcieLevel::ALL.to_vec()));
    (0..=Link::NVLINKS_MAX, level).prop_map(|(nvlinks, pcie)| Link { nvlinks, pcie })
}

fn finding() -> impl Strategy<Value = Finding> {
    ("[a-z-]{1,20}", "[ -~]{0,20}", "[ -~]{0,80}").prop_map(|(code, device, text)| Finding { code, device, text })
}

fn device_plugin() -> impl Strategy<Value = Option<DevicePlugin>> {
    let level = proptest::sample::select(vec![Level::Preferred, Level::Enforced]);
    let some = (level, any::<bool>()).prop_map(|(level, is_accepting)| DevicePlugin { level, is_accepting });
    proptest::option::of(some)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let reason = proptest::sample::select(RefusalReason::ALL.to_vec());
    ("[a-z]{1,9}/[a-z0-9.-]{1,20}", "[0-9a-f]{1,36}", "[a-z]{1,9}", reason, "[ -~]{0,80}")
        .prop_map(|(pod, pod_uid, container, reason, text)| Refusal { pod, pod_uid, container, reason, text })
}

fn drift() -> impl Strategy<Value = Drift> {
    let devices = vec("(GPU|MIG)-[0-9a-f]{8}", 0..9);
    ("[a-z]{1,9}/[a-z0-9.-]{1,20}", "[0-9a-f]{1,36}", "nvidia.com/[a-z0-9.-]{1,12}", devices)
        .prop_map(|(pod, pod_uid, resource, devices)| Drift { pod, pod_uid, resource, devices })
}
