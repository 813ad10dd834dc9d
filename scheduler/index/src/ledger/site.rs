//! What a node's pods have left to its kubelet's managers: their admissions, gone through again in the order in which it took them.
//!
//! Which CPUs and which memory the kubelet gave is told to nobody, so it is reckoned: they lie where the pod's devices lie, which are known.
//! Pods that are gone may have left the rest in another state than this: where a pod does not fit the reckoning, CPUs are taken beside its
//! devices as far as there are any, and else let be.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_core::NodeView;
use berth_core::policy::Resources;
use berth_core::view::HeldInstance;
use berth_core::zone::{ContainerAsk, PodAsk, Seat, Site, Steer, ZoneMask, admit, seats};
use berth_model::{GpuIndex, GpuSet, NodeTopology};

use crate::event::PodUid;

/// One pod of the node: what it asked, and what it is known to hold.
pub(super) struct Admission<'a> {
    pub(super) uid: &'a PodUid,
    pub(super) ask: &'a PodAsk,
    /// Empty where the kubelet has not taken it yet.
    pub(super) admitted_at: &'a str,
    pub(super) set: GpuSet,
    pub(super) instances: Vec<HeldInstance>,
    /// What its containers have by their enforced plan, where the kubelet counts those above as theirs.
    pub(super) planned: Option<(GpuSet, Vec<HeldInstance>)>,
}

/// The site of the node as its pods leave it; `None` where its kubelet has no say.
pub(super) fn site(view: &NodeView, names: &Resources, mut pods: Vec<Admission<'_>>) -> Option<Arc<Site>> {
    let topology = &view.hardware.as_ref()?.topology;
    let mut site = Site::of_idle(topology, view.allocatable, names)?;
    // Pods that the kubelet has not taken yet come last.
    let is_managed = |pod: &&Admission<'_>| pod.ask.containers.iter().any(ContainerAsk::is_managed);
    let (taken, untaken): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| !pod.admitted_at.is_empty());
    // A node of which the kubelet never took any has none that would.
    site.untaken_count = if taken.is_empty() { 0 } else { untaken.into_iter().filter(is_managed).count() };
    pods.sort_by_key(|pod| (pod.admitted_at.is_empty(), pod.admitted_at, pod.uid));
    for pod in &pods {
        let mut known = Known { topology, names, set: pod.set, instances: &pod.instances };
        let (mut after, near) = known.alone(&site);
        if admit(&mut after, pod.ask, &mut known).is_ok() {
            site.zones = after.zones;
            if near.is_empty() {
                site.devices = after.devices;
            }
        } else {
            take_cpus(&mut site, near, pod.ask.whole().exclusive_cpu_count);
        }
    }
    // Who holds which GPU is known better than what the kubelet would have given.
    let usable = view.unheld(topology.usable_gpus());
    let healthy =
        |index: GpuIndex| topology.parts().gpus.get(usize::from(index.0)).is_some_and(|gpu| gpu.health.is_usable());
    for (resource, devices) in &mut site.devices {
        for (device, seat) in devices.iter_mut().zip(seats(topology, resource, names)) {
            let is_unheld = match seat.placement {
                None => usable.contains(seat.gpu),
                Some(placement) => healthy(seat.gpu) && !view.holds_slots(seat.gpu, placement.mask()),
            };
            // The kubelet knows no plan: what a lease gave away from its count is free to it, and what it counts is not.
            let mut moved = pods.iter().filter_map(|pod| Some((pod, pod.planned.as_ref()?)));
            let is_left =
                moved.clone().any(|(_, (set, instances))| holds((*set, instances), seat)) && healthy(seat.gpu);
            device.is_free = (is_unheld || is_left) && !moved.any(|(pod, _)| holds((pod.set, &pod.instances), seat));
        }
    }
    Some(Arc::new(site))
}

fn holds((set, instances): (GpuSet, &[HeldInstance]), seat: Seat) -> bool {
    let Some(placement) = seat.placement else { return set.contains(seat.gpu) };
    instances.iter().any(|held| held.index == seat.gpu && held.slot.start == placement.start())
}

/// Takes so many CPUs out of these zones, if they have them.
fn take_cpus(site: &mut Site, near: ZoneMask, count: u32) {
    let mut missing = if site.rules.has_exclusive_cpus { count } else { 0 };
    for zone in site.zones.iter_mut().filter(|zone| near.contains(zone.id)) {
        let taken = zone.free_cpu_count.min(missing);
        zone.free_cpu_count = zone.free_cpu_count.saturating_sub(taken);
        missing = missing.saturating_sub(taken);
    }
}

/// Takes what the pod is known to hold.
struct Known<'a> {
    topology: &'a NodeTopology,
    names: &'a Resources,
    set: GpuSet,
    instances: &'a [HeldInstance],
}

impl Known<'_> {
    /// The site as if there were no other devices than those that the pod holds, for they tell where its CPUs are; and their zones.
    /// Resources of which it is not known to hold anything stay as they are.
    fn alone(&self, site: &Site) -> (Site, ZoneMask) {
        let (mut alone, mut near) = (site.clone(), ZoneMask::default());
        if self.set.is_empty() && self.instances.is_empty() {
            return (alone, near);
        }
        for (resource, devices) in &mut alone.devices {
            let seats = seats(self.topology, resource, self.names);
            if !seats.iter().any(|seat| self.has(*seat)) {
                continue;
            }
            for (device, seat) in devices.iter_mut().zip(seats) {
                device.is_free = self.has(seat);
                near = if device.is_free { near.or(device.zones) } else { near };
            }
        }
        (alone, near)
    }

    fn has(&self, seat: Seat) -> bool {
        holds((self.set, self.instances), seat)
    }
}

impl Steer for Known<'_> {
    fn choose(&mut self, _: usize, resource: &str, among: &[usize], count: usize) -> Vec<usize> {
        let seats = seats(self.topology, resource, self.names);
        let is_own = |at: &&usize| seats.get(**at).is_some_and(|seat| self.has(*seat));
        let own: BTreeSet<usize> = among.iter().filter(is_own).copied().collect();
        own.into_iter().take(count).collect()
    }
}
