//! From the API's objects to the values that the index folds. No judgement.

use std::collections::BTreeMap;

use berth_core::annotation::{Level, Note, PLAN_KEY};
use berth_core::demand::{ContainerRequest, PodRequest, Totals};
use berth_core::level::LabelSet;
use berth_core::quantity;
use berth_core::view::Compute;
use berth_index::{NodeFacts, PlanNote, PodFacts, PodUid, Rank};
use berth_model::{BootId, MiB, NodeName};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

type Amounts = BTreeMap<String, Quantity>;

/// A node as the ledger needs it; `None` where its name is none.
pub(super) fn node_facts(node: &Node) -> Option<NodeFacts> {
    let name = NodeName::parse(node.metadata.name.as_deref()?).ok()?;
    let status = node.status.as_ref();
    let boot = status.and_then(|s| s.node_info.as_ref()).map(|info| info.boot_id.as_str());
    let amounts = texts(status.and_then(|s| s.allocatable.as_ref()));
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let units = |name: &str| amounts.get(name).and_then(|t| quantity::parse_units(t).ok()).unwrap_or(0);
    let cpu_milli = amounts.get("cpu").and_then(|t| quantity::parse_milli(t).ok()).unwrap_or(0);
    let extended = amounts.keys().filter(|k| k.contains('/'));
    Some(NodeFacts {
        name,
        boot_id: boot.and_then(|b| BootId::parse(b).ok()),
        offered: extended.map(|k| (k.clone(), units(k))).collect(),
        allocatable: Compute { cpu_milli, memory: MiB(units("memory") >> 20) },
        zone: None,
        is_avoided: false,
        labels: LabelSet::of(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
    })
}

/// What an operator should know of the Node object, in words of the STATUS column.
pub(super) fn conditions(node: &Node) -> Vec<&'static str> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let is_ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let is_cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    let words = [(!is_ready, "not-ready"), (is_cordoned, "cordoned")];
    words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect()
}

/// The node whose agent this pod is, if it has not been ready for longer than allowed.
pub(super) fn node_of_absent_agent(pod: &Pod, now: Timestamp, seconds_max: u64) -> Option<NodeName> {
    let label = |key: &str| pod.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    if label("app.kubernetes.io/name") != Some("berth") || label("app.kubernetes.io/component") != Some("agent") {
        return None;
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready: Option<&PodCondition> = conditions.into_iter().flatten().find(|c| c.type_ == "Ready");
    if ready.is_some_and(|c| c.status == "True") {
        return None;
    }
    let since = ready.and_then(|c| c.last_transition_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
    let seconds = since.map_or(i64::MAX, |t| now.as_second().saturating_sub(t.0.as_second()));
    let is_late = u64::try_from(seconds).unwrap_or(0) > seconds_max;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    node.filter(|_| is_late).and_then(|n| NodeName::parse(n).ok())
}

/// A pod on a node as the ledger needs it; `None` for one that is on none.
pub(super) fn pod_facts(pod: &Pod) -> Option<PodFacts> {
    let spec = pod.spec.as_ref()?;
    let node = NodeName::parse(spec.node_name.as_deref()?).ok()?;
    let uid = pod.metadata.uid.clone()?;
    let containers = |list: &[Container]| list.iter().map(container_request).collect();
    let request = PodRequest {
        containers: containers(&spec.containers),
        init_containers: containers(spec.init_containers.as_deref().unwrap_or_default()),
        overhead: texts(spec.overhead.as_ref()),
        is_guaranteed: is_guaranteed(pod),
        admitted_at: admitted_at(pod),
        ..PodRequest::default()
    };
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let (note, is_enforced) = plan_note(pod, &uid, &node);
    Some(PodFacts {
        uid: PodUid::new(&uid),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        is_ended: matches!(phase, "Succeeded" | "Failed"),
        expects_devices: phase == "Running"
            && containers(&spec.containers)
                .iter()
                .any(|c: &ContainerRequest| c.requests.keys().any(|k| k.contains('/'))),
        totals: Totals::of(&request),
        rank: Rank::default(),
        note,
        is_enforced,
        truth: truth(pod),
        node: Some(node),
    })
}

/// Whether its containers can have CPUs and memory of their own.
fn is_guaranteed(pod: &Pod) -> bool {
    let class = pod.status.as_ref().and_then(|s| s.qos_class.as_deref());
    class == Some("Guaranteed") && pod.spec.as_ref().is_some_and(|s| s.resources.is_none())
}

/// When the kubelet took it; empty before.
fn admitted_at(pod: &Pod) -> String {
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    started.map_or_else(String::new, |t| t.0.to_string())
}

/// The devices that the kubelet says it gave the pod, by resource, each once.
fn truth(pod: &Pod) -> BTreeMap<String, Vec<String>> {
    let status = pod.status.as_ref();
    let lists =
        [status.and_then(|s| s.init_container_statuses.as_ref()), status.and_then(|s| s.container_statuses.as_ref())];
    let mut truth: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for given in lists.into_iter().flatten().flatten().flat_map(|s| s.allocated_resources_status.iter().flatten()) {
        let known = truth.entry(given.name.clone()).or_default();
        for device in given.resources.iter().flatten() {
            if !known.contains(&device.resource_id) {
                known.push(device.resource_id.clone());
            }
        }
    }
    truth
}

/// The pod's plan, and whether the node enforces it.
fn plan_note(pod: &Pod, uid: &str, node: &NodeName) -> (PlanNote, bool) {
    let annotations = pod.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|a| a.get(PLAN_KEY)) else { return (PlanNote::Absent, false) };
    match Note::parse(text, uid, node).and_then(|note| Ok((note.holding()?, note.level))) {
        Ok((holding, level)) => (PlanNote::Devices(holding), level == Level::Enforced),
        Err(error) => (PlanNote::Void(error.to_string()), false),
    }
}

fn container_request(container: &Container) -> ContainerRequest {
    let resources = container.resources.as_ref();
    // A request that is not named is the limit.
    let mut requests = texts(resources.and_then(|r| r.limits.as_ref()));
    requests.extend(texts(resources.and_then(|r| r.requests.as_ref())));
    let is_sidecar = container.restart_policy.as_deref() == Some("Always");
    ContainerRequest { name: container.name.clone(), requests, is_sidecar }
}

fn texts(amounts: Option<&Amounts>) -> BTreeMap<String, String> {
    amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), amount.0.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(ready: &str) -> Pod {
        serde_json::from_str(&format!(
            r#"{{"metadata": {{"labels": {{"app.kubernetes.io/name": "berth", "app.kubernetes.io/component": "agent"}}}},
                "spec": {{"nodeName": "n1", "containers": []}},
                "status": {{"conditions": [{{"type": "Ready", "status": "{ready}",
                    "lastTransitionTime": "2026-11-21T08:00:00Z"}}]}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn an_agent_is_absent_only_after_its_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let node = |ready: &str, now: &str| node_of_absent_agent(&agent(ready), at(now), 60).map(|n| n.to_string());
        assert_eq!(node("True", "2026-11-21T09:00:00Z"), None);
        assert_eq!(node("False", "2026-11-21T08:01:00Z"), None);
        assert_eq!(node("False", "2026-11-21T08:01:01Z"), Some("n1".to_owned()));
        assert_eq!(node("False", "2026-11-21T07:00:00Z"), None, "a clock that is behind condemns nobody");
    }

    #[test]
    fn a_node_says_what_it_offers_and_what_is_wrong_with_it() {
        let node: Node = serde_json::from_str(
            r#"{"metadata": {"name": "n1"}, "spec": {"unschedulable": true},
                "status": {"allocatable": {"nvidia.com/gpu": "8", "cpu": "1500m", "memory": "2Gi", "x/odd": "many"},
                    "conditions": [{"type": "Ready", "status": "Unknown"}]}}"#,
        )
        .unwrap();
        let facts = node_facts(&node).unwrap();
        assert_eq!(facts.offered["nvidia.com/gpu"], 8);
        assert_eq!(facts.allocatable, Compute { cpu_milli: 1500, memory: MiB(2048) });
        assert_eq!(conditions(&node), ["not-ready", "cordoned"]);
    }

    #[test]
    fn a_pod_that_is_on_no_node_holds_nothing() {
        let pod: Pod = serde_json::from_str(r#"{"metadata": {"uid": "u"}, "spec": {"containers": []}}"#).unwrap();
        assert_eq!(pod_facts(&pod), None);
    }
}
