//! Who holds devices that no lease gave: pods that got theirs before the node enforced plans, from another plugin or at a lower level, and
//! such as lost their lease. Asks nobody; the steering looks for processes.
//!
//! The kubelet's file says it, and its list only whether such a container is still there: the file has UIDs, plain init containers and
//! what each was answered, and a kubelet that has just started names its pods in its list up to a second late.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_core::annotation::{Device, Note};
use berth_model::NodeName;

use super::book::{Book, Listing};
use super::cards::Cards;
use super::record::Holder;
use super::witness::{Entry, Witness};
use crate::pods::{Kind, OnNode, Pod};

/// Most containers remembered: a kubelet admits 110 pods unless told otherwise.
const HELD_MAX: usize = 4096;

/// One container and what the kubelet gave it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pod_uid: String,
    container: String,
    resource: String,
    /// As the plugin of that time named them.
    ids: BTreeSet<String>,
}

impl Held {
    fn of(entry: &Entry) -> Self {
        let (pod_uid, container) = (entry.pod_uid.clone(), entry.container.clone());
        Self { pod_uid, container, resource: entry.resource.clone(), ids: entry.ids.clone() }
    }
}

/// All of them, over time.
#[derive(Debug, Default)]
pub(super) struct Unleased {
    held: BTreeSet<Held>,
    /// Those of them that the file named last.
    filed: BTreeSet<Held>,
    /// Those that were answered with a lease which nobody remembers: their plans say what they have, and the ids do not.
    lost: Vec<Held>,
}

impl Unleased {
    /// Takes in what the kubelet's file says. What it says no more is remembered: of a pod that was deleted by force the kubelet forgets
    /// the devices while its program still runs. A file that cannot be read changes nothing.
    pub(super) fn see(&mut self, witness: &Witness, book: &Book) {
        if !witness.is_readable {
            return;
        }
        let bare = witness.entries.iter().filter(|entry| entry.leases.is_empty());
        self.filed = bare.map(Held::of).take(HELD_MAX).collect();
        // A lease is in the book before the kubelet is answered with it.
        let is_lost = |entry: &&Entry| !entry.leases.is_empty() && entry.leases.iter().all(|l| !book.contains_key(l));
        self.lost = witness.entries.iter().filter(is_lost).map(Held::of).take(HELD_MAX).collect();
        let new: Vec<Held> = self.filed.difference(&self.held).cloned().collect();
        let room = HELD_MAX.saturating_sub(self.held.len());
        self.held.extend(new.into_iter().take(room));
    }

    /// UIDs of pods that are over for the API server and, by a list that was asked for after [`Unleased::see`], for the kubelet: they hold
    /// nothing any more, unless a process of theirs runs.
    pub(super) fn over(&self, pods: &OnNode, listing: &Listing) -> BTreeSet<String> {
        let is_over = |held: &&Held| match pods.of_uid(&held.pod_uid) {
            Some(pod) => pod.is_ended,
            None => pods.is_listed && !(self.filed.contains(*held) && is_listed(held, listing)),
        };
        self.held.iter().filter(is_over).map(|held| held.pod_uid.clone()).collect()
    }

    /// Forgets the pods that are gone.
    pub(super) fn forget(&mut self, gone: &BTreeSet<String>) {
        self.held.retain(|held| !gone.contains(&held.pod_uid));
    }

    /// What each of them holds of this node's cards. Of a pod that the API server does not know the name is its UID.
    pub(super) fn holders(&self, pods: &OnNode, node: &NodeName, cards: &Cards) -> Vec<Holder> {
        let bare = self.held.iter().map(|held| {
            let pod = pods.of_uid(&held.pod_uid);
            let planned = planned(pod, node, held);
            let ids = held.ids.iter().filter_map(|id| cards.named(&held.resource, id));
            holder(held, pod, ids.map(|device| as_planned(device, &planned)).collect())
        });
        let lost = self.lost.iter().filter_map(|held| {
            let pod = pods.of_uid(&held.pod_uid).filter(|pod| !pod.is_ended)?;
            Some(holder(held, Some(pod), planned(Some(pod), node, held)))
        });
        bare.chain(lost).collect()
    }
}

fn holder(held: &Held, pod: Option<&Arc<Pod>>, devices: Vec<Device>) -> Holder {
    let is_init = |pod: &Pod| pod.containers.iter().any(|own| own.name == held.container && own.kind == Kind::Init);
    Holder {
        pod_uid: held.pod_uid.clone(),
        namespace: pod.map(|pod| pod.namespace.clone()).unwrap_or_default(),
        pod: pod.map_or_else(|| held.pod_uid.clone(), |pod| pod.name.clone()),
        container: held.container.clone(),
        init: pod.is_some_and(|pod| is_init(pod)),
        devices,
    }
}

/// What the pod's own plan names for the container.
fn planned(pod: Option<&Arc<Pod>>, node: &NodeName, held: &Held) -> Vec<Device> {
    let note = pod.and_then(|pod| Note::parse(pod.plan.as_deref()?, &pod.uid, node).ok());
    let parts = note.into_iter().flat_map(|note| note.containers);
    let own = parts.filter(|part| part.name == held.container && part.resource == held.resource);
    own.flat_map(|part| part.devices).collect()
}

/// A card that was planned as a share is held as one.
fn as_planned(device: Device, planned: &[Device]) -> Device {
    let is_it = |other: &&Device| other.uuid == device.uuid && other.mig.is_none() && device.mig.is_none();
    planned.iter().find(is_it).cloned().unwrap_or(device)
}

fn is_listed(held: &Held, listing: &Listing) -> bool {
    let ids = listing.containers.iter().filter_map(|listed| listed.devices.get(&held.resource));
    ids.flatten().any(|id| held.ids.contains(id))
}

#[cfg(test)]
mod tests;
