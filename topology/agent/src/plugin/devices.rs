//! What the plugin offers of a machine, from values alone: its resources under NVIDIA's names, and their devices.

use std::collections::BTreeMap;

use berth_core::place::mig::name::resource_form;
use berth_model::{Gpu, GpuIndex, MigInstance, NodeTopology};
use clap::ValueEnum;

/// The resource of whole GPUs.
pub(super) const GPU: &str = "nvidia.com/gpu";

/// What stands before the profile in the resource of a MIG instance.
const MIG_PREFIX: &str = "nvidia.com/mig-";

/// Most devices of one resource that are gone and still told: a whole machine of them.
const GONE_MAX: usize = 128;

/// Under which names MIG instances are offered, as NVIDIA's plugin calls it.
///
/// Source: `MIG_STRATEGY` in the README of github.com/NVIDIA/k8s-device-plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MigStrategy {
    /// Each profile is a resource of its own; GPUs that MIG does not cut are nvidia.com/gpu.
    Mixed,
    /// Instances are nvidia.com/gpu, where every GPU is cut and all instances are of one profile; else there are whole GPUs only.
    Single,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Whether it may get new pods: what the scheduler does not place on, the kubelet should not count.
    pub(super) is_healthy: bool,
    /// Its zone, where it is known.
    pub(super) zone: Option<u16>,
    /// Position of its GPU in the report.
    pub(super) gpu: GpuIndex,
    /// UUID of its GPU.
    pub(super) card: String,
    /// Number of the GPU's device file, where it is known.
    pub(super) minor: Option<u32>,
    /// First memory slot, for an instance.
    pub(super) start: Option<u8>,
}

/// Devices by id.
pub(crate) type Devices = BTreeMap<String, Device>;

/// All devices by resource.
pub(crate) type Offer = BTreeMap<String, Devices>;

/// What a machine has to offer.
pub(super) fn offer(topology: &NodeTopology, strategy: MigStrategy) -> Offer {
    let gpus = &topology.parts().gpus;
    let is_single = strategy == MigStrategy::Single;
    let are_instances_gpus = is_single && topology.is_all_cut() && is_one_profile(gpus);
    let mut offer = Offer::new();
    for gpu in gpus {
        if gpu.mig_enabled != Some(true) {
            offer.entry(GPU.to_owned()).or_default().insert(gpu.uuid.to_string(), device(gpu, None));
            continue;
        }
        for (id, instance) in instances(gpu) {
            let resource = match (is_single, are_instances_gpus) {
                (false, _) => resource_of(&instance.profile),
                (true, true) => GPU.to_owned(),
                (true, false) => continue,
            };
            offer.entry(resource).or_default().insert(id.clone(), device(gpu, Some(instance)));
        }
    }
    offer
}

/// The offer, with the devices of the one before that are gone as unhealthy ones: the kubelet must hear of a GPU that fell off the bus. An
/// instance whose GPU is well was taken away by somebody, and a GPU that is well and was cut is none any more: neither is told.
pub(super) fn with_gone(mut now: Offer, before: &Offer, topology: &NodeTopology) -> Offer {
    let is_well =
        |card: &str| topology.parts().gpus.iter().any(|gpu| gpu.health.is_usable() && gpu.uuid.as_str() == card);
    for (resource, devices) in before {
        let lost = |id: &String| !now.get(resource).is_some_and(|devices| devices.contains_key(id));
        let gone = devices.iter().filter(|(id, device)| lost(id) && !is_well(&device.card));
        let gone: Devices = gone
            .take(GONE_MAX)
            .map(|(id, device)| (id.clone(), Device { is_healthy: false, ..device.clone() }))
            .collect();
        // Also where nothing is left: the kubelet was told of the resource, and is told now that it has no device.
        now.entry(resource.clone()).or_default().extend(gone);
    }
    now
}

/// The resource of a profile: `1g.5gb+me` is `nvidia.com/mig-1g.5gb.me`.
///
/// Source: github.com/NVIDIA/k8s-device-plugin `internal/resource/mig.go`: a plus sign is no part of a resource's name.
fn resource_of(profile: &str) -> String {
    format!("{MIG_PREFIX}{}", resource_form(profile))
}

/// The instances of a GPU that a container can get: those with exactly one device.
fn instances(gpu: &Gpu) -> impl Iterator<Item = (&String, &MigInstance)> {
    gpu.detail.mig_instances.iter().filter_map(|instance| match instance.uuids.as_slice() {
        [id] => Some((id, instance)),
        _ => None,
    })
}

fn is_one_profile(gpus: &[Gpu]) -> bool {
    let mut profiles = gpus.iter().flat_map(instances).map(|(_, instance)| instance.profile.as_str());
    let first = profiles.next();
    profiles.all(|profile| Some(profile) == first)
}

fn device(gpu: &Gpu, instance: Option<&MigInstance>) -> Device {
    Device {
        is_healthy: gpu.health.is_usable(),
        zone: gpu.zone.map(|zone| zone.0),
        gpu: gpu.index,
        card: gpu.uuid.to_string(),
        minor: gpu.detail.minor,
        start: instance.map(|instance| instance.placement.start()),
    }
}

#[cfg(test)]
mod tests;
