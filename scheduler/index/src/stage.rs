//! One node to play with: what it would be without some of its pods, and with room kept for pods that are to come.
//!
//! A copy: nothing that happens here reaches the ledger.

use berth_core::demand::Totals;
use berth_core::device::Holding;
use berth_core::policy::Resources;
use berth_core::view::Compute;
use berth_core::{Demand, NodeView, Policy, plan};
use berth_model::{MiB, NodeName};

use crate::event::{PodFacts, PodUid};
use crate::hold::{Hold, hold_of};
use crate::ledger::{Holder, NodeEntry};

/// A pod for which kube-scheduler keeps room on a node (`status.nominatedNodeName`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nominee {
    /// The pod.
    pub uid: PodUid,
    /// Its priority: pods below it that are leaving make room for it.
    pub priority: i32,
    /// What it asks for.
    pub demand: Demand,
    /// What it takes, of every resource.
    pub totals: Totals,
}

/// A copy of one node.
#[derive(Debug, Clone)]
pub struct Stage {
    pub(crate) name: NodeName,
    pub(crate) entry: NodeEntry,
    pub(crate) holds: Vec<(PodUid, Hold)>,
    pub(crate) names: Resources,
}

impl Stage {
    /// Its bound pods, in the order of their UIDs.
    pub fn pods(&self) -> impl Iterator<Item = &PodFacts> {
        self.entry.pods.values().map(AsRef::as_ref)
    }

    /// Who holds what on it.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.fold(&|_| true).1
    }

    /// The node as it stands.
    #[must_use]
    pub fn view(&self) -> NodeView {
        self.fold(&|_| true).0
    }

    /// The node as it would be with only those of its pods that `stays` names.
    #[must_use]
    pub fn view_with(&self, stays: &dyn Fn(&PodFacts) -> bool) -> NodeView {
        self.fold(stays).0
    }

    fn fold(&self, stays: &dyn Fn(&PodFacts) -> bool) -> (NodeView, Vec<Holder>) {
        let pods = self.entry.pods.values().filter(|pod| stays(pod));
        self.entry.fold_of(&self.name, &self.names, pods, self.holds.iter().map(|(uid, hold)| (uid, hold)))
    }

    /// Keeps room for a nominee: the devices that it would get now, those of less important pods that are leaving among them. Where it
    /// would get none, as many as it asks for count as taken. Nothing for one that has its devices.
    pub fn reserve(&mut self, nominee: &Nominee, policy: &Policy) {
        let uid = &nominee.uid;
        if self.entry.pods.contains_key(uid) || self.holds.iter().any(|(known, _)| known == uid) {
            return;
        }
        let makes_room = |pod: &PodFacts| pod.rank.is_leaving && pod.rank.priority < nominee.priority;
        let view = self.view_with(&|pod| !makes_room(pod));
        let demand = &nominee.demand;
        let hold = match plan(&view, demand, policy) {
            Ok(plan) => hold_of(&plan, demand, u64::MAX),
            Err(_) => Hold {
                node: self.name.clone(),
                holding: Holding::default(),
                unnamed_gpu_count: demand.shape.device_count(),
                unnamed_instances: demand.shape.mig.clone(),
                compute: Compute { cpu_milli: demand.shape.cpu_milli, memory: demand.shape.memory },
                ask: demand.shape.ask.clone(),
                group: demand.group.clone(),
                until_ms: u64::MAX,
            },
        };
        self.holds.push((uid.clone(), hold));
    }

    /// Whether the amounts that `asked` names are left beside those of its pods that stay and of `others`. Resources that the node does
    /// not offer are not counted: who counts them, counts elsewhere.
    #[must_use]
    pub fn has_amounts(&self, asked: &Totals, others: &[Nominee], stays: &dyn Fn(&PodFacts) -> bool) -> bool {
        let Some(facts) = &self.entry.facts else { return false };
        let taken =
            || self.pods().filter(|pod| stays(pod)).map(|pod| &pod.totals).chain(others.iter().map(|n| &n.totals));
        let fits = |asked: u64, offered: u64, of: &dyn Fn(&Totals) -> u64| {
            asked == 0 || taken().fold(asked, |sum, totals| sum.saturating_add(of(totals))) <= offered
        };
        let MiB(memory) = facts.allocatable.memory;
        let extended = |(name, asked): (&String, &u64)| {
            let Some(offered) = facts.offered.get(name) else { return true };
            fits(*asked, *offered, &|totals| totals.extended.get(name).copied().unwrap_or(0))
        };
        fits(asked.cpu_milli, facts.allocatable.cpu_milli, &|totals| totals.cpu_milli)
            && fits(asked.memory.0, memory, &|totals| totals.memory.0)
            && asked.extended.iter().all(extended)
    }
}
