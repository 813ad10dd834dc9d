//! What the scheduler expects: the policy's document, and what the pods that came add to it.
//!
//! The policy in force carries the expectation. A change of it makes every remembered verdict stale, so a mix that is nearly the one in
//! force changes nothing, except where all is read anew anyway: after a full list, and under another policy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use berth_core::Policy;
use berth_core::demand::PodRequest;
use berth_core::value::Typical;
use berth_core::value::learned::{LOOK_PODS, Mix};
use berth_core::value::rooms::Rooms;
use berth_index::{Arrivals, Snapshot};
use berth_model::MiB;

use crate::metrics::Metrics;

/// The policy in force, and what it was made of.
#[derive(Debug)]
pub(crate) struct Learned {
    in_force: ArcSwap<Policy>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// The policy as its document says it.
    said: Arc<Policy>,
    arrivals: Arrivals,
    /// What is expected under the policy in force.
    mix: Mix,
    /// Pods that came since the mix was looked at.
    unseen: u32,
}

/// What is expected, for who asks why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// Pods that it was learned from.
    pub(crate) pods: usize,
    pub(crate) mix: Mix,
}

/// When to put a mix in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Where it differs much.
    Far,
    /// Where it differs.
    Exact,
}

impl Learned {
    /// The default policy, and no pod yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let said = Arc::new(Policy::default());
        let state = State { said: Arc::clone(&said), arrivals: Arrivals::default(), mix: Mix::default(), unseen: 0 };
        Self { in_force: ArcSwap::new(said), state: Mutex::new(state), metrics }
    }

    /// The policy in force, as the cluster's room is now.
    pub(crate) fn policy(&self, rooms: &Rooms) -> Arc<Policy> {
        let policy = self.in_force.load_full();
        if policy.seeing(rooms).is_none() {
            return policy;
        }
        // Under the lock, as in `put_in_force`: what was put in force meanwhile may see it otherwise.
        let _state = self.lock();
        let policy = self.in_force.load_full();
        let Some(seeing) = policy.seeing(rooms) else { return policy };
        let scarce = seeing.expected().map_or(0, |expected| expected.scarce().count());
        self.metrics.scarce_kinds.set(i64::try_from(scarce).unwrap_or(i64::MAX));
        self.metrics.scarce_changes.inc();
        let seeing = Arc::new(seeing);
        self.in_force.store(Arc::clone(&seeing));
        seeing
    }

    /// The kinds of several GPUs that the policy in force expects.
    pub(crate) fn large(&self) -> Arc<[Typical]> {
        self.in_force.load().expected().map_or_else(|| Arc::from([]), |expected| Arc::clone(expected.large()))
    }

    /// The policy as its document says it.
    pub(crate) fn said(&self) -> Arc<Policy> {
        Arc::clone(&self.lock().said)
    }

    /// What is expected.
    pub(crate) fn expectation(&self) -> Expectation {
        let state = self.lock();
        Expectation { pods: state.arrivals.count(), mix: state.mix.clone() }
    }

    /// Takes a policy as its document says it.
    pub(crate) fn set_policy(&self, policy: Policy, snapshot: &Snapshot) {
        let mut state = self.lock();
        state.said = Arc::new(policy);
        let said = Arc::clone(&state.said);
        state.arrivals.read_anew(&said);
        state.mix = state.mix_now(snapshot);
        self.put_in_force(&mut state);
    }

    /// A pod came, or was told of again. Says whether another mix is expected since.
    pub(crate) fn came(&self, created: &str, request: &PodRequest, snapshot: impl FnOnce() -> Arc<Snapshot>) -> bool {
        let mut state = self.lock();
        let said = Arc::clone(&state.said);
        if said.learned_pods() == 0 || !state.arrivals.take(created, request, &said) {
            return false;
        }
        state.unseen = state.unseen.saturating_add(1);
        state.unseen >= LOOK_PODS && self.look(&mut state, &snapshot(), Look::Far)
    }

    /// These pods are all there are.
    pub(crate) fn listed<'p>(&self, pods: impl Iterator<Item = (&'p str, &'p PodRequest)>, snapshot: &Snapshot) {
        let mut state = self.lock();
        let said = Arc::clone(&state.said);
        state.arrivals.replace(pods, &said);
        self.look(&mut state, snapshot, Look::Exact);
    }

    /// All reports were listed: now it is known how large cards are.
    pub(crate) fn reports_listed(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        if state.arrivals.asks_for_memory() {
            self.look(&mut state, snapshot, Look::Exact);
        }
    }

    fn look(&self, state: &mut State, snapshot: &Snapshot, look: Look) -> bool {
        state.unseen = 0;
        let mix = state.mix_now(snapshot);
        let is_another = if look == Look::Exact { mix != state.mix } else { mix.is_far_from(&state.mix) };
        if is_another {
            state.mix = mix;
            self.put_in_force(state);
            self.metrics.expected_changes.inc();
        }
        self.metrics.expected_pods.set(i64::try_from(state.arrivals.count()).unwrap_or(i64::MAX));
        is_another
    }

    /// Under the lock, so that an older policy never follows a newer one.
    fn put_in_force(&self, state: &mut State) {
        self.metrics.expected_hash.set(i64::try_from(state.mix.fingerprint()).unwrap_or(i64::MAX));
        let policy = if state.arrivals.count() == 0 {
            Arc::clone(&state.said)
        } else {
            Arc::new(Policy::clone(&state.said).expecting(state.mix.counts()))
        };
        self.in_force.store(policy);
        // What is scarce of this mix the next call sees.
        self.metrics.scarce_kinds.set(0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn mix_now(&self, snapshot: &Snapshot) -> Mix {
        if self.said.learned_pods() == 0 {
            return Mix::of(std::iter::empty(), 1, self.said.seed());
        }
        let card = if self.arrivals.asks_for_memory() { usual_card(snapshot) } else { None };
        self.arrivals.mix(&self.said, card)
    }
}

/// Memory of most GPUs of the cluster, of equally frequent ones the largest.
fn usual_card(snapshot: &Snapshot) -> Option<MiB> {
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    let reports = snapshot.nodes().filter_map(|slot| slot.view.hardware.as_ref());
    for memory in reports.flat_map(|hardware| &hardware.topology.parts().gpus).filter_map(|gpu| gpu.memory) {
        let count = counts.entry(memory.0).or_default();
        *count = count.saturating_add(1);
    }
    counts.into_iter().max_by_key(|(memory, count)| (*count, *memory)).map(|(memory, _)| MiB(memory))
}

#[cfg(test)]
mod tests;
