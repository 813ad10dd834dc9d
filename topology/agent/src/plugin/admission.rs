//! Which pod the kubelet is admitting, and what its plan names for the container at hand, from values alone.
//!
//! The kubelet never says for whom it asks. While it asks, its PodResources list that pod without the devices in question; it admits one
//! pod after another, and a pod that waits for its turn is not listed.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::annotation::{Device, Note};
use berth_model::NodeName;
use berth_proto::kubelet::podresources::{ListPodResourcesResponse, PodResources};

use super::devices::Devices;
use super::prefer::Wanted;
use crate::pods::{Kind, OnNode, Pod};

/// What is known of the container at hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// The ids that its plan names, where a listed pod with a plan waits for such devices.
    pub(super) ids: Option<BTreeSet<String>>,
    /// Whether nothing that the API server may tell in a moment could change it.
    pub(super) is_sure: bool,
}

/// One container that may be the one at hand, the likeliest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Whether its plan cannot be followed: not all its devices are free, or it is for another number.
    is_off: bool,
    /// Whether the kubelet has written of the pod already, which it does after its admission.
    is_acknowledged: bool,
    /// Position among the containers of its pod.
    position: usize,
    ids: BTreeSet<String>,
}

/// The planned ids of the container for which the kubelet asks.
pub(super) fn planned(
    listed: &ListPodResourcesResponse,
    pods: &OnNode,
    node: &NodeName,
    resource: &str,
    wanted: &Wanted,
    devices: &Devices,
) -> Found {
    let mut candidates = Vec::new();
    let mut is_behind = !pods.is_listed;
    for listed in &listed.pod_resources {
        let Some(pod) = pods.named(&listed.namespace, &listed.name) else {
            is_behind |= !holds_any(listed);
            continue;
        };
        let asks = pod.containers.iter().any(|container| container.resources.contains_key(resource));
        if pod.is_ended || pod.is_deleting {
            // The next pod of the name may be on its way; this one is admitted no more.
            is_behind |= asks && !holds_any(listed);
            continue;
        }
        if asks {
            candidates.extend(waiting(listed, pod, node, resource, wanted, devices));
        }
    }
    let best = candidates.into_iter().min();
    let is_followed = best.as_ref().is_some_and(|candidate| !candidate.is_off);
    Found { ids: best.map(|candidate| candidate.ids), is_sure: is_followed || !is_behind }
}

/// The ids in plans of this node's pods, but for those of the container at hand: whoever has no plan should leave them.
pub(super) fn promised(
    pods: &OnNode,
    node: &NodeName,
    own: Option<&BTreeSet<String>>,
    devices: &Devices,
) -> BTreeSet<String> {
    let live = pods.iter().filter(|pod| !pod.is_ended);
    let notes = live.filter_map(|pod| Note::parse(pod.plan.as_deref()?, &pod.uid, node).ok());
    let all = notes.flat_map(|note| note.containers).flat_map(|container| container.devices);
    let ids = all.filter_map(|device| id_of(&device, devices));
    ids.filter(|id| !own.is_some_and(|own| own.contains(id))).collect()
}

/// The containers of a pod that have not got what their plan names of this resource.
fn waiting(
    listed: &PodResources,
    pod: &Pod,
    node: &NodeName,
    resource: &str,
    wanted: &Wanted,
    devices: &Devices,
) -> Vec<Candidate> {
    let Some(note) = pod.plan.as_deref().and_then(|text| Note::parse(text, &pod.uid, node).ok()) else {
        return Vec::new();
    };
    let holding: BTreeMap<&str, usize> = listed
        .containers
        .iter()
        .map(|container| {
            let of_resource = container.devices.iter().filter(|entry| entry.resource_name == resource);
            (container.name.as_str(), of_resource.map(|entry| entry.device_ids.len()).sum())
        })
        .collect();
    let mut waiting = Vec::new();
    for (position, container) in pod.containers.iter().enumerate() {
        // A plain init container is not listed, so what it holds is not known; it comes first.
        let is_met = match container.kind {
            Kind::Init => holding.values().any(|count| *count > 0),
            Kind::Sidecar | Kind::Main => holding.get(container.name.as_str()).is_some_and(|count| *count > 0),
        };
        let of_note = note.containers.iter().find(|c| c.name == container.name && c.resource == resource);
        let Some(of_note) = of_note.filter(|_| !is_met) else { continue };
        let ids: BTreeSet<String> = of_note.devices.iter().filter_map(|device| id_of(device, devices)).collect();
        let is_followed = ids.len() == wanted.size
            && wanted.must.is_subset(&ids)
            && ids.iter().all(|id| wanted.available.contains(id) || wanted.must.contains(id));
        if !ids.is_empty() {
            let is_acknowledged = pod.is_acknowledged;
            waiting.push(Candidate { is_off: !is_followed, is_acknowledged, position, ids });
        }
    }
    waiting
}

/// The id by which the kubelet knows a planned device.
fn id_of(device: &Device, devices: &Devices) -> Option<String> {
    let Some(mig) = &device.mig else { return Some(device.uuid.clone()) };
    let at = |slot: u8| {
        let found = devices.iter().find(|(_, known)| known.card == device.uuid && known.start == Some(slot));
        found.map(|(id, _)| id.clone())
    };
    mig.uuid.clone().filter(|id| devices.contains_key(id)).or_else(|| at(mig.start))
}

fn holds_any(listed: &PodResources) -> bool {
    listed.containers.iter().any(|container| !container.devices.is_empty())
}

#[cfg(test)]
mod tests;
