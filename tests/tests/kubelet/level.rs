//! Nodes that change their level under running pods: whatever order the device plugins come and go in, no device is in two live containers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use berth_core::annotation::{Device, Level, Note};
use berth_tests::real_cluster::{GPU, RealCluster, SOON, ids_held, stock_offers};
use berth_tests::real_node::{RealNode, SHARED, Said, can_run, pod};
use berth_tests::running::plan_of;
use berth_tests::stock_plugin::{StockPlugin, Wish};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const NODE: &str = "kn1";

fn gpu_pod(name: &str, gpus: u32) -> Value {
    let mut pod = pod(name, &json!({GPU: gpus.to_string(), "cpu": "1", "memory": "64Mi"}));
    pod["spec"]["schedulerName"] = json!("berth");
    pod
}

/// Registers the stock plugin's stand-in with the node's kubelet.
async fn stock_plugin(node: &RealNode) -> Result<StockPlugin> {
    let folder = node.kubelet_folder().join("device-plugins");
    StockPlugin::start(&folder, GPU, &stock_offers(node)?[GPU], Wish::LastFirst).await
}

/// Device files of GPUs that a container sees.
fn cards(said: &Said) -> BTreeSet<String> {
    said.nodes.iter().filter(|path| !SHARED.contains(&path.as_str())).cloned().collect()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|container| container.restart_count).sum()
}

/// A node at level advice with the stock plugin, and pod `old` on two of its GPUs: its ids, and what it sees.
async fn stock_node() -> Result<(RealCluster, StockPlugin, BTreeSet<String>, Said)> {
    let cluster = RealCluster::start(&[("dgx-h100", NODE)], &json!({}), &[]).await?;
    let plugin = stock_plugin(&cluster.nodes[0]).await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    cluster.create(&gpu_pod("old", 2)).await?;
    let (_, said) = cluster.until_running("old").await?;
    let held = ids_held(&cluster.nodes[0], "old").await?;
    assert_eq!((cards(&said).len(), held.len()), (2, 2));
    Ok((cluster, plugin, held, said))
}

/// That no container of the pod has started, and why.
async fn is_refused(cluster: &RealCluster, name: &str, words: &str) -> Result<()> {
    cluster.running.until_told(name, "DevicesRefused", words, SOON).await?;
    let pod = cluster.running.pods().get(name).await?;
    assert!(cluster.said(&pod, "main")?.is_none(), "{name} has started");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_pod_without_lease_is_leased_to_nobody_until_that_pod_ends() -> Result<()> {
    if !can_run("a_device_of_a_pod_without_lease_is_leased_to_nobody_until_that_pod_ends")? {
        return Ok(());
    }
    let (mut cluster, plugin, held, seen) = stock_node().await?;
    drop(plugin);
    cluster.move_to(0, "enforced").await?;
    cluster.until_offered(NODE, GPU, 8).await?;

    // A scheduler that errs: the kubelet gives this pod other ids, and its plan names a GPU of the old pod.
    let mut thief = gpu_pod("thief", 1);
    thief["spec"]["schedulerName"] = json!("another");
    cluster.create(&thief).await?;
    let uid = cluster.running.pods().get("thief").await?.metadata.uid.context("a UID")?;
    let old = plan_of(&cluster.running.pods().get("old").await?)?;
    let wanted = held.first().context("a device")?;
    let mut plan = Note { pod_uid: uid, level: Level::Enforced, ..old };
    plan.containers[0].devices = vec![Device::whole(wanted)];
    cluster.bind("thief", NODE, &plan.to_json()?).await?;
    let words = format!("device-leased: {wanted} is held without a lease by pod default/old");
    is_refused(&cluster, "thief", &words).await?;

    // Neither an agent that starts anew knows less, nor one that asks a kubelet which has just started.
    cluster.nodes[0].agent.as_mut().unwrap().kill()?;
    cluster.nodes[0].restart_kubelet(&cluster.running.plane).await?;
    cluster.nodes[0].agent.as_mut().unwrap().restart()?;
    cluster.until_offered(NODE, GPU, 8).await?;
    cluster.until_accepting(NODE, "enforced", true).await?;
    cluster.create(&gpu_pod("next", 1)).await?;
    let (_, next) = cluster.until_running("next").await?;
    assert!(cards(&next).is_disjoint(&cards(&seen)));
    is_refused(&cluster, "thief", &words).await?;
    let (pod, said) = cluster.until_running("old").await?;
    assert_eq!((restarts(&pod), &said, ids_held(&cluster.nodes[0], "old").await?), (0, &seen, held.clone()));

    // What ended blocks nobody: the one that waited has it, and after it all GPUs are planned again.
    cluster.delete("old").await?;
    let (_, said) = cluster.until_running("thief").await?;
    assert_eq!(said.berth_devices.as_ref(), Some(wanted));
    for name in ["thief", "next"] {
        cluster.delete(name).await?;
    }
    cluster.create(&gpu_pod("all", 8)).await?;
    let (_, said) = cluster.until_running("all").await?;
    assert!(cards(&said).is_superset(&cards(&seen)));
    Ok(())
}
