//! What all parts of the scheduler share: the index, the policy in force, pods that wait, and a clock for holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_core::demand::PodRequest;
use berth_core::view::Knowledge;
use berth_core::{Demand, Policy};
use berth_index::{Evaluator, Event, Index, Nominee, PodUid, Reader, Snapshot, Stage};
use tokio::time::Instant;

use crate::audit;
use crate::budgets::Budgets;
use crate::carriers::Carriers;
use crate::learned::{Expectation, Learned};
use crate::metrics::Metrics;
use crate::nominations::Nominations;
use crate::waiting::Waiting;

/// The shared state. Everything in it is rebuilt from lists after a start.
#[derive(Debug)]
pub struct Cluster {
    /// Nodes, reports, bound pods, holds.
    pub index: Index,
    /// Verdicts by shape and node state.
    pub evaluator: Evaluator,
    /// What the names of the last calls looked like.
    pub reader: Reader,
    /// Pods that wait for a node.
    pub waiting: Waiting,
    /// Pods for which kube-scheduler keeps room.
    pub nominations: Nominations,
    /// Disruption budgets.
    pub budgets: Budgets,
    /// Which carrier speaks for a node.
    pub carriers: Carriers,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    learned: Learned,
    started: Instant,
    /// When a pod was last refused on every node, by the clock of holds; zero for never.
    refused_at_ms: AtomicU64,
}

impl Cluster {
    /// An empty cluster under the default policy.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            index: Index::default(),
            evaluator: Evaluator::default(),
            reader: Reader::default(),
            waiting: Waiting::default(),
            nominations: Nominations::default(),
            budgets: Budgets::default(),
            carriers: Carriers::default(),
            learned: Learned::new(Arc::clone(&metrics)),
            metrics,
            started: Instant::now(),
            refused_at_ms: AtomicU64::new(0),
        }
    }

    /// The policy in force, with what is expected. A call takes it once, so that an edit never shows in the middle of one.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.learned.policy(self.index.snapshot().rooms())
    }

    /// The policy as its document says it.
    #[must_use]
    pub fn policy_said(&self) -> Arc<Policy> {
        self.learned.said()
    }

    /// What is expected, and from how many pods.
    pub(crate) fn expectation(&self) -> Expectation {
        self.learned.expectation()
    }

    /// A pod came that asks for extended resources, or was told of again: what comes is what is expected.
    pub fn pod_came(&self, created: &str, request: &PodRequest) {
        if self.learned.came(created, request, || self.index.snapshot()) {
            self.count_rooms();
        }
    }

    /// All pods that ask for extended resources, as a full list has them.
    pub fn pods_listed<'p>(&self, pods: impl Iterator<Item = (&'p str, &'p PodRequest)>) {
        self.learned.listed(pods, &self.index.snapshot());
        self.count_rooms();
    }

    /// All reports were listed.
    pub(crate) fn reports_listed(&self) {
        self.learned.reports_listed(&self.index.snapshot());
        self.count_rooms();
    }

    /// Has the room counted for the pods that are expected now.
    fn count_rooms(&self) {
        self.index.apply(Event::Expected(self.learned.large()));
    }

    /// Puts a policy in force for the next call.
    pub fn set_policy(&self, policy: Policy) {
        let names = policy.resources().clone();
        self.learned.set_policy(policy, &self.index.snapshot());
        self.index.apply(Event::Resources(names));
        self.count_rooms();
    }

    /// The clique that most pods of the pod's group are in.
    #[must_use]
    pub fn group_clique(&self, demand: &Demand, snapshot: &Snapshot) -> Option<u32> {
        let group = demand.group.as_ref()?;
        snapshot.usual_clique(&self.index.nodes_of_group(group))
    }

    /// The node as it stands for a pod: with room kept for those that go before it there. `None` where there is no Node object.
    #[must_use]
    pub fn stage(&self, node: &str, pod: &PodRequest, policy: &Policy) -> Option<(Stage, Vec<Nominee>)> {
        let mut stage = self.index.stage(node, &PodUid::new(&pod.uid))?;
        let nominees = self.nominations.ahead(node, pod, policy);
        nominees.iter().for_each(|nominee| stage.reserve(nominee, policy));
        Some((stage, nominees))
    }

    /// Sets the gauges that are counted, not stepped.
    pub fn set_gauges(&self) {
        let snapshot = self.index.snapshot();
        let (mut nodes, mut stale, mut imprecise) = (0, 0, 0);
        let (mut drifted, mut without, mut unhealthy, mut conflicting) = (0, 0, 0, 0);
        for slot in snapshot.nodes().filter(|s| s.exists) {
            nodes += 1;
            stale += i64::from(slot.view.knowledge == Knowledge::Stale);
            imprecise += i64::from(slot.view.is_imprecise);
            for holder in &slot.holders {
                drifted += i64::from(holder.drifted_from.is_some());
                without += i64::from(holder.is_without_devices);
                conflicting += i64::from(!holder.twice.is_empty());
                unhealthy += i64::from(audit::unhealthy(slot, holder).next().is_some());
            }
        }
        self.metrics.snapshot_nodes.set(nodes);
        self.metrics.stale_nodes.set(stale);
        self.metrics.imprecise_nodes.set(imprecise);
        self.metrics.drift_pods.set(drifted);
        self.metrics.conflict_pods.set(conflicting);
        self.metrics.pods_without_devices.set(without);
        self.metrics.unhealthy_gpu_pods.set(unhealthy);
        self.metrics.holds_active.set(i64::try_from(snapshot.hold_count()).unwrap_or(i64::MAX));
    }

    /// A pod was refused on every node, by what is known now.
    pub fn note_refusal(&self) {
        self.refused_at_ms.store(self.now_ms().max(1), Ordering::Release);
    }

    /// Whether a pod was refused on every node within the last `ms`.
    #[must_use]
    pub fn has_refused_within(&self, ms: u64) -> bool {
        let at_ms = self.refused_at_ms.load(Ordering::Acquire);
        at_ms > 0 && self.now_ms().saturating_sub(at_ms) <= ms
    }

    /// Milliseconds since the start: the clock of holds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
