//! Tells pods that get no devices on a node that enforces plans: an Event with cause and advice, and eviction where policy says so and it
//! does not heal. Agents only report; they may write no pod.

mod act;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_core::level;
use berth_core::view::{Knowledge, NodeView};
use berth_index::Snapshot;
use berth_model::{Level, NodeName, Refusal};
use kube::Client;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::events::{Events, Told, about_pod};
use crate::metrics::ByResult;

/// How often reports are looked through.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often an eviction that was not possible is tried again: a disruption budget may hold it.
const EVICT_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Most evictions of one look: a node that lost its cards must not empty a cluster at once.
const EVICTIONS_MAX: usize = 8;

/// How often the pods of nodes whose agents are away are looked at, and of how many nodes.
const AWAY_EVERY: Duration = Duration::from_secs(10);
const AWAY_NODES_MAX: usize = 16;

/// A pod's container, and where it waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    pod_uid: String,
    container: String,
}

/// What was told of a container that still waits.
#[derive(Debug)]
struct Known {
    refusal: Refusal,
    since: Instant,
}

/// What is known of refusals.
#[derive(Debug, Default)]
struct Refusals {
    known: BTreeMap<Waiting, Known>,
    /// When the eviction of a pod was last asked for.
    evicted_at: BTreeMap<String, Instant>,
}

/// A pod to evict: the refusal that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Eviction {
    refusal: Refusal,
    node: String,
}

/// Looks, tells and evicts until `stop`.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    events: Events,
    client: Client,
    may_evict: bool,
    stop: CancellationToken,
) {
    let mut refusals = Refusals::default();
    let mut away = act::Away::default();
    let mut away_at = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        let snapshot = cluster.index.snapshot();
        let policy = cluster.policy();
        let wait = |node: &NodeView| {
            let pool = policy.pool_of(&node.labels).filter(|_| may_evict);
            pool.and_then(|pool| pool.evict_after_seconds).map(Duration::from_secs)
        };
        let (news, evictions) = refusals.look(&snapshot, now, wait);
        cluster.metrics.refused_pods.set(i64::try_from(refusals.pod_count()).unwrap_or(i64::MAX));
        for told in news {
            tracing::warn!(
                namespace = told.about.namespace,
                pod = told.about.name,
                note = told.note,
                "a pod gets no devices"
            );
            events.tell(told);
        }
        for eviction in evictions {
            let result = act::evict(&client, &eviction).await;
            cluster.metrics.evictions.get_or_create(&ByResult { result }).inc();
        }
        if away_at <= now {
            away_at = now + AWAY_EVERY;
            for told in away.look(&client, &unattended(&snapshot)).await {
                events.tell(told);
            }
        }
    }
}

/// Why nobody gives leases on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unattended {
    /// It enforces plans, and its agent is away.
    Away,
    /// It enforces plans no more, and has pods from when it did.
    Left,
}

/// Nodes on which nobody gives leases to pods that wait for them.
fn unattended(snapshot: &Snapshot) -> Vec<(NodeName, Unattended)> {
    let why = |slot: &Arc<berth_index::NodeSlot>| {
        let is_stale = slot.view.knowledge == Knowledge::Stale;
        match level::promised(&slot.view) {
            Level::Enforced => is_stale.then_some(Unattended::Away),
            // An agent at level preferred looks after the leases that it finds.
            Level::Preferred => None,
            Level::Advice => slot.holders.iter().any(|holder| holder.is_enforced).then_some(Unattended::Left),
        }
    };
    let nodes = snapshot.nodes().filter_map(|slot| Some((slot.view.name.clone(), why(slot)?)));
    nodes.take(AWAY_NODES_MAX).collect()
}

impl Refusals {
    /// What is new, and who is to be evicted now. A node whose agent is away says nothing new of its pods.
    fn look(
        &mut self,
        snapshot: &Snapshot,
        now: Instant,
        evict_after: impl Fn(&NodeView) -> Option<Duration>,
    ) -> (Vec<Told>, Vec<Eviction>) {
        let (mut news, mut evictions, mut known) = (Vec::new(), Vec::new(), BTreeMap::new());
        for slot in snapshot.nodes().filter(|slot| slot.view.knowledge == Knowledge::Current) {
            let Some(hardware) = &slot.view.hardware else { continue };
            for refusal in &hardware.topology.parts().refusals {
                let waiting = Waiting { pod_uid: refusal.pod_uid.clone(), container: refusal.container.clone() };
                let before = self.known.remove(&waiting);
                let since = before.as_ref().map_or(now, |known| known.since);
                let wait = evict_after(&slot.view);
                if before.is_none_or(|known| known.refusal != *refusal) {
                    news.push(told(refusal, slot.view.name.as_str(), wait));
                }
                let is_due = wait.is_some_and(|wait| now.duration_since(since) >= wait);
                let is_asked =
                    self.evicted_at.get(&refusal.pod_uid).is_some_and(|at| now.duration_since(*at) < EVICT_AGAIN_AFTER);
                if is_due && !is_asked && evictions.len() < EVICTIONS_MAX {
                    self.evicted_at.insert(refusal.pod_uid.clone(), now);
                    evictions.push(Eviction { refusal: refusal.clone(), node: slot.view.name.to_string() });
                }
                known.insert(waiting, Known { refusal: refusal.clone(), since });
            }
        }
        self.known = known;
        let uids: BTreeSet<&str> = self.known.keys().map(|waiting| waiting.pod_uid.as_str()).collect();
        self.evicted_at.retain(|uid, _| uids.contains(uid.as_str()));
        (news, evictions)
    }

    fn pod_count(&self) -> usize {
        self.known.keys().map(|waiting| waiting.pod_uid.as_str()).collect::<BTreeSet<_>>().len()
    }
}

fn told(refusal: &Refusal, node: &str, wait: Option<Duration>) -> Told {
    let Refusal { container, reason, text, .. } = refusal;
    let end =
        wait.map_or_else(String::new, |wait| format!(" If it lasts, the pod is evicted after {} s.", wait.as_secs()));
    let (namespace, name) = refusal.pod.split_once('/').unwrap_or(("", &refusal.pod));
    Told {
        about: about_pod(namespace, name, &refusal.pod_uid),
        is_warning: true,
        reason: "DevicesRefused",
        action: "Enforce",
        note: format!(
            "Container {container} gets no devices on node {node}: {}: {text}. {}{end}",
            reason.word(),
            reason.advice()
        ),
    }
}

#[cfg(test)]
mod tests;
