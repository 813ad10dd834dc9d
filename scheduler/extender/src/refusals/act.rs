//! What is asked of the API server for refused pods: their eviction, and which pods wait on nodes whose agents are away.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_core::annotation::{Note, PLAN_KEY};
use berth_model::NodeName;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Preconditions};

use super::{Eviction, Unattended};
use crate::events::{Told, about_pod};

/// Time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Pods read of one node.
const PODS_MAX: u32 = 500;

/// What the kubelet says of a container whose CDI device has no spec.
const UNRESOLVED: &str = "CreateContainerError";

/// Asks for a pod's eviction, as a word for the metric. A pod that was made anew under the name is spared.
pub(super) async fn evict(client: &Client, eviction: &Eviction) -> &'static str {
    let (pod, uid) = (&eviction.refusal.pod, &eviction.refusal.pod_uid);
    let Some((namespace, name)) = pod.split_once('/') else { return "failed" };
    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
    let delete_options = Some(DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() });
    let params = EvictParams { delete_options, ..EvictParams::default() };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (result, error) = match tokio::time::timeout(CALL_TIMEOUT, pods.evict(name, &params)).await {
        Ok(Ok(_)) => ("ok", String::new()),
        // It is gone, or another one has its name.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => ("gone", status.message.clone()),
        Ok(Err(kube::Error::Api(status))) if status.code == 429 => ("held", status.message.clone()),
        Ok(Err(error)) => ("failed", error.to_string()),
        Err(_) => ("failed", format!("no answer in {} s", CALL_TIMEOUT.as_secs())),
    };
    let (node, reason) = (&eviction.node, eviction.refusal.reason.word());
    if result == "ok" {
        tracing::warn!(namespace, pod = name, node, reason, "evicted a pod that gets no devices");
    } else {
        tracing::warn!(namespace, pod = name, node, reason, result, error, "a pod that gets no devices is not evicted");
    }
    result
}

/// Pods that were told that their node's agent is away.
#[derive(Debug, Default)]
pub(super) struct Away {
    told: BTreeSet<String>,
}

impl Away {
    /// Pods of these nodes that wait for their devices and were not told yet.
    pub(super) async fn look(&mut self, client: &Client, nodes: &[(NodeName, Unattended)]) -> Vec<Told> {
        let (mut news, mut waiting) = (Vec::new(), BTreeSet::new());
        for (node, why) in nodes {
            let params = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(PODS_MAX);
            let pods: Api<Pod> = Api::all(client.clone());
            let Ok(Ok(list)) = tokio::time::timeout(CALL_TIMEOUT, pods.list(&params)).await else {
                tracing::warn!(%node, "the pods of a node whose agent is away cannot be listed");
                continue;
            };
            for pod in list.items.iter().filter(|pod| waits_for_gpus(pod)) {
                // Where no plan is enforced any more, a container that cannot be made may lack something else.
                if *why == Unattended::Left && !has_enforced_plan(pod, node) {
                    continue;
                }
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if !self.told.contains(&uid) {
                    news.push(told(pod, &uid, node, *why));
                }
                waiting.insert(uid);
            }
        }
        self.told = waiting;
        news
    }
}

/// Whether a container of the pod cannot be made, and it asks for devices of NVIDIA's.
fn waits_for_gpus(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return false };
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waits = |reason: &str| reason == UNRESOLVED;
    let is_waiting =
        statuses.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref()).any(waits);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let limits = containers.filter_map(|container| container.resources.as_ref()?.limits.as_ref());
    is_waiting && limits.flat_map(|limits| limits.keys()).any(|name| name.starts_with("nvidia.com/"))
}

fn has_enforced_plan(pod: &Pod, node: &NodeName) -> bool {
    let plan = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PLAN_KEY));
    let note = plan.and_then(|text| Note::parse(text, pod.metadata.uid.as_deref()?, node).ok());
    note.is_some_and(|note| note.level == berth_core::annotation::Level::Enforced)
}

fn told(pod: &Pod, uid: &str, node: &NodeName, why: Unattended) -> Told {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let note = match why {
        Unattended::Away => format!(
            "Node {node} enforces plans and its berth-agent is not ready: nobody gives the pod its devices. It starts by itself when \
             the agent is back: see the agent's pod on that node."
        ),
        Unattended::Left => format!(
            "Node {node} enforces plans no more, and the pod waits for a lease from when it did, which nobody gives it. Delete the \
             pod, or give the node level enforced again."
        ),
    };
    Told {
        about: about_pod(namespace.unwrap_or_default(), name.unwrap_or_default(), uid),
        is_warning: true,
        reason: "AgentAway",
        action: "Enforce",
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(reason: &str, resource: &str) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"name":"p"}},"spec":{{"containers":[{{"name":"c","resources":{{"limits":{{"{resource}":"1"}}}}}}]}},
            "status":{{"containerStatuses":[{{"name":"c","image":"","imageID":"","ready":false,"restartCount":0,
            "state":{{"waiting":{{"reason":"{reason}"}}}}}}]}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn only_pods_with_gpus_whose_container_cannot_be_made_wait_for_an_agent() {
        assert!(waits_for_gpus(&pod("CreateContainerError", "nvidia.com/gpu")));
        assert!(!waits_for_gpus(&pod("ImagePullBackOff", "nvidia.com/gpu")));
        assert!(!waits_for_gpus(&pod("CreateContainerError", "rdma/hca")));
        assert!(!waits_for_gpus(&Pod::default()));
    }

    #[test]
    fn who_waits_for_a_lease_is_known_by_its_own_enforced_plan() {
        let node = NodeName::parse("a").unwrap();
        let of = |uid: &str, level: &str| {
            let plan = format!(r#"{{"v":1,"podUID":"{uid}","node":"a","level":"{level}","containers":[]}}"#);
            let mut pod = pod("CreateContainerError", "nvidia.com/gpu");
            pod.metadata.uid = Some("u".to_owned());
            pod.metadata.annotations = Some([(PLAN_KEY.to_owned(), plan)].into());
            has_enforced_plan(&pod, &node)
        };
        assert!(of("u", "enforced"));
        assert!(!of("u", "advice") && !of("v", "enforced") && !has_enforced_plan(&Pod::default(), &node));
    }
}
