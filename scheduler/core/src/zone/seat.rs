//! Which device stands at which position of a resource's list in a [`super::Site`].

use berth_model::{Gpu, GpuIndex, NodeTopology, Placement};

use crate::place::mig::name;
use crate::policy::Resources;

/// One device of a resource: a GPU, or an instance on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The GPU.
    pub gpu: GpuIndex,
    /// Where the instance lies, where it is one.
    pub placement: Option<Placement>,
}

impl Seat {
    fn instances<'a>(gpu: &'a Gpu, is_it: &'a dyn Fn(&str) -> bool) -> impl Iterator<Item = Self> + 'a {
        // The device plugin advertises instances with one device only.
        let whole = gpu.detail.mig_instances.iter().filter(|i| i.uuids.len() == 1 && is_it(&i.profile));
        whole.map(|i| Self { gpu: gpu.index, placement: Some(i.placement) })
    }
}

/// The devices of a resource, in the order of their positions. GPUs that MIG cuts keep theirs among whole GPUs, where nobody gets them.
#[must_use]
pub fn seats(topology: &NodeTopology, resource: &str, names: &Resources) -> Vec<Seat> {
    let gpus = &topology.parts().gpus;
    if let Some(profile) = names.mig_profile(resource) {
        let is_it = |own: &str| name::means(profile, own);
        return gpus.iter().flat_map(|gpu| Seat::instances(gpu, &is_it).collect::<Vec<_>>()).collect();
    }
    if topology.is_all_cut() {
        return gpus.iter().flat_map(|gpu| Seat::instances(gpu, &|_| true).collect::<Vec<_>>()).collect();
    }
    gpus.iter().map(|gpu| Seat { gpu: gpu.index, placement: None }).collect()
}

/// The resources of which a node has devices: the names of GPUs, and one for each profile of its instances.
pub(crate) fn resources(topology: &NodeTopology, names: &Resources) -> Vec<String> {
    let instances = topology.parts().gpus.iter().flat_map(|gpu| &gpu.detail.mig_instances);
    let prefixed = |prefix: &String| {
        let named = instances.map(|i| format!("{prefix}{}", name::resource_form(&i.profile)));
        named.collect::<std::collections::BTreeSet<_>>()
    };
    let profiles = names.mig_prefix.as_ref().map(prefixed).unwrap_or_default();
    names.gpu.iter().cloned().chain(profiles).collect()
}
