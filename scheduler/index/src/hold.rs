//! Holds: short-lived claims between the decision of a bind and its result.

use std::collections::BTreeMap;

use berth_core::annotation::Note;
use berth_core::device::Holding;
use berth_core::unfit::Reason;
use berth_core::view::Compute;
use berth_core::zone::PodAsk;
use berth_core::{Demand, Group, NodeView, Plan, Unfit};
use berth_model::NodeName;

use crate::event::PodUid;

/// Which claim. A pod has several where it is not known of an earlier write whether it took effect: each keeps its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldId {
    /// Whose.
    pub uid: PodUid,
    serial: u64,
}

/// Most claims of one pod. kube-scheduler tries a pod again after seconds, and a claim lives for half a minute: beyond this the oldest goes.
const CLAIMS_MAX: usize = 16;

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

impl Hold {
    /// Whether both claim the same, for whatever time.
    fn is_as(&self, other: &Self) -> bool {
        let Self { node, holding, unnamed_gpu_count, unnamed_instances, .. } = self;
        *node == other.node
            && *holding == other.holding
            && *unnamed_gpu_count == other.unnamed_gpu_count
            && *unnamed_instances == other.unnamed_instances
    }
}

/// All claims, by pod.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    by_pod: BTreeMap<PodUid, Vec<(u64, Hold)>>,
    serial: u64,
}

impl Holds {
    pub(crate) fn take(&mut self, uid: PodUid, hold: Hold) -> HoldId {
        self.serial = self.serial.saturating_add(1);
        let own = self.by_pod.entry(uid.clone()).or_default();
        if own.len() >= CLAIMS_MAX {
            own.remove(0);
        }
        own.push((self.serial, hold));
        HoldId { uid, serial: self.serial }
    }

    /// Gives one claim back; says on which node it was.
    pub(crate) fn release(&mut self, id: &HoldId) -> Option<NodeName> {
        let own = self.by_pod.get_mut(&id.uid)?;
        let at = own.iter().position(|(serial, _)| *serial == id.serial)?;
        let (_, hold) = own.remove(at);
        if own.is_empty() {
            self.by_pod.remove(&id.uid);
        }
        Some(hold.node)
    }

    /// Gives all claims of a pod back: it is bound or gone. Says on which nodes they were.
    pub(crate) fn release_all(&mut self, uid: &PodUid) -> Vec<NodeName> {
        self.by_pod.remove(uid).into_iter().flatten().map(|(_, hold)| hold.node).collect()
    }

    /// The claims on a node. What a pod claims in the same words twice it gets once.
    pub(crate) fn on<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a PodUid, &'a Hold)> {
        self.by_pod.iter().flat_map(move |(uid, own)| {
            let is_new = move |(at, (_, hold)): &(usize, &(u64, Hold))| {
                hold.node == *node && !own.iter().take(*at).any(|(_, before)| before.is_as(hold))
            };
            own.iter().enumerate().filter(is_new).map(move |(_, (_, hold))| (uid, hold))
        })
    }

    /// The nodes of the claims of a group's pods.
    pub(crate) fn of_group<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = NodeName> + 'a {
        let last = self.by_pod.values().filter_map(|own| own.last());
        last.filter(move |(_, hold)| hold.group.as_ref() == Some(group)).map(|(_, hold)| hold.node.clone())
    }

    /// Drops claims whose time is over; says on which nodes they were.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<NodeName> {
        let mut nodes = Vec::new();
        self.by_pod.retain(|_, own| {
            own.retain(|(_, hold)| {
                let is_alive = hold.until_ms > now_ms;
                if !is_alive {
                    nodes.push(hold.node.clone());
                }
                is_alive
            });
            !own.is_empty()
        });
        nodes
    }

    pub(crate) fn count(&self) -> usize {
        self.by_pod.values().map(Vec::len).sum()
    }
}

/// Refuses a node while its kubelet has pods before it that it has not taken: what it will give to the next is not known.
pub(crate) fn taken_in_turn(view: &NodeView) -> Result<(), Unfit> {
    match view.site.as_ref().map_or(0, |site| site.untaken_count) {
        0 => Ok(()),
        count => Err(Unfit::new(
            Reason::KubeletBusy,
            format!("pods sent there before that the kubelet has not taken yet: {count}"),
        )),
    }
}

/// What is held for a pod with this plan.
pub(crate) fn hold_of(plan: &Plan, demand: &Demand, until_ms: u64) -> Hold {
    // The same fold as of a bound pod's annotation: what is held does not change when the pod is seen bound. A plan of our own
    // making names devices that are; one that did not would be held by its count.
    let holding = Note::of(plan, "").holding().unwrap_or_default();
    let named = holding.devices.iter().fold(0_u32, |sum, device| sum.saturating_add(device.device_count));
    let devices_are_known = plan.set.is_some();
    Hold {
        node: plan.node.clone(),
        holding,
        unnamed_gpu_count: demand.shape.device_count().saturating_sub(named),
        unnamed_instances: if devices_are_known { BTreeMap::new() } else { demand.shape.mig.clone() },
        ask: demand.shape.ask.clone(),
        group: demand.group.clone(),
        compute: Compute { cpu_milli: demand.shape.cpu_milli, memory: demand.shape.memory },
        until_ms,
    }
}
