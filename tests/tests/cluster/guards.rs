//! Holds the guards of the default overlay to what they promise, on a real API server: who may write a plan, a report, a node.
//! Every refusal is asked of somebody whose rights would let the write through, so that only the guard can be the reason.

use anyhow::{Result, ensure};
use berth_tests::installed::{NODES, PLAN, PODS, REPORTS, binding, on_sidecar, pod, report};
use berth_tests::rest::Call;
use serde_json::{Value, json};

const PLAN_TEXT: &str = "written by berth-scheduler when it binds the pod";

fn plan(value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {PLAN: value}}})
}

#[test]
fn an_agent_writes_the_report_of_its_own_node() -> Result<()> {
    on_sidecar(async |site| {
        let own = format!("{REPORTS}/na");
        Call::apply(format!("{own}/status"), report("na")).done(&site.agent_a).await?;
        let stored = Call::get(&own).done(&site.agent_a).await?;
        assert_eq!(stored["status"]["generation"], 1, "{stored}");
        Ok(())
    })
}

#[test]
fn an_agent_is_refused_the_report_of_another_node() -> Result<()> {
    on_sidecar(async |site| {
        let policy = "berth-agent-own-node";
        let text = "berth-agent on node \"na\" may only write the NodeTopology of its own node, not \"nb\"";
        let other = format!("{REPORTS}/nb");
        Call::create(REPORTS, report("nb")).refused_by_policy(&site.agent_a, policy, text).await?;
        let before = site.read(&other).await?;
        for call in [
            Call::apply(format!("{other}/status"), report("nb")),
            Call::merge(format!("{other}/status"), json!({"status": {"gpuCount": 64}})),
        ] {
            call.refused_by_policy(&site.agent_a, policy, text).await?;
        }
        assert_eq!(site.read(&other).await?, before);
        Ok(())
    })
}

#[test]
fn an_agent_cannot_have_the_name_of_a_report_made_up() -> Result<()> {
    on_sidecar(async |site| {
        let mut unnamed = report("");
        unnamed["metadata"] = json!({"generateName": "na"});
        Call::create(REPORTS, unnamed).refused_by_policy(&site.agent_a, "berth-agent-own-node", "own node").await
    })
}

#[test]
fn a_token_that_is_bound_to_no_pod_writes_no_report() -> Result<()> {
    on_sidecar(async |site| {
        let (policy, text) = ("berth-agent-own-node", "the token names no node");
        let own = format!("{REPORTS}/nb");
        Call::create(REPORTS, report("nc")).refused_by_policy(&site.agent_nowhere, policy, text).await?;
        Call::apply(format!("{own}/status"), report("nb")).refused_by_policy(&site.agent_nowhere, policy, text).await
    })
}

#[test]
fn the_guard_of_reports_holds_agents_only() -> Result<()> {
    on_sidecar(async |site| {
        Call::create(REPORTS, report("nd")).done(&site.mallory).await?;
        Call::merge(format!("{REPORTS}/nd/status"), json!({"status": {"gpuCount": 1}})).done(&site.mallory).await?;
        Call::delete(format!("{REPORTS}/nd")).done(&site.mallory).await?;
        Ok(())
    })
}

#[test]
fn nobody_makes_a_pod_with_a_plan() -> Result<()> {
    on_sidecar(async |site| {
        let with = |metadata: Value| Call::create(PODS, pod("forged", metadata));
        for (metadata, text) in [
            (json!({"annotations": {PLAN: "{}"}}), "annotations under topology.berth.dev/"),
            (json!({"annotations": {PLAN: ""}}), "annotations under topology.berth.dev/"),
            (
                json!({"annotations": {"topology.berth.dev/other": "x", "a": "b"}}),
                "annotations under topology.berth.dev/",
            ),
            (json!({"labels": {PLAN: "x"}}), "labels under topology.berth.dev/"),
        ] {
            with(metadata.clone()).refused_by_policy(&site.mallory, "berth-plan", text).await?;
            // The exemption is for binding alone, and the account has no right to make pods either.
            with(metadata).refused_by_rights(&site.scheduler).await?;
        }
        let applied = Call::apply(format!("{PODS}/forged"), pod("forged", json!({"annotations": {PLAN: "{}"}})));
        applied.refused_by_policy(&site.mallory, "berth-plan", PLAN_TEXT).await
    })
}

#[test]
fn keys_that_only_look_like_ours_pass() -> Result<()> {
    on_sidecar(async |site| {
        let near = json!({
            "annotations": {"berth.dev/link": "nvlink:required", "topology.berth.dev.example.com/plan": "x", "topology.berth.dev": "x"},
            "labels": {"topology.kubernetes.io/zone": "z9"},
        });
        Call::create(PODS, pod("near", near)).done(&site.mallory).await?;
        Ok(())
    })
}

#[test]
fn nobody_writes_a_plan_onto_a_pod() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.pod("bare").await?;
        let mut whole = site.read(&path).await?;
        whole["metadata"]["annotations"] = json!({PLAN: "forged"});
        for call in [
            Call::merge(&path, plan(Some("forged"))),
            Call::apply(&path, pod("bare", json!({"annotations": {PLAN: "forged"}}))),
            Call::replace(&path, whole.clone()),
            Call::merge(format!("{path}/status"), plan(Some("forged"))),
            Call::replace(format!("{path}/status"), whole),
            Call::merge(&path, json!({"metadata": {"labels": {PLAN: "forged"}}})),
            Call::merge(format!("{path}/status"), json!({"metadata": {"labels": {PLAN: "forged"}}})),
        ] {
            call.refused_by_policy(&site.mallory, "berth-plan", PLAN_TEXT).await?;
        }
        // The role of a kube-scheduler may patch the status of any pod: the account is refused there like all others.
        let by_scheduler = Call::merge(format!("{path}/status"), plan(Some("forged")));
        by_scheduler.refused_by_policy(&site.scheduler, "berth-plan", PLAN_TEXT).await?;
        // These two keep a pod's metadata to themselves; the guard stands behind them in case that changes.
        for subresource in ["ephemeralcontainers", "resize"] {
            let _ = Call::merge(format!("{path}/{subresource}"), plan(Some("forged"))).done(&site.mallory).await;
        }
        let after = site.read(&path).await?;
        assert_eq!(after["metadata"]["annotations"], Value::Null, "{after}");
        assert_eq!(after["metadata"]["labels"], Value::Null, "{after}");
        Ok(())
    })
}

#[test]
fn nobody_else_binds_with_a_plan() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.pod("foreign").await?;
        let forged = binding("foreign", json!({"annotations": {PLAN: "forged"}}));
        let labelled = binding("foreign", json!({"labels": {PLAN: "forged"}}));
        for call in [
            Call::create(format!("{path}/binding"), forged.clone()),
            Call::create(format!("{path}/binding"), labelled),
            Call::create("/api/v1/namespaces/default/bindings", forged.clone()),
        ] {
            call.refused_by_policy(&site.mallory, "berth-plan", PLAN_TEXT).await?;
        }
        // The old path is nobody's, the scheduler's neither: it binds by pods/binding alone.
        let old = Call::create("/api/v1/namespaces/default/bindings", forged);
        old.refused_by_policy(&site.scheduler, "berth-plan", PLAN_TEXT).await?;
        let after = site.read(&path).await?;
        assert_eq!(after["spec"]["nodeName"], Value::Null, "{after}");
        Ok(())
    })
}

#[test]
fn the_scheduler_binds_with_a_plan_in_one_write() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.planned_pod("planned", "the plan").await?;
        let bound = site.read(&path).await?;
        assert_eq!(bound["spec"]["nodeName"], "na");
        assert_eq!(bound["metadata"]["annotations"], json!({PLAN: "the plan"}));
        // The API server copies the node's zone onto the Binding before our guard looks at it.
        assert_eq!(bound["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z1"}));
        Ok(())
    })
}

#[test]
fn a_plan_is_neither_changed_nor_removed() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.planned_pod("standing", "the plan").await?;
        let mut without = site.read(&path).await?;
        without["metadata"]["annotations"] = json!({});
        for call in [
            Call::merge(&path, plan(Some("another"))),
            Call::merge(&path, plan(None)),
            Call::merge(&path, json!({"metadata": {"annotations": {"topology.berth.dev/second": "x"}}})),
            Call::merge(&path, json!({"metadata": {"annotations": null}})),
            Call::replace(&path, without),
            Call::merge(format!("{path}/status"), plan(Some("another"))),
            Call::merge(format!("{path}/status"), plan(None)),
        ] {
            call.refused_by_policy(&site.mallory, "berth-plan", PLAN_TEXT).await?;
        }
        assert_eq!(site.read(&path).await?["metadata"]["annotations"], json!({PLAN: "the plan"}));
        Ok(())
    })
}

#[test]
fn writes_that_leave_a_plan_alone_pass() -> Result<()> {
    on_sidecar(async |site| {
        let path = site.planned_pod("living", "the plan").await?;
        let kubelet = site.plane.client_as("system:node:na", &["system:nodes", "system:authenticated"])?;
        let gc =
            site.plane.client_as("system:serviceaccount:kube-system:generic-garbage-collector", &["system:masters"])?;
        Call::merge(format!("{path}/status"), json!({"status": {"phase": "Running"}})).done(&kubelet).await?;
        Call::merge(&path, json!({"metadata": {"finalizers": ["example.com/wait"]}})).done(&gc).await?;
        Call::merge(&path, json!({"metadata": {"finalizers": null}})).done(&gc).await?;
        Call::merge(&path, json!({"metadata": {"labels": {"team": "vision"}, "annotations": {"note": "x"}}}))
            .done(&site.mallory)
            .await?;
        let mut whole = site.read(&path).await?;
        whole["metadata"]["labels"]["team"] = json!("speech");
        Call::replace(&path, whole).done(&site.mallory).await?;
        assert_eq!(site.read(&path).await?["metadata"]["annotations"][PLAN], "the plan");
        Call::delete(&path).done(&site.mallory).await?;
        Ok(())
    })
}

#[test]
fn pods_without_a_plan_are_bound_and_updated_by_anybody_who_may() -> Result<()> {
    on_sidecar(async |site| {
        let stock = site.plane.client_as("system:kube-scheduler", &["system:authenticated"])?;
        let path = site.pod("plain").await?;
        let pending =
            json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        Call::merge(format!("{path}/status"), pending).done(&stock).await?;
        Call::create(format!("{path}/binding"), binding("plain", json!({}))).done(&stock).await?;
        let bound = site.read(&path).await?;
        assert_eq!(bound["spec"]["nodeName"], "na", "{bound}");
        Ok(())
    })
}

#[test]
fn the_schedulers_binding_names_a_node_and_carries_our_keys_only() -> Result<()> {
    on_sidecar(async |site| {
        let path = format!("{}/binding", site.pod("strict").await?);
        let mut to_whatever = binding("strict", json!({}));
        // The API server takes it for a node; any other kind it refuses by itself.
        to_whatever["target"] = json!({"name": "na"});
        let both = json!({"annotations": {PLAN: "x", "seccomp.security.alpha.kubernetes.io/pod": "unconfined"}});
        for (body, text) in [
            (to_whatever, "to nodes only"),
            (binding("strict", both), "may only write annotations under topology.berth.dev/"),
            (
                binding("strict", json!({"labels": {"app": "payments"}})),
                "may only write labels under topology.berth.dev/",
            ),
        ] {
            Call::create(&path, body.clone())
                .refused_by_policy(&site.scheduler, "berth-scheduler-binding", text)
                .await?;
            let old = Call::create("/api/v1/namespaces/default/bindings", body);
            ensure!(old.done(&site.scheduler).await.is_err(), "{old} went through");
        }
        Call::create(&path, binding("strict", json!({}))).done(&site.scheduler).await?;
        Ok(())
    })
}

#[test]
fn the_scheduler_changes_one_annotation_of_a_node_and_nothing_else() -> Result<()> {
    on_sidecar(async |site| {
        let path = format!("{NODES}/nb");
        Call::merge(&path, json!({"metadata": {"annotations": {"kept": "as it is"}}})).done(&site.mallory).await?;
        let requeue = |value: Option<&str>| {
            Call::merge(&path, json!({"metadata": {"annotations": {"berth.dev/requeue": value}}}))
        };
        for value in [Some("1"), Some("2"), None, Some("3")] {
            requeue(value).done(&site.scheduler).await?;
        }
        let before = site.read(&path).await?;
        for body in [
            json!({"metadata": {"annotations": {"kept": "changed"}}}),
            json!({"metadata": {"annotations": {"kept": null}}}),
            json!({"metadata": {"annotations": {"berth.dev/other": "x"}}}),
            json!({"metadata": {"annotations": null}}),
            json!({"metadata": {"annotations": {"berth.dev/requeue": "4"}, "labels": {"a": "b"}}}),
            json!({"metadata": {"labels": {"kubernetes.io/os": "windows"}}}),
            json!({"metadata": {"labels": null}}),
            json!({"metadata": {"finalizers": ["example.com/wait"]}}),
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "na", "uid": "x"}]}}),
            json!({"spec": {"unschedulable": true}}),
            json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}),
        ] {
            let text = "may only change the annotation berth.dev/requeue of a node";
            Call::merge(&path, body).refused_by_policy(&site.scheduler, "berth-scheduler-node", text).await?;
        }
        Call::merge(format!("{path}/status"), json!({"status": {"capacity": {"cpu": "1k"}}}))
            .refused_by_rights(&site.scheduler)
            .await?;
        assert_eq!(site.read(&path).await?, before);
        Ok(())
    })
}

#[test]
fn the_guard_of_nodes_holds_the_scheduler_only() -> Result<()> {
    on_sidecar(async |site| {
        let label = json!({"metadata": {"labels": {"team": "vision"}}, "spec": {"unschedulable": false}});
        Call::merge(format!("{NODES}/na"), label).done(&site.mallory).await?;
        Ok(())
    })
}
