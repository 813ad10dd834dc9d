//! Cards, pods and plans for the tests of leases.

use std::collections::BTreeSet;

use berth_core::annotation::{Container as Part, Device, Level, Note};
use berth_model::{CpuSet, Gpu, GpuDetail, GpuIndex, GpuUuid, Health, PciAddress};

use super::cards::Cards;
use crate::pods::{Container, Kind, Pod};

pub(super) const GPU: &str = "nvidia.com/gpu";
pub(super) const NODE: &str = "node-1";

pub(super) fn gpu(uuid: &str) -> Device {
    Device::whole(uuid)
}

/// Healthy cards whose device files have the numbers of their places.
pub(super) fn cards(uuids: &[&str]) -> Cards {
    Cards::of(&gpus(uuids))
}

pub(super) fn gpus(uuids: &[&str]) -> Vec<Gpu> {
    let gpu = |(i, uuid): (u8, &&str)| Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(uuid).unwrap(),
        pci: PciAddress::parse(&format!("0000:{i:02x}:00.0")).unwrap(),
        product: "test".to_owned(),
        memory: None,
        zone: None,
        cpus: CpuSet::default(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: None,
        health: Health::Healthy,
        detail: GpuDetail { minor: Some(u32::from(i)), ..GpuDetail::default() },
    };
    (0..).zip(uuids).map(gpu).collect()
}

/// A pod that the kubelet has taken in; its containers ask for so many GPUs each.
pub(super) fn pod(name: &str, uid: &str, containers: &[(&str, Kind, usize)], plan: Option<&Note>) -> Pod {
    let container = |(name, kind, count): &(&str, Kind, usize)| Container {
        name: (*name).to_owned(),
        kind: *kind,
        resources: [(GPU.to_owned(), *count)].into(),
    };
    Pod {
        uid: uid.to_owned(),
        namespace: "n".to_owned(),
        name: name.to_owned(),
        is_ended: false,
        is_deleting: false,
        is_acknowledged: true,
        containers: containers.iter().map(container).collect(),
        running: BTreeSet::new(),
        plan: plan.map(|note| note.to_json().unwrap()),
    }
}

/// A plan of whole GPUs by container.
pub(super) fn plan(uid: &str, containers: &[(&str, Kind, &[&str])]) -> Note {
    let part = |(name, kind, uuids): &(&str, Kind, &[&str])| Part {
        name: (*name).to_owned(),
        resource: GPU.to_owned(),
        init: *kind == Kind::Init,
        devices: uuids.iter().map(|uuid| gpu(uuid)).collect(),
    };
    Note {
        v: berth_core::annotation::VERSION,
        pod_uid: uid.to_owned(),
        node: NODE.to_owned(),
        level: Level::Enforced,
        containers: containers.iter().map(part).collect(),
        nics: Vec::new(),
        zone: None,
        topology_generation: 1,
        score: 0,
        why: String::new(),
    }
}
