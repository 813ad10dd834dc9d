//! The ledger follows the kubelet's word: what it says it gave a pod is held, whatever was planned.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use berth_proto::NodeTopology;
use berth_tests::binaries::binaries;
use berth_tests::controlplane::fetch;
use berth_tests::installed::overlay;
use berth_tests::kubelet_socket::KubeletSocket;
use berth_tests::made_node::MadeNode;
use berth_tests::running::{Running, plan_of};
use kube::api::{Api, Patch, PatchParams};
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

/// Status and lines of `berth drift`, with one blank between columns.
fn drift(running: &Running) -> Result<(i32, String)> {
    let mut command = Command::new(&binaries()?.cli);
    let output =
        command.args(["drift", "--no-headers", "--kubeconfig"]).arg(running.plane.kubeconfig_path()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()));
    let text = lines.map(|cells| cells.collect::<Vec<_>>().join(" ") + "\n").collect();
    Ok((output.status.code().unwrap_or(-1), text))
}

/// Waits until so many pods are known to hold what their plans do not name.
async fn until_drifted(running: &Running, pods: u32) -> Result<()> {
    let drifted = || async {
        let metrics = fetch(&format!("http://127.0.0.1:{}/metrics", running.admin_port)).await?;
        Ok(metrics.lines().any(|line| line == format!("berth_drift_pods {pods}")).then_some(()))
    };
    running.until(SOON, "drift", drifted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pod_keeps_away_from_what_the_kubelet_really_gave() -> Result<()> {
    let mut running = Running::start(&[("bridged-pairs", "pairs")]).await?;
    let node = running.nodes[0].topology(None)?;
    let uuid = |i: usize| node.parts().gpus[i].uuid.to_string();

    running.submit("first", 2, &[]).await?;
    let planned = plan_of(&running.until_bound("first", SOON).await?)?.gpus()?;
    assert_eq!(planned.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), [uuid(0), uuid(1)].into());
    // The stock device plugin gave it others: one of each of two bridged pairs.
    let given_at = tokio::time::Instant::now();
    say_given(&running, "first", &[uuid(2), uuid(4)]).await?;
    until_drifted(&running, 1).await?;
    println!("the kubelet's word -> berth_drift_pods: {:?}", given_at.elapsed());
    running.until_told("first", "DeviceDrift", "planned GPUs 0,1, the kubelet gave GPUs 2,4", SOON).await?;
    assert_eq!(
        drift(&running)?,
        (3, "default first pairs - drift: planned GPUs 0,1, the kubelet gave GPUs 2,4\n".to_owned())
    );

    // Free are 0 1 3 5 6 7: the best pair is a bridged one that is whole, and 2 and 4 are out.
    running.submit("second", 4, &[]).await?;
    let devices = plan_of(&running.until_bound("second", SOON).await?)?.gpus()?;
    for taken in [2, 4] {
        assert!(!devices.iter().any(|d| d.as_str() == uuid(taken)), "GPU{taken} is held by first: {devices:?}");
    }
    let url = format!("http://127.0.0.1:{}/explain?namespace=default&pod=first", running.extender_port);
    let told: Value = serde_json::from_str(&fetch(&url).await?)?;
    let summary = told["summary"].as_str().unwrap_or_default();
    assert!(summary.contains("drift: planned GPUs 0,1, the kubelet gave GPUs 2,4"), "{told}");
    running.scheduler.terminate(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_status_says_who_holds_what_the_agent_asks_the_kubelet_and_tells_differences_only() -> Result<()> {
    let running = Running::start(&[]).await?;
    running.plane.apply_kustomize(&overlay("holders")).await?;
    let node = MadeNode::new("bridged-pairs", "pairs")?;
    running.plane.create_node(&node.node_spec()?).await?;
    let kubeconfig = running.plane.agent_identity("pairs").await?;
    let mut kubelet = KubeletSocket::start()?;
    let agent = node.agent(&kubeconfig)?.args(["--holders-interval", "100ms"]);
    let mut agent = running.plane.spawn(agent.arg("--pod-resources").arg(kubelet.path()))?;
    let topology = node.topology(None)?;
    let uuid = |i: usize| topology.parts().gpus[i].uuid.to_string();
    let reports: Api<NodeTopology> = Api::all(running.plane.client());
    let drifts = || async {
        let status = reports.get_opt("pairs").await?.and_then(|object| object.status);
        Ok::<_, anyhow::Error>(status.map(|status| status.drifts).unwrap_or_default())
    };

    running.submit("first", 2, &[]).await?;
    let planned = plan_of(&running.until_bound("first", SOON).await?)?.gpus()?;
    let planned: Vec<String> = planned.iter().map(ToString::to_string).collect();
    kubelet.set(&[("default", "first", "nvidia.com/gpu", &[uuid(4), uuid(2)])]);
    until_drifted(&running, 1).await?;
    let told = drifts().await?;
    let first = running.pods().get("first").await?.metadata.uid.unwrap();
    assert_eq!((told.len(), told[0].pod.as_str(), &told[0].pod_uid), (1, "default/first", &first));
    let held: BTreeSet<&String> = told[0].devices.iter().collect();
    assert_eq!(held, [&uuid(2), &uuid(4)].into());

    running.submit("second", 4, &[]).await?;
    let devices = plan_of(&running.until_bound("second", SOON).await?)?.gpus()?;
    assert!(devices.iter().all(|device| !held.contains(&device.to_string())), "{devices:?}");

    // A kubelet that is away says nothing new, and that is told.
    kubelet.stop()?;
    agent.wait_for_log("holders of devices not read", SOON).await?;
    assert_eq!(drifts().await?, told);
    // Back, it has started the pod again as planned; the second pod is as planned too.
    let second: Vec<String> = devices.iter().map(ToString::to_string).collect();
    let gpu = "nvidia.com/gpu";
    kubelet.set(&[("default", "first", gpu, &planned), ("default", "second", gpu, &second)]);
    kubelet.serve()?;
    until_drifted(&running, 0).await?;
    assert_eq!(drifts().await?, []);
    let none = "no drift: every pod whose kubelet tells holds what its plan names\n";
    assert_eq!(drift(&running)?, (0, none.to_owned()));
    Ok(())
}
