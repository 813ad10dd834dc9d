//! The one decision path: [`decide`] says whether and how well a demand fits a node, [`plan`] names the devices and why.

mod deal;
mod detail;
mod kubelet;
mod left;
mod links;
mod mig;
mod shares;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::{Generation, GpuIndex, GpuSet, GpuUuid, Level, LinkClass, NicName, NodeName, ZoneId};

use crate::demand::{Demand, Shape};
use crate::device::{Extent, Portion};
use crate::fabric::Fabric;
use crate::level;
use crate::place::share::{self, Offer};
use crate::place::{Afresh, Chooser, Free, Rule};
use crate::policy::{Class, OnMissing, OnStale, Placement, Policy};
use crate::score::{Part, Ppm, Score, weighted};
use crate::unfit::{Reason, Unfit};
use crate::view::{Hardware, Knowledge, NodeView};
use crate::wish::{self, NamedGpu};

pub use detail::detail;
pub use left::{Rest, rest};
use links::{kept, nearness};
pub use mig::ChosenInstance;

/// What was chosen for a pod on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chosen {
    /// GPUs that it gets whole.
    pub whole: GpuSet,
    /// The same in the order in which the containers get them; empty where that is by their positions.
    pub order: Vec<GpuIndex>,
    /// The card of every share of the shape, in its order, and what must fit there.
    pub shares: Vec<(GpuIndex, Portion)>,
    /// MIG instances.
    pub instances: Vec<ChosenInstance>,
}

impl Chosen {
    /// GPUs that the pod gets whole or a share of: those that links and rails join.
    #[must_use]
    pub fn gpus(&self) -> GpuSet {
        self.shares.iter().map(|(index, _)| *index).fold(self.whole, GpuSet::with)
    }

    /// All GPUs of which the pod gets anything.
    #[must_use]
    pub fn set(&self) -> GpuSet {
        self.instances.iter().map(|instance| instance.index).fold(self.gpus(), GpuSet::with)
    }
}

/// A demand fits a node: with which devices, and how well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The devices; `None` where the node has no report and policy places by count.
    pub chosen: Option<Chosen>,
    /// How good the node is.
    pub score: Score,
    /// What the score is made of.
    pub parts: [Part; 6],
}

impl Fit {
    /// All GPUs of which the pod gets anything.
    #[must_use]
    pub fn set(&self) -> Option<GpuSet> {
        self.chosen.as_ref().map(Chosen::set)
    }
}

/// One device of a plan: a GPU, a share of one, or a MIG instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDevice {
    /// Position of the GPU in the report.
    pub index: GpuIndex,
    /// Identity of the GPU.
    pub uuid: GpuUuid,
    /// How much of it.
    pub extent: Extent,
    /// Identity of the MIG device, where it is one.
    pub instance: Option<String>,
}

/// What one container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Container name.
    pub name: String,
    /// Extended resource asked for.
    pub resource: String,
    /// Whether it is a plain init container, whose devices the others get afterwards.
    pub reuses: bool,
    /// Its devices; empty where they are not known.
    pub devices: Vec<PlannedDevice>,
}

/// The exact devices for one pod on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub node: NodeName,
    /// All GPUs of which the pod gets anything; `None` where devices are not known.
    pub set: Option<GpuSet>,
    /// Which container gets which.
    pub containers: Vec<ContainerPlan>,
    /// NICs under the switches of the GPUs, one for each: the pod's own while it lives. Only where the pod wishes rails.
    pub nics: Vec<NicName>,
    /// The one zone of all GPUs, where there is one.
    pub zone: Option<ZoneId>,
    /// Weakest link inside the set; `None` for fewer than two GPUs.
    pub weakest: Option<LinkClass>,
    /// What it promises: what the node's report says of its device plugin.
    pub level: Level,
    /// Report that the plan was made from; zero without one.
    pub generation: Generation,
    /// How good the node is.
    pub score: Score,
    /// What the score is made of.
    pub parts: [Part; 6],
    /// Whether counts and plans disagree on the node: the set may overlap with pods that have no plan.
    pub is_imprecise: bool,
}

/// Decides whether and how well the shape fits the node. Cheap, and says the same as [`plan`].
///
/// # Errors
/// The first reason that rules the node out, from lasting to passing ones.
pub fn decide(view: &NodeView, shape: &Shape, policy: &Policy, chooser: &mut dyn Chooser) -> Result<Fit, Reason> {
    let class = policy.class(&shape.class).ok_or(Reason::BadWish)?;
    let hardware = trusted_hardware(view, policy)?;
    if let Some(reason) = level::refusal(view, policy) {
        return Err(reason);
    }
    let Some(hardware) = hardware else { return by_count(view, shape, policy, class) };
    let is_trusted = view.knowledge == Knowledge::Current || policy.on_stale() == OnStale::Ignore;
    let left = left::Left::of(view, hardware, shape, class, policy);
    let chosen = devices(view, hardware, shape, policy, left.as_ref(), chooser)?;
    let parts = score_parts(view, shape, class, Some((&hardware.fabric, &chosen)), policy);
    let parts = match left {
        Some(left) => left.instead(view, parts, &chosen, class.weights.left),
        None => left::of_instances(view, hardware, class, &chosen, parts),
    };
    Ok(Fit { chosen: Some(chosen), score: Score { is_trusted, value: weighted(&parts) }, parts })
}

/// The devices of every kind that the shape asks for.
fn devices(
    view: &NodeView,
    hardware: &Hardware,
    shape: &Shape,
    policy: &Policy,
    left: Option<&left::Left<'_>>,
    chooser: &mut dyn Chooser,
) -> Result<Chosen, Reason> {
    let all = hardware.topology.all_gpus();
    if !mig::is_asked(view, hardware, shape, policy) {
        return gpus(view, hardware, all, shape, policy, left, chooser);
    }
    let has_gpus = !shape.shares.is_empty() || (shape.gpu_count > 0 && !mig::is_single(view, hardware, policy));
    if !has_gpus {
        return Ok(Chosen { instances: kubelet::instances(view, hardware, all, shape, policy)?, ..Chosen::default() });
    }
    let mut both = |within: GpuSet| {
        let chosen = gpus(view, hardware, within, shape, policy, left, chooser)?;
        Ok(Chosen { instances: kubelet::instances(view, hardware, within, shape, policy)?, ..chosen })
    };
    if shape.zone != wish::Force::Required {
        return both(all);
    }
    // Each kind by itself may lie in one zone, and in another one than the other.
    let zones: BTreeSet<ZoneId> = hardware.topology.parts().gpus.iter().filter_map(|gpu| gpu.zone).collect();
    let mut refusal = Reason::ZoneUnmet;
    for zone in zones {
        match both(all.iter().filter(|index| hardware.zone(*index) == Some(zone)).collect()) {
            Ok(chosen) => return Ok(chosen),
            Err(reason) if reason.is_passing() => refusal = Reason::ZoneBusy,
            Err(_) => {}
        }
    }
    Err(refusal)
}

/// GPUs and shares of them, within these.
fn gpus(
    view: &NodeView,
    hardware: &Hardware,
    within: GpuSet,
    shape: &Shape,
    policy: &Policy,
    left: Option<&left::Left<'_>>,
    chooser: &mut dyn Chooser,
) -> Result<Chosen, Reason> {
    let usable = candidates(view, hardware, shape, policy)?.and(within);
    if shape.shares.is_empty() {
        return kubelet::set_of(view, hardware, usable, shape, policy, chooser);
    }
    let worth = |offer: &Offer| left.map_or_else(|| share::worth(offer), |left| left.card_worth(offer));
    shares::choose(view, hardware, usable, shape, (policy, &worth), chooser)
}

/// The plan for a demand on a node, or why there is none.
///
/// # Errors
/// [`Unfit`] with the reason of [`decide`] and its numbers.
pub fn plan(view: &NodeView, demand: &Demand, policy: &Policy) -> Result<Plan, Unfit> {
    let fit = decide(view, &demand.shape, policy, &mut Afresh)
        .map_err(|reason| Unfit::new(reason, detail(reason, view, &demand.shape, policy)))?;
    let hardware = view.hardware.as_ref();
    let set = fit.set();
    let devices = set.zip(hardware);
    Ok(Plan {
        node: view.name.clone(),
        set,
        containers: deal::deal(&demand.containers, fit.chosen.as_ref().zip(hardware)),
        nics: devices.map_or_else(Vec::new, |(set, h)| deal::rails(view, h, set, Rule::of(&demand.shape))),
        zone: devices.and_then(|(set, h)| h.fabric.zone(set)),
        weakest: fit.chosen.as_ref().zip(hardware).and_then(|(chosen, h)| h.fabric.weakest(chosen.gpus())),
        level: level::promised(view),
        generation: hardware.map_or(Generation(0), |h| h.topology.parts().generation),
        score: fit.score,
        parts: fit.parts,
        is_imprecise: view.is_imprecise || set.is_none(),
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
    let offered = match view.offered_gpu_count(policy.gpu_resources()) {
        None if shape.gpu_count > 0 => return Err(Reason::NotOffered),
        offered => offered.unwrap_or(0),
    };
    let has_device_wish = shape.link.is_some_and(|l| l.force == wish::Force::Required)
        || shape.rail == wish::Force::Required
        || shape.zone == wish::Force::Required
        || !shape.products.is_empty()
        || shape.gpu_memory.is_some()
        || !shape.named.is_empty();
    // No hard wish is met by data that nobody has, nor is a share by a card of unknown size.
    if has_device_wish || !shape.shares.is_empty() {
        return Err(Reason::NoTopology);
    }
    if offered < shape.gpu_count {
        return Err(Reason::NotOffered);
    }
    if offered.saturating_sub(view.taken_gpu_count()) < shape.gpu_count {
        return Err(Reason::GpusBusy);
    }
    mig::by_count(view, shape, policy)?;
    let parts = score_parts(view, shape, class, None, policy);
    Ok(Fit { chosen: None, score: Score { is_trusted: false, value: weighted(&parts) }, parts })
}

/// The GPUs that would do if all were free, with the lasting reasons against the node.
fn candidates(view: &NodeView, hardware: &Hardware, shape: &Shape, policy: &Policy) -> Result<GpuSet, Reason> {
    let (topology, least) = (&hardware.topology, shape.card_count_min());
    let total = topology.all_gpus().gpu_count();
    if total == 0 {
        return Err(Reason::NoGpu);
    }
    if total < least {
        return Err(Reason::TooFewGpus);
    }
    // A node that names no GPU resource at all would start the pod without any GPU: the kubelet drops resources it does not know.
    let offered = view.offered_gpu_count(policy.gpu_resources()).ok_or(Reason::NotOffered)?;
    if offered < shape.device_count() {
        return Err(Reason::NotOffered);
    }
    let usable = topology.usable_gpus();
    if usable.gpu_count() < least {
        return Err(Reason::GpusUnhealthy);
    }
    filtered(hardware, shape, usable, least)
}

/// Those of the GPUs that meet the wishes for cards; fewer than `least` are refused by the wish that left too few.
fn filtered(hardware: &Hardware, shape: &Shape, usable: GpuSet, least: u32) -> Result<GpuSet, Reason> {
    let gpus = &hardware.topology.parts().gpus;
    let only = |keep: &dyn Fn(&berth_model::Gpu) -> bool, reason: Reason, among: GpuSet| {
        let kept: GpuSet = gpus.iter().filter(|g| among.contains(g.index) && keep(g)).map(|g| g.index).collect();
        if kept.gpu_count() < least { Err(reason) } else { Ok(kept) }
    };
    let mut among = usable;
    if !shape.products.is_empty() {
        let wished = |g: &berth_model::Gpu| shape.products.iter().any(|glob| wish::glob_matches(glob, &g.product));
        among = only(&wished, Reason::ProductUnmet, among)?;
    }
    if let Some(memory) = shape.gpu_memory {
        among = only(&|g| g.memory >= Some(memory), Reason::MemoryUnmet, among)?;
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

/// A set of whole GPUs, or why there is none.
fn set_of(
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
    let now = Free { gpus: free, nics: view.nics_free() };
    if free.gpu_count().min(all_free) >= rule.size
        && let Some(set) = chooser.choose(&hardware.fabric, now, rule)
    {
        return Ok(set);
    }
    // What would hold on the idle node decides between a lasting and a passing reason.
    let idle = Free { gpus: candidates, nics: hardware.fabric.all_nics() };
    let mut possible = |rule: Rule| chooser.choose(&hardware.fabric, idle, rule).is_some();
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
    if chooser.choose(&hardware.fabric, now, rule.link_only()).is_none() {
        return Err(Reason::LinkBusy);
    }
    if chooser.choose(&hardware.fabric, now, rule.without_zone()).is_none() {
        return Err(Reason::RailBusy);
    }
    Err(Reason::ZoneBusy)
}

fn score_parts(
    view: &NodeView,
    shape: &Shape,
    class: &Class,
    chosen: Option<(&Arc<Fabric>, &Chosen)>,
    policy: &Policy,
) -> [Part; 6] {
    let offered = view.offered_gpu_count(policy.gpu_resources()).unwrap_or(0);
    // A device plugin that shares cards offers more devices than there are cards, and MIG devices under other names.
    let cards = view.hardware.as_ref().map_or(offered, |h| {
        let (cut, all) = (h.cut_gpu_count(), h.topology.all_gpus().gpu_count());
        all.saturating_sub(cut).min(offered).saturating_add(cut)
    });
    let gpu_total = u64::from(cards).saturating_mul(1_000_000);
    let gpu_used = view.used_ppm(chosen.map(|(_, chosen)| chosen), shape.gpu_count);
    let cpu_used = view.requested.cpu_milli.saturating_add(shape.cpu_milli);
    let memory_used = view.requested.memory.0.saturating_add(shape.memory.0);
    let toward = |used: Ppm| match class.placement {
        Placement::Binpack => used,
        Placement::Spread => used.rest(),
    };
    let near = chosen.map_or(Ppm(0), |(fabric, chosen)| nearness(view, fabric, chosen.gpus(), shape));
    let kept = chosen.map_or(Ppm(0), |(fabric, chosen)| kept(view, chosen.gpus(), |free| fabric.kept(free)));
    let weights = class.weights;
    let part = |name, value, weight| Part { name, value, weight };
    [
        part("gpu", toward(Ppm::ratio(gpu_used, gpu_total)), weights.gpu),
        part("cpu", toward(Ppm::ratio(cpu_used, view.allocatable.cpu_milli)), weights.cpu),
        part("memory", toward(Ppm::ratio(memory_used, view.allocatable.memory.0)), weights.memory),
        part("link", near, weights.link),
        part("kept", kept, weights.kept),
        // Nothing is expected: see [`left::Left`].
        part("left", Ppm(0), 0),
    ]
}

#[cfg(test)]
mod tests;
