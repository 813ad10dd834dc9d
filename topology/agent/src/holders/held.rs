//! What pods hold against what their plans name, from values alone: the kubelet's list and the plan's text in, differences out.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::annotation::Note;
use berth_model::{Drift, Level, NodeName, NodeTopology};
use berth_proto::kubelet::podresources::ListPodResourcesResponse;

/// Namespace and name of a pod.
pub(super) type PodName = (String, String);

/// Device ids by extended resource.
pub(super) type Devices = BTreeMap<String, BTreeSet<String>>;

/// Devices that the report knows by more than their own id: an instance by the GPU that it is on and its first memory slot.
pub(crate) type Instances = BTreeMap<String, (String, u8)>;

/// A device, however it is called: a GPU, or with a slot an instance on it.
type Place = (String, Option<u8>);

/// The instances of a node by the ids of their devices.
pub(crate) fn instances(topology: &NodeTopology) -> Instances {
    let mut known = Instances::new();
    for gpu in &topology.parts().gpus {
        for instance in &gpu.detail.mig_instances {
            let place = (gpu.uuid.to_string(), instance.placement.start());
            known.extend(instance.uuids.iter().map(|uuid| (uuid.clone(), place.clone())));
        }
    }
    known
}

/// The pods that hold GPUs or instances, and which. Other devices are none of ours.
pub(super) fn held(list: ListPodResourcesResponse) -> BTreeMap<PodName, Devices> {
    let mut pods = BTreeMap::new();
    for pod in list.pod_resources {
        let mut devices = Devices::new();
        for entry in pod.containers.into_iter().flat_map(|container| container.devices) {
            let ids = entry.device_ids.into_iter().filter(|id| id.starts_with("GPU-") || id.starts_with("MIG-"));
            let ids: BTreeSet<String> = ids.take(Drift::DEVICES_MAX).collect();
            if !ids.is_empty() {
                devices.entry(entry.resource_name).or_default().extend(ids);
            }
        }
        if !devices.is_empty() {
            pods.insert((pod.namespace, pod.name), devices);
        }
    }
    pods
}

/// The plan of this pod on this node; `None` where there is none, or the text is another's.
pub(super) fn plan(text: Option<&str>, pod_uid: &str, node: &NodeName) -> Option<Note> {
    Note::parse(text?, pod_uid, node).ok()
}

/// What a plan names of a pod's containers that run side by side.
pub(super) fn planned(plan: Option<&Note>) -> BTreeSet<Place> {
    let containers = plan.into_iter().flat_map(|plan| &plan.containers).filter(|container| !container.init);
    let devices = containers.flat_map(|container| &container.devices);
    devices.map(|device| (device.uuid.clone(), device.mig.as_ref().map(|mig| mig.start))).collect()
}

/// Whether a pod's containers have what its plan names, whatever the kubelet counts for them: the node enforced it.
pub(super) fn is_enforced(plan: Option<&Note>) -> bool {
    plan.is_some_and(|plan| plan.level == Level::Enforced)
}

/// The differences of one pod: none where it holds what is planned, or a part of it, as while its containers are started.
pub(super) fn drifts(
    pod: &PodName,
    pod_uid: &str,
    devices: &Devices,
    planned: &BTreeSet<Place>,
    known: &Instances,
) -> Vec<Drift> {
    if devices.values().flatten().all(|id| planned.contains(&place(id, known))) {
        return Vec::new();
    }
    let drift = |(resource, ids): (&String, &BTreeSet<String>)| Drift {
        pod: format!("{}/{}", pod.0, pod.1),
        pod_uid: pod_uid.to_owned(),
        resource: resource.clone(),
        devices: ids.iter().cloned().collect(),
    };
    devices.iter().map(drift).collect()
}

/// A shared card's id ends in `::` and a number: the card counts.
///
/// Source: ids of replicas in github.com/NVIDIA/k8s-device-plugin `internal/rm/device_map.go`, `AnnotatedID`.
fn place(id: &str, known: &Instances) -> Place {
    let card = id.split_once("::").map_or(id, |(card, _)| card);
    known.get(card).map_or_else(|| (card.to_owned(), None), |(gpu, start)| (gpu.clone(), Some(*start)))
}

#[cfg(test)]
mod tests {
    use berth_proto::kubelet::podresources::{ContainerDevices, ContainerResources, PodResources};

    use super::*;

    fn pod(name: &str, devices: &[(&str, &[&str])]) -> PodResources {
        let devices = devices.iter().map(|(resource, ids)| ContainerDevices {
            resource_name: (*resource).to_owned(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        });
        let container = ContainerResources { name: "main".to_owned(), devices: devices.collect() };
        PodResources { name: name.to_owned(), namespace: "n".to_owned(), containers: vec![container] }
    }

    fn text(devices: &str) -> String {
        format!(
            r#"{{"v":1,"podUID":"u","node":"a","level":"advice","containers":[{{"name":"main","resource":"r","devices":[{devices}]}}]}}"#
        )
    }

    fn of_pod(text: Option<&str>, uid: &str) -> Option<Note> {
        plan(text, uid, &NodeName::parse("a").unwrap())
    }

    fn told(pod_resources: PodResources, text: Option<&str>) -> Vec<Vec<String>> {
        let plan = of_pod(text, "u");
        let known = Instances::from([("MIG-a".to_owned(), ("GPU-1".to_owned(), 4))]);
        let list = ListPodResourcesResponse { pod_resources: vec![pod_resources] };
        let all = held(list);
        let of_each = all.iter().map(|(name, devices)| drifts(name, "u", devices, &planned(plan.as_ref()), &known));
        of_each.flatten().map(|drift| drift.devices).collect()
    }

    const GPU: &str = "nvidia.com/gpu";

    #[test]
    fn a_pod_that_holds_what_is_planned_or_a_part_of_it_is_not_told() {
        let two = text(r#"{"uuid":"GPU-1"},{"uuid":"GPU-2"}"#);
        for ids in [&["GPU-2", "GPU-1"][..], &["GPU-1"], &["GPU-1::3", "GPU-2::0"], &[]] {
            assert_eq!(told(pod("p", &[(GPU, ids)]), Some(&two)), Vec::<Vec<String>>::new(), "{ids:?}");
        }
        let instance = text(r#"{"uuid":"GPU-1","mig":{"profile":"3g.20gb","start":4,"size":4}}"#);
        assert!(told(pod("p", &[("nvidia.com/mig-3g.20gb", &["MIG-a"])]), Some(&instance)).is_empty());
    }

    #[test]
    fn a_pod_that_holds_another_device_is_told_with_all_that_it_holds() {
        let two = text(r#"{"uuid":"GPU-1"},{"uuid":"GPU-2"}"#);
        assert_eq!(told(pod("p", &[(GPU, &["GPU-3", "GPU-1"])]), Some(&two)), [["GPU-1", "GPU-3"]]);
        let elsewhere = text(r#"{"uuid":"GPU-1","mig":{"profile":"3g.20gb","start":0,"size":4}}"#);
        assert_eq!(told(pod("p", &[("nvidia.com/mig-3g.20gb", &["MIG-a"])]), Some(&elsewhere)), [["MIG-a"]]);
        assert_eq!(
            told(pod("p", &[("nvidia.com/mig-3g.20gb", &["MIG-unknown"])]), Some(&elsewhere)),
            [["MIG-unknown"]]
        );
    }

    #[test]
    fn a_pod_without_a_plan_of_its_own_planned_nothing() {
        let of_another = text(r#"{"uuid":"GPU-1"}"#).replace("\"u\"", "\"v\"");
        for plan in [None, Some("no JSON"), Some("{}"), Some(of_another.as_str())] {
            assert_eq!(told(pod("p", &[(GPU, &["GPU-1"])]), plan), [["GPU-1"]], "{plan:?}");
        }
    }

    #[test]
    fn an_enforced_plan_is_what_the_containers_have() {
        let of = |level: &str| format!(r#"{{"v":1,"podUID":"u","node":"a","level":"{level}","containers":[]}}"#);
        let is_enforced = |text: Option<&str>, uid: &str| is_enforced(of_pod(text, uid).as_ref());
        assert!(is_enforced(Some(&of("enforced")), "u"));
        assert!(!is_enforced(Some(&of("enforced")), "v") && !is_enforced(Some(&of("preferred")), "u"));
        assert!(!is_enforced(None, "u") && !is_enforced(Some("{}"), "u"));
    }

    #[test]
    fn what_an_init_container_was_promised_is_not_what_runs() {
        let plan = text(r#"{"uuid":"GPU-2"}"#).replace(
            r#""containers":["#,
            r#""containers":[{"name":"pull","resource":"r","init":true,"devices":[{"uuid":"GPU-1"}]},"#,
        );
        assert_eq!(told(pod("p", &[(GPU, &["GPU-1"])]), Some(&plan)), [["GPU-1"]]);
    }

    #[test]
    fn devices_that_are_no_gpus_and_pods_without_any_are_left_out() {
        let list = vec![pod("nic", &[("rdma/hca", &["mlx5_0"])]), pod("starts", &[]), pod("gpu", &[(GPU, &["GPU-1"])])];
        let all = held(ListPodResourcesResponse { pod_resources: list });
        assert_eq!(all.into_keys().map(|(_, name)| name).collect::<Vec<_>>(), ["gpu"]);
    }
}
