//! Pods whose devices are not in order are found, told and explained: those of a GPU that failed, and those that run without any.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_tests::binaries::binaries;
use berth_tests::running::{Running, plan_of};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// Exit status and JSON of `berth doctor`.
fn doctor(running: &Running) -> Result<(i32, Value)> {
    let mut command = Command::new(&binaries()?.cli);
    let command = command.args(["doctor", "-o", "json", "--kubeconfig"]).arg(running.plane.kubeconfig_path());
    let output = command.output()?;
    ensure!(!output.stdout.is_empty(), "berth doctor: {}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code().unwrap_or(-1), serde_json::from_slice(&output.stdout)?))
}

/// The complaints of the one node.
fn complaints(found: &Value) -> Vec<Value> {
    found["items"][0]["complaints"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_fails_leaves_the_plans_its_pod_is_named_and_it_comes_back_when_healthy() -> Result<()> {
    let mut running = Running::start(&[("bridged-pairs", "pairs")]).await?;
    running.submit("victim", 1, &[]).await?;
    let held = plan_of(&running.until_bound("victim", SOON).await?)?.gpus()?;
    let topology = running.nodes[0].topology(None)?;
    let gpu = topology.parts().gpus.iter().find(|gpu| gpu.uuid == held[0]).unwrap().index;

    running.nodes[0].set_faults(&format!("events: [{{id: 1, gpu: {}, xid: 79}}]", gpu.0))?;
    running.until_told("victim", "GpuUnhealthy", "Xid 79: the GPU fell off the bus", SOON).await?;
    let (status, found) = doctor(&running)?;
    let complaint = complaints(&found).into_iter().find(|c| c["check"] == "gpus").unwrap();
    assert_eq!(
        (status, &complaint["about"], &complaint["pods"]),
        (3, &json!(gpu.to_string()), &json!(["default/victim"]))
    );
    assert!(complaint["advice"].as_str().unwrap().contains("power it off and on"), "{complaint}");
    // Seven are well and one of the pod is not among them: eight fit nowhere, seven do.
    running.submit("all", 7, &[]).await?;
    running.until_bound("all", SOON).await?;
    running.delete("all").await?;
    running.delete("victim").await?;
    running.submit("whole", 8, &[]).await?;
    running.until_failed_scheduling("whole", "berth: ", SOON).await?;
    // Repaired: the driver was loaded anew after the reset.
    running.nodes[0].set_faults("reloads: 1")?;
    running.until_bound("whole", SOON).await?;
    running.scheduler.terminate(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_pod_that_runs_where_no_plugin_is_registered_is_told_to_run_without_a_gpu() -> Result<()> {
    let mut running = Running::start(&[("bridged-pairs", "pairs")]).await?;
    running.submit("starved", 2, &[]).await?;
    running.until_bound("starved", SOON).await?;
    assert_eq!(doctor(&running)?.0, 0, "a pod that has not started is no finding");
    // The kubelet was made anew and no plugin has registered: it drops the resource and starts the pod.
    let nodes: Api<Node> = Api::all(running.plane.client());
    let gone = json!({"status": {"allocatable": {"nvidia.com/gpu": null}, "capacity": {"nvidia.com/gpu": null}}});
    nodes.patch_status("pairs", &PatchParams::default(), &Patch::Merge(gone)).await?;
    let status = json!({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{
        "name": "main", "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
    }]}});
    running.pods().patch_status("starved", &PatchParams::default(), &Patch::Merge(status)).await?;
    let words = "no device plugin offers nvidia.com/gpu on the node";
    running.until_told("starved", "NoDevice", words, SOON).await?;
    running.until_metric("berth_pods_without_devices 1", SOON).await?;
    let (status, found) = doctor(&running)?;
    let complaint = complaints(&found).into_iter().find(|c| c["check"] == "pods").unwrap();
    assert_eq!((status, &complaint["about"]), (3, &json!("default/starved")));
    let mut drift = Command::new(&binaries()?.cli);
    let output = drift.args(["drift", "-o", "json", "--kubeconfig"]).arg(running.plane.kubeconfig_path()).output()?;
    let rows: Value = serde_json::from_slice(&output.stdout)?;
    let row = &rows["items"][0];
    assert_eq!((&row["held"], &row["since"]), (&json!([]), &json!("2026-01-01T00:00:00Z")));
    running.scheduler.terminate(SOON).await?;
    Ok(())
}
