//! Nodes: what the kubelet offers, which boot it is in, where the node stands.

use std::collections::BTreeMap;

use berth_core::level::LabelSet;
use berth_core::quantity;
use berth_core::view::Compute;
use berth_index::{Event, Kind, NodeFacts};
use berth_model::{BootId, MiB, NodeName};
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::Sinks;
use super::follow::Sink;

/// Extended resources read of one node. Kubelets offer a handful.
const RESOURCES_MAX: usize = 256;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A Node with only what decisions read: images, addresses and conditions are most of its bytes.
#[derive(Debug, Clone, Default, Deserialize, kube::Resource)]
#[resource(inherit = core_v1::Node)]
pub(super) struct WatchedNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct NodeSpec {
    taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Taint {
    #[serde(default)]
    effect: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    allocatable: Option<BTreeMap<String, Quantity>>,
    node_info: Option<NodeInfo>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct NodeInfo {
    #[serde(default, rename = "bootID")]
    boot_id: String,
}

/// Takes nodes into the index.
#[derive(Debug)]
pub(super) struct Nodes {
    sinks: Sinks,
}

impl Nodes {
    pub(super) fn new(sinks: Sinks) -> Self {
        Self { sinks }
    }
}

impl Sink<WatchedNode> for Nodes {
    const KIND: &'static str = "Node";
    const NEEDS: &'static str = "get, list and watch on nodes";
    type Item = Option<NodeFacts>;

    fn read(&mut self, node: WatchedNode) -> Self::Item {
        facts(node)
    }

    fn replace(&mut self, items: Vec<Self::Item>) -> bool {
        let live = items.into_iter().flatten().map(Event::Node).collect();
        let changes = self.sinks.cluster.index.reset(Kind::Nodes, live);
        self.sinks.growth_listed(&changes);
        true
    }

    fn take(&mut self, item: Self::Item) -> bool {
        if let Some(facts) = item {
            let change = self.sinks.cluster.index.apply(Event::Node(facts));
            self.sinks.growth_seen(&change);
        }
        false
    }

    fn lose(&mut self, item: Self::Item) -> bool {
        if let Some(facts) = item {
            self.sinks.cluster.index.apply(Event::NodeGone(facts.name));
        }
        false
    }
}

/// What the index needs of a node; `None` where its name is none, which the API server does not let happen.
fn facts(node: WatchedNode) -> Option<NodeFacts> {
    let WatchedNode { metadata, spec, status } = node;
    let name = metadata.name.unwrap_or_default();
    let name = NodeName::parse(&name)
        .inspect_err(|error| tracing::error!(node = name, %error, "a node is left out: its name cannot be read"))
        .ok()?;
    let allocatable = status.allocatable.unwrap_or_default();
    let amount = |key: &str, read: fn(&str) -> Result<u64, quantity::QuantityError>| {
        allocatable.get(key).and_then(|q| read(&q.0).ok()).unwrap_or(0)
    };
    let labels = metadata.labels.unwrap_or_default();
    let boot_id = status.node_info.map(|info| info.boot_id).unwrap_or_default();
    Some(NodeFacts {
        name,
        boot_id: BootId::parse(&boot_id).ok(),
        allocatable: Compute {
            cpu_milli: amount("cpu", quantity::parse_milli),
            memory: MiB(amount("memory", quantity::parse_units) >> 20),
        },
        offered: allocatable
            .iter()
            .filter(|(name, _)| is_extended(name))
            .take(RESOURCES_MAX)
            .filter_map(|(name, q)| Some((name.clone(), quantity::parse_units(&q.0).ok()?)))
            .collect(),
        zone: labels.get(ZONE_LABEL).filter(|zone| !zone.is_empty()).cloned(),
        is_avoided: spec.taints.unwrap_or_default().iter().any(|t| t.effect == "PreferNoSchedule"),
        labels: LabelSet::of(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
    })
}

/// Source: k8s.io/kubernetes `pkg/apis/core/helper`, `IsExtendedResourceName`: a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Option<NodeFacts> {
        facts(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_node_is_read_as_the_kubelet_writes_it() {
        let facts = read(serde_json::json!({
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}], "providerID": "x"},
            "status": {
                "allocatable": {"cpu": "63500m", "memory": "1048577Ki", "pods": "110", "hugepages-2Mi": "0",
                    "nvidia.com/gpu": "8", "rdma.example.com/hca": "1k", "x.kubernetes.io/y": "3"},
                "nodeInfo": {"bootID": "b-1", "kubeletVersion": "v1.36.3"},
                "images": [{"names": ["x"]}],
            },
        }))
        .unwrap();
        assert_eq!(facts.name.as_str(), "n1");
        assert_eq!(facts.boot_id.unwrap().as_str(), "b-1");
        assert_eq!((facts.allocatable.cpu_milli, facts.allocatable.memory), (63_500, MiB(1024)));
        let offered: Vec<_> = facts.offered.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(offered, [("nvidia.com/gpu", 8), ("rdma.example.com/hca", 1000)]);
        assert_eq!((facts.zone.as_deref(), facts.is_avoided), (Some("a"), true));
        assert!(facts.labels.has("topology.kubernetes.io/zone", "a") && !facts.labels.has("pool", "a"));
    }

    #[test]
    fn a_node_that_has_just_registered_offers_nothing_and_has_no_boot() {
        let facts = read(serde_json::json!({"metadata": {"name": "n1"}})).unwrap();
        assert_eq!((facts.boot_id, facts.offered.len(), facts.allocatable.cpu_milli), (None, 0, 0));
    }

    #[test]
    fn an_amount_that_cannot_be_read_costs_that_resource_only() {
        let facts = read(serde_json::json!({
            "metadata": {"name": "n1"},
            "status": {"allocatable": {"cpu": "many", "nvidia.com/gpu": "-1", "amd.com/gpu": "4"}},
        }))
        .unwrap();
        assert_eq!((facts.allocatable.cpu_milli, facts.offered), (0, BTreeMap::from([("amd.com/gpu".to_owned(), 4)])));
    }
}
