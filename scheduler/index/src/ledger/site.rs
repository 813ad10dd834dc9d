//! What a node's pods have left to its kubelet's managers: their admissions, gone through again in the order in which it took them.
//!
//! Which CPUs and which memory the kubelet gave is told to nobody, so it is reckoned. Pods that are gone may have left it in another state
//! than this: where a pod does not fit the reckoning, its devices are taken and the rest is let be.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_core::NodeView;
use berth_core::policy::Resources;
use berth_core::view::HeldInstance;
use berth_core::zone::{PodAsk, Seat, Site, Steer, admit, seats};
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
}

/// The site of the node as its pods leave it; `None` where its kubelet has no say.
pub(super) fn site(view: &NodeView, names: &Resources, mut pods: Vec<Admission<'_>>) -> Option<Arc<Site>> {
    let topology = &view.hardware.as_ref()?.topology;
    let mut site = Site::of_idle(topology, view.allocatable, names)?;
    // Pods that the kubelet has not taken yet come last.
    pods.sort_by_key(|pod| (pod.admitted_at.is_empty(), pod.admitted_at, pod.uid));
    for pod in pods {
        let mut after = site.clone();
        let mut known = Known { topology, names, set: pod.set, instances: &pod.instances };
        if admit(&mut after, pod.ask, &mut known).is_ok() {
            site = after;
        }
    }
    // Who holds which GPU is known better than what the kubelet would have given.
    let usable = view.unheld(topology.usable_gpus());
    let healthy =
        |index: GpuIndex| topology.parts().gpus.get(usize::from(index.0)).is_some_and(|gpu| gpu.health.is_usable());
    for (resource, devices) in &mut site.devices {
        for (device, seat) in devices.iter_mut().zip(seats(topology, resource, names)) {
            device.is_free = match seat.placement {
                None => usable.contains(seat.gpu),
                Some(placement) => healthy(seat.gpu) && !view.holds_slots(seat.gpu, placement.mask()),
            };
        }
    }
    Some(Arc::new(site))
}

/// Takes what the pod is known to hold.
struct Known<'a> {
    topology: &'a NodeTopology,
    names: &'a Resources,
    set: GpuSet,
    instances: &'a [HeldInstance],
}

impl Known<'_> {
    fn has(&self, seat: Seat) -> bool {
        let Some(placement) = seat.placement else { return self.set.contains(seat.gpu) };
        self.instances.iter().any(|held| held.index == seat.gpu && held.slot.start == placement.start())
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
