//! The API side: lists and watches become events of the index, a policy, and pods that wait.
//!
//! Every watcher is a task of the returned set. None ends before the shutdown unless something is broken for good: who owns the
//! set ends the process when one ends early. Nothing here decides where a pod goes.

mod agents;
mod budgets;
mod follow;
mod nodes;
mod order;
mod pods;
mod policy;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use berth_index::Change;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use order::PodOrder;

use crate::admin::Gates;
use crate::cluster::Cluster;
use crate::events::Events;
use crate::requeue::Requeue;
use crate::wire::WatchedPod;
use agents::{AgentPod, Agents};
use budgets::DisruptionBudgets;
use follow::{Source, follow};
use nodes::{Nodes, WatchedNode};
use pods::Pods;
use policy::PolicyDocument;
use reports::{Reports, WatchedReport};

/// Objects per page of a list.
const PAGE_SIZE: u32 = 500;
/// How long one watch call lasts. A watch that is dead without anybody noticing is noticed five seconds after that.
const WATCH_SECONDS: u32 = 60;
/// Pods that have ended are no news: a pod that ends leaves the selection and comes as a deletion.
const LIVE_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Labels of the agent's pods.
const AGENT_LABELS: &str = "app.kubernetes.io/name=berth,app.kubernetes.io/component=agent";

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the agents and the policy.
    pub namespace: String,
    /// Name of the policy's ConfigMap.
    pub policy_name: String,
    /// Only pods with this `schedulerName` wait for us; `None` for all.
    pub scheduler_name: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { namespace: "berth-system".to_owned(), policy_name: "berth-policy".to_owned(), scheduler_name: None }
    }
}

/// What the watchers write to.
#[derive(Debug, Clone)]
pub struct Sinks {
    /// The shared state.
    pub cluster: Arc<Cluster>,
    /// Where growth is told.
    pub requeue: Arc<Requeue>,
    /// Where Events are told.
    pub events: Events,
    /// The order between pod lists and binds.
    pub order: Arc<PodOrder>,
}

/// How far our watch may lie behind kube-scheduler's, in milliseconds. Both read the same streams; seconds are a bad day.
const LAG_MS_MAX: u64 = 5000;

impl Sinks {
    /// Capacity grew by an event that kube-scheduler sees too, maybe before us. A pod that it made us judge in between was
    /// refused by what we knew then, and no event that is still to come would bring it back: then growth is told after all.
    fn growth_seen(&self, change: &Change) {
        if let Some(node) = change.node.as_ref().filter(|_| change.has_grown)
            && self.cluster.has_refused_within(LAG_MS_MAX)
        {
            self.requeue.node_grew(node);
        }
    }

    /// Capacity grew by what a list brought after a gap: kube-scheduler may have seen it any time ago.
    fn growth_listed(&self, changes: &[Change]) {
        let grown = changes.iter().filter(|change| change.has_grown).find_map(|change| change.node.as_ref());
        if let Some(node) = grown {
            self.requeue.node_grew(node);
        }
    }
}

/// A client for watchers: what never answers is noticed. `base` says where the API server is and who we are.
///
/// # Errors
/// [`kube::Error`] when the certificates or credentials cannot be read.
pub fn client(mut base: kube::Config) -> Result<Client, kube::Error> {
    base.connect_timeout = Some(Duration::from_secs(5));
    // Above the life of a watch call, so that a quiet watch is not cut, and every list and watch that stalls is.
    base.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 15));
    base.write_timeout = Some(Duration::from_secs(10));
    base.reset_reader_on_write = true;
    // The watchers have their own backoff, with a cap of half a minute.
    base.default_retry = false;
    Client::try_from(base)
}

/// Starts all watchers. Each opens its gate of `gates` when its first full list has been taken.
///
/// The set's values are the names of tasks that ended: before `shutdown` that is a failure of the process.
#[must_use]
pub fn start(
    client: &Client,
    sinks: &Sinks,
    gates: &Gates,
    settings: &Settings,
    shutdown: &CancellationToken,
) -> JoinSet<&'static str> {
    let mut tasks = JoinSet::new();
    let config = watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_SECONDS);
    let metrics = &sinks.cluster.metrics;

    let api: Api<WatchedNode> = Api::all(client.clone());
    let source = Source { api, config: config.clone(), gate: gates.add("nodes listed"), metrics: Arc::clone(metrics) };
    tasks.spawn(follow(source, Nodes::new(sinks.clone()), shutdown.clone()));

    let api: Api<WatchedReport> = Api::all(client.clone());
    let gate = gates.add("topologies listed");
    let source = Source { api, config: config.clone(), gate, metrics: Arc::clone(metrics) };
    tasks.spawn(follow(source, Reports::new(sinks.clone()), shutdown.clone()));

    let api: Api<WatchedPod> = Api::all(client.clone());
    let live = config.clone().fields(LIVE_PODS);
    let source = Source { api, config: live, gate: gates.add("pods listed"), metrics: Arc::clone(metrics) };
    tasks.spawn(follow(source, Pods::new(sinks.clone(), settings.scheduler_name.clone()), shutdown.clone()));

    let api: Api<AgentPod> = Api::namespaced(client.clone(), &settings.namespace);
    let labelled = config.clone().labels(AGENT_LABELS);
    let source = Source { api, config: labelled, gate: gates.add("agents listed"), metrics: Arc::clone(metrics) };
    tasks.spawn(follow(source, Agents::new(sinks.clone()), shutdown.clone()));

    let api: Api<PodDisruptionBudget> = Api::all(client.clone());
    let gate = gates.add("disruption budgets listed");
    let source = Source { api, config: config.clone(), gate, metrics: Arc::clone(metrics) };
    tasks.spawn(follow(source, DisruptionBudgets::new(sinks.clone()), shutdown.clone()));

    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &settings.namespace);
    let named = config.fields(&format!("metadata.name={}", settings.policy_name));
    let gate = gates.add("policy loaded");
    let document = PolicyDocument::new(sinks.clone(), settings, gate.clone());
    let source = Source { api, config: named, gate, metrics: Arc::clone(metrics) };
    tasks.spawn(follow(source, document, shutdown.clone()));
    tasks
}

/// A watcher that ended before the shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It ended by itself.
    #[error("the watcher of {0} ended")]
    Early(&'static str),
    /// It panicked.
    #[error("a watcher panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Waits for all watchers of [`start`] after `shutdown`, or for the first that ends before.
///
/// # Errors
/// [`Ended`] for the one that ended early; the others end with the set.
pub async fn join(mut tasks: JoinSet<&'static str>, shutdown: CancellationToken) -> Result<(), Ended> {
    while let Some(ended) = tasks.join_next().await {
        let kind = ended.map_err(Ended::Panicked)?;
        if !shutdown.is_cancelled() {
            return Err(Ended::Early(kind));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
