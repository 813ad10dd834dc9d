//! Whether a lease is given: from values alone. A lease is given only where the kubelet names one container as its
//! holder and that container's own plan names devices that are there, well, and in no other live lease. Everything else waits.

mod owner;

use std::collections::{BTreeMap, BTreeSet};

use berth_core::annotation::{Device, Note, NoteError};
use berth_model::{NodeName, Refusal, RefusalReason};

use super::cards::{self, Cards, Ungiven};
use super::record::{Holder, Lease, LeaseName};
use super::witness::Witness;
use crate::pods::{Kind, OnNode, Pod};

use owner::{Owner, newest_overlapping, owner};

/// All of a GPU's compute, in percent.
const CORES_MAX: u32 = 100;

/// Leases by name.
pub(super) type Book = BTreeMap<LeaseName, Lease>;

/// A container of the kubelet's list and what it holds, by resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Namespace of its pod.
    pub(super) namespace: String,
    /// Name of its pod.
    pub(super) pod: String,
    /// Its name.
    pub(super) container: String,
    /// Ids by resource.
    pub(super) devices: BTreeMap<String, BTreeSet<String>>,
}

/// What the kubelet says of its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Containers that hold anything.
    pub(super) containers: Vec<Listed>,
    /// Pods of which there is more than one entry, by namespace and name.
    pub(super) twice: BTreeSet<(String, String)>,
}

/// All that is known when leases are looked at.
#[derive(Debug)]
pub(super) struct Look<'a> {
    /// This node.
    pub(super) node: &'a NodeName,
    /// The sequence number that was free when the kubelet was asked: what it said counts for older leases only.
    pub(super) asked_at: u64,
    /// What the kubelet's service said.
    pub(super) listing: &'a Listing,
    /// What the kubelet's own file said at the same time.
    pub(super) witness: &'a Witness,
    /// The pods of the API server.
    pub(super) pods: &'a OnNode,
    /// The cards; `None` before they were read.
    pub(super) cards: Option<&'a Cards>,
    /// Who holds devices without a lease, and which.
    pub(super) unleased: &'a [Holder],
}

/// What becomes of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This container gets these devices.
    Give(Box<Holder>),
    /// This container does not, as things are.
    Refuse(Box<Refusal>),
    /// It is not known yet whose it is, or its pod ends.
    Wait,
    /// Neither the kubelet's list nor its file names it: so it is for milliseconds after Allocate, and for ever where the answer was lost
    /// or the pod went.
    Unseen,
    /// It never was anybody's: the kubelet gave its devices to somebody else since, and no container names it.
    Drop,
}

/// The pending lease `lease` as things are.
pub(super) fn judge(book: &Book, lease: &Lease, look: &Look<'_>) -> Verdict {
    let Some(cards) = look.cards.filter(|_| look.pods.is_listed && lease.sequence < look.asked_at) else {
        return Verdict::Wait;
    };
    let (pod, container) = match owner(book, lease, look) {
        Owner::Is(pod, container) => (pod, container),
        Owner::Contradicted(pod, container, text) => return refuse(pod, container, RefusalReason::Ambiguous, text),
        Owner::Unknown => return Verdict::Wait,
        Owner::Unseen => return Verdict::Unseen,
        Owner::Nobody => return Verdict::Drop,
    };
    if pod.is_ended || pod.is_deleting {
        return Verdict::Wait;
    }
    match given(book, lease, pod, container, look, cards) {
        Ok(holder) => Verdict::Give(Box::new(holder)),
        Err((reason, text)) => refuse(pod, container, reason, text),
    }
}

/// Whether a refused container runs all the same, and had no lease before: its runtime did not look for the spec that is not there.
pub(super) fn is_ignored(book: &Book, refusal: &Refusal, pods: &OnNode) -> bool {
    let is_running = pods.of_uid(&refusal.pod_uid).is_some_and(|pod| pod.running.contains(&refusal.container));
    let is_own = |holder: &Holder| holder.pod_uid == refusal.pod_uid && holder.container == refusal.container;
    is_running && !book.values().filter_map(|lease| lease.holder.as_ref()).any(is_own)
}

fn refuse(pod: &Pod, container: &str, reason: RefusalReason, text: String) -> Verdict {
    Verdict::Refuse(Box::new(Refusal {
        pod: format!("{}/{}", pod.namespace, pod.name),
        pod_uid: pod.uid.clone(),
        container: container.to_owned(),
        reason,
        text,
    }))
}

/// What the plan gives the container.
fn given(
    book: &Book,
    lease: &Lease,
    pod: &Pod,
    container: &str,
    look: &Look<'_>,
    cards: &Cards,
) -> Result<Holder, (RefusalReason, String)> {
    let text = pod.plan.as_deref().ok_or_else(|| (RefusalReason::NoPlan, "the pod has no plan".to_owned()))?;
    let note = Note::parse(text, &pod.uid, look.node).map_err(|error| (reason_of(&error), error.to_string()))?;
    let is_init = pod.containers.iter().any(|c| c.name == container && c.kind == Kind::Init);
    let mut parts = note.containers.iter().filter(|part| part.name == container && part.resource == lease.resource);
    let (Some(part), None) = (parts.next(), parts.next()) else {
        return Err((
            RefusalReason::OtherPlan,
            format!("the plan does not name {} for container {container} once", lease.resource),
        ));
    };
    if part.devices.len() != lease.ids.len() || part.init != is_init {
        let (planned, given) = (part.devices.len(), lease.ids.len());
        return Err((
            RefusalReason::OtherPlan,
            format!("the plan has {planned} devices for {container}, the kubelet gave {given}"),
        ));
    }
    let found = part.devices.iter().map(|device| cards.find(device)).collect::<Result<Vec<Device>, _>>();
    let devices = found.map_err(|ungiven| match ungiven {
        Ungiven::Unknown(text) => (RefusalReason::UnknownDevice, text),
        Ungiven::Sick(text) => (RefusalReason::SickDevice, text),
    })?;
    let holder = Holder {
        pod_uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        container: container.to_owned(),
        init: is_init,
        devices,
    };
    unshared(book, lease, &holder, look.unleased)?;
    Ok(holder)
}

fn reason_of(error: &NoteError) -> RefusalReason {
    match error {
        NoteError::OtherPod(_) | NoteError::OtherNode(_) => RefusalReason::ForeignPlan,
        NoteError::Malformed(_) | NoteError::TooLong(_) | NoteError::Version(_) | NoteError::Device(_) => {
            RefusalReason::BrokenPlan
        }
    }
}

/// Whether two leases may name one device: the container's own earlier lease, and what an init container leaves to the others of its pod.
fn may_share(one: &Holder, other: &Holder) -> bool {
    one.pod_uid == other.pod_uid && (one.container == other.container || one.init || other.init)
}

/// No device in two live leases, nor in one that another container holds without any; the first one wins.
fn unshared(book: &Book, lease: &Lease, holder: &Holder, unleased: &[Holder]) -> Result<(), (RefusalReason, String)> {
    for (i, device) in holder.devices.iter().enumerate() {
        if holder.devices.iter().take(i).any(|before| before.uuid == device.uuid && cards::exclude(before, device)) {
            return Err((RefusalReason::BrokenPlan, format!("the plan names {} twice", cards::id(device))));
        }
    }
    let leased = book.values().filter(|other| other.name != lease.name).filter_map(|other| other.holder.as_ref());
    let leased = leased.map(|other| (other, "is leased to"));
    let others = leased.chain(unleased.iter().map(|other| (other, "is held without a lease by")));
    let others: Vec<(&Holder, &str)> = others.filter(|(other, _)| !may_share(holder, other)).collect();
    for device in &holder.devices {
        let taken = others.iter().find(|(other, _)| other.devices.iter().any(|theirs| cards::exclude(theirs, device)));
        if let Some((other, how)) = taken {
            let text = format!("{} {how} pod {}/{}", cards::id(device), other.namespace, other.pod);
            return Err((RefusalReason::DeviceLeased, text));
        }
        let cores = |device: &Device| device.share.as_ref().and_then(|share| share.cores).unwrap_or(0);
        let shares = others.iter().flat_map(|(other, _)| &other.devices).filter(|theirs| theirs.uuid == device.uuid);
        let sum = shares.map(cores).fold(cores(device), u32::saturating_add);
        if sum > CORES_MAX {
            return Err((
                RefusalReason::DeviceLeased,
                format!("shares of {} would be {sum} percent of its cores", device.uuid),
            ));
        }
    }
    Ok(())
}

/// Whether the kubelet gave other devices than the plan names; the lease gives the plan.
pub(super) fn is_permuted(lease: &Lease, holder: &Holder) -> bool {
    let planned: BTreeSet<&str> = holder.devices.iter().map(cards::id).collect();
    planned != lease.ids.iter().map(String::as_str).collect()
}

/// Leases of earlier grants to the container that `lease` was given to: the kubelet forgot them.
pub(super) fn superseded(book: &Book, lease: &Lease, holder: &Holder) -> Vec<LeaseName> {
    let is_same = |other: &Holder| other.pod_uid == holder.pod_uid && other.container == holder.container;
    let earlier = book.values().filter(|other| other.sequence < lease.sequence && other.resource == lease.resource);
    earlier.filter(|other| other.holder.as_ref().is_some_and(is_same)).map(|other| other.name.clone()).collect()
}

/// Held leases whose pods are over for API server and kubelet, with their UIDs.
pub(super) fn over(book: &Book, look: &Look<'_>) -> Vec<(LeaseName, String)> {
    if !look.pods.is_listed {
        return Vec::new();
    }
    let is_over = |lease: &&Lease| {
        let Some(holder) = lease.holder.as_ref().filter(|_| lease.sequence < look.asked_at) else { return false };
        match look.pods.of_uid(&holder.pod_uid) {
            Some(pod) => pod.is_ended,
            None => !is_listed(book, lease, holder, look),
        }
    };
    let over = book.values().filter(is_over);
    over.filter_map(|lease| Some((lease.name.clone(), lease.holder.as_ref()?.pod_uid.clone()))).collect()
}

/// Whether the kubelet still lists the pod with the ids of this lease, and they are not a later lease's of another pod of the name.
fn is_listed(book: &Book, lease: &Lease, holder: &Holder, look: &Look<'_>) -> bool {
    let ids: BTreeSet<&String> = lease.ids.iter().collect();
    let is_named = |listed: &&Listed| listed.namespace == holder.namespace && listed.pod == holder.pod;
    let mut of_pod = look.listing.containers.iter().filter(is_named);
    let is_held = of_pod.any(|listed| {
        listed.devices.get(&lease.resource).is_some_and(|theirs| theirs.iter().any(|id| ids.contains(id)))
    });
    is_held && newest_overlapping(book, lease).is_none_or(|newer| is_of_pod(book, newer, &holder.pod_uid, look))
}

/// Whether a lease is this pod's, as far as it is known.
fn is_of_pod(book: &Book, lease: &Lease, uid: &str, look: &Look<'_>) -> bool {
    match (&lease.holder, owner(book, lease, look)) {
        (Some(holder), _) => holder.pod_uid == uid,
        (None, Owner::Is(pod, _)) => pod.uid == uid,
        (None, Owner::Contradicted(..) | Owner::Unknown | Owner::Unseen | Owner::Nobody) => true,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
