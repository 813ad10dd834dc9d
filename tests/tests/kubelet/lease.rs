//! Leases on a real kubelet and a real container runtime: a container has exactly what its plan names, or does not start, whatever happens
//! to agent, kubelet and folders in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod binders;
mod plans;
mod stage;

use std::collections::BTreeSet;

use anyhow::Result;
use berth_tests::real_cluster::{GPU, SOON};
use berth_tests::real_node::{can_run, container};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use stage::{NODE, Stage, gpu_pod, limits, limits_of};

const CUT_NODE: &str = "kn2";
const SMALL: &str = "nvidia.com/mig-1g.5gb";
const HALF: &str = "nvidia.com/mig-3g.20gb";

/// A pod of one container for each resource and count.
fn cut_pod(name: &str, asks: &[(&str, u32)]) -> Value {
    let mut pod = gpu_pod(name, 0);
    let containers = asks.iter().enumerate().map(|(at, (resource, count))| match at {
        0 => container("main", &limits_of(resource, *count)),
        at => container(&format!("more-{at}"), &limits_of(resource, *count)),
    });
    pod["spec"]["containers"] = containers.collect();
    pod
}

/// Plain init containers, sidecars and containers beside each other: each has its own part of the plan, also where an init container has
/// more than all that come after it, and leaves it to them.
async fn containers_of_all_kinds(stage: &Stage) -> Result<()> {
    let once = |name: &str, gpus: u32| {
        let mut init = container(name, &limits(gpus));
        init["args"] = json!(["once"]);
        init
    };
    let mut parts = gpu_pod("parts", 1);
    parts["spec"]["initContainers"] = json!([once("prepare", 2), container("side", &limits(1)), once("check", 1)]);
    parts["spec"]["initContainers"][1]["restartPolicy"] = json!("Always");
    parts["spec"]["containers"].as_array_mut().unwrap().push(container("second", &limits(2)));
    let mut large = gpu_pod("large-init", 1);
    large["spec"]["initContainers"] = json!([once("prepare", 4)]);
    for (pod, name) in [(parts, "parts"), (large, "large-init")] {
        stage.0.create(&pod).await?;
        stage.holds_its_plan(name).await?;
    }
    let planned = Stage::planned(&stage.0.running.pods().get("parts").await?)?;
    let beside: Vec<&String> = ["side", "main", "second"].iter().flat_map(|name| &planned[*name]).collect();
    assert_eq!(beside.iter().collect::<BTreeSet<_>>().len(), 4, "each its own: {planned:?}");
    assert_eq!((planned["prepare"].len(), planned["check"].len()), (2, 1));
    for name in ["parts", "large-init"] {
        stage.0.delete(name).await?;
    }
    Ok(())
}

/// MIG instances, of two profiles in one pod and all of a profile at once: each container has its own.
async fn instances(stage: &Stage) -> Result<()> {
    stage.0.until_offered(CUT_NODE, SMALL, 9).await?;
    stage.0.until_offered(CUT_NODE, HALF, 1).await?;
    stage.0.until_accepting(CUT_NODE, "enforced", true).await?;
    let pods =
        [("mixed", vec![(SMALL, 1), (HALF, 1)]), ("two", vec![(SMALL, 2)]), ("own", vec![(SMALL, 1), (SMALL, 1)])];
    let singles: Vec<String> = (0..4).map(|at| format!("single-{at}")).collect();
    let singles = singles.iter().map(|name| (name.as_str(), vec![(SMALL, 1)]));
    let pods: Vec<(&str, Vec<(&str, u32)>)> = pods.into_iter().chain(singles).collect();
    for (name, asks) in &pods {
        stage.0.create(&cut_pod(name, asks)).await?;
    }
    let mut taken = BTreeSet::new();
    for (name, _) in &pods {
        let pod = stage.holds_its_plan(name).await?;
        for id in Stage::planned(&pod)?.into_values().flatten() {
            assert!(taken.insert(id), "an instance in two live containers");
        }
    }
    assert_eq!(taken.len(), 10, "all of the node");
    for (name, _) in &pods {
        stage.0.running.pods().delete(name, &DeleteParams::default()).await?;
    }
    stage.0.until_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_sees_exactly_its_own_part_of_the_plan() -> Result<()> {
    if !can_run("every_container_sees_exactly_its_own_part_of_the_plan")? {
        return Ok(());
    }
    let mut stage = Stage::start_on(&[("dgx-h100", NODE), ("mig-a100", CUT_NODE)]).await?;
    containers_of_all_kinds(&stage).await?;
    instances(&stage).await?;

    // Bursts of pods that are bound at the same moment.
    for round in 0..4 {
        let names: Vec<String> = (0..8).map(|i| format!("burst-{round}-{i}")).collect();
        for name in &names {
            stage.0.create(&gpu_pod(name, 1)).await?;
        }
        let mut taken = BTreeSet::new();
        for name in &names {
            let pod = stage.holds_its_plan(name).await?;
            assert!(taken.insert(Stage::planned_main(&pod)?), "a device in two live containers");
        }
        for name in &names {
            stage.0.running.pods().delete(name, &DeleteParams::default()).await?;
        }
        stage.0.until_empty().await?;
    }
    stage.until_metric("berth_agent_leases{state=\"held\"}", 0.0).await?;
    assert!(stage.leased()?.is_empty());

    let mut leased: Vec<Value> = Vec::new();
    for node in &stage.0.nodes {
        let log = node.agent.as_ref().unwrap().log()?;
        let entries = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        leased.extend(entries.filter(|entry: &Value| entry["waited_us"].is_u64()));
    }
    let mut waited: Vec<u64> = leased.iter().filter_map(|entry| entry["waited_us"].as_u64()).collect();
    waited.sort_unstable();
    assert_eq!(waited.len(), 7 + 9 + 32, "one for each container");
    let at = |percent: usize| waited[(waited.len() - 1) * percent / 100] / 100;
    let permuted = leased.iter().filter(|entry| entry["is_permuted"] == json!(true)).count();
    let failures = stage.failures().await?;
    println!(
        "{} leases: spec {}.{} ms after Allocate (median), {}.{} ms (p99); {permuted} permuted; {failures} containers could not be made",
        waited.len(),
        at(50) / 10,
        at(50) % 10,
        at(99) / 10,
        at(99) % 10
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_have_its_plan_has_nothing_is_told_and_starts_when_it_can() -> Result<()> {
    if !can_run("who_cannot_have_its_plan_has_nothing_is_told_and_starts_when_it_can")? {
        return Ok(());
    }
    let mut stage = Stage::start().await?;

    // No way to the device, neither nvidia-ctk's spec nor its file, and the agent is killed between Allocate and the spec.
    stage.shell("rm /run/cdi/nvidia.json").await?;
    stage.0.create(&gpu_pod("first", 2)).await?;
    stage.is_refused("first", "no-edits").await?;
    stage.0.nodes[0].agent.as_mut().unwrap().kill()?;
    stage.make_device_files().await?;
    let pod = stage.0.running.pods().get("first").await?;
    assert!(stage.0.said(&pod, "main")?.is_none(), "nobody gives devices while the agent is away");
    // What a reboot does to the folder, and what it does not: a spec without a lease.
    let stale = "/run/cdi/berth.dev-gpu-lease-00000000000000000000000000000000.json";
    stage.shell(&format!("rm -f /run/cdi/*; echo '{{}}' > {stale}")).await?;
    stage.0.nodes[0].agent.as_mut().unwrap().restart()?;
    stage.holds_its_plan("first").await?;
    stage.shell(&format!("! [ -e {stale} ]")).await?;

    // Emptied again, a container that starts anew after the agent does still has its lease.
    stage.0.nodes[0].agent.as_mut().unwrap().kill()?;
    stage.shell("rm -f /run/cdi/*").await?;
    stage.0.nodes[0].agent.as_mut().unwrap().restart()?;
    stage.until_accepting().await?;
    stage.shell("for i in $(seq 300); do ls /run/cdi/berth.dev-gpu-lease-* && exit 0; sleep 0.1; done; exit 1").await?;

    // Bound by hand: no plan, no devices.
    let mut by_hand = gpu_pod("by-hand", 1);
    by_hand["spec"]["nodeName"] = json!(NODE);
    stage.0.create(&by_hand).await?;
    let told = stage.is_refused("by-hand", "no-plan").await?;
    assert!(told.contains("schedulerName berth"), "{told}");
    stage.until_metric("berth_agent_lease_refusals{reason=\"no-plan\"}", 1.0).await?;
    stage.0.delete("by-hand").await?;
    stage.until_metric("berth_agent_lease_refusals{reason=\"no-plan\"}", 0.0).await?;

    // By policy it is evicted.
    stage.allow_eviction().await?;
    stage.0.create(&by_hand).await?;
    stage.is_refused("by-hand", "evicted after 5 s").await?;
    stage.is_evicted("by-hand").await?;

    // The kubelet goes and comes back: who runs keeps what it has, who comes gets its plan.
    let plane = &stage.0.running.plane;
    stage.0.nodes[0].restart_kubelet(plane).await?;
    stage.0.until_offered(NODE, GPU, 8).await?;
    stage.until_accepting().await?;
    stage.0.create(&gpu_pod("second", 1)).await?;
    stage.holds_its_plan("second").await?;
    assert_eq!(stage.leased()?.into_keys().collect::<Vec<_>>(), ["first", "second"]);

    // The agent hangs: nobody starts, and when it goes on everybody does.
    stage.0.nodes[0].agent.as_ref().unwrap().freeze()?;
    stage.0.create(&gpu_pod("third", 1)).await?;
    let pod = stage.0.running.until_bound("third", SOON).await?;
    assert!(stage.0.said(&pod, "main")?.is_none());
    stage.0.nodes[0].agent.as_ref().unwrap().thaw()?;
    stage.holds_its_plan("third").await?;

    // Deleted by force, and back under its name before the kubelet has let the first one go.
    let before = stage.leased()?["third"].clone();
    stage.0.running.delete("third").await?;
    stage.0.create(&gpu_pod("third", 1)).await?;
    let pod = stage.holds_its_plan("third").await?;
    let now = stage.leased()?["third"].clone();
    assert!(now != before && Some(&now) == pod.metadata.uid.as_ref(), "{before} {now}");

    for name in ["first", "second", "third"] {
        stage.0.delete(name).await?;
    }
    stage.until_metric("berth_agent_leases{state=\"held\"}", 0.0).await?;
    stage.shell("! ls /run/cdi/berth.dev-gpu-lease-*").await?;
    Ok(())
}
