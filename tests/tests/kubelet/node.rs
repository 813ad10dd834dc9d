//! Holds real nodes to what the other tests need of them: the machine of a machine file, a clean end, and pods that really run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use anyhow::Result;
use berth_proto::NodeTopology;
use berth_tests::controlplane::{ControlPlane, Options};
use berth_tests::real_cluster::{GPU, RealCluster, SOON, ids_held, stock_offers};
use berth_tests::real_node::{RealNode, SHARED, can_run, pod};
use berth_tests::running::plan_of;
use berth_tests::stock_plugin::{StockPlugin, Wish};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kubelet_has_the_machine_of_its_file_and_leaves_nothing_behind() -> Result<()> {
    if !can_run("a_real_kubelet_has_the_machine_of_its_file_and_leaves_nothing_behind")? {
        return Ok(());
    }
    let plane = ControlPlane::start(Options::default()).await?;
    let mut node = RealNode::start(&plane, "dgx-h100", "kn1", &json!({})).await?;
    let nodes: Api<Node> = Api::all(plane.client());
    let status = nodes.get("kn1").await?.status.unwrap();
    let capacity = |name: &str| status.capacity.as_ref().unwrap()[name].0.clone();
    assert_eq!((capacity("cpu").as_str(), capacity("memory").as_str()), ("224", "2063880Mi"));
    let boot_id = node.made().topology(None)?.parts().boot_id.to_string();
    assert_eq!(status.node_info.as_ref().unwrap().boot_id, boot_id);

    // Other rules are only another start away.
    let rules = json!({"cpuManagerPolicy": "static", "reservedSystemCPUs": "0-1,112-113"});
    node.set_rules(&plane, &rules).await?;
    let allocatable = nodes.get("kn1").await?.status.unwrap().allocatable.unwrap();
    assert_eq!(allocatable["cpu"].0, "220");

    let (folder, group) = (node.folder().to_owned(), node.cgroup());
    assert_eq!(groups_of(&group).len(), groups_of("").len(), "one in every hierarchy");
    drop(node);
    assert!(!folder.exists() && groups_of(&group).is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
    Ok(())
}

/// The groups of this path in all hierarchies.
fn groups_of(path: &str) -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let all = std::iter::once(root.to_owned())
        .chain(std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()))
        .filter(|hierarchy| !hierarchy.ends_with("unified") && !hierarchy.is_symlink());
    // The whole tree: version 2 has its groups in the root, version 1 in each controller's.
    let groups = all.map(|hierarchy| hierarchy.join(path.trim_start_matches('/')));
    groups.filter(|group| group.join("cgroup.procs").is_file()).collect()
}

fn gpu_pod(name: &str, gpus: u32) -> Value {
    let mut pod = pod(name, &json!({GPU: gpus.to_string(), "cpu": "1", "memory": "1Gi"}));
    pod["spec"]["schedulerName"] = json!("berth");
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_advice_a_pod_runs_with_what_the_stock_plugin_gave_and_drift_is_told() -> Result<()> {
    if !can_run("at_level_advice_a_pod_runs_with_what_the_stock_plugin_gave_and_drift_is_told")? {
        return Ok(());
    }
    let cluster = RealCluster::start(&[("dgx-h100", "kn1")], &json!({}), &[]).await?;
    let node = &cluster.nodes[0];
    let _plugin = StockPlugin::start(
        &node.kubelet_folder().join("device-plugins"),
        GPU,
        &stock_offers(node)?[GPU],
        Wish::LastFirst,
    )
    .await?;
    cluster.until_offered("kn1", GPU, 8).await?;
    let topology = node.made().topology(None)?;
    let reports: Api<NodeTopology> = Api::all(cluster.running.plane.client());
    let drifted = async |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|name| format!("default/{name}")).collect();
        let look = || async {
            let status = reports.get("kn1").await?.status.unwrap_or_default();
            let pods: Vec<String> = status.drifts.into_iter().map(|drift| drift.pod).collect();
            Ok((pods == wanted).then_some(()))
        };
        cluster.running.until(SOON, &format!("drift of {wanted:?} and no other"), look).await
    };

    // Both are right here: what was planned, and what was given because nobody told the plugin.
    for (name, gpus, is_drift) in [("two", 2, true), ("eight", 8, false)] {
        cluster.create(&gpu_pod(name, gpus)).await?;
        let (pod, said) = cluster.until_running(name).await?;
        let seen: BTreeSet<String> = said.nvidia_visible_devices.unwrap().split(',').map(str::to_owned).collect();
        assert_eq!(seen, ids_held(node, name).await?, "the kubelet says what the container sees");
        assert_eq!(seen.len(), usize::try_from(gpus)?);
        let nodes: BTreeSet<String> = said.nodes.into_iter().filter(|path| !SHARED.contains(&path.as_str())).collect();
        let of_seen = topology.parts().gpus.iter().filter(|gpu| seen.contains(gpu.uuid.as_str()));
        assert_eq!(nodes, of_seen.map(|gpu| format!("/dev/nvidia{}", gpu.index.0)).collect());

        let planned: BTreeSet<String> = plan_of(&pod)?.gpus()?.iter().map(ToString::to_string).collect();
        assert_eq!(planned != seen, is_drift, "planned {planned:?}, seen {seen:?}");
        let told: &[&str] = &[name];
        drifted(if is_drift { told } else { &[] }).await?;
        cluster.delete(name).await?;
        drifted(&[]).await?;
    }
    assert_eq!(ids_held(node, "eight").await?, BTreeSet::new());
    Ok(())
}

/// Device files of GPUs that a container sees.
fn cards(nodes: Vec<String>) -> BTreeSet<String> {
    nodes.into_iter().filter(|path| !SHARED.contains(&path.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moves_to_level_enforced_leaves_running_pods_their_devices_and_gives_them_to_nobody() -> Result<()>
{
    if !can_run("a_node_that_moves_to_level_enforced_leaves_running_pods_their_devices_and_gives_them_to_nobody")? {
        return Ok(());
    }
    let mut cluster = RealCluster::start(&[("dgx-h100", "kn1")], &json!({}), &[]).await?;
    let folder = cluster.nodes[0].kubelet_folder().join("device-plugins");
    let offers = stock_offers(&cluster.nodes[0])?;
    let plugin = StockPlugin::start(&folder, GPU, &offers[GPU], Wish::LastFirst).await?;
    cluster.until_offered("kn1", GPU, 8).await?;
    cluster.create(&gpu_pod("old", 2)).await?;
    let (_, said) = cluster.until_running("old").await?;
    let (old, held) = (cards(said.nodes), ids_held(&cluster.nodes[0], "old").await?);
    assert_eq!((old.len(), held.len()), (2, 2));
    // The ledger follows the kubelet, not the plan, from when it is told.
    cluster.running.until_told("old", "DeviceDrift", "drift: planned", SOON).await?;

    drop(plugin);
    cluster.move_to(0, "enforced").await?;
    cluster.until_offered("kn1", GPU, 8).await?;
    cluster.create(&gpu_pod("new", 6)).await?;
    let (pod, said) = cluster.until_running("new").await?;
    let planned: BTreeSet<String> = plan_of(&pod)?.gpus()?.iter().map(ToString::to_string).collect();
    let leased: BTreeSet<String> = said.berth_devices.unwrap().split(',').map(str::to_owned).collect();
    assert_eq!(leased, planned);
    let new = cards(said.nodes);
    assert!(new.len() == 6 && new.is_disjoint(&old), "{new:?} beside {old:?}");
    let (pod, said) = cluster.until_running("old").await?;
    assert_eq!((cards(said.nodes), ids_held(&cluster.nodes[0], "old").await?), (old, held));
    assert!(pod.status.unwrap().container_statuses.unwrap().iter().all(|container| container.restart_count == 0));
    Ok(())
}
