//! Plans that are wrong or another's give nothing, and a planned stop of the agent takes nothing from anybody.

use anyhow::{Context, Result, ensure};
use berth_core::annotation::Note;
use berth_proto::NodeTopology;
use berth_tests::real_cluster::SOON;
use berth_tests::real_node::can_run;
use berth_tests::running::plan_of;
use kube::api::Api;
use serde_json::json;

use super::stage::{NODE, Stage, gpu_pod};

/// A pod's name, how many GPUs it asks for, what is wrong with its plan, and the words in which the pod is told.
type Wrong = (&'static str, u32, fn(&mut Note, &Note), &'static str);

/// `good` is the plan of a pod that runs; the other one is made from it for the pod at hand.
const WRONG: [Wrong; 6] = [
    ("other-uid", 1, |plan, good| plan.clone_from(good), "foreign-plan"),
    ("other-node", 1, |plan, _| plan.node = "kn2".to_owned(), "foreign-plan"),
    ("absent", 1, |plan, _| plan.containers[0].devices[0].uuid = "GPU-not-there".to_owned(), "unknown-device"),
    ("too-few", 2, |_, _| (), "other-plan: the plan has 1 devices for main, the kubelet gave 2"),
    ("misread", 1, |plan, _| plan.v = 99, "broken-plan"),
    ("taken", 1, |_, _| (), "device-leased"),
];

impl Stage {
    /// Binds the pods of [`WRONG`], and waits until each is told what is wrong. None of them starts.
    async fn refuse_wrong_plans(&self, good: &Note) -> Result<()> {
        for (name, gpus, spoil, _) in WRONG {
            let mut pod = gpu_pod(name, gpus);
            pod["spec"]["schedulerName"] = json!("another");
            self.0.create(&pod).await?;
            let uid = self.0.running.pods().get(name).await?.metadata.uid.context("a UID")?;
            let mut plan = Note { pod_uid: uid, ..good.clone() };
            spoil(&mut plan, good);
            self.bind(name, &plan.to_json()?).await?;
        }
        for (name, _, _, words) in WRONG {
            let told = self.is_refused(name, words).await?;
            assert!(told.starts_with(&format!("Container main gets no devices on node {NODE}: {words}")), "{told}");
        }
        Ok(())
    }

    /// Lets who waits for a lease start without it, as a runtime does that looks for no specs: containerd 2.4 cannot be told not to, so
    /// specs that give nothing stand for it.
    fn ignore_leases(&self) -> Result<()> {
        let node = &self.0.nodes[0];
        for entry in std::fs::read_dir(node.folder().join("berth/leases"))? {
            let lease = entry?.path();
            let name = lease.file_stem().and_then(|name| name.to_str()).context("a name")?;
            let edits = json!({"env": ["NOTHING=given"]});
            let devices = json!([{"name": name, "containerEdits": edits}]);
            let spec = json!({"cdiVersion": "0.3.0", "kind": "berth.dev/gpu", "devices": devices});
            std::fs::write(node.inside(&format!("/run/cdi/berth.dev-gpu-{name}.json")), spec.to_string())?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_foreign_plan_gives_nothing_and_a_planned_stop_takes_nothing() -> Result<()> {
    if !can_run("a_wrong_or_foreign_plan_gives_nothing_and_a_planned_stop_takes_nothing")? {
        return Ok(());
    }
    let mut stage = Stage::start().await?;
    stage.0.create(&gpu_pod("good", 1)).await?;
    let good = stage.holds_its_plan("good").await?;
    stage.refuse_wrong_plans(&plan_of(&good)?).await?;
    assert_eq!(stage.leased()?.into_keys().collect::<Vec<_>>(), ["good"]);

    // By policy they go, and leave nothing behind: the next pod has all that the good one has not.
    stage.allow_eviction().await?;
    for (name, ..) in WRONG {
        stage.is_evicted(name).await?;
    }
    stage.0.create(&gpu_pod("rest", 7)).await?;
    stage.holds_its_plan("rest").await?;
    stage.0.delete("rest").await?;

    // The agent is stopped as a node's owner stops it. Who runs goes on, and one whose program crashes has its devices again.
    assert!(stage.0.nodes[0].agent.as_mut().unwrap().terminate(SOON).await?.success());
    stage.0.until_accepting(NODE, "enforced", false).await?;
    let first = stage.0.said(&good, "main")?;
    stage.0.crash(&good).await?;
    assert_eq!(Some(stage.0.said_after("good", 1).await?), first);
    // Who comes is kept away, by the kubelet's count or by our report, whichever kube-scheduler hears first; bound, it would be lost.
    stage.0.create(&gpu_pod("meanwhile", 2)).await?;
    stage.0.running.until_failed_scheduling("meanwhile", "", SOON).await?;
    let waiting = stage.0.running.pods().get("meanwhile").await?;
    ensure!(waiting.spec.is_some_and(|spec| spec.node_name.is_none()), "it was bound");
    stage.0.nodes[0].agent.as_mut().unwrap().restart()?;
    stage.holds_its_plan("meanwhile").await?;
    assert_eq!(stage.leased()?.get("good"), good.metadata.uid.as_ref());
    for name in ["good", "meanwhile"] {
        stage.0.delete(name).await?;
    }
    stage.until_metric("berth_agent_leases{state=\"held\"}", 0.0).await?;
    a_runtime_that_ignores_leases_gets_no_more_pods(&mut stage).await
}

/// The runtime starts a container that must not start: it has nothing, and nobody follows it.
async fn a_runtime_that_ignores_leases_gets_no_more_pods(stage: &mut Stage) -> Result<()> {
    stage.0.running.set_policy("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n").await?;
    let mut by_hand = gpu_pod("by-hand", 1);
    by_hand["spec"]["nodeName"] = json!(NODE);
    stage.0.create(&by_hand).await?;
    stage.is_refused("by-hand", "no-plan").await?;
    stage.ignore_leases()?;
    let (_, said) = stage.0.until_running("by-hand").await?;
    assert_eq!((said.berth_devices, said.nodes.as_slice()), (None, [].as_slice()));
    stage.0.until_accepting(NODE, "enforced", false).await?;
    let reports: Api<NodeTopology> = Api::all(stage.0.running.plane.client());
    let findings = reports.get(NODE).await?.status.context("a report")?.findings;
    let cause = "container main of pod default/by-hand runs though it has no lease: the container runtime looks for no CDI specs";
    assert!(findings.iter().any(|f| f.code == "runtime-without-cdi" && f.text == cause), "{findings:?}");
    stage.until_metric("berth_agent_runtime_without_cdi", 1.0).await?;
    stage.0.create(&gpu_pod("next", 1)).await?;
    let words = "berth: device plugin of the node accepts no pods now";
    stage.0.running.until_failed_scheduling("next", words, SOON).await?;

    stage.0.delete("by-hand").await?;
    stage.0.nodes[0].agent.as_mut().unwrap().restart()?;
    stage.holds_its_plan("next").await?;
    stage.0.delete("next").await
}
