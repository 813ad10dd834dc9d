//! The kubelet's list of pods as leases read it.

use std::collections::{BTreeMap, BTreeSet};

use berth_proto::kubelet::podresources::ListPodResourcesResponse;

use super::book::{Listed, Listing};

/// What the list says of containers that hold devices, and of names that stand there twice. One resource may come in several entries.
pub(super) fn listing(list: ListPodResourcesResponse) -> Listing {
    let mut listing = Listing::default();
    let mut names = BTreeSet::new();
    for pod in list.pod_resources {
        let name = (pod.namespace.clone(), pod.name.clone());
        if !names.insert(name.clone()) {
            listing.twice.insert(name);
        }
        for container in pod.containers {
            let mut devices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for entry in container.devices {
                devices.entry(entry.resource_name).or_default().extend(entry.device_ids);
            }
            if !devices.is_empty() {
                let (namespace, pod) = (pod.namespace.clone(), pod.name.clone());
                listing.containers.push(Listed { namespace, pod, container: container.name, devices });
            }
        }
    }
    listing
}
