//! The closed list of what can happen to a cluster, as values.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::demand::Totals;
use berth_core::device::Holding;
use berth_core::level::LabelSet;
use berth_core::policy::Resources;
use berth_core::value::Typical;
use berth_core::view::Compute;
use berth_model::{BootId, NodeName, NodeTopology};

use crate::hold::HoldId;

/// A pod's UID: unique over all time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub Arc<str>);

impl PodUid {
    /// The UID with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PodUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What a Node object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// Boot that the kubelet reports, where it does.
    pub boot_id: Option<BootId>,
    /// Allocatable extended resources.
    pub offered: BTreeMap<String, u64>,
    /// Allocatable CPU and memory.
    pub allocatable: Compute,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Whether it carries a `PreferNoSchedule` taint.
    pub is_avoided: bool,
    /// All its labels.
    pub labels: LabelSet,
}

/// The plan annotation of a bound pod, read at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanNote {
    /// There is none.
    Absent,
    /// There is one, and it is for this pod on this node.
    Devices(Holding),
    /// There is one that is void; the text says why.
    Void(String),
}

/// What decides whether a pod may be evicted for another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rank {
    /// Its priority; a pod without one has 0.
    pub priority: i32,
    /// Its labels, which disruption budgets select by. Kept of pods that ask for extended resources only: most pods never matter here.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub is_leaving: bool,
    /// Whether it keeps other pods away by more than amounts: a required anti-affinity.
    pub repels: bool,
}

/// A pod as the ledger needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its UID.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is bound to.
    pub node: Option<NodeName>,
    /// Whether it has ended (`Succeeded`, `Failed`). A pod that is being deleted has not: its processes may still hold devices.
    pub is_ended: bool,
    /// Whether it runs (`Running`: all its containers were started) and a main container asks for an extended resource: it must hold
    /// devices by now.
    pub expects_devices: bool,
    /// What it takes.
    pub totals: Totals,
    /// How it stands against pods that need its place.
    pub rank: Rank,
    /// Its plan.
    pub note: PlanNote,
    /// Whether the node enforces its plan: its containers have the plan's devices, whatever ids the kubelet counts for them.
    pub is_enforced: bool,
    /// What the kubelet says it gave the pod: device ids by extended resource. Empty where the kubelet has not said.
    pub truth: BTreeMap<String, Vec<String>>,
}

/// What a relist lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Event::Node`].
    Nodes,
    /// [`Event::Report`].
    Reports,
    /// [`Event::Pod`].
    Pods,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node exists, or changed.
    Node(NodeFacts),
    /// A node is gone.
    NodeGone(NodeName),
    /// A report was published.
    Report(Box<NodeTopology>),
    /// A report is gone.
    ReportGone(NodeName),
    /// The agent of a node is there, or has been away for longer than policy allows.
    Agent {
        /// Whose agent.
        node: NodeName,
        /// Whether it is there.
        is_there: bool,
    },
    /// A pod exists, or changed.
    Pod(Box<PodFacts>),
    /// A pod is gone.
    PodGone(PodUid),
    /// What extended resources mean.
    Resources(Resources),
    /// Which pods of several GPUs are expected: their room is counted from now on.
    Expected(Arc<[Typical]>),
    /// The bind that made a hold has failed for sure.
    HoldReleased(HoldId),
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The node whose view changed, where one did.
    pub node: Option<NodeName>,
    /// Whether that node can take more than before. Where no Node or pod event goes with it, kube-scheduler does not know.
    pub has_grown: bool,
    /// Why the event was not taken.
    pub refused: Option<String>,
}
