//! A set of whole GPUs on a node whose kubelet may refuse the pod, or narrows it to some zones: the set lies where the kubelet will look.

use berth_model::{GpuIndex, GpuSet, NicSet};

use crate::demand::Shape;
use crate::place::{Chooser, Free, Rule};
use crate::policy::Policy;
use crate::unfit::Reason;
use crate::view::{Hardware, NodeView};
use crate::zone::{Site, Steer, admit};

/// As [`super::set_of`], inside what the kubelet offers. Sets of nodes whose kubelet has no say are chosen freely.
pub(super) fn set_of(
    view: &NodeView,
    hardware: &Hardware,
    candidates: GpuSet,
    shape: &Shape,
    policy: &Policy,
    chooser: &mut dyn Chooser,
) -> Result<GpuSet, Reason> {
    let rule = Rule::of(shape);
    let freely = super::set_of(view, hardware, candidates, rule, chooser)?;
    let Some(site) = &view.site else { return Ok(freely) };
    let nics = view.nics_free();
    let mut planner = Planner { hardware, candidates, nics, rule, chooser, policy, offered: GpuSet::EMPTY };
    let mut trial = Site::clone(site);
    let Ok(admitted) = admit(&mut trial, &shape.ask, &mut planner) else {
        return Err(refused(view, hardware, shape, policy));
    };
    let given = admitted.iter().flat_map(|a| &a.devices).filter(|(name, _)| planner.is_gpu(name));
    let forced: GpuSet = given.flat_map(|(_, devices)| devices).filter_map(|at| index(*at)).collect();
    let within = forced.or(planner.offered).and(candidates);
    if freely.minus(within).is_empty() {
        return Ok(freely);
    }
    let free = Free { gpus: view.unheld(within), nics };
    chooser.choose(&hardware.fabric, free, rule).ok_or(Reason::KubeletBusy)
}

/// Whether the kubelet would refuse the pod on the idle machine too.
fn refused(view: &NodeView, hardware: &Hardware, shape: &Shape, policy: &Policy) -> Reason {
    let idle = Site::of_idle(&hardware.topology, view.allocatable, policy.gpu_resources());
    let is_possible = idle.is_some_and(|mut site| admit(&mut site, &shape.ask, &mut crate::zone::FirstOnes).is_ok());
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

impl Planner<'_> {
    fn is_gpu(&self, resource: &str) -> bool {
        self.policy.gpu_resources().any(|name| name == resource)
    }
}

impl Steer for Planner<'_> {
    fn choose(&mut self, _: usize, resource: &str, among: &[usize], count: usize) -> Vec<usize> {
        if !self.is_gpu(resource) {
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
