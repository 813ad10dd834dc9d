//! The state of the cluster in memory: nodes, reports, bound pods, holds.
//!
//! [`Index::apply`] is the only way in, by a closed [`Event`]; the index does not know where events come from. Readers take
//! an immutable [`Snapshot`] and let go. Everything here can be rebuilt from a list of nodes, reports and pods: holds are
//! hints whose loss costs a retry, never a double booking.
#![forbid(unsafe_code)]

mod arrivals;
mod eval;
mod event;
mod hold;
mod kinds;
mod ledger;
mod pages;
mod recall;
mod roll;
mod snapshot;
mod stage;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use berth_core::{Demand, Group, Plan, Policy, Unfit};
use berth_model::NodeName;

pub use arrivals::Arrivals;
pub use eval::{Evaluator, Listing, Rules, Verdict, Zoned};
pub use event::{Change, Event, Kind, NodeFacts, PlanNote, PodFacts, PodUid, Rank};
pub use hold::HoldId;
pub use ledger::{HeldShare, Holder};
pub use recall::{Listed, Reader};
pub use roll::Standing;
pub use snapshot::{NodeSlot, Snapshot};
pub use stage::{Nominee, Stage};
use state::State;

/// The cluster as the events say it is.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    published: ArcSwap<Snapshot>,
    is_dirty: AtomicBool,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::default()),
            published: ArcSwap::from_pointee(Snapshot::default()),
            is_dirty: AtomicBool::new(false),
        }
    }
}

impl Index {
    /// Takes one event. Events of one kind must come in the order in which their source saw them.
    pub fn apply(&self, event: Event) -> Change {
        let mut state = self.lock();
        let change = state.apply(event);
        self.is_dirty.store(true, Ordering::Release);
        change
    }

    /// Replaces everything of one kind at once, as after a relist: what `live` does not name is gone. No reader sees half of it.
    pub fn reset(&self, kind: Kind, live: Vec<Event>) -> Vec<Change> {
        let mut state = self.lock();
        let changes = state.reset(kind, live);
        self.is_dirty.store(true, Ordering::Release);
        changes
    }

    /// The cluster as of now. Cheap when nothing changed since the last call.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        if self.is_dirty.swap(false, Ordering::AcqRel) {
            let mut state = self.lock();
            // Stored under the lock, so that an older snapshot never follows a newer one.
            self.published.store(Arc::new(state.snapshot()));
        }
        self.published.load_full()
    }

    /// Plans the pod on the node as of now, and holds what was planned until `until_ms`. Both in one step: two pods that are
    /// bound at once never get one device. Earlier holds of the same pod do not count against it, and stay until it is bound, gone or
    /// their time is over: what they were made for may still happen. Room for `nominees` is left alone.
    ///
    /// # Errors
    /// [`Unfit`] as [`berth_core::plan`] says it.
    pub fn plan_and_hold(
        &self,
        uid: &PodUid,
        node: &NodeName,
        demand: &Demand,
        nominees: &[Nominee],
        policy: &Policy,
        until_ms: u64,
    ) -> Result<(Plan, HoldId), Unfit> {
        let mut state = self.lock();
        let plan = state.plan_and_hold(uid, node, demand, nominees, policy, until_ms);
        self.is_dirty.store(true, Ordering::Release);
        plan
    }

    /// Whether the kubelet of an aligning node has pods before this one that it has not taken yet, so that [`Index::plan_and_hold`] refuses.
    #[must_use]
    pub fn awaits_kubelet(&self, uid: &PodUid, node: &NodeName) -> bool {
        self.lock().awaits_kubelet(uid, node)
    }

    /// Of every pod of a group that is bound, or about to be, its node.
    #[must_use]
    pub fn nodes_of_group(&self, group: &Group) -> Vec<NodeName> {
        self.lock().nodes_of_group(group)
    }

    /// The node as of now, to be looked at without some of its pods; `None` where there is no Node object. A hold of the pod that asks
    /// does not count against it.
    #[must_use]
    pub fn stage(&self, node: &str, asks: &PodUid) -> Option<Stage> {
        self.lock().stage(node, asks)
    }

    /// Lets go of holds whose time is over; says how many those were.
    pub fn expire_holds(&self, now_ms: u64) -> usize {
        let mut state = self.lock();
        let expired = state.expire_holds(now_ms);
        if expired > 0 {
            self.is_dirty.store(true, Ordering::Release);
        }
        expired
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside a fold leaves the maps as they were before or after one event: going on is right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
