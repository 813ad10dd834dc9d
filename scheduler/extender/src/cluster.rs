//! What all parts of the scheduler share: the index, the policy in force, pods that wait, and a clock for holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
        self.learned.policy()
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
        self.learned.came(created, request, || self.index.snapshot());
    }

    /// All pods that ask for extended resources, as a full list has them.
    pub fn pods_listed<'p>(&self, pods: impl Iterator<Item = (&'p str, &'p PodRequest)>) {
        self.learned.listed(pods, &self.index.snapshot());
    }

    /// All reports were listed.
    pub(crate) fn reports_listed(&self) {
        self.learned.reports_listed(&self.index.snapshot());
    }

    /// Puts a policy in force for the next call.
    pub fn set_policy(&self, policy: Policy) {
        let names = policy.resources().clone();
        self.learned.set_policy(policy, &self.index.snapshot());
        self.index.apply(Event::Resources(names));
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

/// Most waiting pods remembered. A pod takes about a kilobyte; beyond it the oldest is forgotten and asked for again.
const WAITING_MAX: usize = 50_000;

/// Pods that wait for a node, with how often each came by.
#[derive(Debug, Default)]
pub struct Waiting {
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    by_uid: HashMap<PodUid, Entry>,
    by_age: BTreeMap<u64, PodUid>,
    by_name: HashMap<(String, String), PodUid>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    request: Arc<PodRequest>,
    attempts: u32,
    arrival: u64,
}

impl Waiting {
    /// Remembers a pod; a newer form of a known one replaces it and keeps its count.
    pub fn remember(&self, request: PodRequest) {
        let uid = PodUid::new(&request.uid);
        let mut pods = self.lock();
        if let Some(entry) = pods.by_uid.get_mut(&uid) {
            entry.request = Arc::new(request);
            return;
        }
        if pods.by_uid.len() >= WAITING_MAX
            && let Some((_, oldest)) = pods.by_age.pop_first()
        {
            pods.forget(&oldest);
        }
        pods.arrivals = pods.arrivals.saturating_add(1);
        let arrival = pods.arrivals;
        pods.by_age.insert(arrival, uid.clone());
        pods.by_name.insert((request.namespace.clone(), request.name.clone()), uid.clone());
        pods.by_uid.insert(uid, Entry { request: Arc::new(request), attempts: 0, arrival });
    }

    /// Forgets a pod: it is bound, or gone.
    pub fn forget(&self, uid: &PodUid) {
        self.lock().forget(uid);
    }

    /// Forgets every pod that `keep` does not want, as after a relist.
    pub fn retain(&self, keep: impl Fn(&PodUid) -> bool) {
        let mut pods = self.lock();
        let gone: Vec<PodUid> = pods.by_uid.keys().filter(|uid| !keep(uid)).cloned().collect();
        for uid in gone {
            pods.forget(&uid);
        }
    }

    /// How many pods wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().by_uid.len()
    }

    /// The pod with this UID.
    #[must_use]
    pub fn by_uid(&self, uid: &PodUid) -> Option<Arc<PodRequest>> {
        self.lock().by_uid.get(uid).map(|e| Arc::clone(&e.request))
    }

    /// The pod with this name, as it came last.
    #[must_use]
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<PodRequest>> {
        let pods = self.lock();
        let uid = pods.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        pods.by_uid.get(uid).map(|e| Arc::clone(&e.request))
    }

    /// Counts one more short list that the pod was given, and says how many it had before.
    pub fn count_attempt(&self, uid: &PodUid) -> u32 {
        let mut pods = self.lock();
        let Some(entry) = pods.by_uid.get_mut(uid) else { return 0 };
        let before = entry.attempts;
        entry.attempts = before.saturating_add(1);
        before
    }

    /// How many short lists the pod was given.
    #[must_use]
    pub fn attempts(&self, uid: &PodUid) -> u32 {
        self.lock().by_uid.get(uid).map_or(0, |e| e.attempts)
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pods {
    fn forget(&mut self, uid: &PodUid) {
        let Some(entry) = self.by_uid.remove(uid) else { return };
        self.by_age.remove(&entry.arrival);
        let name = (entry.request.namespace.clone(), entry.request.name.clone());
        // A younger pod may have the same name by now.
        if self.by_name.get(&name) == Some(uid) {
            self.by_name.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uid: &str, name: &str) -> PodRequest {
        PodRequest { uid: uid.to_owned(), name: name.to_owned(), namespace: "ns".to_owned(), ..PodRequest::default() }
    }

    #[test]
    fn a_younger_pod_of_the_same_name_is_not_forgotten_with_the_older_one() {
        let waiting = Waiting::default();
        waiting.remember(request("u1", "web-0"));
        waiting.remember(request("u2", "web-0"));
        waiting.forget(&PodUid::new("u1"));
        assert_eq!(waiting.by_name("ns", "web-0").unwrap().uid, "u2");
    }

    #[test]
    fn attempts_are_counted_by_pod_and_survive_its_updates() {
        let waiting = Waiting::default();
        let uid = PodUid::new("u1");
        assert_eq!(waiting.count_attempt(&uid), 0, "nobody knows it");
        waiting.remember(request("u1", "a"));
        assert_eq!((waiting.count_attempt(&uid), waiting.count_attempt(&uid)), (0, 1));
        waiting.remember(request("u1", "a"));
        assert_eq!(waiting.attempts(&uid), 2);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let waiting = Waiting::default();
        for i in 0..=WAITING_MAX {
            waiting.remember(request(&format!("u{i}"), &format!("p{i}")));
        }
        assert!(waiting.by_uid(&PodUid::new("u0")).is_none());
        assert!(waiting.by_name("ns", "p0").is_none());
        assert!(waiting.by_uid(&PodUid::new(&format!("u{WAITING_MAX}"))).is_some());
    }
}
