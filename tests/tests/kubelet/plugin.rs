//! The agent as device plugin of a real kubelet: containers see the planned devices, whatever is restarted or removed in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use anyhow::Result;
use berth_core::annotation::Level;
use berth_proto::NodeTopology;
use berth_tests::installed::overlay;
use berth_tests::real_cluster::{RealCluster, SOON, ids_held};
use berth_tests::real_node::{can_run, container, pod};
use berth_tests::running::plan_of;
use kube::api::Api;
use serde_json::{Value, json};

const GPU: &str = "nvidia.com/gpu";
const NODE: &str = "kn1";

/// One node whose agent is its device plugin, and which offers all eight GPUs.
async fn started() -> Result<RealCluster> {
    let cluster = RealCluster::start(&[("dgx-h100", NODE)], &json!({}), &["--level", "preferred"]).await?;
    cluster.running.plane.apply_kustomize(&overlay("preferred")).await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    until_accepting(&cluster, true).await?;
    Ok(cluster)
}

async fn until_accepting(cluster: &RealCluster, wanted: bool) -> Result<()> {
    let reports: Api<NodeTopology> = Api::all(cluster.running.plane.client());
    let look = || async {
        let plugin = reports.get(NODE).await?.status.and_then(|status| status.device_plugin);
        Ok(plugin.filter(|plugin| plugin.accepting == wanted).map(|_| ()))
    };
    cluster.running.until(SOON, &format!("accepting: {wanted}"), look).await
}

/// A pod of one container per entry, each with so many GPUs.
fn gpu_pod(name: &str, gpus: &[u32]) -> Value {
    let limits = |count: &u32| json!({GPU: count.to_string(), "cpu": "1", "memory": "1Gi"});
    let mut pod = pod(name, &limits(&gpus[0]));
    pod["spec"]["schedulerName"] = json!("berth");
    for (i, count) in gpus.iter().enumerate().skip(1) {
        let more = container(&format!("more-{i}"), &limits(count));
        pod["spec"]["containers"].as_array_mut().unwrap().push(more);
    }
    pod
}

/// Waits for the pod, and says that each of its containers sees what its own part of the plan names.
async fn sees_what_is_planned(cluster: &RealCluster, name: &str) -> Result<()> {
    let (pod, _) = cluster.until_running(name).await?;
    let note = plan_of(&pod)?;
    assert_eq!(note.level, Level::Preferred);
    let mut all = BTreeSet::new();
    for container in &note.containers {
        let planned: BTreeSet<String> = container.devices.iter().map(|device| device.uuid.clone()).collect();
        let look = || async { cluster.said(&pod, &container.name) };
        let said = cluster.running.until(SOON, &format!("words of {name}"), look).await?;
        let seen: BTreeSet<String> = said.nvidia_visible_devices.unwrap().split(',').map(str::to_owned).collect();
        assert_eq!(seen, planned, "{name}, container {}", container.name);
        all.extend(planned);
    }
    assert_eq!(ids_held(&cluster.nodes[0], name).await?, all, "{name}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_get_their_parts_of_the_plan_before_and_after_every_restart() -> Result<()> {
    if !can_run("containers_get_their_parts_of_the_plan_before_and_after_every_restart")? {
        return Ok(());
    }
    let mut cluster = started().await?;
    // All at once: the kubelet admits one after the other, in an order of its own.
    let first: [(&str, &[u32]); 3] = [("pair", &[2]), ("parts", &[2, 1]), ("one", &[1])];
    for (name, gpus) in first {
        cluster.create(&gpu_pod(name, gpus)).await?;
    }
    for (name, _) in first {
        sees_what_is_planned(&cluster, name).await?;
    }

    // A new kubelet: running pods keep their devices, and the next pod gets its planned ones.
    let plane = &cluster.running.plane;
    cluster.nodes[0].restart_kubelet(plane).await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    until_accepting(&cluster, true).await?;
    sees_what_is_planned(&cluster, "pair").await?;
    cluster.create(&gpu_pod("later", &[1])).await?;
    sees_what_is_planned(&cluster, "later").await?;

    // Somebody removes our socket.
    cluster.delete("pair").await?;
    std::fs::remove_file(cluster.nodes[0].kubelet_folder().join("device-plugins/berth-nvidia.com-gpu.sock"))?;
    let again = || async {
        let log = cluster.nodes[0].agent.as_ref().unwrap().log()?;
        Ok((log.matches("\"registered with the kubelet\"").count() >= 3).then_some(()))
    };
    cluster.running.until(SOON, "a third registration", again).await?;
    until_accepting(&cluster, true).await?;
    cluster.create(&gpu_pod("last", &[2])).await?;
    sees_what_is_planned(&cluster, "last").await?;
    for name in ["parts", "one", "later", "last"] {
        cluster.delete(name).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_gpu_leaves_the_kubelets_count_and_a_planned_stop_keeps_pods_away() -> Result<()> {
    if !can_run("a_lost_gpu_leaves_the_kubelets_count_and_a_planned_stop_keeps_pods_away")? {
        return Ok(());
    }
    let mut cluster = started().await?;
    cluster.nodes[0].made_mut().set_faults("lost: [3]")?;
    cluster.until_offered(NODE, GPU, 7).await?;
    cluster.nodes[0].made_mut().set_faults("")?;
    cluster.until_offered(NODE, GPU, 8).await?;

    let agent = cluster.nodes[0].agent.as_mut().unwrap();
    assert!(agent.terminate(SOON).await?.success());
    until_accepting(&cluster, false).await?;
    cluster.create(&gpu_pod("meanwhile", &[1])).await?;
    // By the kubelet's count or by our report, whichever kube-scheduler hears first; bound it is not, so not lost.
    cluster.running.until_failed_scheduling("meanwhile", "", SOON).await?;
    cluster.nodes[0].agent.as_mut().unwrap().restart()?;
    until_accepting(&cluster, true).await?;
    sees_what_is_planned(&cluster, "meanwhile").await?;
    cluster.delete("meanwhile").await?;
    Ok(())
}
