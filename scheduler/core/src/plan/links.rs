//! What the links of a node are worth to a placement: how near the chosen GPUs are, and how good the sets are that stay.

use berth_model::GpuSet;

use crate::demand::Shape;
use crate::fabric::Fabric;
use crate::place::{Judge, Rule};
use crate::score::Ppm;
use crate::view::NodeView;

/// How near the set's GPUs are against the best set of that size on the idle node, and how many of the preferred wishes it
/// meets: the mean of both. A node whose best set is a poor one must not look perfect to a pod that prefers NVLink.
pub(super) fn nearness(view: &NodeView, fabric: &Fabric, set: GpuSet, shape: &Shape) -> Ppm {
    let inside = if set.gpu_count() < 2 { Ppm::ONE } else { fabric.quality(set) };
    let (wished, met) = Judge::of(fabric, Rule::of(shape), view.nics_free()).preferred(set);
    let sum = u64::from(inside.0).saturating_add(u64::from(met).saturating_mul(u64::from(Ppm::ONE.0)));
    let mean = sum.checked_div(u64::from(wished).saturating_add(1)).unwrap_or(0);
    Ppm(u32::try_from(mean).unwrap_or(Ppm::ONE.0))
}

/// How good the sets of the node stay: all when the pod takes nothing that a later one would miss.
pub(super) fn kept(view: &NodeView, set: GpuSet, measure: impl Fn(GpuSet) -> Ppm) -> Ppm {
    let usable = view.hardware.as_ref().map_or(GpuSet::EMPTY, |h| h.topology.usable_gpus());
    let free = view.unheld(usable);
    let lost = measure(free).0.saturating_sub(measure(free.minus(set)).0);
    Ppm(lost).rest()
}
