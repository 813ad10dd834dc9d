//! Holds: short-lived claims between the decision of a bind and its result.

use std::collections::BTreeMap;

use berth_core::Group;
use berth_core::device::Holding;
use berth_core::view::Compute;
use berth_core::zone::PodAsk;
use berth_model::NodeName;

use crate::event::PodUid;

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) node: NodeName,
    pub(crate) holding: Holding,
    /// GPUs that the pod takes beyond the named devices.
    pub(crate) unnamed_gpu_count: u32,
    /// MIG devices that it takes beyond them, by profile.
    pub(crate) unnamed_instances: BTreeMap<String, u32>,
    pub(crate) compute: Compute,
    /// What the pod asks of the kubelet's managers.
    pub(crate) ask: PodAsk,
    /// The pods that it belongs to.
    pub(crate) group: Option<Group>,
    pub(crate) until_ms: u64,
}

/// All claims, by pod.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    by_pod: BTreeMap<PodUid, Hold>,
}

impl Holds {
    pub(crate) fn take(&mut self, uid: PodUid, hold: Hold) {
        self.by_pod.insert(uid, hold);
    }

    /// Gives a claim back; says whose node it was on.
    pub(crate) fn release(&mut self, uid: &PodUid) -> Option<NodeName> {
        self.by_pod.remove(uid).map(|h| h.node)
    }

    pub(crate) fn on<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a PodUid, &'a Hold)> {
        self.by_pod.iter().filter(move |(_, h)| h.node == *node)
    }

    /// The nodes of the claims of a group's pods.
    pub(crate) fn of_group<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = NodeName> + 'a {
        self.by_pod.values().filter(move |hold| hold.group.as_ref() == Some(group)).map(|hold| hold.node.clone())
    }

    /// Drops claims whose time is over; says on which nodes they were.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<NodeName> {
        let mut nodes = Vec::new();
        self.by_pod.retain(|_, hold| {
            let is_alive = hold.until_ms > now_ms;
            if !is_alive {
                nodes.push(hold.node.clone());
            }
            is_alive
        });
        nodes
    }

    pub(crate) fn count(&self) -> usize {
        self.by_pod.len()
    }
}
