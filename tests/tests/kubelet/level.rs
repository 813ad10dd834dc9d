//! Nodes that change their level under running pods: whatever order the device plugins come and go in, no device is in two live containers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use berth_core::annotation::{Device, Level, Note};
use berth_tests::real_cluster::{GPU, RealCluster, SOON, ids_held, is_running, stock_offers};
use berth_tests::real_node::{RealNode, SHARED, Said, can_run, pod};
use berth_tests::running::plan_of;
use berth_tests::stock_plugin::{StockPlugin, Wish};
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
    assert_eq!(is_running(&pod), Some((0, true)));
    assert_eq!((&said, ids_held(&cluster.nodes[0], "old").await?), (&seen, held.clone()));

    // What ended blocks nobody: the one that waited has it.
    cluster.delete("old").await?;
    let (_, said) = cluster.until_running("thief").await?;
    assert_eq!(said.berth_devices.as_ref(), Some(wanted));

    // Back under a lease on a device that the kubelet takes for free: nobody is placed where it would give it away.
    assert!(!ids_held(&cluster.nodes[0], "thief").await?.contains(wanted));
    cluster.move_to(0, "advice").await?;
    let _plugin = stock_plugin(&cluster.nodes[0]).await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    cluster.create(&gpu_pod("late", 6)).await?;
    let words = "berth: kubelet may take leased devices of a pod of the node for free";
    cluster.running.until_failed_scheduling("late", words, SOON).await?;
    assert_eq!(cluster.said_after("thief", 0).await?, said);
    cluster.delete("thief").await?;
    let (_, late) = cluster.until_running("late").await?;
    assert!(cards(&late).is_disjoint(&cards(&next)));
    for name in ["late", "next"] {
        cluster.delete(name).await?;
    }
    cluster.create(&gpu_pod("all", 8)).await?;
    let (_, said) = cluster.until_running("all").await?;
    assert!(cards(&said).is_superset(&cards(&seen)));
    Ok(())
}

/// Names of the leases of which the node has specs.
fn specs(node: &RealNode) -> Result<BTreeSet<String>> {
    let names = std::fs::read_dir(node.inside("/run/cdi"))?.map(|entry| Ok(entry?.file_name().into_string().unwrap()));
    let names = names.collect::<Result<BTreeSet<_>>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with("berth.dev-gpu-lease-")).collect())
}

/// Six GPUs for a new pod, none of them of the pod that was there before; and what its plan promises.
async fn beside(cluster: &RealCluster, name: &str, kept: &Said) -> Result<Level> {
    let (pod, said) = cluster.until_running(name).await?;
    assert!(cards(&said).len() == 6 && cards(&said).is_disjoint(&cards(kept)), "{said:?} beside {kept:?}");
    assert_eq!(said.berth_devices, None, "no lease");
    Ok(plan_of(&pod)?.level)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_back_from_level_enforced_leaves_leases_to_their_pods_and_to_nobody_else() -> Result<()> {
    if !can_run("a_node_that_goes_back_from_level_enforced_leaves_leases_to_their_pods_and_to_nobody_else")? {
        return Ok(());
    }
    let mut cluster = RealCluster::start(&[("dgx-h100", NODE)], &json!({}), &["--level", "enforced"]).await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    cluster.until_accepting(NODE, "enforced", true).await?;
    cluster.create(&gpu_pod("kept", 2)).await?;
    let (pod, kept) = cluster.until_running("kept").await?;
    assert!(cards(&kept).len() == 2 && kept.berth_devices.is_some(), "{kept:?}");

    // To advice, in the order of manifests/README.md: the stock plugin gives the other GPUs away.
    cluster.running.plane.kubectl(&["cordon", NODE]).await?;
    cluster.move_to(0, "advice").await?;
    cluster.create(&gpu_pod("advised", 6)).await?;
    cluster.running.until_failed_scheduling("advised", "", SOON).await?;
    let plugin = stock_plugin(&cluster.nodes[0]).await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    cluster.running.plane.kubectl(&["uncordon", NODE]).await?;
    assert_eq!(beside(&cluster, "advised", &kept).await?, Level::Advice);

    // The kubelet answers a container that starts anew as it did before: with the lease.
    cluster.crash(&pod).await?;
    assert_eq!(cluster.said_after("kept", 1).await?, kept);
    // A reboot takes the specs. Nobody gives them back at advice: the container does not start, and its pod is told.
    let (pod, _) = cluster.until_running("kept").await?;
    cluster.shell("rm /run/cdi/berth.dev-gpu-lease-*").await?;
    cluster.crash(&pod).await?;
    cluster.running.until_told("kept", "AgentAway", "enforces plans no more", SOON).await?;
    assert_eq!(is_running(&cluster.running.pods().get("kept").await?), Some((1, false)));

    // To preferred: the agent finds the lease, and gives back its spec.
    cluster.delete("advised").await?;
    drop(plugin);
    cluster.move_to(0, "preferred").await?;
    cluster.until_offered(NODE, GPU, 8).await?;
    assert_eq!(cluster.said_after("kept", 2).await?, kept);
    cluster.create(&gpu_pod("asked", 6)).await?;
    assert_eq!(beside(&cluster, "asked", &kept).await?, Level::Preferred);
    assert_eq!(specs(&cluster.nodes[0])?.len(), 1);

    // The lease ends with its pod, and its devices are anybody's again.
    cluster.delete("kept").await?;
    let gone = || async { Ok(specs(&cluster.nodes[0])?.is_empty().then_some(())) };
    cluster.running.until(SOON, "end of the lease", gone).await?;
    cluster.create(&gpu_pod("rest", 2)).await?;
    let (_, rest) = cluster.until_running("rest").await?;
    assert_eq!(cards(&rest), cards(&kept));
    Ok(())
}
