//! One node as decisions see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::{GpuSet, MiB, NodeName, NodeTopology};

use crate::fabric::Fabric;

/// How far the report of a node can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knowledge {
    /// The report is of this boot and the agent is there.
    Current,
    /// The last good report, whose agent is not ready or whose boot is over.
    Stale,
    /// There is no report.
    Missing,
}

/// A report with what was computed from it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// The report.
    pub topology: Arc<NodeTopology>,
    /// Its fabric, shared by all nodes of the kind.
    pub fabric: Arc<Fabric>,
}

/// CPU and memory, offered or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory.
    pub memory: MiB,
}

/// One node: what it is, who holds what, and how far that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// The last good report.
    pub hardware: Option<Hardware>,
    /// How far the report can be trusted.
    pub knowledge: Knowledge,
    /// GPUs in plans of live pods and in holds.
    pub held: GpuSet,
    /// GPUs that pods hold without a plan that names them: they count, their positions are not known.
    pub unplanned_gpu_count: u32,
    /// Whether counts and plans disagree: whole-node counts hold, exact sets are not promised.
    pub is_imprecise: bool,
    /// What the kubelet offers of extended resources, by name.
    pub offered: Arc<BTreeMap<String, u64>>,
    /// What the kubelet offers of CPU and memory.
    pub allocatable: Compute,
    /// What live pods and holds take of it.
    pub requested: Compute,
}

impl NodeView {
    /// GPUs that are not in any plan or hold.
    #[must_use]
    pub fn unheld(&self, among: GpuSet) -> GpuSet {
        among.minus(self.held)
    }

    /// How many GPUs are taken, with and without a plan.
    #[must_use]
    pub fn taken_gpu_count(&self) -> u32 {
        self.held.gpu_count().saturating_add(self.unplanned_gpu_count)
    }

    /// How many GPUs the kubelet offers under any of the names; `None` when it names none of them.
    #[must_use]
    pub fn offered_gpu_count<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<u32> {
        let counts: Vec<u64> = names.filter_map(|n| self.offered.get(n).copied()).collect();
        let sum = counts.iter().fold(0_u64, |sum, c| sum.saturating_add(*c));
        (!counts.is_empty()).then(|| u32::try_from(sum).unwrap_or(u32::MAX))
    }
}
