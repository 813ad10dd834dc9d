//! The ledger follows the kubelet's word: what it says it gave a pod is held, whatever was planned.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::Result;
use berth_tests::controlplane::fetch;
use berth_tests::running::{Running, plan_of};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// Says in the pod's status, as its kubelet would, that the pod has these devices.
async fn say_given(running: &Running, pod: &str, ids: &[String]) -> Result<()> {
    let devices: Vec<Value> = ids.iter().map(|id| json!({"resourceID": id, "health": "Healthy"})).collect();
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "main", "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
        "allocatedResourcesStatus": [{"name": "nvidia.com/gpu", "resources": devices}],
    }]}});
    running.pods().patch_status(pod, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pod_keeps_away_from_what_the_kubelet_really_gave() -> Result<()> {
    let mut running = Running::start(&[("bridged-pairs", "pairs")]).await?;
    let node = running.nodes[0].topology(None)?;
    let uuid = |i: usize| node.parts().gpus[i].uuid.to_string();

    running.submit("first", 2, &[]).await?;
    let planned = plan_of(&running.until_bound("first", SOON).await?)?.gpus()?;
    assert_eq!(
        planned.iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>(),
        [uuid(0), uuid(1)].into()
    );
    // The stock device plugin gave it others: one of each of two bridged pairs.
    say_given(&running, "first", &[uuid(2), uuid(4)]).await?;
    let drifted = || async {
        let url = format!("http://127.0.0.1:{}/metrics", running.admin_port);
        let metrics = fetch(&url).await?;
        Ok(metrics.contains("berth_drift_pods 1").then_some(()))
    };
    running.until(SOON, "drift", drifted).await?;

    // Free are 0 1 3 5 6 7: the best pair is a bridged one that is whole, and 2 and 4 are out.
    running.submit("second", 4, &[]).await?;
    let devices = plan_of(&running.until_bound("second", SOON).await?)?.gpus()?;
    for taken in [2, 4] {
        assert!(!devices.iter().any(|d| d.as_str() == uuid(taken)), "GPU{taken} is held by first: {devices:?}");
    }
    let url = format!("http://127.0.0.1:{}/explain?namespace=default&pod=first", running.extender_port);
    let told: Value = serde_json::from_str(&fetch(&url).await?)?;
    let summary = told["summary"].as_str().unwrap_or_default();
    assert!(summary.contains("drift: planned GPUs 0,1, the kubelet gave 2,4"), "{told}");
    running.scheduler.terminate(SOON).await?;
    Ok(())
}
