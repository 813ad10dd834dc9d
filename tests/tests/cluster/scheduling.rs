//! The whole path on a real control plane: unmodified agents publish, a stock kube-scheduler asks, pods are bound with plans.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use berth_core::annotation::Level;
use berth_model::{GpuSet, LinkClass, NodeTopology, PcieLevel};
use berth_tests::running::{Running, plan_of};
use kube::api::ListParams;

const SOON: Duration = Duration::from_secs(60);
/// How long a pod may wait once there is room for it.
const AGAIN_WITHIN: Duration = Duration::from_secs(15);

const FOUR: [(&str, &str); 4] =
    [("dgx-h100", "h100"), ("dgx-1v", "v100"), ("pcie-8gpu-two-level", "pcie"), ("bridged-pairs", "pairs")];

/// Who holds which GPUs of which node, from the plans of all bound pods. Fails when one GPU is in two plans.
async fn holders(running: &Running) -> Result<BTreeMap<String, String>> {
    let mut held = BTreeMap::new();
    for pod in running.pods().list(&ListParams::default()).await?.items {
        if pod.spec.as_ref().is_none_or(|s| s.node_name.is_none()) {
            continue;
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        for device in plan_of(&pod)?.gpus()? {
            if let Some(other) = held.insert(device.to_string(), name.clone()) {
                panic!("{device} is in the plans of {other} and {name}");
            }
        }
    }
    Ok(held)
}

/// Bandwidth inside a set by an order of its own: NVLinks first, then PCIe levels.
fn inside(node: &NodeTopology, set: GpuSet) -> (Option<LinkClass>, u32) {
    let level = |l: Option<PcieLevel>| {
        l.map_or(0, |l| u32::try_from(PcieLevel::ALL.iter().position(|x| *x == l).unwrap()).unwrap() + 1)
    };
    let mut sum = 0;
    for a in set.iter() {
        for b in set.iter().filter(|b| *b > a) {
            let link = node.parts().links.link(usize::from(a.0), usize::from(b.0)).unwrap();
            sum += u32::from(link.nvlinks) * 100 + level(link.pcie) * 10;
        }
    }
    (node.weakest_link(set), sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_every_size_get_sets_that_no_other_choice_beats() -> Result<()> {
    let mut running = Running::start(&FOUR).await?;
    let mut taken: BTreeMap<String, GpuSet> = BTreeMap::new();
    for (i, gpus) in [2, 1, 4, 8, 1, 2, 4, 2, 1, 4, 1, 2].into_iter().enumerate() {
        let name = format!("p{i}");
        running.submit(&name, gpus, &[]).await?;
        let pod = running.until_bound(&name, SOON).await?;
        let note = plan_of(&pod)?;
        assert_eq!(note.level, Level::Advice);
        let made = running.nodes.iter().find(|n| n.name() == note.node).unwrap();
        let node = made.topology(None)?;
        let devices = note.gpus()?;
        let set: GpuSet = node.parts().gpus.iter().filter(|g| devices.contains(&g.uuid)).map(|g| g.index).collect();
        assert_eq!(set.gpu_count(), gpus, "{name}: every device of the plan is on {}", note.node);
        let held = taken.entry(note.node.clone()).or_default();
        assert!(set.is_disjoint(*held), "{name} shares GPUs {}", set.and(*held));
        let free = node.all_gpus().minus(*held);
        let best = free.subsets(gpus).map(|s| inside(&node, s)).max().unwrap();
        assert_eq!(inside(&node, set), best, "{name} on {} got {set} of {free}", note.node);
        *held = held.or(set);
    }
    holders(&running).await?;
    // What kube-scheduler sends names the version of the pod as the watch does, and mostly the watch is there in time.
    let metrics = running.metrics().await?;
    let count = |name: &str| -> u64 {
        let of_filter = |line: &&str| line.starts_with(name) && line.contains("verb=\"filter\"");
        metrics.lines().filter(of_filter).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let (calls, read) =
        (count("berth_extender_request_duration_seconds_count"), count("berth_extender_pods_read_total"));
    println!("the pod was read in {read} of {calls} calls of filter");
    assert!(calls >= 12 && read < calls, "{read} of {calls}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_fit_says_why_and_is_placed_as_soon_as_there_is_room() -> Result<()> {
    let mut running = Running::start(&[("bridged-pairs", "pairs")]).await?;
    running.submit("first", 8, &[]).await?;
    running.until_bound("first", SOON).await?;

    // Room by a deletion.
    running.submit("second", 4, &[]).await?;
    running.until_failed_scheduling("second", "Insufficient nvidia.com/gpu", SOON).await?;
    running.delete("first").await?;
    running.until_bound("second", AGAIN_WITHIN).await?;

    // Room by hardware: a lost GPU comes back. Nothing of the Node changes.
    running.nodes[0].set_faults("lost: [5]")?;
    running.until(SOON, "report of the lost GPU", || reported_unhealthy(&running, 1)).await?;
    running.submit("third", 4, &[]).await?;
    running.until_failed_scheduling("third", "berth: too few free GPUs", SOON).await?;
    running.nodes[0].set_faults("")?;
    running.until_bound("third", AGAIN_WITHIN).await?;

    // Room by policy.
    running.delete("second").await?;
    running.submit("fourth", 1, &[("berth.dev/class", "night")]).await?;
    running.until_failed_scheduling("fourth", "berth: a GPU wish of the pod cannot be read", SOON).await?;
    running.set_policy(&format!("{HEAD}classes: {{default: {{}}, night: {{}}}}\n")).await?;
    running.until_bound("fourth", AGAIN_WITHIN).await?;
    holders(&running).await?;
    Ok(())
}

async fn reported_unhealthy(running: &Running, count: usize) -> Result<Option<()>> {
    let reports: kube::Api<berth_proto::NodeTopology> = kube::Api::all(running.plane.client());
    let status = reports.get(running.nodes[0].name()).await?.status.unwrap_or_default();
    Ok((status.gpus.iter().filter(|g| g.health == "unhealthy").count() == count).then_some(()))
}

const HEAD: &str = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_policy_holds_for_the_next_pod_and_a_broken_one_changes_nothing() -> Result<()> {
    let mut running = Running::start(&[("dgx-1v", "a"), ("dgx-1v", "b")]).await?;
    let mut nodes = Vec::new();
    for name in ["p0", "p1"] {
        running.submit(name, 1, &[]).await?;
        nodes.push(plan_of(&running.until_bound(name, SOON).await?)?.node);
    }
    assert_eq!(nodes[0], nodes[1], "binpack fills one node");

    running.set_policy(&format!("{HEAD}classes: {{default: {{placement: spread}}}}\n")).await?;
    running.scheduler.wait_for_log("policy applied", SOON).await?;
    running.submit("p2", 1, &[]).await?;
    let spread = plan_of(&running.until_bound("p2", SOON).await?)?.node;
    assert_ne!(spread, nodes[0], "spread takes the emptier node");

    running.set_policy(&format!("{HEAD}classes:\n  default: {{placement: heap}}\n")).await?;
    let line = running.scheduler.wait_for_log("policy rejected", SOON).await?;
    let logged: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!((logged["line"].as_u64(), logged["column"].as_u64()), (Some(4), Some(24)), "{line}");
    let events: kube::Api<k8s_openapi::api::events::v1::Event> =
        kube::Api::namespaced(running.plane.client(), "berth-system");
    let rejected = || async {
        let all = events.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|e| e.reason.as_deref() == Some("PolicyRejected")).and_then(|e| e.note))
    };
    let note = running.until(SOON, "PolicyRejected event", rejected).await?;
    assert!(note.contains("line 4, column 24") && note.contains("binpack, spread"), "{note}");
    let metrics = running.metrics().await?;
    assert!(metrics.contains("berth_policy_reloads_total{result=\"rejected\"} 1"), "{metrics}");
    running.submit("p3", 1, &[]).await?;
    let still = plan_of(&running.until_bound("p3", SOON).await?)?.node;
    assert_ne!(still, nodes[0], "the last good policy still spreads: 2 against 1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_killed_at_any_moment_loses_no_pod_and_gives_no_gpu_twice() -> Result<()> {
    let mut running = Running::start(&FOUR).await?;
    let mut names = Vec::new();
    for round in 0..3_u64 {
        for i in 0..8 {
            let name = format!("r{round}-{i}");
            running.submit(&name, 1, &[]).await?;
            names.push(name);
        }
        // Another moment in each round, while filters and binds are under way.
        tokio::time::sleep(Duration::from_millis(40 + 170 * round)).await;
        running.scheduler.kill()?;
        running.scheduler.restart()?;
    }
    for name in &names {
        running.until_bound(name, Duration::from_secs(120)).await?;
    }
    let held = holders(&running).await?;
    assert_eq!(held.len(), 24);
    assert_eq!(held.values().collect::<BTreeSet<_>>().len(), 24);
    Ok(())
}
