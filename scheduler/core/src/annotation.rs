//! The plan as it stands on a bound pod: `topology.berth.dev/plan`, one line of JSON that a human can read.

use berth_model::{GpuUuid, NodeName};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Key of the annotation.
pub const PLAN_KEY: &str = "topology.berth.dev/plan";
/// Version of the form.
pub const VERSION: u32 = 1;
/// Largest plan taken or written: it must stay readable, and etcd keeps it for every pod.
pub const PLAN_BYTES_MAX: usize = 4096;

/// What a plan promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The stock device plugin decides.
    Advice,
    /// The kubelet was asked for these devices.
    Preferred,
    /// The container gets these devices or does not start.
    Enforced,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Identity.
    pub uuid: String,
}

/// What one container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Container name.
    pub name: String,
    /// Extended resource asked for.
    pub resource: String,
    /// Its devices; empty where devices are not known.
    pub devices: Vec<Device>,
}

/// The annotation's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Version of the form.
    pub v: u32,
    /// The pod that the plan is for; void on any other.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// The node that the plan is for; void on any other.
    pub node: String,
    /// What it promises.
    pub level: Level,
    /// Which container gets what.
    pub containers: Vec<Container>,
    /// NICs under the switches of the GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<String>,
    /// The one zone of all GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Report that it was made from.
    #[serde(default)]
    pub topology_generation: u64,
    /// The node's score in parts per million.
    #[serde(default)]
    pub score: u32,
    /// Why, in one sentence.
    #[serde(default)]
    pub why: String,
}

/// Why a text is no plan for this pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the JSON of a plan.
    #[error("{PLAN_KEY}: {0}")]
    Malformed(String),
    /// Longer than a plan may be.
    #[error("{PLAN_KEY}: {0} bytes, at most {PLAN_BYTES_MAX} are a plan")]
    TooLong(usize),
    /// Another version.
    #[error("{PLAN_KEY}: version {0}, {VERSION} is right")]
    Version(u32),
    /// A plan for another pod.
    #[error("{PLAN_KEY}: podUID {0} is another pod's")]
    OtherPod(String),
    /// A plan for another node.
    #[error("{PLAN_KEY}: node {0} is another node")]
    OtherNode(String),
    /// A device that is no UUID, or one that stands in two containers that run side by side.
    #[error("{PLAN_KEY}: {0}")]
    Device(String),
}

impl Note {
    /// The note of a plan for a pod.
    #[must_use]
    pub fn of(plan: &Plan, pod_uid: &str, level: Level) -> Self {
        let containers = plan.containers.iter().map(|c| Container {
            name: c.name.clone(),
            resource: c.resource.clone(),
            devices: c.gpus.iter().map(|g| Device { uuid: g.uuid.to_string() }).collect(),
        });
        Self {
            v: VERSION,
            pod_uid: pod_uid.to_owned(),
            node: plan.node.to_string(),
            level,
            containers: containers.collect(),
            nics: plan.nics.iter().map(ToString::to_string).collect(),
            zone: plan.zone.map(|z| z.0),
            topology_generation: plan.generation.0,
            score: plan.score.value.0,
            why: why(plan),
        }
    }

    /// One line of JSON.
    ///
    /// # Errors
    /// [`NoteError::TooLong`] when it would not fit into [`PLAN_BYTES_MAX`].
    pub fn to_json(&self) -> Result<String, NoteError> {
        let text = serde_json::to_string(self).map_err(|e| NoteError::Malformed(e.to_string()))?;
        if text.len() > PLAN_BYTES_MAX { Err(NoteError::TooLong(text.len())) } else { Ok(text) }
    }

    /// Reads the annotation of the pod `pod_uid` bound to `node`.
    ///
    /// # Errors
    /// [`NoteError`]: a plan of another pod or node is void.
    pub fn parse(text: &str, pod_uid: &str, node: &NodeName) -> Result<Self, NoteError> {
        if text.len() > PLAN_BYTES_MAX {
            return Err(NoteError::TooLong(text.len()));
        }
        let note: Self = serde_json::from_str(text).map_err(|e| NoteError::Malformed(e.to_string()))?;
        if note.v != VERSION {
            return Err(NoteError::Version(note.v));
        }
        if note.pod_uid != pod_uid {
            return Err(NoteError::OtherPod(note.pod_uid));
        }
        if note.node != node.as_str() {
            return Err(NoteError::OtherNode(note.node));
        }
        note.devices()?;
        Ok(note)
    }

    /// All devices of the plan, each once, in order.
    ///
    /// # Errors
    /// [`NoteError::Device`] for a text that is no UUID.
    pub fn devices(&self) -> Result<Vec<GpuUuid>, NoteError> {
        let mut uuids = Vec::new();
        for device in self.containers.iter().flat_map(|c| &c.devices) {
            uuids.push(GpuUuid::parse(&device.uuid).map_err(|e| NoteError::Device(e.to_string()))?);
        }
        uuids.sort_unstable();
        uuids.dedup();
        Ok(uuids)
    }
}

fn why(plan: &Plan) -> String {
    let mut words = Vec::new();
    match (plan.set, plan.weakest) {
        (None, _) => words.push("no topology report: placed by count, devices not known".to_owned()),
        (Some(set), None) => words.push(format!("GPU {set}")),
        (Some(set), Some(weakest)) => words.push(format!("GPUs {set} joined by {weakest} or nearer")),
    }
    if plan.set.is_some_and(|s| s.gpu_count() > 1) {
        words.push(plan.zone.map_or_else(|| "several zones".to_owned(), |z| format!("zone {z}")));
    }
    for part in plan.parts.iter().filter(|p| p.weight > 0) {
        words.push(format!("{} {} x{}", part.name, part.value, part.weight));
    }
    if plan.is_imprecise {
        words.push("node imprecise: pods without a plan hold GPUs here".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note {
            v: 1,
            pod_uid: "u1".to_owned(),
            node: "n1".to_owned(),
            level: Level::Advice,
            containers: vec![Container {
                name: "main".to_owned(),
                resource: "nvidia.com/gpu".to_owned(),
                devices: vec![Device { uuid: "GPU-a".to_owned() }, Device { uuid: "GPU-b".to_owned() }],
            }],
            nics: vec!["mlx5_0".to_owned()],
            zone: Some(0),
            topology_generation: 7,
            score: 734_567,
            why: "GPUs 0,1".to_owned(),
        }
    }

    fn node() -> NodeName {
        NodeName::parse("n1").unwrap()
    }

    #[test]
    fn the_form_is_pinned() {
        let json = note().to_json().unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"podUID":"u1","node":"n1","level":"advice","containers":[{"name":"main","resource":"nvidia.com/gpu","devices":[{"uuid":"GPU-a"},{"uuid":"GPU-b"}]}],"nics":["mlx5_0"],"zone":0,"topologyGeneration":7,"score":734567,"why":"GPUs 0,1"}"#
        );
        assert_eq!(Note::parse(&json, "u1", &node()).unwrap(), note());
    }

    #[test]
    fn a_plan_of_another_pod_or_node_or_version_is_void() {
        let json = note().to_json().unwrap();
        assert!(matches!(Note::parse(&json, "u2", &node()), Err(NoteError::OtherPod(_))));
        let other = NodeName::parse("n2").unwrap();
        assert!(matches!(Note::parse(&json, "u1", &other), Err(NoteError::OtherNode(_))));
        let later = json.replace("\"v\":1", "\"v\":2");
        assert!(matches!(Note::parse(&later, "u1", &node()), Err(NoteError::Version(2))));
    }

    #[test]
    fn garbage_is_refused() {
        let long = format!("\"{}\"", "x".repeat(PLAN_BYTES_MAX));
        for bad in ["", "{}", "[]", "null", &long] {
            assert!(Note::parse(bad, "u1", &node()).is_err(), "{bad:.20} was taken");
        }
        let mut blank = note();
        blank.containers[0].devices[0].uuid = "a b".to_owned();
        assert!(matches!(Note::parse(&blank.to_json().unwrap(), "u1", &node()), Err(NoteError::Device(_))));
    }

    #[test]
    fn thirty_two_gpus_fit_into_four_kilobytes() {
        let mut big = note();
        big.containers[0].devices =
            (0..32).map(|i| Device { uuid: format!("GPU-{i:08x}-0000-0000-0000-000000000000") }).collect();
        big.why = "x".repeat(200);
        assert!(big.to_json().unwrap().len() <= PLAN_BYTES_MAX);
    }
}
