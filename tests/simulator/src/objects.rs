//! The objects of the made-up cluster as values, and the JSON that the API server shows of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde_json::json;

use crate::api::Life;
use crate::fleet;

/// What a pod asks for.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Per container: resource and amount.
    pub(crate) containers: &'static [&'static [(&'static str, u32)]],
    /// Wishes.
    pub(crate) wishes: &'static [(&'static str, &'static str)],
}

const GPU: &str = "nvidia.com/gpu";
const CORES: &str = "nvidia.com/gpucores";
const MEMORY: &str = "nvidia.com/gpumem";

/// The pods that people make, by number.
pub(crate) const SHAPES: [Shape; 12] = [
    Shape { containers: &[&[(GPU, 1)]], wishes: &[] },
    Shape { containers: &[&[(GPU, 2)]], wishes: &[] },
    Shape { containers: &[&[(GPU, 4)]], wishes: &[] },
    Shape { containers: &[&[(GPU, 8)]], wishes: &[] },
    Shape { containers: &[&[(GPU, 1), (CORES, 30), (MEMORY, 8192)]], wishes: &[] },
    Shape { containers: &[&[(GPU, 1), (CORES, 60)]], wishes: &[] },
    Shape { containers: &[&[("nvidia.com/mig-1g.5gb", 1)]], wishes: &[] },
    Shape { containers: &[&[("nvidia.com/mig-3g.20gb", 1)]], wishes: &[] },
    Shape { containers: &[&[(GPU, 2)]], wishes: &[("berth.dev/link", "nvlink:required")] },
    Shape { containers: &[&[(GPU, 1)], &[(GPU, 1)]], wishes: &[] },
    Shape { containers: &[&[("nvidia.com/mig-1g.5gb", 3)]], wishes: &[] },
    Shape { containers: &[&[("cpu", 1)]], wishes: &[] },
];

impl Shape {
    /// The sum of a resource over its containers.
    pub(crate) fn total(&self, resource: &str) -> u32 {
        self.containers.iter().flat_map(|c| c.iter()).filter(|(name, _)| *name == resource).map(|(_, n)| n).sum()
    }

    pub(crate) fn gpu_count(&self) -> u32 {
        self.total(GPU)
    }

    /// Whether it asks for parts of GPUs.
    pub(crate) fn is_share(&self) -> bool {
        self.total(CORES) + self.total(MEMORY) > 0
    }

    /// The MIG profile that it asks for, and how many.
    pub(crate) fn mig(&self) -> Option<(&'static str, u32)> {
        let mut all = self.containers.iter().flat_map(|c| c.iter());
        all.find_map(|(name, count)| Some((name.strip_prefix("nvidia.com/mig-")?, *count)))
    }

    pub(crate) fn asks_for_devices(&self) -> bool {
        self.gpu_count() > 0 || self.mig().is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// A pod, as the API server has it.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) shape: usize,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) plan: Option<Arc<str>>,
    pub(crate) phase: Phase,
    pub(crate) is_leaving: bool,
    /// Whether somebody else put it on its node.
    pub(crate) is_foreign: bool,
    /// Which process bound it, and when that was sent.
    pub(crate) bound: Option<(Life, u64)>,
}

impl Pod {
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Pending | Phase::Running)
    }

    pub(crate) fn shape(&self) -> &'static Shape {
        &SHAPES[self.shape]
    }

    pub(crate) fn json(&self, version: u64) -> String {
        let mut text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"namespace":"ns","name":"{}","uid":"{}","resourceVersion":"{version}""#,
            self.name, self.uid
        );
        if self.is_leaving {
            text.push_str(r#","deletionTimestamp":"2026-01-01T00:00:00Z""#);
        }
        let mut notes: BTreeMap<&str, &str> = self.shape().wishes.iter().copied().collect();
        if let Some(plan) = &self.plan {
            notes.insert(berth_core::annotation::PLAN_KEY, plan);
        }
        if !notes.is_empty() {
            write!(text, r#","annotations":{}"#, json!(notes)).unwrap();
        }
        text.push_str(r#"},"spec":{"schedulerName":"berth","containers":["#);
        for (i, container) in self.shape().containers.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(text, r#"{comma}{{"name":"c{i}","resources":{{"limits":{{"#).unwrap();
            for (j, (name, amount)) in container.iter().enumerate() {
                let comma = if j > 0 { "," } else { "" };
                write!(text, r#"{comma}"{name}":"{amount}""#).unwrap();
            }
            text.push_str("}}}");
        }
        text.push(']');
        if let Some(node) = &self.node {
            write!(text, r#","nodeName":"{node}""#).unwrap();
        }
        let started = if self.phase == Phase::Running { r#","startTime":"2026-01-01T00:00:00Z""# } else { "" };
        write!(text, r#"}},"status":{{"phase":"{:?}"{started}}}}}"#, self.phase).unwrap();
        text
    }
}

/// A node, as the API server has it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) uid: Arc<str>,
    pub(crate) boot: u32,
    pub(crate) touches: u32,
}

impl Node {
    pub(crate) fn json(&self, at: usize, version: u64) -> String {
        let name = fleet::NAMES[at];
        let mut offered: BTreeMap<String, String> =
            fleet::offered(at).into_iter().map(|(name, count)| (name, count.to_string())).collect();
        offered.insert("cpu".to_owned(), "256".to_owned());
        offered.insert("memory".to_owned(), "2Ti".to_owned());
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "uid": *self.uid, "resourceVersion": version.to_string(),
                "annotations": {"berth.dev/requeue": self.touches.to_string()}},
            "status": {"allocatable": offered, "nodeInfo": {"bootID": fleet::boot_id(at, self.boot)}},
        })
        .to_string()
    }
}

/// A NodeTopology, as the API server has it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) uid: Arc<str>,
    pub(crate) content: fleet::Content,
}

impl Report {
    pub(crate) fn json(&self, at: usize, version: u64) -> String {
        let name = fleet::NAMES[at];
        let uid = &self.uid;
        let status = fleet::status(at, self.content);
        format!(
            r#"{{"apiVersion":"topology.berth.dev/v1alpha1","kind":"NodeTopology","metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{version}"}},"status":{status}}}"#
        )
    }
}

/// The pod of a node's agent.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) uid: Arc<str>,
    pub(crate) is_ready: bool,
}

impl Agent {
    pub(crate) fn json(&self, at: usize, version: u64) -> String {
        let (node, uid, ready) = (fleet::NAMES[at], &self.uid, if self.is_ready { "True" } else { "False" });
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"namespace":"berth-system","name":"agent-{node}","uid":"{uid}","resourceVersion":"{version}"}},"spec":{{"nodeName":"{node}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
        )
    }
}

/// The documents that people put into the policy, by number: two good ones and two that are none.
pub(crate) const POLICIES: [&str; 4] = [
    "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n",
    "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\ntopology: {missing: reject, stale: reject, staleAfterSeconds: 20}\nclasses: {default: {placement: spread}}\n",
    "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\nweight: 3\n",
    "{",
];

/// The policy's ConfigMap.
pub(crate) fn policy_json(document: usize, version: u64) -> String {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "berth-system", "name": "berth-policy", "uid": "policy", "resourceVersion": version.to_string()},
        "data": {"policy.yaml": POLICIES[document]},
    })
    .to_string()
}
