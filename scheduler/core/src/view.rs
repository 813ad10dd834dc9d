//! One node as decisions see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::{Gpu, GpuIndex, GpuSet, MiB, MigCapability, NicSet, NodeName, NodeTopology, SlotMask, ZoneId};

use crate::device::{MigSlot, Portion};
use crate::fabric::Fabric;
use crate::level::LabelSet;
use crate::place::mig::{MigTable, Prices, Worth};
use crate::plan::Chosen;
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
    /// The MIG table of each GPU by position, shared by all GPUs of the kind; empty where no GPU offers instances.
    pub mig: Vec<Option<Arc<Worth>>>,
}

impl Hardware {
    /// A report with all that is computed from it.
    #[must_use]
    pub fn of(topology: Arc<NodeTopology>) -> Self {
        let fabric = Arc::new(Fabric::of(&topology));
        let mut known: BTreeMap<MigCapability, Arc<Worth>> = BTreeMap::new();
        Self::with(topology, fabric, &mut |capability| {
            if let Some(worth) = known.get(capability) {
                return Some(Arc::clone(worth));
            }
            let worth = worth_of(capability)?;
            known.insert(capability.clone(), Arc::clone(&worth));
            Some(worth)
        })
    }

    /// A report with its fabric and with MIG tables from a store of them.
    pub fn with(
        topology: Arc<NodeTopology>,
        fabric: Arc<Fabric>,
        worth: &mut dyn FnMut(&MigCapability) -> Option<Arc<Worth>>,
    ) -> Self {
        let gpus = &topology.parts().gpus;
        let is_cut = gpus.iter().any(|gpu| gpu.mig_enabled == Some(true));
        let mig = if is_cut { gpus.iter().map(|gpu| worth(&gpu.detail.board.mig)).collect() } else { Vec::new() };
        Self { topology, fabric, mig }
    }

    /// The zone of a GPU.
    #[must_use]
    pub fn zone(&self, index: GpuIndex) -> Option<ZoneId> {
        self.topology.parts().gpus.get(usize::from(index.0))?.zone
    }

    /// The MIG table of a GPU.
    #[must_use]
    pub fn worth(&self, index: GpuIndex) -> Option<&Worth> {
        self.mig.get(usize::from(index.0))?.as_deref()
    }

    /// GPUs that MIG cuts.
    #[must_use]
    pub fn cut_gpu_count(&self) -> u32 {
        let cut = self.topology.parts().gpus.iter().filter(|gpu| gpu.mig_enabled == Some(true)).count();
        u32::try_from(cut).unwrap_or(u32::MAX)
    }
}

/// The table of a kind of GPU; `None` where it offers no instances.
#[must_use]
pub fn worth_of(capability: &MigCapability) -> Option<Arc<Worth>> {
    let table = MigTable::of(capability)?;
    let prices = Prices::even(&table);
    Some(Arc::new(Worth::of(table, &prices)))
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
    /// MIG devices that pods hold without a plan that names them, by profile as their resource names it.
    pub unplanned_instances: BTreeMap<String, u32>,
    /// Whether counts and plans disagree: whole-node counts hold, exact sets are not promised.
    pub is_imprecise: bool,
    /// Whether a pod has devices by a lease that are not known to be those which its kubelet counts as its own: the kubelet would give what
    /// it takes for free to others, and only leases keep them from it.
    pub has_stray_lease: bool,
    /// What the kubelet offers of extended resources, by name.
    pub offered: Arc<BTreeMap<String, u64>>,
    /// What the kubelet offers of CPU and memory.
    pub allocatable: Compute,
    /// What live pods and holds take of it.
    pub requested: Compute,
    /// Its labels.
    pub labels: LabelSet,
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

    /// Whether anybody holds any of these slots of a GPU. What is held may be of another layout than the GPU has now.
    #[must_use]
    pub fn holds_slots(&self, index: GpuIndex, slots: SlotMask) -> bool {
        let held = self.instances.iter().filter(|held| held.index == index);
        let mut held = held.filter_map(|held| SlotMask::span(held.slot.start, held.slot.size));
        self.held.contains(index) || self.shared_on(index).is_some() || held.any(|taken| !taken.is_disjoint(slots))
    }

    /// How much of the node's GPUs is taken once the chosen devices are too: a whole GPU is a million. Of a share counts what it takes
    /// most of, compute or memory; of an instance its slots. Where devices are not known, `gpu_count` says how many.
    #[must_use]
    pub fn used_ppm(&self, chosen: Option<&Chosen>, gpu_count: u32) -> u64 {
        let more = chosen.map_or(gpu_count, |chosen| chosen.whole.gpu_count());
        let whole = self.held.gpu_count().saturating_add(self.unplanned_gpu_count).saturating_add(more);
        let whole = u64::from(whole).saturating_mul(1_000_000);
        let has_parts = |c: &Chosen| !c.shares.is_empty() || !c.instances.is_empty();
        if self.shared.is_empty() && self.instances.is_empty() && !chosen.is_some_and(has_parts) {
            return whole;
        }
        let gpus = self.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().gpus);
        gpus.iter()
            .map(|gpu| self.share_ppm(gpu, chosen).max(self.cut_ppm(gpu.index, chosen)))
            .fold(whole, u64::saturating_add)
    }

    fn share_ppm(&self, gpu: &Gpu, chosen: Option<&Chosen>) -> u64 {
        let before = self.shared_on(gpu.index).map_or_else(Portion::default, |shared| shared.taken);
        let added = chosen.into_iter().flat_map(|c| &c.shares).filter(|(index, _)| *index == gpu.index);
        let taken = added.fold(before, |sum, (_, portion)| sum.plus(*portion));
        let of_memory = |all: MiB| taken.memory.0.saturating_mul(1_000_000).checked_div(all.0).unwrap_or(0);
        let cores = u64::from(taken.cores_percent).saturating_mul(10_000);
        cores.max(gpu.memory.map_or(0, of_memory)).min(1_000_000)
    }

    fn cut_ppm(&self, index: GpuIndex, chosen: Option<&Chosen>) -> u64 {
        let Some(worth) = self.hardware.as_ref().and_then(|h| h.worth(index)) else { return 0 };
        let held = self.instances.iter().filter(|i| i.index == index).map(|i| i.slot.size);
        let added = chosen.into_iter().flat_map(|c| &c.instances).filter(|i| i.index == index).map(|i| i.slot.size);
        let slots = held.chain(added).fold(0_u64, |sum, size| sum.saturating_add(u64::from(size)));
        slots.saturating_mul(1_000_000).checked_div(u64::from(worth.table().slots())).unwrap_or(0).min(1_000_000)
    }

    /// How many GPUs the kubelet offers under any of the names; `None` when it names none of them.
    #[must_use]
    pub fn offered_gpu_count<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<u32> {
        let counts: Vec<u64> = names.filter_map(|n| self.offered.get(n).copied()).collect();
        let sum = counts.iter().fold(0_u64, |sum, c| sum.saturating_add(*c));
        (!counts.is_empty()).then(|| u32::try_from(sum).unwrap_or(u32::MAX))
    }
}
