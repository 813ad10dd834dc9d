//! What one pod claims of a node's GPUs: by its plan, and by what the kubelet says it gave it.

use berth_core::NodeView;
use berth_core::device::{Extent, HeldDevice, Holding, MigSlot, Portion};
use berth_core::policy::Resources;
use berth_core::view::HeldInstance;
use berth_model::{GpuIndex, GpuSet, GpuUuid, MiB};

use crate::event::{PlanNote, PodFacts};

/// A share on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldShare {
    /// Which GPU.
    pub index: GpuIndex,
    /// How much of it.
    pub portion: Portion,
    /// As how many devices the kubelet counts it.
    pub device_count: u32,
}

/// Devices by position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Claims {
    pub(super) whole: GpuSet,
    pub(super) shares: Vec<HeldShare>,
    pub(super) instances: Vec<HeldInstance>,
    /// Devices that are counted as GPUs and are not on the node.
    pub(super) unknown: u32,
}

impl Claims {
    /// The claims of devices.
    pub(super) fn of(view: &NodeView, devices: &[HeldDevice]) -> Self {
        let mut claims = Self::default();
        for device in devices {
            let Some(index) = position(view, &device.uuid) else {
                claims.unknown = claims.unknown.saturating_add(device.device_count);
                continue;
            };
            match &device.extent {
                Extent::Whole => claims.whole = claims.whole.with(index),
                Extent::Share(portion) => {
                    let share = HeldShare { index, portion: *portion, device_count: device.device_count };
                    claims.shares.push(share);
                }
                Extent::Mig(slot) => claims.instances.push(HeldInstance { index, slot: slot.clone() }),
            }
        }
        claims
    }

    /// GPUs of which it claims all or a share.
    pub(super) fn gpus(&self) -> GpuSet {
        self.shares.iter().map(|share| share.index).fold(self.whole, GpuSet::with)
    }

    /// All GPUs of which it claims anything.
    pub(super) fn set(&self) -> GpuSet {
        self.instances.iter().map(|instance| instance.index).fold(self.gpus(), GpuSet::with)
    }

    /// Whether nothing is claimed.
    pub(super) fn is_empty(&self) -> bool {
        self.set().is_empty() && self.unknown == 0
    }

    /// Whether both claim the same devices, in whatever amounts.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let sorted = |claims: &Self| {
            let mut instances = claims.instances.clone();
            instances.sort_unstable();
            instances
        };
        self.gpus() == other.gpus() && sorted(self) == sorted(other)
    }

    /// Devices that the kubelet counts as GPUs, those that are not on the node among them.
    pub(super) fn device_count(&self) -> u32 {
        self.device_count_outside(GpuSet::EMPTY).saturating_add(self.unknown)
    }

    /// Devices that the kubelet counts as GPUs and that are on none of these.
    pub(super) fn device_count_outside(&self, set: GpuSet) -> u32 {
        let shares = self.shares.iter().filter(|share| !set.contains(share.index));
        let shares = shares.fold(0_u32, |sum, share| sum.saturating_add(share.device_count));
        self.whole.minus(set).gpu_count().saturating_add(shares)
    }

    /// Both together, where the kubelet has said a part only. What one knows of a GPU is not doubled by the other.
    pub(super) fn joined(mut self, other: Self) -> Self {
        let own = self.gpus();
        self.whole = self.whole.or(other.whole.minus(own));
        self.shares.extend(other.shares.into_iter().filter(|share| !own.contains(share.index)));
        self.instances.extend(other.instances);
        self.instances.sort_unstable();
        self.instances.dedup();
        self.unknown = self.unknown.max(other.unknown);
        self
    }
}

/// The claims of a pod's plan, and what is wrong with it.
pub(super) fn planned(view: &NodeView, pod: &PodFacts) -> (Claims, String) {
    match &pod.note {
        PlanNote::Absent => (Claims::default(), "bound without a plan".to_owned()),
        PlanNote::Void(why) => (Claims::default(), why.clone()),
        PlanNote::Devices(Holding { devices, .. }) => {
            let claims = Claims::of(view, devices);
            let problem = match (claims.unknown, devices.is_empty()) {
                (0, false) => String::new(),
                (0, true) => "its plan names no devices".to_owned(),
                (unknown, _) => format!("{unknown} devices of its plan are not on the node"),
            };
            (claims, problem)
        }
    }
}

/// What the kubelet says it gave the pod of the resources that mean GPUs, and how many devices those are.
///
/// The kubelet names devices and no amounts: a GPU that the plan names too is held as planned. Of others each takes the place of a
/// planned one; where there is none left, a pod that asks for shares takes of each all that its containers ask for together.
pub(super) fn given(view: &NodeView, pod: &PodFacts, names: &Resources, planned: &Claims) -> (Claims, u32) {
    let (ids, instances) = given_ids(view, pod, names);
    let instance_count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
    let mut claims = Claims { instances, ..Claims::default() };
    let mut counts: Vec<(GpuIndex, u32)> = Vec::new();
    for (uuid, count) in &ids {
        match position(view, uuid) {
            Some(index) => counts.push((index, *count)),
            None => claims.unknown = claims.unknown.saturating_add(*count),
        }
    }
    counts.sort_unstable();
    let given: GpuSet = counts.iter().map(|(index, _)| *index).collect();
    let mut left: Vec<HeldShare> = planned.shares.iter().copied().filter(|s| !given.contains(s.index)).collect();
    left.reverse();
    let mut left_whole = planned.whole.minus(given).gpu_count();
    for (index, device_count) in counts {
        let own = planned.shares.iter().find(|share| share.index == index).map(|share| share.portion);
        if planned.whole.contains(index) {
            claims.whole = claims.whole.with(index);
        } else if let Some(portion) = own.or_else(|| left.pop().map(|share| share.portion)) {
            claims.shares.push(HeldShare { index, portion, device_count });
        } else if left_whole > 0 {
            left_whole = left_whole.saturating_sub(1);
            claims.whole = claims.whole.with(index);
        } else {
            match asked_portion(pod, names) {
                Some(portion) => claims.shares.push(HeldShare { index, portion, device_count }),
                None => claims.whole = claims.whole.with(index),
            }
        }
    }
    let id_count = ids.iter().fold(instance_count, |sum, (_, count)| sum.saturating_add(*count));
    (claims, id_count)
}

/// Whole GPUs and instances that the kubelet counts as the pod's, where the plan is enforced and may name others: that is what the kubelet
/// reckons with. `None` where it has not said as many as these.
pub(super) fn counted(
    view: &NodeView,
    pod: &PodFacts,
    names: &Resources,
    planned: (GpuSet, &[HeldInstance]),
) -> Option<(GpuSet, Vec<HeldInstance>)> {
    if !pod.is_enforced {
        return None;
    }
    let (uuids, instances) = given_ids(view, pod, names);
    let set: GpuSet = uuids.iter().filter_map(|(uuid, _)| position(view, uuid)).collect();
    let is_all = (set.gpu_count(), instances.len()) == (planned.0.gpu_count(), planned.1.len());
    is_all.then_some((set, instances))
}

/// What the shares of all its containers take together of one GPU; `None` for a pod without shares.
fn asked_portion(pod: &PodFacts, names: &Resources) -> Option<Portion> {
    let asked = |name: &Option<String>| name.as_ref().and_then(|n| pod.totals.extended.get(n)).copied().unwrap_or(0);
    let (cores, memory) = (asked(&names.gpu_cores), asked(&names.gpu_memory));
    let cores_percent = u32::try_from(cores.min(100)).unwrap_or(100);
    (cores > 0 || memory > 0).then_some(Portion { cores_percent, memory: MiB(memory) })
}

/// GPUs in the kubelet's word, each with how many of the pod's devices it is, and MIG instances. A shared card's id ends in `::` and
/// a number: the card counts.
///
/// Source: ids of replicas in github.com/NVIDIA/k8s-device-plugin `internal/rm/device_map.go`, `AnnotatedID`.
fn given_ids(view: &NodeView, pod: &PodFacts, names: &Resources) -> (Vec<(GpuUuid, u32)>, Vec<HeldInstance>) {
    let is_ours = |name: &str| names.gpu.iter().any(|gpu| gpu == name) || names.mig_profile(name).is_some();
    let ids = pod.truth.iter().filter(|(name, _)| is_ours(name)).flat_map(|(_, ids)| ids);
    let mut uuids: Vec<GpuUuid> = Vec::new();
    let mut instances = Vec::new();
    for id in ids {
        let device = id.split_once("::").map_or(id.as_str(), |(device, _)| device);
        match instance(view, device) {
            Some(found) => instances.push(found),
            // An instance that the report does not know is missed by its profile, not as a GPU.
            None if device.starts_with("MIG-") => {}
            None => uuids.extend(GpuUuid::parse(device)),
        }
    }
    instances.sort_unstable();
    instances.dedup();
    uuids.sort_unstable();
    let mut counted: Vec<(GpuUuid, u32)> = Vec::new();
    for uuid in uuids {
        match counted.last_mut() {
            Some((last, count)) if *last == uuid => *count = count.saturating_add(1),
            _ => counted.push((uuid, 1)),
        }
    }
    (counted, instances)
}

/// The instance that a MIG device id (`MIG-...`) is of.
fn instance(view: &NodeView, id: &str) -> Option<HeldInstance> {
    let gpus = view.hardware.as_ref().filter(|_| id.starts_with("MIG-")).map(|h| &h.topology.parts().gpus)?;
    gpus.iter().find_map(|gpu| {
        let found = gpu.detail.mig_instances.iter().find(|instance| instance.uuids.iter().any(|uuid| uuid == id))?;
        let (start, size) = (found.placement.start(), found.placement.size());
        Some(HeldInstance { index: gpu.index, slot: MigSlot { profile: found.profile.clone(), start, size } })
    })
}

/// As a person says it: `GPUs 0,1 and 1g.10gb at slot 3 of GPU 2`.
impl std::fmt::Display for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        if !self.gpus().is_empty() || self.instances.is_empty() {
            words.push(format!("GPUs {}", self.gpus()));
        }
        let slot = |i: &HeldInstance| format!("{} at slot {} of {}", i.slot.profile, i.slot.start, i.index);
        words.extend(self.instances.iter().map(slot));
        f.write_str(&words.join(", "))
    }
}

fn position(view: &NodeView, uuid: &GpuUuid) -> Option<GpuIndex> {
    let gpus = view.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().gpus);
    gpus.iter().find(|gpu| gpu.uuid == *uuid).map(|gpu| gpu.index)
}
