//! How much a node can take, for telling growth from any other change.

use std::cmp::Reverse;

use berth_core::device::Portion;
use berth_core::view::Knowledge;
use berth_core::{NodeView, level};
use berth_model::Level;

/// More of any is more, the first that differs decides.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Capacity {
    exists: bool,
    knowledge: Reverse<Knowledge>,
    /// Whether its device plugin accepts pods, or is another's; and what it promises.
    accepts: (bool, Level),
    free_gpu_count: u32,
    offered: u64,
    /// Cores and memory of GPUs with shares.
    shared: Reverse<(u64, u64)>,
    /// MIG instances, those among them that nobody can name.
    instances_held: Reverse<u32>,
    nics_held: Reverse<u32>,
}

pub(super) fn capacity(view: &NodeView, exists: bool) -> Capacity {
    let free = view.hardware.as_ref().map_or(0, |h| view.unheld(h.topology.usable_gpus()).gpu_count());
    let taken = view.shared.iter().map(|gpu| gpu.taken).fold(Portion::default(), Portion::plus);
    let instances = u32::try_from(view.instances.len()).unwrap_or(u32::MAX);
    Capacity {
        exists,
        knowledge: Reverse(view.knowledge),
        accepts: (!level::is_away(view) && !level::is_closed_by_lease(view), level::promised(view)),
        free_gpu_count: free.saturating_sub(view.unplanned_gpu_count),
        offered: view.offered.values().fold(0_u64, |sum, n| sum.saturating_add(*n)),
        shared: Reverse((u64::from(taken.cores_percent), taken.memory.0)),
        instances_held: Reverse(view.unplanned_instances.values().fold(instances, |sum, n| sum.saturating_add(*n))),
        nics_held: Reverse(view.nics_held.nic_count()),
    }
}
