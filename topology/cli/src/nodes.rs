//! `berth nodes`: what every node has, who holds it, and how far that is known.
//!
//! The CLI lists nodes, reports and pods and folds them through the same index as the scheduler, so the two cannot count differently.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use berth_core::policy::{self, Policy};
use berth_index::{Event, Index, Snapshot};
use berth_proto::NodeTopology as Object;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Api;
use kube::api::ListParams;

use crate::api::{ApiError, Cluster, Right};
use crate::args::{ClusterFlags, NodesArgs, NodesOutput};
use crate::render::nodes::{Table, names, table};
use crate::run::Outcome;

mod facts;
mod row;

pub(crate) use row::{HolderRow, Inventory, NodeRow, inventory};

/// Where the policy stands.
const POLICY_NAMESPACE: &str = "berth-system";
const POLICY_NAME: &str = "berth-policy";
const POLICY_KEY: &str = "policy.yaml";

/// What was read of the cluster.
#[derive(Default)]
pub(crate) struct Read {
    /// All that was read, folded.
    pub(crate) index: Index,
    /// The policy that it is read by.
    pub(crate) policy: Policy,
    /// Names of extended resources that mean whole GPUs.
    pub(crate) gpu_resources: BTreeSet<String>,
    /// What the Node objects say beside what decisions need; names of nodes that were listed.
    pub(crate) conditions: BTreeMap<String, Vec<&'static str>>,
    /// Nodes whose report cannot be decoded, with the reason.
    pub(crate) broken_reports: BTreeMap<String, String>,
    /// Nodes whose agent has been away for longer than policy allows.
    pub(crate) absent_agents: BTreeSet<String>,
    /// Whether pods could be listed: without them nothing is known of holders.
    pub(crate) has_pods: bool,
    /// What could not be read, for people.
    pub(crate) notes: Vec<String>,
}

/// Lists, folds, renders.
pub(crate) async fn run(args: &NodesArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(flags).await?;
    let read = read(&cluster, args.selector.as_deref()).await?;
    let wanted = |row: &NodeRow| {
        let is_named = args.names.is_empty() || args.names.contains(&row.name);
        is_named && (args.selector.is_none() || read.conditions.contains_key(&row.name))
    };
    let inventory = inventory(&read, wanted);
    if let Some(absent) = args.names.iter().find(|name| !inventory.items.iter().any(|row| row.name == **name)) {
        bail!("no node {absent:?} in the cluster");
    }
    let form = Table { is_wide: args.output == NodesOutput::Wide, has_headers: !args.no_headers };
    let text = match args.output {
        NodesOutput::Table | NodesOutput::Wide => table(&inventory, form),
        NodesOutput::Name => names(&inventory),
        NodesOutput::Json => serde_json::to_string_pretty(&inventory).context("cannot write JSON")? + "\n",
        NodesOutput::Yaml => serde_saphyr::to_string(&inventory).context("cannot write YAML")?,
    };
    Ok(Outcome::Noted { text, notes: read.notes, is_finding: false })
}

/// Reads all that the fold needs; what cannot be read is noted.
pub(crate) async fn read(cluster: &Cluster, selector: Option<&str>) -> anyhow::Result<Read> {
    let mut read = Read::default();
    let policy = policy_of(cluster, &mut read.notes).await;
    read.gpu_resources = policy.gpu_resources().map(str::to_owned).collect();
    read.index.apply(Event::Resources(policy.resources().clone()));
    let stale_after_seconds = policy.stale_after_seconds();
    read.policy = policy;

    let nodes = nodes_of(cluster, selector, &mut read).await;
    let reports = reports_of(cluster, &mut read).await;
    let (nodes, reports) = match (nodes, reports) {
        (Err(nodes), Err(reports)) => bail!("nothing to show: {nodes}; {reports}"),
        read => read,
    };
    let pods = pods_of(cluster, stale_after_seconds, &mut read).await;
    read.has_pods = pods.is_ok();
    for error in [nodes.err(), reports.err(), pods.err()].into_iter().flatten() {
        read.notes.push(error.to_string());
    }
    for (node, problem) in &read.broken_reports {
        read.notes.push(format!("the report of node {node} cannot be used: {problem}"));
    }
    Ok(read)
}

/// The policy in force, as far as it can be read: it names the resources that mean GPUs.
async fn policy_of(cluster: &Cluster, notes: &mut Vec<String>) -> Policy {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), POLICY_NAMESPACE);
    let found = cluster.get(&api, POLICY_NAME, &Right::within("get", "configmaps", POLICY_NAMESPACE)).await;
    let problem = match found {
        Ok(map) => match policy::parse(map.data.unwrap_or_default().get(POLICY_KEY).map_or("", String::as_str)) {
            Ok(policy) => return policy,
            Err(error) => format!("ConfigMap {POLICY_NAMESPACE}/{POLICY_NAME}, key {POLICY_KEY}: {error}"),
        },
        // No ConfigMap is no fault: the scheduler goes by the default then, too.
        Err(ApiError::Missing(_)) => return Policy::default(),
        Err(error) => error.to_string(),
    };
    notes.push(format!("counted by the default policy, because the cluster's cannot be used: {problem}"));
    Policy::default()
}

async fn nodes_of(cluster: &Cluster, selector: Option<&str>, read: &mut Read) -> Result<(), ApiError> {
    let api: Api<Node> = Api::all(cluster.client());
    let params = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
    let take = |node: Node| {
        if let Some(facts) = facts::node_facts(&node) {
            read.conditions.insert(facts.name.to_string(), facts::conditions(&node));
            read.index.apply(Event::Node(facts));
        }
    };
    cluster.list(&api, params, &Right::everywhere("list", "nodes"), take).await
}

async fn reports_of(cluster: &Cluster, read: &mut Read) -> Result<(), ApiError> {
    let api: Api<Object> = Api::all(cluster.client());
    let right = Right::everywhere("list", "nodetopologies.topology.berth.dev");
    let take = |object: Object| match object.topology() {
        Ok(Some(topology)) => {
            read.index.apply(Event::Report(Box::new(topology)));
        }
        Ok(None) => {}
        Err(error) => {
            read.broken_reports.insert(object.metadata.name.unwrap_or_default(), error.to_string());
        }
    };
    cluster.list(&api, ListParams::default(), &right, take).await
}

/// Pods of all namespaces: those on nodes hold GPUs, and the agents among them say how fresh the reports are.
async fn pods_of(cluster: &Cluster, stale_after_seconds: u64, read: &mut Read) -> Result<(), ApiError> {
    let api: Api<Pod> = Api::all(cluster.client());
    // The server drops ended pods, which hold nothing.
    let live = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let now = jiff::Timestamp::now();
    let take = |pod: Pod| {
        if let Some(node) = facts::node_of_absent_agent(&pod, now, stale_after_seconds) {
            read.absent_agents.insert(node.to_string());
            read.index.apply(Event::Agent { node, is_there: false });
        }
        if let Some(facts) = facts::pod_facts(&pod) {
            read.index.apply(Event::Pod(Box::new(facts)));
        }
    };
    cluster.list(&api, live, &Right::everywhere("list", "pods"), take).await
}

impl Read {
    /// The folded cluster.
    pub(crate) fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.index.snapshot()
    }
}
