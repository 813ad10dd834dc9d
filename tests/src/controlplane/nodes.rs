//! Owns Node objects made by hand: with a status as a kubelet would report it and
//! without the taint that admission gives to new nodes. No kubelet stands behind them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::ControlPlane;

/// Nodes under way at once. More does not help: the API server works on two for every core.
pub(crate) const IN_FLIGHT: usize = 64;

/// One node to be.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// The node's name.
    pub name: String,
    /// Capacity and allocatable alike, in Kubernetes quantities: `cpu`, `memory`, `pods`, `nvidia.com/gpu`.
    pub allocatable: BTreeMap<String, String>,
    /// Labels on top of `kubernetes.io/hostname`, which is always there.
    pub labels: BTreeMap<String, String>,
    /// What the node calls its present boot.
    pub boot_id: String,
}

impl NodeSpec {
    /// A node of the size of a DGX (128 CPUs, 1 TiB, 110 pods) with so many GPUs and the boot id `boot-<name>`.
    pub fn gpus(name: impl Into<String>, gpus: u32) -> Self {
        let name = name.into();
        let mut allocatable: BTreeMap<String, String> =
            [("cpu", "128"), ("memory", "1Ti"), ("pods", "110"), ("ephemeral-storage", "1Ti")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        if gpus > 0 {
            allocatable.insert("nvidia.com/gpu".to_owned(), gpus.to_string());
        }
        Self { boot_id: format!("boot-{name}"), name, allocatable, labels: BTreeMap::new() }
    }

    fn object(&self) -> Node {
        let mut labels = self.labels.clone();
        labels.insert("kubernetes.io/hostname".to_owned(), self.name.clone());
        labels.entry("kubernetes.io/os".to_owned()).or_insert_with(|| "linux".to_owned());
        labels.entry("kubernetes.io/arch".to_owned()).or_insert_with(|| "amd64".to_owned());
        let quantities: BTreeMap<String, Quantity> =
            self.allocatable.iter().map(|(key, value)| (key.clone(), Quantity(value.clone()))).collect();
        Node {
            metadata: ObjectMeta { name: Some(self.name.clone()), labels: Some(labels), ..ObjectMeta::default() },
            status: Some(NodeStatus {
                capacity: Some(quantities.clone()),
                allocatable: Some(quantities),
                conditions: Some(vec![ready()]),
                node_info: Some(NodeSystemInfo {
                    boot_id: self.boot_id.clone(),
                    machine_id: format!("machine-{}", self.name),
                    architecture: "amd64".to_owned(),
                    operating_system: "linux".to_owned(),
                    ..NodeSystemInfo::default()
                }),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }
}

fn ready() -> NodeCondition {
    let now = Time(Timestamp::now());
    NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: Some("KubeletReady".to_owned()),
        message: Some("made by hand".to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

impl ControlPlane {
    /// Makes a Ready node without taints and returns it.
    ///
    /// # Errors
    /// The API server refuses it, for instance because the name is taken.
    pub async fn create_node(&self, spec: &NodeSpec) -> Result<Node> {
        let nodes: Api<Node> = Api::all(self.client());
        let what = || format!("create node {}", spec.name);
        nodes.create(&PostParams::default(), &spec.object()).await.with_context(what)?;
        // Admission adds `not-ready:NoSchedule` to every new node; it is the controller-manager
        // that takes it away in a real cluster, and there is none here.
        let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
        nodes.patch(&spec.name, &PatchParams::default(), &untainted).await.with_context(what)
    }

    /// Makes many Ready nodes, some at a time; stops at the first refusal.
    ///
    /// # Errors
    /// As [`ControlPlane::create_node`].
    pub async fn create_nodes(&self, specs: &[NodeSpec]) -> Result<()> {
        stream::iter(specs.iter().map(|spec| async { self.create_node(spec).await.map(|_| ()) }))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await
    }
}
