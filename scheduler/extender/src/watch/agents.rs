//! The agents' pods: whether what a node's report says is still looked after.
//!
//! A report does not age by itself. It is stale when its agent has not been Ready for as long as policy says, by our own clock.
//! A node with a report whose agent was never seen is treated as one whose agent left when we first looked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_core::Knowledge;
use berth_index::Event;
use berth_model::NodeName;
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use tokio::time::Instant;

use super::Sinks;
use super::follow::Sink;

/// How often agents that are away are looked at; stale comes at most this much late.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Nodes named in one log line: after a bad rollout there are thousands.
const NAMES_LOGGED_MAX: usize = 10;

/// A pod with only what says whether an agent runs.
#[derive(Debug, Clone, Default, Deserialize, kube::Resource)]
#[resource(inherit = core_v1::Pod)]
pub(super) struct AgentPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: AgentSpec,
    #[serde(default)]
    status: AgentStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentSpec {
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct AgentStatus {
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Condition {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
}

/// What is kept of an agent's pod.
pub(super) struct Seen {
    uid: String,
    node: NodeName,
    is_ready: bool,
}

/// The agent of one node.
#[derive(Debug, Default)]
struct Agent {
    /// Its pods that are Ready: two for a moment when it is replaced.
    ready: BTreeSet<String>,
    /// Since when there is none.
    away_since: Option<Instant>,
    /// Whether the index was told that it is away.
    is_told_away: bool,
}

/// Watches over the agents.
#[derive(Debug)]
pub(super) struct Agents {
    sinks: Sinks,
    by_node: BTreeMap<NodeName, Agent>,
    checks_at: Option<Instant>,
}

impl Agents {
    pub(super) fn new(sinks: Sinks) -> Self {
        Self { sinks, by_node: BTreeMap::new(), checks_at: None }
    }

    fn note(&mut self, seen: Seen) {
        let agent = self.by_node.entry(seen.node.clone()).or_default();
        if seen.is_ready {
            agent.ready.insert(seen.uid);
        } else {
            agent.ready.remove(&seen.uid);
        }
        self.settle(&seen.node);
    }

    /// Starts or stops the clock of a node after its pods changed. Back is told at once.
    fn settle(&mut self, node: &NodeName) {
        let Some(agent) = self.by_node.get_mut(node) else { return };
        if agent.ready.is_empty() {
            agent.away_since.get_or_insert_with(Instant::now);
            return;
        }
        agent.away_since = None;
        if std::mem::take(&mut agent.is_told_away) {
            tracing::info!(%node, "the agent is back");
            self.tell(node, true);
        }
    }

    fn tell(&self, node: &NodeName, is_there: bool) {
        let change = self.sinks.cluster.index.apply(Event::Agent { node: node.clone(), is_there });
        if change.has_grown {
            self.sinks.requeue.node_grew(node);
        }
    }

    /// Compares every agent with what the index was told, and tells what differs.
    fn check(&mut self) {
        let now = Instant::now();
        let snapshot = self.sinks.cluster.index.snapshot();
        let mut reported = BTreeSet::new();
        let mut forgotten = BTreeSet::new();
        for slot in snapshot.nodes().filter(|slot| slot.view.hardware.is_some()) {
            let name = &slot.view.name;
            reported.insert(name);
            if !self.by_node.contains_key(name) {
                let agent = Agent { away_since: Some(now), ..Agent::default() };
                self.by_node.insert(name.clone(), agent);
            }
            // The index forgets what it was told of a node when the node has nothing for a while.
            if slot.view.knowledge == Knowledge::Current {
                forgotten.insert(name);
            }
        }
        // Who is told away is remembered for as long as the index remembers it, or nobody would tell that he is back.
        let is_still_away =
            |name: &NodeName, agent: &Agent| agent.is_told_away && snapshot.node(name.as_str()).is_some();
        self.by_node
            .retain(|name, agent| reported.contains(name) || !agent.ready.is_empty() || is_still_away(name, agent));
        let patience = Duration::from_secs(self.sinks.cluster.policy().stale_after_seconds());
        let mut news = Vec::new();
        for (node, agent) in &mut self.by_node {
            let is_away = agent.away_since.is_some_and(|since| now.duration_since(since) >= patience);
            if is_away != agent.is_told_away || (is_away && forgotten.contains(node)) {
                agent.is_told_away = is_away;
                news.push((node.clone(), !is_away));
            }
        }
        let away: Vec<&str> = news.iter().filter(|(_, is_there)| !is_there).map(|(node, _)| node.as_str()).collect();
        if !away.is_empty() {
            let nodes = away.iter().take(NAMES_LOGGED_MAX).copied().collect::<Vec<_>>().join(", ");
            let text = "agents have been away too long: the reports of their nodes are stale";
            tracing::warn!(count = away.len(), nodes, "{text}");
        }
        for (node, is_there) in news {
            self.tell(&node, is_there);
        }
    }
}

impl Sink<AgentPod> for Agents {
    const KIND: &'static str = "Agent";
    const NEEDS: &'static str = "get, list and watch on pods";
    type Item = Option<Seen>;

    fn read(&mut self, pod: AgentPod) -> Self::Item {
        let is_leaving = pod.metadata.deletion_timestamp.is_some();
        let mut conditions = pod.status.conditions.iter().flatten();
        Some(Seen {
            uid: pod.metadata.uid.unwrap_or_default(),
            // A pod that is not bound yet is nobody's agent.
            node: NodeName::parse(&pod.spec.node_name).ok()?,
            is_ready: !is_leaving && conditions.any(|c| c.kind == "Ready" && c.status == "True"),
        })
    }

    fn replace(&mut self, items: Vec<Self::Item>) -> bool {
        for agent in self.by_node.values_mut() {
            agent.ready.clear();
        }
        let mut nodes: BTreeSet<NodeName> = self.by_node.keys().cloned().collect();
        for seen in items.into_iter().flatten() {
            nodes.insert(seen.node.clone());
            let agent = self.by_node.entry(seen.node).or_default();
            if seen.is_ready {
                agent.ready.insert(seen.uid);
            }
        }
        for node in nodes {
            self.settle(&node);
        }
        self.checks_at.get_or_insert_with(Instant::now);
        true
    }

    fn take(&mut self, item: Self::Item) -> bool {
        if let Some(seen) = item {
            self.note(seen);
        }
        false
    }

    fn lose(&mut self, item: Self::Item) -> bool {
        if let Some(seen) = item {
            self.note(Seen { is_ready: false, ..seen });
        }
        false
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.checks_at
    }

    fn wake(&mut self) {
        self.check();
        self.checks_at = Some(Instant::now() + CHECK_INTERVAL);
    }
}
