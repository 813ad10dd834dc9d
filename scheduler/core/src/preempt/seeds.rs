//! Where on a node room could be made: for every GPU the nearest ones around it.

use berth_model::{GpuIndex, GpuSet};

use crate::demand::Shape;
use crate::fabric::Fabric;
use crate::view::NodeView;

/// A set around each GPU, of as many as the shape asks for whole; each once. Nothing where the node has no report.
#[must_use]
pub fn seeds(view: &NodeView, shape: &Shape) -> Vec<GpuSet> {
    let Some(hardware) = &view.hardware else { return Vec::new() };
    let usable = hardware.topology.usable_gpus();
    let mut seeds: Vec<GpuSet> =
        usable.iter().map(|gpu| around(&hardware.fabric, usable, gpu, shape.gpu_count)).collect();
    seeds.sort_unstable();
    seeds.dedup();
    seeds
}

fn around(fabric: &Fabric, usable: GpuSet, first: GpuIndex, size: u32) -> GpuSet {
    let mut set = GpuSet::EMPTY.with(first);
    while set.gpu_count() < size {
        let near = |gpu: &GpuIndex| {
            let inside = set.iter().map(|other| u64::from(fabric.pair_value(*gpu, other)));
            (inside.fold(0_u64, u64::saturating_add), std::cmp::Reverse(*gpu))
        };
        let Some(next) = usable.minus(set).iter().max_by_key(near) else { break };
        set = set.with(next);
    }
    set
}
