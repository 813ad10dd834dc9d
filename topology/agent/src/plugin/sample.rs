//! Machines for the tests of the plugin's parts: four GPUs in linked pairs, whole or cut.

use berth_core::annotation::{Container, Device, Level, Mig, Note, VERSION};
use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuDetail, GpuIndex, GpuUuid, Health, Link, LinkMatrix, MigCapability,
    MigInstance, MigProfile, NodeName, NodeTopology, Parts, PciAddress, PcieLevel, ZoneId,
};
use berth_model::{CpuSet as Cpus, Zone};

/// GPU-0 and GPU-1 in zone 0, GPU-2 and GPU-3 in zone 1; NVLinks inside the pairs only.
pub(super) fn pairs() -> NodeTopology {
    changed(|_| {})
}

/// The same with changed GPUs.
pub(super) fn changed(change: impl Fn(&mut Gpu)) -> NodeTopology {
    let gpu = |i: u8| {
        let mut gpu = Gpu {
            index: GpuIndex(i),
            uuid: GpuUuid::parse(&format!("GPU-{i}")).unwrap(),
            pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
            product: String::new(),
            memory: None,
            zone: Some(ZoneId(u16::from(i / 2))),
            cpus: CpuSet::default(),
            memory_zone: None,
            nearest_zones: None,
            mig_enabled: Some(false),
            health: Health::Healthy,
            detail: GpuDetail { minor: Some(u32::from(i)), ..GpuDetail::default() },
        };
        change(&mut gpu);
        gpu
    };
    let zone =
        |id| Zone { id: ZoneId(id), cpus: Cpus::default(), memory: None, huge_pages: None, distances: Vec::new() };
    NodeTopology::try_new(Parts {
        node: node(),
        boot_id: BootId::parse("b").unwrap(),
        generation: Generation(0),
        driver: Driver::Loaded("570".into()),
        zones: vec![zone(0), zone(1)],
        gpus: (0..4).map(gpu).collect(),
        nics: Vec::new(),
        links: LinkMatrix::build(4, |a, b| Link {
            nvlinks: if a / 2 == b / 2 { 2 } else { 0 },
            pcie: Some(if a / 2 == b / 2 { PcieLevel::Node } else { PcieLevel::Sys }),
        }),
        host: berth_model::Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
    .unwrap()
}

/// GPUs cut into instances: of each GPU with instances the profile and start of each. The id of an instance is `MIG-gpu-start`.
pub(super) fn cut(gpus: &[(u8, &[(&str, u8)])]) -> NodeTopology {
    let profile = |id, name: &str, slices, size: u8, starts: &[u8]| {
        MigProfile::try_new(id, name, slices, 0, 7, starts.iter().map(|start| (*start, size))).unwrap()
    };
    let starts: Vec<u8> = (0..7).collect();
    let profiles = vec![
        profile(19, "1g.10gb", 1, 1, &starts),
        profile(20, "1g.10gb+me", 1, 1, &starts),
        profile(9, "3g.40gb", 3, 4, &[0, 4]),
    ];
    let capability = MigCapability::try_new(profiles).unwrap();
    changed(|gpu| {
        let Some((_, instances)) = gpus.iter().find(|(index, _)| *index == gpu.index.0) else { return };
        gpu.mig_enabled = Some(true);
        let instance = |(profile, start): &(&str, u8)| {
            let size = if profile.starts_with('3') { 4 } else { 1 };
            let text = format!("{profile}@{start}+{size} MIG-{}-{start}", gpu.index.0);
            MigInstance::parse(&text, &capability).unwrap()
        };
        gpu.detail.mig_instances = instances.iter().map(instance).collect();
    })
}

/// The name of the machines.
pub(super) fn node() -> NodeName {
    NodeName::parse("n").unwrap()
}

/// A plan's text for a pod: of each container the resource and the ids of GPUs; `MIG-gpu-start` is an instance.
pub(super) fn plan(pod_uid: &str, containers: &[(&str, &str, &[&str])]) -> String {
    let device = |id: &&str| match id.strip_prefix("MIG-").and_then(|rest| rest.split_once('-')) {
        None => Device::whole(id),
        Some((gpu, start)) => {
            let uuid = Some((*id).to_owned());
            let mig = Mig { uuid, profile: "1g.10gb".to_owned(), start: start.parse().unwrap(), size: 1 };
            Device { mig: Some(mig), ..Device::whole(&format!("GPU-{gpu}")) }
        }
    };
    let container = |(name, resource, ids): &(&str, &str, &[&str])| Container {
        name: (*name).to_owned(),
        resource: (*resource).to_owned(),
        init: *name == "init",
        devices: ids.iter().map(device).collect(),
    };
    let note = Note {
        v: VERSION,
        pod_uid: pod_uid.to_owned(),
        node: node().to_string(),
        level: Level::Preferred,
        containers: containers.iter().map(container).collect(),
        nics: Vec::new(),
        zone: None,
        topology_generation: 1,
        score: 0,
        why: String::new(),
    };
    note.to_json().unwrap()
}
