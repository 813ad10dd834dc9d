//! Whole GPUs and MIG instances on a node whose kubelet may refuse the pod, or narrows it to some zones: they lie where it will look, and
//! each container has those that it will get.

use std::collections::BTreeSet;

use berth_model::{GpuIndex, GpuSet, NicSet};

use super::Chosen;
use super::mig::{self, ChosenInstance, Within};
use crate::demand::Shape;
use crate::place::{Chooser, Free, Rule};
use crate::policy::Policy;
use crate::unfit::Reason;
use crate::view::{Hardware, NodeView};
use crate::zone::{Admitted, FirstOnes, Seat, Site, Steer, admit, seats};

/// As [`super::set_of`], of just those that the kubelet will give, dealt to the containers as it will deal them. Sets of nodes whose kubelet
/// has no say are chosen and dealt freely.
pub(super) fn set_of(
    view: &NodeView,
    hardware: &Hardware,
    candidates: GpuSet,
    shape: &Shape,
    policy: &Policy,
    chooser: &mut dyn Chooser,
) -> Result<Chosen, Reason> {
    let rule = Rule::of(shape);
    let freely = super::set_of(view, hardware, candidates, rule, chooser)?;
    let Some(site) = &view.site else { return Ok(Chosen { whole: freely, ..Chosen::default() }) };
    if let Some(order) = dealt(site, shape, policy, freely) {
        return Ok(in_order(order));
    }
    let nics = view.nics_free();
    let mut planner = Planner { hardware, candidates, nics, rule, chooser, policy, offered: GpuSet::EMPTY };
    let Ok(admitted) = admit(&mut Site::clone(site), &shape.ask, &mut planner) else {
        return Err(refused(view, hardware, shape, policy));
    };
    // The best set of all that the kubelet offers, and where it would deal others then, what is best container by container.
    let own = order(&admitted, policy);
    let owned: GpuSet = own.iter().copied().collect();
    let within = view.unheld(owned.or(planner.offered).and(candidates));
    let mut chosen = |gpus| chooser.choose(&hardware.fabric, Free { gpus, nics }, rule);
    let order = chosen(within).and_then(|near| dealt(site, shape, policy, near));
    order.or_else(|| (chosen(owned.and(within)) == Some(owned)).then_some(own)).map(in_order).ok_or(Reason::KubeletBusy)
}

fn in_order(order: Vec<GpuIndex>) -> Chosen {
    Chosen { whole: order.iter().copied().collect(), order, ..Chosen::default() }
}

/// The GPUs container by container; what an init container had others have again.
fn order(admitted: &[Admitted], policy: &Policy) -> Vec<GpuIndex> {
    let mut order: Vec<GpuIndex> = Vec::new();
    for (_, devices) in admitted.iter().flat_map(|a| &a.devices).filter(|(name, _)| is_gpu(policy, name)) {
        let more: Vec<_> = devices.iter().filter_map(|at| index(*at)).filter(|gpu| !order.contains(gpu)).collect();
        order.extend(more);
    }
    order
}

/// The wished GPUs in the order in which the kubelet deals them, where it gives just those when it is asked for them.
fn dealt(site: &Site, shape: &Shape, policy: &Policy, wished: GpuSet) -> Option<Vec<GpuIndex>> {
    let admitted = admit(&mut Site::clone(site), &shape.ask, &mut Wishing { policy, wished }).ok()?;
    let order = order(&admitted, policy);
    (order.iter().copied().collect::<GpuSet>() == wished).then_some(order)
}

fn is_gpu(policy: &Policy, resource: &str) -> bool {
    policy.gpu_resources().any(|name| name == resource)
}

/// Asks for these GPUs first.
struct Wishing<'a> {
    policy: &'a Policy,
    wished: GpuSet,
}

impl Steer for Wishing<'_> {
    fn choose(&mut self, _: usize, resource: &str, among: &[usize], count: usize) -> Vec<usize> {
        let is_wished = |at: &&usize| index(**at).is_some_and(|gpu| self.wished.contains(gpu));
        let (mut first, last): (Vec<usize>, Vec<usize>) = among.iter().partition(is_wished);
        if is_gpu(self.policy, resource) {
            first.extend(last);
            first.truncate(count);
            return first;
        }
        among.iter().copied().take(count).collect()
    }
}

/// As [`mig::instances`] on these GPUs, inside what the kubelet offers.
pub(super) fn instances(
    view: &NodeView,
    hardware: &Hardware,
    gpus: GpuSet,
    shape: &Shape,
    policy: &Policy,
) -> Result<Vec<ChosenInstance>, Reason> {
    let freely = mig::instances(view, hardware, Within { gpus, seats: None }, shape, policy)?;
    let Some(site) = &view.site else { return Ok(freely) };
    let mut looked = Looked { hardware, policy, wished: &freely, open: BTreeSet::new() };
    let Ok(admitted) = admit(&mut Site::clone(site), &shape.ask, &mut looked) else {
        return Err(refused(view, hardware, shape, policy));
    };
    let mut dealt: Vec<(String, Seat)> = Vec::new();
    for (resource, devices) in admitted.iter().flat_map(|a| &a.devices) {
        let seats = looked.instances(resource);
        let own = devices.iter().filter_map(|at| seats.get(*at)).map(|seat| (resource.clone(), *seat));
        // What an init container had others have again.
        dealt.extend(own.filter(|one| !dealt.contains(one)).collect::<Vec<_>>());
    }
    let asks = shape.ask.containers.iter().filter(|c| c.devices.keys().any(|name| !looked.instances(name).is_empty()));
    if asks.count() > 1 {
        return container_by_container(view, hardware, gpus, shape, policy, &dealt);
    }
    looked.open.extend(dealt.into_iter().map(|(_, seat)| seat));
    if freely.iter().all(|one| looked.open.iter().any(|seat| one.is_at(*seat))) {
        return Ok(freely);
    }
    let within = Within { gpus, seats: Some(&looked.open) };
    mig::instances(view, hardware, within, shape, policy).map_err(|_| Reason::KubeletBusy)
}

/// The very instances that the kubelet would deal, in its order, where these are what the pod wishes.
fn container_by_container(
    view: &NodeView,
    hardware: &Hardware,
    gpus: GpuSet,
    shape: &Shape,
    policy: &Policy,
    dealt: &[(String, Seat)],
) -> Result<Vec<ChosenInstance>, Reason> {
    let seats: BTreeSet<Seat> = dealt.iter().map(|(_, seat)| *seat).collect();
    let within = Within { gpus, seats: Some(&seats) };
    let mut chosen = mig::instances(view, hardware, within, shape, policy).map_err(|_| Reason::KubeletBusy)?;
    chosen.sort_by_key(|one| dealt.iter().position(|(_, seat)| one.is_at(*seat)));
    Ok(chosen)
}

/// Chooses what is wished where the kubelet leaves a choice, and remembers among what.
struct Looked<'a> {
    hardware: &'a Hardware,
    policy: &'a Policy,
    wished: &'a [ChosenInstance],
    open: BTreeSet<Seat>,
}

impl Looked<'_> {
    /// The instances that a resource means, by position; empty where it means something else.
    fn instances(&self, resource: &str) -> Vec<Seat> {
        let names = self.policy.resources();
        if names.mig_profile(resource).is_none() && !names.gpu.iter().any(|name| name == resource) {
            return Vec::new();
        }
        let seats = seats(&self.hardware.topology, resource, names);
        if seats.iter().any(|seat| seat.placement.is_none()) { Vec::new() } else { seats }
    }
}

impl Steer for Looked<'_> {
    fn choose(&mut self, _: usize, resource: &str, among: &[usize], count: usize) -> Vec<usize> {
        let seats = self.instances(resource);
        self.open.extend(among.iter().filter_map(|at| seats.get(*at)));
        let is_wished =
            |at: &&usize| seats.get(**at).is_some_and(|seat| self.wished.iter().any(|one| one.is_at(*seat)));
        let (mut first, last): (Vec<usize>, Vec<usize>) = among.iter().partition(is_wished);
        first.extend(last);
        first.truncate(count);
        first
    }
}

/// Whether the kubelet would refuse the pod on the idle machine too.
fn refused(view: &NodeView, hardware: &Hardware, shape: &Shape, policy: &Policy) -> Reason {
    let idle = Site::of_idle(&hardware.topology, view.allocatable, policy.resources());
    let is_possible = idle.is_some_and(|mut site| admit(&mut site, &shape.ask, &mut FirstOnes).is_ok());
    if is_possible { Reason::KubeletBusy } else { Reason::KubeletUnmet }
}

/// Chooses as the plan would where the kubelet leaves a choice, and remembers among what.
struct Planner<'a> {
    hardware: &'a Hardware,
    candidates: GpuSet,
    nics: NicSet,
    rule: Rule,
    chooser: &'a mut dyn Chooser,
    policy: &'a Policy,
    offered: GpuSet,
}

impl Steer for Planner<'_> {
    fn choose(&mut self, _: usize, resource: &str, among: &[usize], count: usize) -> Vec<usize> {
        if !is_gpu(self.policy, resource) {
            return among.iter().copied().take(count).collect();
        }
        let open: GpuSet = among.iter().filter_map(|at| index(*at)).collect();
        self.offered = self.offered.or(open);
        let size = u32::try_from(count).unwrap_or(u32::MAX);
        let rule = Rule { size, ..self.rule };
        let free = Free { gpus: open.and(self.candidates), nics: self.nics };
        let set = self.chooser.choose(&self.hardware.fabric, free, rule);
        let set = set.unwrap_or(GpuSet::EMPTY);
        set.iter().map(|index| usize::from(index.0)).collect()
    }
}

fn index(position: usize) -> Option<GpuIndex> {
    u8::try_from(position).ok().map(GpuIndex)
}
