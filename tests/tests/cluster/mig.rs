//! Nodes under MIG on a real control plane: pods ask for profiles, and their plans name instances that exist and that nobody else has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_model::NodeTopology;
use berth_tests::controlplane::fetch;
use berth_tests::made_node::{MadeNode, machine_file};
use berth_tests::running::{Running, plan_of};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MACHINE: &str = "mig-a100";

/// A pod for Berth: the limits of each container.
fn asking(name: &str, containers: &[&[(&str, u32)]], annotations: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    let container = |(number, limits): (usize, &&[(&str, u32)])| {
        let limits = limits.iter().map(|(name, count)| (format!("nvidia.com/{name}"), json!(count.to_string())));
        let limits: serde_json::Map<String, Value> = limits.collect();
        json!({"name": format!("c{number}"), "image": "none", "resources": {"limits": limits}})
    };
    let containers: Vec<Value> = containers.iter().enumerate().map(container).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {"schedulerName": "berth", "containers": containers}})
}

async fn submit(running: &Running, pod: Value) -> Result<()> {
    running.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

/// GPU and first slot of every instance of a node, by the UUID of its device.
fn instances(node: &NodeTopology) -> BTreeMap<String, (usize, u8)> {
    let of = |(gpu, own): (usize, &berth_model::Gpu)| {
        let own = own.detail.mig_instances.iter();
        own.flat_map(move |i| i.uuids.iter().map(move |uuid| (uuid.clone(), (gpu, i.placement.start()))))
            .collect::<Vec<_>>()
    };
    node.parts().gpus.iter().enumerate().flat_map(of).collect()
}

/// GPU and first slot of every instance in the plan of a pod, once it is bound: each must be one of the node's, and in no other plan.
async fn given(running: &Running, pod: &str, node: &NodeTopology) -> Result<Vec<(usize, u8)>> {
    let known = instances(node);
    let planned = |pod: &k8s_openapi::api::core::v1::Pod| -> Result<Vec<(usize, u8)>> {
        let note = plan_of(pod)?;
        let own = note.containers.iter().flat_map(|c| &c.devices).filter_map(|d| d.mig.as_ref().map(|mig| (d, mig)));
        own.map(|(device, mig)| {
            let uuid = mig.uuid.as_ref().context("no UUID of the instance")?;
            let place = *known.get(uuid).with_context(|| format!("{uuid} is not on the node"))?;
            assert_eq!((node.parts().gpus[place.0].uuid.as_str(), mig.start), (device.uuid.as_str(), place.1));
            Ok(place)
        })
        .collect()
    };
    let own = planned(&running.until_bound(pod, SOON).await?)?;
    assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), own.len(), "{own:?}");
    for other in running.pods().list(&ListParams::default()).await?.items {
        let is_bound_here =
            other.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node.parts().node.as_str());
        if is_bound_here && other.metadata.name.as_deref() != Some(pod) {
            let others = planned(&other)?;
            assert!(
                !own.iter().any(|place| others.contains(place)),
                "{pod} {own:?} {:?} {others:?}",
                other.metadata.name
            );
        }
    }
    Ok(own)
}

async fn explained(running: &Running, pod: &str) -> Result<Value> {
    let url = format!("http://127.0.0.1:{}/explain?namespace=default&pod={pod}", running.extender_port);
    Ok(serde_json::from_str(&fetch(&url).await?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_instances_that_exist_and_are_free_and_those_without_one_say_why() -> Result<()> {
    let running = Running::start(&[(MACHINE, "mig")]).await?;
    let node = running.nodes[0].topology(None)?;

    // GPU 1 is seven 1g in zone 0; GPU 2 two 1g and a 3g in zone 1. By count nine 1g would fit, in the one zone that the kubelet wants seven.
    submit(&running, asking("seven", &[&[("mig-1g.5gb", 7)]], &[])).await?;
    assert!(given(&running, "seven", &node).await?.iter().all(|(gpu, _)| *gpu == 1));
    submit(&running, asking("both", &[&[("mig-1g.5gb", 1), ("mig-3g.20gb", 1)], &[("mig-1g.5gb", 1)]], &[])).await?;
    let both = given(&running, "both", &node).await?;
    assert_eq!(both.iter().copied().collect::<BTreeSet<_>>(), [(2, 0), (2, 1), (2, 4)].into());

    running.delete("both").await?;
    running.delete("seven").await?;
    submit(&running, asking("eight", &[&[("mig-1g.5gb", 8)]], &[])).await?;
    running.until_failed_scheduling("eight", "berth: kubelet would refuse the pod on any such machine", SOON).await?;

    submit(&running, asking("third", &[&[("mig-1g.5gb", 3)]], &[("berth.dev/gpus", "2")])).await?;
    let words = "berth: node has fewer MIG instances of the profile than asked";
    running.until_failed_scheduling("third", words, SOON).await?;
    let told = explained(&running, "third").await?;
    let summary = told["summary"].as_str().unwrap_or_default();
    let numbers = "3 x 1g.5gb asked, 9 allocatable; free are 9 of 9 x 1g.5gb, 1 of 1 x 3g.20gb";
    assert!(summary.contains(numbers), "{summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pod_keeps_away_from_the_instance_that_the_kubelet_really_gave() -> Result<()> {
    let running = Running::start(&[(MACHINE, "mig")]).await?;
    let node = running.nodes[0].topology(None)?;
    submit(&running, asking("first", &[&[("mig-1g.5gb", 1)]], &[])).await?;
    let planned = given(&running, "first", &node).await?[0];
    assert_eq!(planned.0, 1, "the kubelet takes the lower zone");
    let other = (1, if planned.1 == 3 { 4 } else { 3 });
    let uuid = instances(&node).into_iter().find(|(_, place)| *place == other).unwrap().0;
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "c0", "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
        "allocatedResourcesStatus": [{"name": "nvidia.com/mig-1g.5gb", "resources": [{"resourceID": uuid, "health": "Healthy"}]}],
    }]}});
    running.pods().patch_status("first", &PatchParams::default(), &Patch::Merge(status)).await?;
    let drifted = || async {
        let metrics = fetch(&format!("http://127.0.0.1:{}/metrics", running.admin_port)).await?;
        Ok(metrics.lines().any(|line| line == "berth_drift_pods 1").then_some(()))
    };
    running.until(SOON, "drift", drifted).await?;
    submit(&running, asking("second", &[&[("mig-1g.5gb", 6)]], &[])).await?;
    let note = plan_of(&running.until_bound("second", SOON).await?)?;
    let starts = note.containers[0].devices.iter().filter_map(|device| device.mig.as_ref()).map(|mig| mig.start);
    let left: BTreeSet<u8> = (0..7).filter(|start| *start != other.1).collect();
    assert_eq!(starts.collect::<BTreeSet<_>>(), left, "what was planned for the first is free, what it got is not");
    let told = explained(&running, "first").await?;
    let (was, is) = (planned.1, other.1);
    let words = format!("drift: planned 1g.5gb at slot {was} of GPU1, the kubelet gave 1g.5gb at slot {is} of GPU1");
    assert!(told["summary"].as_str().unwrap_or_default().contains(&words), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_gpus_are_cut_alike_a_gpu_is_an_instance() -> Result<()> {
    let running = Running::start(&[]).await?;
    let text = std::fs::read_to_string(machine_file(MACHINE))?;
    let halves = "gpuFacts: {migInstances: 3g.20gb@0+4; 3g.20gb@4+4}";
    // GPU 0 has MIG off and GPU 3 no instance; the other two stay as they are told here.
    let text = text.replace("gpuFacts: {mig: false}", halves);
    let text = text.replace("gpu: 3, at: 0000:a1:00.0}", &format!("gpu: 3, at: 0000:a1:00.0, {halves}}}"));
    let text = text.replace("gpuFacts: {migInstances: 1g.5gb@0+1; 1g.5gb@1+1; 3g.20gb@4+4}", halves);
    let seven = "1g.5gb@0+1; 1g.5gb@1+1; 1g.5gb@2+1; 1g.5gb@3+1; 1g.5gb@4+1; 1g.5gb@5+1; 1g.5gb@6+1";
    let node = MadeNode::of_text(&text.replace(seven, "3g.20gb@0+4; 3g.20gb@4+4"), "single")?;
    let mut spec = node.node_spec()?;
    spec.allocatable.retain(|name, _| !name.starts_with("nvidia.com/"));
    spec.allocatable.insert("nvidia.com/gpu".to_owned(), "8".to_owned());
    running.plane.create_node(&spec).await?;
    let kubeconfig = running.plane.agent_identity("single").await?;
    let _agent = running.plane.spawn(node.agent(&kubeconfig)?)?;
    let topology = node.topology(None)?;

    running.submit("pair", 2, &[]).await?;
    let pair = given(&running, "pair", &topology).await?;
    assert_eq!(pair.len(), 2, "two devices, and both are instances");
    assert_eq!(pair[0].0, pair[1].0, "one card, so that others stay whole");
    running.submit("four", 4, &[]).await?;
    assert_eq!(given(&running, "four", &topology).await?.len(), 4);
    running.submit("more", 3, &[]).await?;
    running.until_failed_scheduling("more", "Insufficient nvidia.com/gpu", SOON).await?;
    Ok(())
}
