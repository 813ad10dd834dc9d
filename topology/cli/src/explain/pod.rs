//! From the API's pod and Events to the values that are shown.

use k8s_openapi::api::core::v1::{Container, Event, Pod};

use crate::render::explain::{Ask, Condition, Happening, PodSummary};

/// What the pod itself says.
pub(super) fn summary(pod: &Pod) -> PodSummary {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default().into_iter().map(|c| Condition {
        kind: c.type_,
        status: c.status,
        reason: c.reason.unwrap_or_default(),
        message: c.message.unwrap_or_default(),
        since: c.last_transition_time.map(|t| t.0),
    });
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    PodSummary {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        phase: status.phase.unwrap_or_else(|| "phase not known".to_owned()),
        created: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
        is_terminating: pod.metadata.deletion_timestamp.is_some(),
        node: spec.node_name.clone(),
        scheduler_name: spec.scheduler_name.clone().unwrap_or_default(),
        asks: containers.flat_map(asks).collect(),
        wishes: wishes(pod),
        conditions: conditions.collect(),
    }
}

/// Extended resources of a container: those with a domain in the name.
fn asks(container: &Container) -> Vec<Ask> {
    let resources = container.resources.clone().unwrap_or_default();
    let mut amounts = resources.limits.unwrap_or_default();
    amounts.extend(resources.requests.unwrap_or_default());
    let extended = amounts.into_iter().filter(|(name, _)| name.contains('/'));
    extended.map(|(resource, amount)| Ask { container: container.name.clone(), resource, amount: amount.0 }).collect()
}

/// Annotations by which the pod wishes something of Berth.
fn wishes(pod: &Pod) -> Vec<(String, String)> {
    let annotations = pod.metadata.annotations.iter().flatten();
    annotations.filter(|(key, _)| key.starts_with("berth.dev/")).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// One line of the Events. The newer Events API counts in `series`, the older one beside it.
pub(super) fn happening(event: Event) -> Happening {
    let series = event.series.as_ref();
    let last = series
        .and_then(|s| s.last_observed_time.as_ref())
        .or(event.event_time.as_ref())
        .map(|t| t.0)
        .or_else(|| event.last_timestamp.as_ref().or(event.first_timestamp.as_ref()).map(|t| t.0));
    Happening {
        last,
        count: series.and_then(|s| s.count).or(event.count).unwrap_or(1),
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_extended_resources_are_asks_and_limits_count_as_requests() {
        let json = r#"{"metadata": {"namespace": "team", "name": "p", "annotations": {"berth.dev/link": "nvlink", "x": "y"}},
            "spec": {"schedulerName": "berth", "containers": [
                {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}}},
                {"name": "side", "resources": {"requests": {"rdma/hca": "1"}}}]}}"#;
        let pod: Pod = serde_json::from_str(json).unwrap();
        let summary = summary(&pod);
        let asks: Vec<_> = summary.asks.iter().map(|a| [&*a.container, &*a.resource, &*a.amount]).collect();
        assert_eq!(asks, [["main", "nvidia.com/gpu", "2"], ["side", "rdma/hca", "1"]]);
        assert_eq!(summary.wishes, [("berth.dev/link".to_owned(), "nvlink".to_owned())]);
    }

    #[test]
    fn an_event_is_as_old_as_its_last_repetition() {
        let json = r#"{"metadata": {}, "involvedObject": {}, "reason": "FailedScheduling", "type": "Warning",
            "eventTime": "2026-11-21T08:00:00.000000Z",
            "series": {"count": 12, "lastObservedTime": "2026-11-21T08:05:00.000000Z"}}"#;
        let event: Event = serde_json::from_str(json).unwrap();
        let line = happening(event);
        assert_eq!((line.count, line.last.unwrap().to_string().as_str()), (12, "2026-11-21T08:05:00Z"));
    }
}
