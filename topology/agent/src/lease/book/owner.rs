//! Whose a lease is. The kubelet's list says it by ids, and its own file by the name of the lease, with the UID; both must agree, but for
//! plain init containers, which the list leaves out.

use std::collections::BTreeSet;

use super::{Book, Listed, Look};
use crate::lease::record::Lease;
use crate::pods::{Kind, Pod};

/// Whose a lease is.
pub(super) enum Owner<'a> {
    /// This container's.
    Is(&'a Pod, &'a str),
    /// This container's, if the kubelet did not contradict itself.
    Contradicted(&'a Pod, &'a str, String),
    /// Said, but of a pod that the API server has not told of yet, or not enough.
    Unknown,
    /// Not said.
    Unseen,
    /// Nobody's any more.
    Nobody,
}

/// Whose `lease` is, by what is known.
pub(super) fn owner<'a>(book: &Book, lease: &Lease, look: &Look<'a>) -> Owner<'a> {
    let holds = |listed: &&'a Listed| listed.devices.get(&lease.resource).is_some_and(|ids| ids.iter().eq(&lease.ids));
    let mut listed = look.listing.containers.iter().filter(holds);
    let listed = (listed.next(), listed.next());
    if let Some((uid, container)) = look.witness.holder(&lease.name) {
        return testified(uid, container, listed, look);
    }
    let is_readable = look.witness.is_readable;
    match (newest_overlapping(book, lease), listed.0) {
        // What was given again since is no longer this lease's, whoever is listed with it.
        (Some(newer), _) if newer.sequence >= look.asked_at => Owner::Unknown,
        // Each container is in the file before anything is asked for the next one.
        (Some(_), _) if is_readable => Owner::Nobody,
        (_, Some(one)) => untestified(one, look),
        (_, None) if is_readable => Owner::Unseen,
        (_, None) => Owner::Unknown,
    }
}

/// Only the list names the container. It has no UID, and neither the watch nor a status says for certain which pod of a name the kubelet
/// means: both may be ahead of it or behind. So nothing is given, and a person is told once this lasts.
fn untestified<'a>(one: &'a Listed, look: &Look<'a>) -> Owner<'a> {
    let Some(pod) = look.pods.named(&one.namespace, &one.pod) else { return Owner::Unknown };
    let text = if look.witness.is_readable {
        "the kubelet lists the devices with it, but its file of devices does not name the lease"
    } else {
        "the kubelet's file of devices cannot be read, and its list has no UIDs"
    };
    Owner::Contradicted(pod, &one.container, text.to_owned())
}

/// The kubelet's file names the container: the list must, too, but for plain init containers, which it leaves out.
fn testified<'a>(
    uid: &str,
    container: &str,
    listed: (Option<&'a Listed>, Option<&'a Listed>),
    look: &Look<'a>,
) -> Owner<'a> {
    // The watch may be behind the kubelet.
    let Some(pod) = look.pods.of_uid(uid) else { return Owner::Unknown };
    let Some(own) = pod.containers.iter().find(|own| own.name == container) else { return Owner::Unknown };
    if own.kind == Kind::Init {
        return Owner::Is(pod, &own.name);
    }
    let is_own = |one: &Listed| one.namespace == pod.namespace && one.pod == pod.name && one.container == container;
    match listed {
        (Some(one), None) if is_own(one) => sole(look, pod, &own.name),
        (Some(one), None) => {
            let text = format!("the kubelet lists its devices with pod {}/{}", one.namespace, one.pod);
            Owner::Contradicted(pod, &own.name, text)
        }
        (_, Some(_)) => Owner::Contradicted(pod, &own.name, "the kubelet lists its devices twice".to_owned()),
        (None, None) => Owner::Unknown,
    }
}

/// The container, unless the kubelet has two pods of that name.
fn sole<'a>(look: &Look<'a>, pod: &'a Pod, container: &'a str) -> Owner<'a> {
    if look.listing.twice.contains(&(pod.namespace.clone(), pod.name.clone())) {
        return Owner::Contradicted(pod, container, "the kubelet has two pods of this name".to_owned());
    }
    Owner::Is(pod, container)
}

/// A later lease on any of the same ids: the kubelet gives an id again only when its pod is gone, or to a container after an init container.
pub(super) fn newest_overlapping<'b>(book: &'b Book, lease: &Lease) -> Option<&'b Lease> {
    let ids: BTreeSet<&String> = lease.ids.iter().collect();
    let later = book.values().filter(|other| other.sequence > lease.sequence && other.resource == lease.resource);
    later.filter(|other| other.ids.iter().any(|id| ids.contains(id))).max_by_key(|other| other.sequence)
}
