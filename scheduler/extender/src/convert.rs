//! From what the wire and the API say of pods to the values of the core and the index. No judgement: what cannot be read is
//! left to [`berth_core::Demand::parse`], which names it.

use std::collections::BTreeMap;

use berth_core::annotation::{Level, Note, PLAN_KEY};
use berth_core::demand::{ContainerRequest, PodRequest, Totals};
use berth_index::{PlanNote, PodFacts, PodUid, Rank};
use berth_model::NodeName;

use crate::wire::{Container, Pod, ResourceList, Volume};

/// Owners whose pods kube-scheduler spreads over hosts and zones by default.
///
/// Source: k8s.io/kubernetes `pkg/scheduler/framework/plugins/helper/spread.go`, `DefaultSelector`. Services count there too;
/// the pod does not say whether one selects it.
const SPREAD_OWNERS: [&str; 3] = ["ReplicaSet", "ReplicationController", "StatefulSet"];

/// The part of a pod that decisions look at.
#[must_use]
pub fn pod_request(pod: &Pod) -> PodRequest {
    into_request(pod.clone())
}

/// The same of a pod that nobody needs any more: a call's is read for this alone, and copying it took as long as reading.
#[must_use]
pub fn into_request(pod: Pod) -> PodRequest {
    let has_soft_wishes = has_soft_wishes(&pod);
    let Pod { metadata, spec, status } = pod;
    let containers = |list: Vec<Container>| list.into_iter().map(container_request).collect();
    PodRequest {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        annotations: metadata.annotations,
        labels: metadata.labels,
        containers: containers(spec.containers),
        init_containers: containers(spec.init_containers),
        overhead: amounts(spec.overhead),
        has_soft_wishes,
        is_guaranteed: status.qos_class == "Guaranteed"
            && spec.resources.requests.is_empty()
            && spec.resources.limits.is_empty(),
        admitted_at: status.start_time,
        priority: spec.priority.unwrap_or(0),
        nominated_node: status.nominated_node_name,
    }
}

/// Whether nothing but amounts decides beside which pods this one can run: then any pods may go that leave enough. A pod of which
/// this is not sure gets the node only as kube-scheduler would clear it.
#[must_use]
pub fn is_countable(pod: &Pod) -> bool {
    let spec = &pod.spec;
    let mut containers = spec.containers.iter().chain(&spec.init_containers);
    let is_counted = |name: &String| name == "cpu" || name == "memory" || name.contains('/');
    let is_plain = |container: &Container| {
        let resources = &container.resources;
        container.ports.iter().all(|port| port.host_port == 0)
            && resources.requests.keys().chain(resources.limits.keys()).all(is_counted)
    };
    let is_tied = |v: &Volume| v.persistent_volume_claim.0 || v.ephemeral.0 || v.csi.0;
    let affinity = &spec.affinity;
    containers.all(is_plain)
        && !spec.volumes.iter().any(is_tied)
        && spec.resource_claims.0 == 0
        && spec.resources.requests.is_empty()
        && affinity.pod_affinity.required.0 == 0
        && affinity.pod_anti_affinity.required.0 == 0
        && spec.topology_spread_constraints.iter().all(|spread| spread.when_unsatisfiable == "ScheduleAnyway")
}

fn rank(pod: &Pod, totals: &Totals) -> Rank {
    let asks_for_devices = totals.extended.values().any(|count| *count > 0);
    Rank {
        priority: pod.spec.priority.unwrap_or(0),
        labels: if asks_for_devices { pod.metadata.labels.clone() } else { BTreeMap::new() },
        is_leaving: !pod.metadata.deletion_timestamp.is_empty(),
        repels: pod.spec.affinity.pod_anti_affinity.required.0 > 0,
    }
}

fn container_request(container: Container) -> ContainerRequest {
    let Container { name, restart_policy, resources, .. } = container;
    let mut requests = amounts(resources.limits);
    // A request that is not named is the limit. Source: k8s.io/kubernetes `pkg/apis/core/v1/defaults.go`, SetDefaults_Pod.
    requests.extend(amounts(resources.requests));
    ContainerRequest { name, requests, is_sidecar: restart_policy == "Always" }
}

fn amounts(list: ResourceList) -> BTreeMap<String, String> {
    list.into_iter().map(|(name, amount)| (name, amount.0)).collect()
}

fn is_extended(amounts: &ResourceList) -> bool {
    amounts.keys().any(|name| name.contains('/'))
}

fn has_soft_wishes(pod: &Pod) -> bool {
    let spread = pod.spec.topology_spread_constraints.iter().any(|s| s.when_unsatisfiable == "ScheduleAnyway");
    let owners = &pod.metadata.owner_references;
    // Explicit constraints switch the default ones off.
    let is_spread_by_default = pod.spec.topology_spread_constraints.is_empty()
        && owners.iter().any(|o| o.controller && SPREAD_OWNERS.contains(&o.kind.as_str()));
    spread || is_spread_by_default || pod.spec.affinity.has_preferred()
}

/// The pod as the ledger needs it; `None` where it has no UID or its node's name is none.
#[must_use]
pub fn pod_facts(pod: &Pod) -> Option<PodFacts> {
    let node = match pod.spec.node_name.as_str() {
        "" => None,
        name => Some(NodeName::parse(name).ok()?),
    };
    if pod.metadata.uid.is_empty() {
        return None;
    }
    let (note, is_enforced) = node.as_ref().map_or((PlanNote::Absent, false), |node| plan_note(pod, node));
    let totals = Totals::of(&pod_request(pod));
    Some(PodFacts {
        uid: PodUid::new(&pod.metadata.uid),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        node,
        is_ended: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
        expects_devices: pod.status.phase == "Running"
            && pod.spec.containers.iter().any(|container| is_extended(&container.resources.limits)),
        rank: rank(pod, &totals),
        totals,
        note,
        is_enforced,
        truth: truth(pod),
    })
}

/// Most device ids taken of one pod: bounds what a status can cost. No node has as many.
const DEVICES_MAX: usize = 1024;

/// The devices that the kubelet says it gave the pod, by resource. Plain init containers reuse devices of the others: each once.
fn truth(pod: &Pod) -> BTreeMap<String, Vec<String>> {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let mut truth: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let given = statuses.flat_map(|s| &s.allocated_resources_status);
    let ids = given.flat_map(|resource| resource.resources.iter().map(|device| (&resource.name, &device.resource_id)));
    for (resource, id) in ids.take(DEVICES_MAX) {
        let known = truth.entry(resource.clone()).or_default();
        if !known.contains(id) {
            known.push(id.clone());
        }
    }
    truth
}

/// The pod's plan, and whether the node enforces it.
fn plan_note(pod: &Pod, node: &NodeName) -> (PlanNote, bool) {
    let Some(text) = pod.metadata.annotations.get(PLAN_KEY) else { return (PlanNote::Absent, false) };
    let note = Note::parse(text, &pod.metadata.uid, node);
    match note.and_then(|note| Ok((note.holding()?, note.level))) {
        Ok((holding, level)) => (PlanNote::Devices(holding), level == Level::Enforced),
        Err(error) => (PlanNote::Void(error.to_string()), false),
    }
}

#[cfg(test)]
mod tests {
    use berth_core::device::Holding;

    use super::*;
    use crate::wire::{OwnerReference, Quantity, TopologySpread};

    fn pod() -> Pod {
        let mut container = Container { name: "main".to_owned(), ..Container::default() };
        container.resources.limits.insert("nvidia.com/gpu".to_owned(), Quantity("2".to_owned()));
        container.resources.limits.insert("cpu".to_owned(), Quantity("4".to_owned()));
        container.resources.requests.insert("cpu".to_owned(), Quantity("1".to_owned()));
        let mut pod = Pod::default();
        pod.metadata.uid = "u1".to_owned();
        pod.spec.containers.push(container);
        pod
    }

    #[test]
    fn a_request_that_is_not_named_is_the_limit() {
        let request = pod_request(&pod());
        let amounts = &request.containers[0].requests;
        assert_eq!((amounts["nvidia.com/gpu"].as_str(), amounts["cpu"].as_str()), ("2", "1"));
    }

    #[test]
    fn owners_that_are_spread_by_default_and_soft_spreads_are_soft_wishes() {
        assert!(!pod_request(&pod()).has_soft_wishes);
        let owned = |kind: &str| {
            let mut pod = pod();
            pod.metadata.owner_references.push(OwnerReference { kind: kind.to_owned(), controller: true });
            pod
        };
        assert!(pod_request(&owned("ReplicaSet")).has_soft_wishes);
        assert!(!pod_request(&owned("Job")).has_soft_wishes);
        let mut hard = owned("ReplicaSet");
        let constraint = |word: &str| TopologySpread { when_unsatisfiable: word.to_owned() };
        hard.spec.topology_spread_constraints.push(constraint("DoNotSchedule"));
        assert!(!pod_request(&hard).has_soft_wishes, "explicit constraints switch the default ones off");
        hard.spec.topology_spread_constraints.push(constraint("ScheduleAnyway"));
        assert!(pod_request(&hard).has_soft_wishes);
    }

    #[test]
    fn the_kubelets_word_is_read_from_every_container_each_device_once() {
        let given = |ids: &[&str]| {
            let devices: Vec<_> =
                ids.iter().map(|id| serde_json::json!({"resourceID": id, "health": "Healthy"})).collect();
            serde_json::json!({"name": "c", "allocatedResourcesStatus": [{"name": "nvidia.com/gpu", "resources": devices}]})
        };
        let object = serde_json::json!({"metadata": {"uid": "u1"}, "spec": {"nodeName": "n1"}, "status": {
            "initContainerStatuses": [given(&["GPU-a"])],
            "containerStatuses": [given(&["GPU-a", "GPU-b"]), {"name": "plain"}],
        }});
        let pod: Pod = serde_json::from_value(object).unwrap();
        let expected = [("nvidia.com/gpu".to_owned(), vec!["GPU-a".to_owned(), "GPU-b".to_owned()])];
        assert_eq!(pod_facts(&pod).unwrap().truth, expected.into());
    }

    #[test]
    fn a_plan_of_another_pod_is_void_and_one_on_an_unbound_pod_is_nothing() {
        let mut pod = pod();
        let note = r#"{"v":1,"podUID":"u2","node":"n1","level":"advice","containers":[]}"#;
        pod.metadata.annotations.insert(PLAN_KEY.to_owned(), note.to_owned());
        assert_eq!(pod_facts(&pod).unwrap().note, PlanNote::Absent);
        pod.spec.node_name = "n1".to_owned();
        assert!(matches!(pod_facts(&pod).unwrap().note, PlanNote::Void(why) if why.contains("u2")));
        let own = note.replace("u2", "u1");
        pod.metadata.annotations.insert(PLAN_KEY.to_owned(), own);
        assert_eq!(pod_facts(&pod).unwrap().note, PlanNote::Devices(Holding::default()));
    }
}
