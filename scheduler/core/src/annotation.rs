//! The plan as it stands on a bound pod: `topology.berth.dev/plan`, one line of JSON that a human can read.

mod held;
#[cfg(test)]
mod tests;

pub use berth_model::Level;
use berth_model::{GpuUuid, NicName, NodeName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::device::{Extent, HeldDevice, Holding};
use crate::plan::{Plan, PlannedDevice};

/// Key of the annotation.
pub const PLAN_KEY: &str = "topology.berth.dev/plan";
/// Version of the form.
pub const VERSION: u32 = 1;
/// Largest plan taken or written: it must stay readable, and etcd keeps it for every pod.
pub const PLAN_BYTES_MAX: usize = 4096;

/// A MIG instance of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mig {
    /// Identity of its device, by which the kubelet knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Name of its profile.
    pub profile: String,
    /// First memory slot.
    pub start: u8,
    /// Memory slots.
    pub size: u8,
}

/// A share of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Percent of its compute; absent where no claim is made on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// MiB of its memory; absent where no claim is made on it.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// One device: a whole GPU, or an instance or a share of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Identity of the GPU.
    pub uuid: String,
    /// The MIG instance, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<Mig>,
    /// The share, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

impl Device {
    /// A whole GPU.
    #[must_use]
    pub fn whole(uuid: &str) -> Self {
        Self { uuid: uuid.to_owned(), mig: None, share: None }
    }

    fn of(planned: &PlannedDevice) -> Self {
        let whole = Self::whole(planned.uuid.as_str());
        match &planned.extent {
            Extent::Whole => whole,
            Extent::Share(portion) => {
                let cores = Some(portion.cores_percent).filter(|cores| *cores > 0);
                let memory_mib = Some(portion.memory.0).filter(|memory| *memory > 0);
                Self { share: Some(Share { cores, memory_mib }), ..whole }
            }
            Extent::Mig(slot) => {
                let (uuid, profile) = (planned.instance.clone(), slot.profile.clone());
                let mig = Mig { uuid, profile, start: slot.start, size: slot.size };
                Self { mig: Some(mig), ..whole }
            }
        }
    }
}

/// What one container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Container name.
    pub name: String,
    /// Extended resource asked for.
    pub resource: String,
    /// Whether it is a plain init container: the others get its devices afterwards, so they do not add up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
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
    /// What it promises, by its word.
    #[serde(serialize_with = "write_level", deserialize_with = "read_level")]
    pub level: Level,
    /// Which container gets what.
    pub containers: Vec<Container>,
    /// NICs under the switches of the GPUs, held like them.
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

fn write_level<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.word())
}

fn read_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
    let word = String::deserialize(deserializer)?;
    let right = || Level::ALL.map(Level::word).join(", ");
    Level::parse(&word).ok_or_else(|| D::Error::custom(format!("level {word:?}, one of {} is right", right())))
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
    /// A device that is none: no UUID, an amount that no GPU has, or a GPU that stands there as a whole and in parts.
    #[error("{PLAN_KEY}: {0}")]
    Device(String),
}

impl Note {
    /// The note of a plan for a pod.
    #[must_use]
    pub fn of(plan: &Plan, pod_uid: &str) -> Self {
        let containers = plan.containers.iter().map(|c| Container {
            name: c.name.clone(),
            resource: c.resource.clone(),
            init: c.reuses,
            devices: c.devices.iter().map(Device::of).collect(),
        });
        Self {
            v: VERSION,
            pod_uid: pod_uid.to_owned(),
            node: plan.node.to_string(),
            level: plan.level,
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
        note.holding()?;
        Ok(note)
    }

    /// What the pod holds by the plan, of each GPU and in order: what containers that run side by side have together, or more where a
    /// plain init container has more.
    ///
    /// # Errors
    /// [`NoteError::Device`] for a device that is none.
    pub fn devices(&self) -> Result<Vec<HeldDevice>, NoteError> {
        held::fold(&self.containers).map_err(NoteError::Device)
    }

    /// All that the pod holds by the plan.
    ///
    /// # Errors
    /// As [`Self::devices`], and for a NIC whose name is none.
    pub fn holding(&self) -> Result<Holding, NoteError> {
        let nic = |name: &String| NicName::parse(name).map_err(|e| NoteError::Device(e.to_string()));
        let nics = self.nics.iter().map(nic).collect::<Result<_, _>>()?;
        Ok(Holding { devices: self.devices()?, nics })
    }

    /// The GPUs of which the pod holds anything by the plan, each once, in order.
    ///
    /// # Errors
    /// As [`Self::devices`].
    pub fn gpus(&self) -> Result<Vec<GpuUuid>, NoteError> {
        let mut gpus: Vec<GpuUuid> = self.devices()?.into_iter().map(|device| device.uuid).collect();
        gpus.dedup();
        Ok(gpus)
    }
}

/// What of the GPUs the pod gets, where that is not all.
fn parts_of(plan: &Plan) -> &'static str {
    let devices = || plan.containers.iter().flat_map(|c| &c.devices);
    let is_shared = devices().any(|d| matches!(d.extent, Extent::Share(_)));
    let is_cut = devices().any(|d| matches!(d.extent, Extent::Mig(_)));
    match (is_shared, is_cut) {
        (false, false) => "",
        (true, false) => "shares of ",
        (false, true) => "MIG instances of ",
        (true, true) => "shares and MIG instances of ",
    }
}

fn why(plan: &Plan) -> String {
    let mut words = Vec::new();
    match (plan.set, plan.weakest) {
        (None, _) => words.push("no topology report: placed by count, devices not known".to_owned()),
        (Some(set), None) => words.push(format!("{}GPU {set}", parts_of(plan))),
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
