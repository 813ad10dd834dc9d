//! The one decision path: [`decide`] says whether and how well a demand fits a node, [`plan`] names the devices and why.

use std::sync::Arc;

use berth_model::{Generation, GpuIndex, GpuSet, GpuUuid, LinkClass, NicName, NodeName, PcieLevel, PortState, ZoneId};

use crate::demand::{ContainerDemand, Demand, Shape};
use crate::fabric::Fabric;
use crate::place::{Afresh, Chooser, Rule, preferred};
use crate::policy::{Class, OnMissing, OnStale, Placement, Policy};
use crate::score::{Part, Ppm, Score, weighted};
use crate::unfit::{Reason, Unfit};
use crate::view::{Hardware, Knowledge, NodeView};
use crate::wish::{self, NamedGpu};

/// A demand fits a node: which GPUs, and how well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The GPUs; `None` where the node has no report and policy places by count.
    pub set: Option<GpuSet>,
    /// How good the node is.
    pub score: Score,
    /// What the score is made of.
    pub parts: [Part; 4],
}

/// One GPU of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGpu {
    /// Position in the report.
    pub index: GpuIndex,
    /// Identity.
    pub uuid: GpuUuid,
}

/// What one container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Container name.
    pub name: String,
    /// Extended resource asked for.
    pub resource: String,
    /// Its GPUs; empty where devices are not known.
    pub gpus: Vec<PlannedGpu>,
}

/// The exact devices for one pod on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub node: NodeName,
    /// All GPUs of the pod; `None` where devices are not known.
    pub set: Option<GpuSet>,
    /// Which container gets which.
    pub containers: Vec<ContainerPlan>,
    /// NICs under the switches of the GPUs.
    pub nics: Vec<NicName>,
    /// The one zone of all GPUs, where there is one.
    pub zone: Option<ZoneId>,
    /// Weakest link inside the set; `None` for fewer than two GPUs.
    pub weakest: Option<LinkClass>,
    /// Report that the plan was made from; zero without one.
    pub generation: Generation,
    /// How good the node is.
    pub score: Score,
    /// What the score is made of.
    pub parts: [Part; 4],
    /// Whether counts and plans disagree on the node: the set may overlap with pods that have no plan.
    pub is_imprecise: bool,
}

/// Decides whether and how well the shape fits the node. Cheap, and says the same as [`plan`].
///
/// # Errors
/// The first reason that rules the node out, from lasting to passing ones.
pub fn decide(view: &NodeView, shape: &Shape, policy: &Policy, chooser: &mut dyn Chooser) -> Result<Fit, Reason> {
    let class = policy.class(&shape.class).ok_or(Reason::BadWish)?;
    let Some(hardware) = trusted_hardware(view, policy)? else {
        return by_count(view, shape, policy, class);
    };
    let is_trusted = view.knowledge == Knowledge::Current || policy.on_stale() == OnStale::Ignore;
    let usable = candidates(view, hardware, shape, policy)?;
    let rule = Rule::of(shape);
    let set = choose(view, hardware, usable, rule, chooser)?;
    let parts = score_parts(view, shape, class, Some((&hardware.fabric, set)), policy);
    Ok(Fit { set: Some(set), score: Score { is_trusted, value: weighted(&parts) }, parts })
}

/// The plan for a demand on a node, or why there is none.
///
/// # Errors
/// [`Unfit`] with the reason of [`decide`] and its numbers.
pub fn plan(view: &NodeView, demand: &Demand, policy: &Policy) -> Result<Plan, Unfit> {
    let fit = decide(view, &demand.shape, policy, &mut Afresh)
        .map_err(|reason| Unfit::new(reason, detail(reason, view, &demand.shape, policy)))?;
    let hardware = view.hardware.as_ref();
    let devices = fit.set.zip(hardware);
    Ok(Plan {
        node: view.name.clone(),
        set: fit.set,
        containers: deal(&demand.containers, fit.set, hardware),
        nics: devices.map_or_else(Vec::new, |(set, h)| rails(h, set)),
        zone: devices.and_then(|(set, h)| h.fabric.zone(set)),
        weakest: devices.and_then(|(set, h)| h.fabric.weakest(set)),
        generation: hardware.map_or(Generation(0), |h| h.topology.parts().generation),
        score: fit.score,
        parts: fit.parts,
        is_imprecise: view.is_imprecise || fit.set.is_none(),
    })
}

fn trusted_hardware<'a>(view: &'a NodeView, policy: &Policy) -> Result<Option<&'a Hardware>, Reason> {
    match (view.knowledge, &view.hardware) {
        (Knowledge::Missing, _) | (_, None) => match policy.on_missing() {
            OnMissing::Reject => Err(Reason::NoTopology),
            OnMissing::ByCount => Ok(None),
        },
        (Knowledge::Stale, Some(_)) if policy.on_stale() == OnStale::Reject => Err(Reason::StaleTopology),
        (Knowledge::Stale | Knowledge::Current, Some(hardware)) => Ok(Some(hardware)),
    }
}

/// A node without report: numbers only, no devices, last in order.
fn by_count(view: &NodeView, shape: &Shape, policy: &Policy, class: &Class) -> Result<Fit, Reason> {
    let offered = view.offered_gpu_count(policy.gpu_resources()).ok_or(Reason::NotOffered)?;
    let has_device_wish = shape.link.is_some_and(|l| l.force == wish::Force::Required)
        || shape.rail == wish::Force::Required
        || shape.zone == wish::Force::Required
        || !shape.products.is_empty()
        || shape.gpu_memory.is_some()
        || !shape.named.is_empty();
    // No hard wish is met by data that nobody has.
    if has_device_wish {
        return Err(Reason::NoTopology);
    }
    if offered < shape.gpu_count {
        return Err(Reason::NotOffered);
    }
    if offered.saturating_sub(view.taken_gpu_count()) < shape.gpu_count {
        return Err(Reason::GpusBusy);
    }
    let parts = score_parts(view, shape, class, None, policy);
    Ok(Fit { set: None, score: Score { is_trusted: false, value: weighted(&parts) }, parts })
}

/// The GPUs that would do if all were free, with the lasting reasons against the node.
fn candidates(view: &NodeView, hardware: &Hardware, shape: &Shape, policy: &Policy) -> Result<GpuSet, Reason> {
    let topology = &hardware.topology;
    let total = topology.all_gpus().gpu_count();
    if total == 0 {
        return Err(Reason::NoGpu);
    }
    if total < shape.gpu_count {
        return Err(Reason::TooFewGpus);
    }
    // A node that names no GPU resource at all would start the pod without any GPU: the kubelet drops resources it does not know.
    let offered = view.offered_gpu_count(policy.gpu_resources()).ok_or(Reason::NotOffered)?;
    if offered < shape.gpu_count {
        return Err(Reason::NotOffered);
    }
    let usable = topology.usable_gpus();
    if usable.gpu_count() < shape.gpu_count {
        return Err(Reason::GpusUnhealthy);
    }
    let gpus = &topology.parts().gpus;
    let only = |keep: &dyn Fn(&berth_model::Gpu) -> bool, reason: Reason, among: GpuSet| {
        let kept: GpuSet = gpus.iter().filter(|g| among.contains(g.index) && keep(g)).map(|g| g.index).collect();
        if kept.gpu_count() < shape.gpu_count { Err(reason) } else { Ok(kept) }
    };
    let mut among = usable;
    if !shape.products.is_empty() {
        let wished = |g: &berth_model::Gpu| shape.products.iter().any(|glob| wish::glob_matches(glob, &g.product));
        among = only(&wished, Reason::ProductUnmet, among)?;
    }
    if let Some(least) = shape.gpu_memory {
        among = only(&|g| g.memory >= Some(least), Reason::MemoryUnmet, among)?;
    }
    if !shape.named.is_empty() {
        let named = |g: &berth_model::Gpu| {
            shape.named.iter().any(|n| match n {
                NamedGpu::Index(index) => *index == g.index,
                NamedGpu::Uuid(uuid) => *uuid == g.uuid,
            })
        };
        among = only(&named, Reason::NamedGpusAbsent, among)?;
    }
    Ok(among)
}

fn choose(
    view: &NodeView,
    hardware: &Hardware,
    candidates: GpuSet,
    rule: Rule,
    chooser: &mut dyn Chooser,
) -> Result<GpuSet, Reason> {
    let free = view.unheld(candidates);
    // Pods without a plan hold GPUs whose positions nobody knows: they count against the whole node.
    let unknown = view.unplanned_gpu_count;
    let all_free = view.unheld(hardware.topology.usable_gpus()).gpu_count().saturating_sub(unknown);
    if free.gpu_count().min(all_free) >= rule.size
        && let Some(set) = chooser.choose(&hardware.fabric, free, rule)
    {
        return Ok(set);
    }
    // What would hold on the idle node decides between a lasting and a passing reason.
    let mut possible = |rule: Rule| chooser.choose(&hardware.fabric, candidates, rule).is_some();
    if !possible(rule.link_only()) {
        return Err(Reason::LinkUnmet);
    }
    if !possible(rule.without_zone()) {
        return Err(Reason::RailUnmet);
    }
    if !possible(rule) {
        return Err(Reason::ZoneUnmet);
    }
    if free.gpu_count().min(all_free) < rule.size {
        return Err(Reason::GpusBusy);
    }
    if chooser.choose(&hardware.fabric, free, rule.link_only()).is_none() {
        return Err(Reason::LinkBusy);
    }
    if chooser.choose(&hardware.fabric, free, rule.without_zone()).is_none() {
        return Err(Reason::RailBusy);
    }
    Err(Reason::ZoneBusy)
}

fn score_parts(
    view: &NodeView,
    shape: &Shape,
    class: &Class,
    chosen: Option<(&Arc<Fabric>, GpuSet)>,
    policy: &Policy,
) -> [Part; 4] {
    let gpu_total = view.offered_gpu_count(policy.gpu_resources()).unwrap_or(0);
    let gpu_used = view.taken_gpu_count().saturating_add(shape.gpu_count);
    let cpu_used = view.requested.cpu_milli.saturating_add(shape.cpu_milli);
    let memory_used = view.requested.memory.0.saturating_add(shape.memory.0);
    let toward = |used: Ppm| match class.placement {
        Placement::Binpack => used,
        Placement::Spread => used.rest(),
    };
    let near = chosen.map_or(Ppm(0), |(fabric, set)| nearness(fabric, set, shape));
    let weights = class.weights;
    let part = |name, value, weight| Part { name, value, weight };
    [
        part("gpu", toward(Ppm::ratio(u64::from(gpu_used), u64::from(gpu_total))), weights.gpu),
        part("cpu", toward(Ppm::ratio(cpu_used, view.allocatable.cpu_milli)), weights.cpu),
        part("memory", toward(Ppm::ratio(memory_used, view.allocatable.memory.0)), weights.memory),
        part("link", near, weights.link),
    ]
}

/// How near the set's GPUs are against the best set of that size on the idle node, and how many of the preferred wishes it
/// meets: the mean of both. A node whose best set is a poor one must not look perfect to a pod that prefers NVLink.
fn nearness(fabric: &Fabric, set: GpuSet, shape: &Shape) -> Ppm {
    let inside = if shape.gpu_count < 2 { Ppm::ONE } else { fabric.quality(set) };
    let (wished, met) = preferred(fabric, set, Rule::of(shape));
    let sum = u64::from(inside.0).saturating_add(u64::from(met).saturating_mul(u64::from(Ppm::ONE.0)));
    let mean = sum.checked_div(u64::from(wished).saturating_add(1)).unwrap_or(0);
    Ppm(u32::try_from(mean).unwrap_or(Ppm::ONE.0))
}

/// Deals the set to the containers in order. Plain init containers take from the front and give back.
fn deal(demands: &[ContainerDemand], set: Option<GpuSet>, hardware: Option<&Hardware>) -> Vec<ContainerPlan> {
    let all: Vec<PlannedGpu> = match (set, hardware) {
        (Some(set), Some(hardware)) => {
            let chosen = hardware.topology.parts().gpus.iter().filter(|g| set.contains(g.index));
            chosen.map(|g| PlannedGpu { index: g.index, uuid: g.uuid.clone() }).collect()
        }
        _ => Vec::new(),
    };
    let mut dealt = 0_usize;
    let mut plans = Vec::with_capacity(demands.len());
    for demand in demands {
        let count = usize::try_from(demand.gpu_count).unwrap_or(usize::MAX);
        let gpus = all.iter().skip(dealt).take(count).cloned().collect();
        if !demand.reuses {
            dealt = dealt.saturating_add(count);
        }
        plans.push(ContainerPlan { name: demand.name.clone(), resource: demand.resource.clone(), gpus });
    }
    plans
}

/// Active NICs under the same PCIe switch as one of the GPUs: for each GPU its nearest.
fn rails(hardware: &Hardware, set: GpuSet) -> Vec<NicName> {
    let parts = hardware.topology.parts();
    let mut names = Vec::new();
    for gpu in set.iter() {
        let level =
            |n: usize| parts.links.link(usize::from(gpu.0), parts.gpus.len().saturating_add(n)).and_then(|l| l.pcie);
        let mut nearest: Option<(PcieLevel, &NicName)> = None;
        for (n, nic) in parts.nics.iter().enumerate().filter(|(_, nic)| nic.state == PortState::Active) {
            let Some(level) = level(n).filter(|l| *l >= PcieLevel::Pxb) else { continue };
            if nearest.is_none_or(|(best, _)| level > best) {
                nearest = Some((level, &nic.name));
            }
        }
        if let Some((_, name)) = nearest.filter(|(_, name)| !names.contains(*name)) {
            names.push(name.clone());
        }
    }
    names
}

/// The numbers behind a reason, for explain and logs.
#[must_use]
pub fn detail(reason: Reason, view: &NodeView, shape: &Shape, policy: &Policy) -> String {
    let asked = shape.gpu_count;
    let topology = view.hardware.as_ref().map(|h| &h.topology);
    let total = topology.map_or(0, |t| t.all_gpus().gpu_count());
    let usable = topology.map_or(GpuSet::EMPTY, |t| t.usable_gpus());
    let free = view.unheld(usable);
    match reason {
        Reason::BadWish => format!("class {:?} is not in the policy", shape.class),
        Reason::UnknownNode | Reason::NoTopology | Reason::StaleTopology | Reason::NoGpu => String::new(),
        Reason::NotOffered => match view.offered_gpu_count(policy.gpu_resources()) {
            None => format!("{asked} asked, allocatable names none of the GPU resources"),
            Some(offered) => format!("{asked} asked, {offered} allocatable"),
        },
        Reason::TooFewGpus => format!("{asked} asked, {total} on the node"),
        Reason::GpusUnhealthy => format!("{asked} asked, {} of {total} healthy", usable.gpu_count()),
        Reason::ProductUnmet => format!(
            "wished {}, the node has {}",
            shape.products.join(","),
            topology.map_or_else(String::new, |t| t.products())
        ),
        Reason::MemoryUnmet => format!("wished {}", shape.gpu_memory.unwrap_or_default()),
        Reason::NamedGpusAbsent => format!("{} named, {asked} asked", shape.named.len()),
        Reason::GpusBusy => {
            let unplanned = view.unplanned_gpu_count;
            let free = free.gpu_count().saturating_sub(unplanned);
            format!("{asked} asked, {free} of {total} free, {unplanned} held without a plan")
        }
        Reason::LinkUnmet => format!("{asked} asked, joined by {}", wished_link(shape)),
        Reason::LinkBusy => format!("{asked} asked, joined by {}; free are {free}", wished_link(shape)),
        Reason::RailUnmet | Reason::RailBusy => {
            let railed = view.hardware.as_ref().map_or(GpuSet::EMPTY, |h| h.fabric.railed());
            format!("{asked} asked; with a rail are {railed}; free are {free}")
        }
        Reason::ZoneUnmet => format!("{asked} asked in one zone"),
        Reason::ZoneBusy => format!("{asked} asked in one zone; free are {free}"),
    }
}

fn wished_link(shape: &Shape) -> String {
    match shape.link.map(|l| l.least) {
        Some(LinkClass::NvLink(_)) => "NVLink".to_owned(),
        Some(least) => format!("{least} or nearer"),
        None => "anything".to_owned(),
    }
}

#[cfg(test)]
mod tests;
