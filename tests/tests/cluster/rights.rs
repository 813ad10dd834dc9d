//! Holds the rights that the manifests give to what README.md says of them, by requests to a real API server and not by reading
//! the rules. What a right lets through is here next to what its absence refuses.

use anyhow::Result;
use berth_tests::controlplane::NAMESPACE;
use berth_tests::installed::{NODES, PODS, REPORTS, on_sidecar, pod, report};
use berth_tests::rest::Call;
use serde_json::json;

const CONFIG_MAPS: &str = "/api/v1/namespaces/berth-system/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/berth-system/leases";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[test]
fn an_agent_reads_nodes_and_reports_by_name_and_nothing_else() -> Result<()> {
    on_sidecar(async |site| {
        for path in [format!("{NODES}/na"), format!("{REPORTS}/na")] {
            Call::get(path).done(&site.agent_a).await?;
        }
        let note = json!({"metadata": {"annotations": {"a": "b"}}});
        for call in [
            Call::get(NODES),
            Call::get(REPORTS),
            Call::get(PODS),
            Call::get("/api/v1/namespaces/berth-system/pods/berth-agent-na"),
            Call::get(format!("{CONFIG_MAPS}/berth-policy")),
            Call::get("/api/v1/namespaces/berth-system/secrets"),
            Call::merge(format!("{NODES}/na"), note.clone()),
            Call::merge(format!("{NODES}/na/status"), json!({"status": {"capacity": {"nvidia.com/gpu": "64"}}})),
            Call::merge("/api/v1/namespaces/berth-system/pods/berth-agent-na", note),
            Call::create(PODS, pod("by-an-agent", json!({}))),
            Call::replace(format!("{REPORTS}/na"), report("na")),
            Call::apply(format!("{REPORTS}/na"), report("na")),
            Call::replace(format!("{REPORTS}/na/status"), report("na")),
            Call::delete(format!("{REPORTS}/na")),
            Call::delete(REPORTS),
            Call::delete(format!("{NODES}/na")),
        ] {
            call.refused_by_rights(&site.agent_a).await?;
        }
        Ok(())
    })
}

#[test]
fn the_scheduler_reads_what_it_decides_on() -> Result<()> {
    on_sidecar(async |site| {
        for path in [NODES, "/api/v1/pods", REPORTS, "/apis/policy/v1/poddisruptionbudgets"] {
            Call::get(path).done(&site.scheduler).await?;
            Call::get(format!("{path}?watch=1&timeoutSeconds=1")).done(&site.scheduler).await?;
        }
        Call::get("/api/v1/namespaces/berth-system/secrets").refused_by_rights(&site.scheduler).await
    })
}

#[test]
fn the_scheduler_reads_one_config_map_and_writes_none() -> Result<()> {
    on_sidecar(async |site| {
        let only = "fieldSelector=metadata.name%3Dberth-policy";
        for path in [
            format!("{CONFIG_MAPS}/berth-policy"),
            format!("{CONFIG_MAPS}?{only}"),
            format!("{CONFIG_MAPS}?{only}&watch=1&timeoutSeconds=1"),
        ] {
            Call::get(path).done(&site.scheduler).await?;
        }
        for call in [
            Call::get(CONFIG_MAPS),
            Call::get(format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")),
            Call::get(format!("{CONFIG_MAPS}/kube-root-ca.crt")),
            Call::get("/api/v1/namespaces/default/configmaps/berth-policy"),
            Call::merge(format!("{CONFIG_MAPS}/berth-policy"), json!({"data": {"policy.yaml": ""}})),
            Call::delete(format!("{CONFIG_MAPS}/berth-policy")),
        ] {
            call.refused_by_rights(&site.scheduler).await?;
        }
        Ok(())
    })
}

#[test]
fn the_scheduler_writes_bindings_events_and_its_lease() -> Result<()> {
    on_sidecar(async |site| {
        let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {"holderIdentity": "x"}});
        Call::create(LEASES, lease("berth-scheduler")).done(&site.scheduler).await?;
        let mut held = Call::get(format!("{LEASES}/berth-scheduler")).done(&site.scheduler).await?;
        held["spec"]["holderIdentity"] = json!("y");
        Call::replace(format!("{LEASES}/berth-scheduler"), held).done(&site.scheduler).await?;
        Call::get(format!("{LEASES}/another")).refused_by_rights(&site.scheduler).await?;

        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "said"}, "type": "Normal", "reason": "PolicyTaken",
            "action": "Reload", "note": "x", "reportingController": "berth-scheduler", "reportingInstance": "x",
            "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "ConfigMap", "name": "berth-policy", "namespace": NAMESPACE},
        });
        let events = "/apis/events.k8s.io/v1/namespaces/berth-system/events";
        Call::create(events, event).done(&site.scheduler).await?;
        let again = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
        Call::merge(format!("{events}/said"), again).done(&site.scheduler).await?;
        site.planned_pod("bound-by-right", "x").await?;
        Ok(())
    })
}

#[test]
fn the_scheduler_changes_no_pod_node_or_report_otherwise() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.pod("untouched").await?;
        let note = json!({"metadata": {"annotations": {"a": "b"}}});
        for call in [
            Call::merge(&path, note.clone()),
            Call::replace(&path, pod("untouched", json!({}))),
            Call::create(PODS, pod("by-the-scheduler", json!({}))),
            Call::create(
                format!("{path}/eviction"),
                json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "untouched"}}),
            ),
            Call::replace(format!("{NODES}/na"), site.read(&format!("{NODES}/na")).await?),
            Call::delete(format!("{NODES}/na")),
            Call::create(REPORTS, report("ne")),
            Call::merge(format!("{REPORTS}/na"), note),
            Call::merge(format!("{REPORTS}/na/status"), json!({"status": {"gpuCount": 64}})),
            Call::delete(format!("{REPORTS}/na")),
            Call::delete("/apis/events.k8s.io/v1/namespaces/berth-system/events"),
            Call::create("/api/v1/namespaces/berth-system/serviceaccounts/berth-agent/token", json!({"spec": {}})),
        ] {
            call.refused_by_rights(&site.scheduler).await?;
        }
        Ok(())
    })
}

/// README.md says so under "What one account means"; should Kubernetes take it back, the page has to follow.
#[test]
fn the_role_of_a_kube_scheduler_lets_the_account_delete_pods_and_write_their_status() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.pod("victim").await?;
        Call::merge(format!("{path}/status"), json!({"status": {"nominatedNodeName": "na"}}))
            .done(&site.scheduler)
            .await?;
        Call::delete(&path).done(&site.scheduler).await?;
        Ok(())
    })
}

#[test]
fn a_viewer_reads_reports_and_a_tuner_edits_the_policy() -> Result<()> {
    on_sidecar(async |site| {
        let admin = site.plane.client();
        let (ada, tim) = (site.plane.client_as("ada", &["researchers"])?, site.plane.client_as("tim", &["tuners"])?);
        Call::get(REPORTS).refused_by_rights(&ada).await?;
        let binding = |kind: &str, role_kind: &str, role: &str, group: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": group},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
            })
        };
        let viewers = binding("ClusterRoleBinding", "ClusterRole", "berth-viewer", "researchers");
        Call::create(format!("{RBAC}/clusterrolebindings"), viewers).done(&admin).await?;
        let tuners = binding("RoleBinding", "Role", "berth-tuner", "tuners");
        Call::create(format!("{RBAC}/namespaces/berth-system/rolebindings"), tuners).done(&admin).await?;

        until_done(&Call::get(REPORTS), &ada).await?;
        Call::apply(format!("{REPORTS}/na"), report("na")).refused_by_rights(&ada).await?;

        let policy = format!("{CONFIG_MAPS}/berth-policy");
        until_done(&Call::get(&policy), &tim).await?;
        Call::merge(&policy, json!({"metadata": {"annotations": {"tuned": "yes"}}})).done(&tim).await?;
        for call in [
            Call::delete(&policy),
            Call::get(CONFIG_MAPS),
            Call::get("/api/v1/namespaces/berth-system/pods"),
            // Reaching a loopback port of the scheduler's pod would be reaching /bind.
            Call::create("/api/v1/namespaces/berth-system/pods/berth-agent-na/portforward", json!({})),
        ] {
            call.refused_by_rights(&tim).await?;
        }
        Ok(())
    })
}

/// The authorizer learns of a new binding by a watch of its own.
async fn until_done(call: &Call, client: &kube::Client) -> Result<()> {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = call.done(client).await {
        if tokio::time::Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}
