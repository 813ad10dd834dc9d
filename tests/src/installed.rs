//! Owns a control plane with one of the manifests' overlays applied as a user applies it, two nodes, the clients of everybody whom
//! the manifests name, the reports of both nodes, and guards that already bite.

mod shared;

use std::path::{Path, PathBuf};

use anyhow::Result;
use kube::Client;
use serde_json::{Value, json};

use crate::controlplane::{AGENT_ACCOUNT, ControlPlane, NAMESPACE, NodeSpec, Options, SCHEDULER_ACCOUNT};
use crate::rest::Call;

pub use shared::{on_agent_only, on_sidecar};

/// Path of the API group of reports.
pub const REPORTS: &str = "/apis/topology.berth.dev/v1alpha1/nodetopologies";

/// Path of the pods that tests make.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// Path of all nodes.
pub const NODES: &str = "/api/v1/nodes";

/// The annotation that the guards are about.
pub const PLAN: &str = "topology.berth.dev/plan";

/// The folder of an overlay: `sidecar`, `score` or `agent-only`.
pub fn overlay(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/overlays").join(name)
}

/// A control plane with an overlay on it, nodes `na` (in zone `z1`) and `nb`, and one client per identity.
pub struct Installed {
    /// The control plane.
    pub plane: ControlPlane,
    /// An administrator who means no good: every right there is, so that only a guard can refuse.
    pub mallory: Client,
    /// The agent of node `na`, with a token bound to its pod.
    pub agent_a: Client,
    /// The agent of node `nb`.
    pub agent_b: Client,
    /// The agents' account with a token that is bound to no pod.
    pub agent_nowhere: Client,
    /// The account that kube-scheduler and berth-scheduler share; the agents' again where the overlay has no scheduler.
    pub scheduler: Client,
}

impl std::fmt::Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installed").field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl Installed {
    /// Starts a control plane, applies the overlay, and waits until its guards bite.
    ///
    /// # Errors
    /// The API server refuses something of it, or a guard does not bite.
    pub async fn start(name: &str) -> Result<Self> {
        let plane = ControlPlane::start(Options::default()).await?;
        plane.apply_kustomize(&overlay(name)).await?;
        let mut node_a = NodeSpec::gpus("na", 8);
        node_a.labels.insert("topology.kubernetes.io/zone".to_owned(), "z1".to_owned());
        plane.create_nodes(&[node_a, NodeSpec::gpus("nb", 8)]).await?;
        let account = if name == "agent-only" { AGENT_ACCOUNT } else { SCHEDULER_ACCOUNT };
        let installed = Self {
            mallory: plane.client_as("mallory", &["system:masters"])?,
            agent_a: Self::agent(&plane, "na").await?,
            agent_b: Self::agent(&plane, "nb").await?,
            agent_nowhere: Self::account(&plane, AGENT_ACCOUNT, None).await?,
            scheduler: Self::account(&plane, account, None).await?,
            plane,
        };
        // Each agent makes its own object: that it may is part of what is installed.
        Call::create(REPORTS, report("na")).done(&installed.agent_a).await?;
        Call::create(REPORTS, report("nb")).done(&installed.agent_b).await?;
        installed.guards_bite(name).await?;
        Ok(installed)
    }

    async fn agent(plane: &ControlPlane, node: &str) -> Result<Client> {
        plane.agent_identity(node).await?;
        Self::account(plane, AGENT_ACCOUNT, Some(&format!("{AGENT_ACCOUNT}-{node}"))).await
    }

    async fn account(plane: &ControlPlane, name: &str, pod: Option<&str>) -> Result<Client> {
        plane.client_for(&plane.service_account_token(NAMESPACE, name, pod).await?)
    }

    async fn guards_bite(&self, name: &str) -> Result<()> {
        let report = Call::create(REPORTS, report("probe"));
        report.until_refused_by_policy(&self.agent_a, "berth-agent-own-node").await?;
        if name == "agent-only" {
            return Ok(());
        }
        let forged = Call::create(PODS, pod("probe", json!({"annotations": {PLAN: "forged"}})));
        forged.until_refused_by_policy(&self.mallory, "berth-plan").await?;
        let binding =
            Call::create("/api/v1/namespaces/default/bindings", binding("probe", json!({"annotations": {"a": "b"}})));
        binding.until_refused_by_policy(&self.scheduler, "berth-scheduler-binding").await?;
        if name == "sidecar" {
            let label = Call::merge(format!("{NODES}/na"), json!({"metadata": {"labels": {"a": "b"}}}));
            label.until_refused_by_policy(&self.scheduler, "berth-scheduler-node").await?;
        }
        Ok(())
    }

    /// Makes a pod that no scheduler looks at and returns its path.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn pod(&self, name: &str) -> Result<String> {
        Call::create(PODS, pod(name, json!({}))).done(&self.plane.client()).await?;
        Ok(format!("{PODS}/{name}"))
    }

    /// Makes a pod that the scheduler's account has bound to `na` with a plan, and returns its path.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn planned_pod(&self, name: &str, plan: &str) -> Result<String> {
        let path = self.pod(name).await?;
        let planned = binding(name, json!({"annotations": {PLAN: plan}}));
        Call::create(format!("{path}/binding"), planned).done(&self.scheduler).await?;
        Ok(path)
    }

    /// Reads an object as administrator.
    ///
    /// # Errors
    /// It is not there.
    pub async fn read(&self, path: &str) -> Result<Value> {
        Call::get(path).done(&self.plane.client()).await
    }
}

/// A pod with so much metadata more than its name.
pub fn pod(name: &str, metadata: Value) -> Value {
    object(
        "v1",
        "Pod",
        name,
        metadata,
        json!({"spec": {
            "schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}],
        }}),
    )
}

/// A Binding to node `na` with so much metadata more than its name.
pub fn binding(pod: &str, metadata: Value) -> Value {
    object("v1", "Binding", pod, metadata, json!({"target": {"kind": "Node", "name": "na"}}))
}

/// A report that says next to nothing.
pub fn report(node: &str) -> Value {
    let status = json!({"status": {"generation": 1, "gpuCount": 0}});
    object("topology.berth.dev/v1alpha1", "NodeTopology", node, json!({}), status)
}

fn object(version: &str, kind: &str, name: &str, mut metadata: Value, mut rest: Value) -> Value {
    metadata["name"] = json!(name);
    rest["apiVersion"] = json!(version);
    rest["kind"] = json!(kind);
    rest["metadata"] = metadata;
    rest
}
