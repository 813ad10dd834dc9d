//! What a node's pods have left to its kubelet's managers: their admissions, gone through again in the order in which it took them.
//!
//! Which CPUs and which memory the kubelet gave is told to nobody, so it is reckoned. Pods that are gone may have left it in another state
//! than this: where a pod does not fit the reckoning, its devices are taken and the rest is let be.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_core::NodeView;
use berth_core::policy::Resources;
use berth_core::zone::{PodAsk, Site, Steer, admit};
use berth_model::{GpuIndex, GpuSet};

use crate::event::PodUid;

/// One pod of the node: what it asked, and the GPUs that it is known to hold.
pub(super) struct Admission<'a> {
    pub(super) uid: &'a PodUid,
    pub(super) ask: &'a PodAsk,
    /// Empty where the kubelet has not taken it yet.
    pub(super) admitted_at: &'a str,
    pub(super) set: GpuSet,
}

/// The site of the node as its pods leave it; `None` where its kubelet has no say.
pub(super) fn site(view: &NodeView, names: &Resources, mut pods: Vec<Admission<'_>>) -> Option<Arc<Site>> {
    let topology = &view.hardware.as_ref()?.topology;
    let mut site = Site::of_idle(topology, view.allocatable, names.gpu.iter().map(String::as_str))?;
    // Pods that the kubelet has not taken yet come last.
    pods.sort_by_key(|pod| (pod.admitted_at.is_empty(), pod.admitted_at, pod.uid));
    for pod in pods {
        let mut after = site.clone();
        if admit(&mut after, pod.ask, &mut Known(pod.set)).is_ok() {
            site = after;
        }
    }
    // Who holds which GPU is known better than what the kubelet would have given.
    let usable = view.unheld(topology.usable_gpus());
    for devices in site.devices.values_mut() {
        for (device, position) in devices.iter_mut().zip(0_u8..) {
            device.is_free = usable.contains(GpuIndex(position));
        }
    }
    Some(Arc::new(site))
}

/// Takes what the pod is known to hold.
struct Known(GpuSet);

impl Steer for Known {
    fn choose(&mut self, _: usize, _: &str, among: &[usize], count: usize) -> Vec<usize> {
        let is_own = |at: &&usize| u8::try_from(**at).is_ok_and(|at| self.0.contains(GpuIndex(at)));
        let own: BTreeSet<usize> = among.iter().filter(is_own).copied().collect();
        own.into_iter().take(count).collect()
    }
}
