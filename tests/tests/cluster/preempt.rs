//! Preemption on a real control plane: kube-scheduler asks, Berth names the pods whose GPUs make an island, and those alone go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_tests::running::{Running, plan_of, pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// The two quads of a DGX-1V: each is an island of NVLinks, and no other four GPUs are.
const QUADS: [[usize; 4]; 2] = [[0, 1, 2, 3], [4, 5, 6, 7]];

/// A full DGX-1V: eight pods of one GPU each, and who has which GPU.
struct Full {
    running: Running,
    pod_on: BTreeMap<usize, String>,
}

async fn full(priority_of: impl Fn(usize) -> i32, grace_seconds: u32) -> Result<Full> {
    let running = Running::start(&[("dgx-1v", "v100")]).await?;
    let classes: Api<PriorityClass> = Api::all(running.plane.client());
    for (name, value) in [("low", 1), ("high", 1000), ("top", 2000)] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": "x"});
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    }
    let uuids: Vec<String> = {
        let node = running.nodes[0].topology(None)?;
        node.parts().gpus.iter().map(|gpu| gpu.uuid.to_string()).collect()
    };
    let mut pod_on = BTreeMap::new();
    for (gpu, uuid) in uuids.iter().enumerate() {
        let name = format!("one-{gpu}");
        let class = if priority_of(gpu) > 1 { "high" } else { "low" };
        let mut object = pod(&name, 1, &[("berth.dev/gpus", uuid)]);
        object["metadata"]["labels"] = json!({"gpu": gpu.to_string()});
        object["spec"]["priorityClassName"] = json!(class);
        object["spec"]["terminationGracePeriodSeconds"] = json!(grace_seconds);
        running.pods().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        running.until_bound(&name, SOON).await?;
        pod_on.insert(gpu, name);
    }
    Ok(Full { running, pod_on })
}

impl Full {
    /// Sets when the kubelet took the pods: kube-scheduler evicts the latest of equals, so this says whom it would take by counts.
    async fn start_last(&self, last: &[usize]) -> Result<()> {
        for (gpu, name) in &self.pod_on {
            let day = if last.contains(gpu) { 2 } else { 1 };
            let status = json!({"status": {"phase": "Running", "startTime": format!("2026-01-0{day}T00:00:00Z")}});
            self.running.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        }
        Ok(())
    }

    async fn submit_island(&self, name: &str, class: &str) -> Result<()> {
        let mut object = pod(name, 4, &[("berth.dev/link", "nvlink")]);
        object["spec"]["priorityClassName"] = json!(class);
        self.running.pods().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    /// GPUs whose pods live and are not leaving.
    async fn staying(&self) -> Result<BTreeSet<usize>> {
        let all = self.running.pods().list(&ListParams::default()).await?.items;
        let stays = |name: &String| {
            let own = all.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
            own.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
        };
        Ok(self.pod_on.iter().filter(|(_, name)| stays(name)).map(|(gpu, _)| *gpu).collect())
    }

    /// GPUs in the plan of a bound pod.
    async fn planned(&self, name: &str) -> Result<BTreeSet<usize>> {
        let bound = self.running.until_bound(name, SOON).await?;
        let node = self.running.nodes[0].topology(None)?;
        let at = |uuid: &berth_model::GpuUuid| node.parts().gpus.iter().position(|gpu| gpu.uuid == *uuid);
        plan_of(&bound)?.gpus()?.iter().map(|uuid| at(uuid).context("no GPU of the node")).collect()
    }
}

fn set(gpus: &[usize]) -> BTreeSet<usize> {
    gpus.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_four_evicts_the_four_pods_of_an_island_and_no_others() -> Result<()> {
    let full = full(|_| 1, 0).await?;
    // By counts kube-scheduler takes two of each quad, which no NVLinks join.
    full.start_last(&[0, 1, 4, 5]).await?;
    full.submit_island("big", "high").await?;
    let got = full.planned("big").await?;
    assert!(QUADS.iter().any(|quad| set(quad) == got), "{got:?}");
    let stayed = full.staying().await?;
    assert_eq!(stayed, set(&[0, 1, 2, 3, 4, 5, 6, 7]).difference(&got).copied().collect(), "no pod went for nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disruption_budget_on_one_island_sends_the_other() -> Result<()> {
    let full = full(|_| 1, 0).await?;
    full.start_last(&[3, 5, 6, 7]).await?;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(full.running.plane.client());
    let selector = json!({"matchLabels": {"gpu": "4"}});
    let budget = json!({"metadata": {"name": "keep"}, "spec": {"minAvailable": 1, "selector": selector}});
    budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?;
    let status =
        json!({"status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    budgets.patch_status("keep", &PatchParams::default(), &Patch::Merge(status)).await?;
    full.submit_island("big", "high").await?;
    assert_eq!(full.planned("big").await?, set(&QUADS[0]));
    assert_eq!(full.staying().await?, set(&QUADS[1]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_island_can_be_freed_nobody_goes() -> Result<()> {
    // One pod in each quad is as important as the one that comes; six others are not, which is more than four by count.
    let mut full = full(|gpu| if gpu == 2 || gpu == 6 { 1000 } else { 1 }, 0).await?;
    full.submit_island("big", "high").await?;
    let told = full.running.until_failed_scheduling("big", "preemption: ", SOON).await?;
    assert!(told.contains("no candidate node for preemption"), "{told}");
    let metrics = full.running.metrics().await?;
    let asked =
        |line: &&str| line.starts_with("berth_extender_request_duration_seconds_count{verb=\"preempt\",result=\"ok\"}");
    assert!(metrics.lines().any(|line| asked(&line)), "{metrics}");
    assert_eq!(full.staying().await?.len(), 8);

    // A more important one gets its island, and the one before it goes on waiting.
    full.submit_island("bigger", "top").await?;
    let got = full.planned("bigger").await?;
    assert!(QUADS.iter().any(|quad| set(quad) == got), "{got:?}");
    assert_eq!(full.staying().await?.len(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_of_victims_that_are_still_leaving_are_kept_for_who_sent_them() -> Result<()> {
    let full = full(|_| 1, 600).await?;
    full.start_last(&[0, 1, 4, 5]).await?;
    full.submit_island("big", "high").await?;
    let nominated = || async {
        let pod = full.running.pods().get("big").await?;
        Ok(pod.status.and_then(|status| status.nominated_node_name))
    };
    assert_eq!(full.running.until(SOON, "nomination of big", nominated).await?, "v100");
    let leaving = || async { Ok(Some(full.staying().await?).filter(|stay| stay.len() == 4)) };
    let stay = full.running.until(SOON, "four pods that leave", leaving).await?;
    assert!(QUADS.iter().any(|quad| set(quad) == stay), "{stay:?}");
    // Their kubelet ends them one by one; a small pod waits all the while, for the room is not its own.
    let mut small = pod("small", 1, &[]);
    small["spec"]["priorityClassName"] = json!("low");
    full.running.pods().create(&PostParams::default(), &serde_json::from_value::<_>(small)?).await?;
    for (gpu, name) in &full.pod_on {
        if !stay.contains(gpu) {
            full.running.delete(name).await?;
        }
    }
    let got = full.planned("big").await?;
    assert!(got.is_disjoint(&stay) && got.len() == 4, "{got:?}");
    let waits: Value = serde_json::to_value(full.running.pods().get("small").await?)?;
    assert_eq!(waits["spec"].get("nodeName"), None, "{waits}");
    Ok(())
}
