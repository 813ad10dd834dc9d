//! One node as decisions see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::{Gpu, GpuIndex, GpuSet, MiB, NicSet, NodeName, NodeTopology};

use crate::device::{MigSlot, Portion};
use crate::fabric::Fabric;
use crate::zone::Site;

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

/// A GPU with shares on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedGpu {
    /// Which.
    pub index: GpuIndex,
    /// What the shares take together.
    pub taken: Portion,
    /// How many they are.
    pub share_count: u32,
}

/// A MIG instance that a pod holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldInstance {
    /// On which GPU.
    pub index: GpuIndex,
    /// Which instance.
    pub slot: MigSlot,
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
    /// GPUs that live pods and holds have whole.
    pub held: GpuSet,
    /// GPUs with shares on them, none of them in `held`, in order of their positions. Most nodes have none, and then this costs nothing.
    pub shared: Vec<SharedGpu>,
    /// MIG instances that live pods and holds have, in order.
    pub instances: Vec<HeldInstance>,
    /// NICs that live pods and holds have, as positions in the report: those in the plans of pods that wish a rail.
    pub nics_held: NicSet,
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
    /// What is left to the kubelet's managers, where these may refuse a pod; `None` where they have no say or are not known.
    pub site: Option<Arc<Site>>,
}

impl NodeView {
    /// GPUs of which pods hold anything that is known: all, a share or an instance.
    #[must_use]
    pub fn touched(&self) -> GpuSet {
        let shared = self.shared.iter().map(|gpu| gpu.index);
        let cut = self.instances.iter().map(|instance| instance.index);
        shared.chain(cut).fold(self.held, GpuSet::with)
    }

    /// GPUs of which nobody holds anything.
    #[must_use]
    pub fn unheld(&self, among: GpuSet) -> GpuSet {
        among.minus(self.touched())
    }

    /// NICs that nobody holds.
    #[must_use]
    pub fn nics_free(&self) -> NicSet {
        let all = self.hardware.as_ref().map_or(NicSet::EMPTY, |h| h.fabric.all_nics());
        all.minus(self.nics_held)
    }

    /// The shares on a GPU.
    #[must_use]
    pub fn shared_on(&self, index: GpuIndex) -> Option<&SharedGpu> {
        self.shared.iter().find(|gpu| gpu.index == index)
    }

    /// How many devices are taken of those that the kubelet counts as GPUs, with and without a plan.
    #[must_use]
    pub fn taken_gpu_count(&self) -> u32 {
        let shares = self.shared.iter().fold(0_u32, |sum, gpu| sum.saturating_add(gpu.share_count));
        self.held.gpu_count().saturating_add(shares).saturating_add(self.unplanned_gpu_count)
    }

    /// How much of the node's GPUs is taken, where `more` is taken too: a whole GPU is a million. Of a share counts what it takes
    /// most of, compute or memory.
    #[must_use]
    pub fn used_ppm(&self, more_whole: u32, more: &[(GpuIndex, Portion)]) -> u64 {
        let whole = self.held.gpu_count().saturating_add(self.unplanned_gpu_count).saturating_add(more_whole);
        let gpus = self.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().gpus);
        let share = |gpu: &Gpu| {
            let before = self.shared_on(gpu.index).map_or_else(Portion::default, |shared| shared.taken);
            let added = more.iter().filter(|(index, _)| *index == gpu.index);
            let taken = added.fold(before, |sum, (_, portion)| sum.plus(*portion));
            let cores = u64::from(taken.cores_percent).saturating_mul(10_000);
            let memory =
                gpu.memory.map_or(0, |all| taken.memory.0.saturating_mul(1_000_000).checked_div(all.0).unwrap_or(0));
            cores.max(memory).min(1_000_000)
        };
        let shares = if self.shared.is_empty() && more.is_empty() {
            0
        } else {
            gpus.iter().fold(0_u64, |sum, gpu| sum.saturating_add(share(gpu)))
        };
        u64::from(whole).saturating_mul(1_000_000).saturating_add(shares)
    }

    /// How many GPUs the kubelet offers under any of the names; `None` when it names none of them.
    #[must_use]
    pub fn offered_gpu_count<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<u32> {
        let counts: Vec<u64> = names.filter_map(|n| self.offered.get(n).copied()).collect();
        let sum = counts.iter().fold(0_u64, |sum, c| sum.saturating_add(*c));
        (!counts.is_empty()).then(|| u32::try_from(sum).unwrap_or(u32::MAX))
    }
}
