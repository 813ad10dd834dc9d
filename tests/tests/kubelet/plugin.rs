//! The agent as device plugin of a real kubelet, at level preferred: containers see the planned devices, whatever is restarted, removed,
//! broken or stopped in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use berth_core::annotation::Level;
use berth_tests::real_cluster::{GPU, RealCluster, SOON, ids_held};
use berth_tests::real_node::{SHARED, can_run, container, files, pod};
use berth_tests::running::plan_of;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const NODE: &str = "kn1";

/// A pod of one container per entry, each with so many GPUs.
fn gpu_pod(name: &str, gpus: &[u32]) -> Value {
    let limits = |count: &u32| json!({GPU: count.to_string(), "cpu": "1", "memory": "64Mi"});
    let mut pod = pod(name, &json!({}));
    let containers = gpus.iter().enumerate().map(|(at, count)| match at {
        0 => container("main", &limits(count)),
        at => container(&format!("more-{at}"), &limits(count)),
    });
    pod["spec"]["containers"] = containers.collect();
    pod["spec"]["schedulerName"] = json!("berth");
    pod
}

/// One node whose agent is its device plugin.
struct Stage(RealCluster);

impl Stage {
    async fn start() -> Result<Self> {
        let cluster = RealCluster::start(&[("dgx-h100", NODE)], &json!({}), &["--level", "preferred"]).await?;
        let stage = Self(cluster);
        stage.offers(8).await?;
        Ok(stage)
    }

    /// Waits until the plugin accepts pods and the kubelet counts so many GPUs.
    async fn offers(&self, gpus: usize) -> Result<()> {
        self.0.until_offered(NODE, GPU, gpus).await?;
        self.0.until_accepting(NODE, "preferred", true).await
    }

    /// Waits until the pod runs; each of its containers sees what its own part of the plan names, and the kubelet says the same.
    async fn holds_its_plan(&self, name: &str) -> Result<BTreeSet<String>> {
        let (pod, _) = self.0.until_running(name).await?;
        let note = plan_of(&pod)?;
        assert_eq!(note.level, Level::Preferred);
        let files = files(&self.0.nodes[0].made().topology(None)?);
        let mut all = BTreeSet::new();
        for part in &note.containers {
            let ids: BTreeSet<String> = part.devices.iter().map(|device| device.uuid.clone()).collect();
            let planned: BTreeSet<String> = ids.iter().flat_map(|id| files[id].clone()).collect();
            let said = self.0.running.until(SOON, name, || async { self.0.said(&pod, &part.name) }).await?;
            let own = said.nodes.into_iter().filter(|path| !SHARED.contains(&path.as_str()));
            assert_eq!(own.collect::<BTreeSet<_>>(), planned, "{name}, container {}", part.name);
            all.extend(ids);
        }
        // A kubelet that has just started does not answer yet, or knows the pod and not its devices.
        let held = || async { Ok((ids_held(&self.0.nodes[0], name).await.ok().as_ref() == Some(&all)).then_some(())) };
        self.0.running.until(SOON, &format!("{all:?} held by {name}"), held).await?;
        Ok(all)
    }

    async fn runs(&self, name: &str, gpus: &[u32]) -> Result<BTreeSet<String>> {
        self.0.create(&gpu_pod(name, gpus)).await?;
        self.holds_its_plan(name).await
    }

    /// That no container of a running pod was ever started again.
    async fn is_undisturbed(&self, name: &str) -> Result<()> {
        let pod: Pod = self.0.running.pods().get(name).await?;
        let statuses = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
        ensure!(statuses.iter().all(|status| status.restart_count == 0 && status.ready), "{name}: {statuses:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_get_their_parts_of_the_plan_whatever_goes_and_comes_back() -> Result<()> {
    if !can_run("containers_get_their_parts_of_the_plan_whatever_goes_and_comes_back")? {
        return Ok(());
    }
    let mut stage = Stage::start().await?;
    // All at once: the kubelet admits one after the other, in an order of its own.
    let first: [(&str, &[u32]); 3] = [("pair", &[2]), ("parts", &[2, 1]), ("one", &[1])];
    for (name, gpus) in first {
        stage.0.create(&gpu_pod(name, gpus)).await?;
    }
    for (name, _) in first {
        stage.holds_its_plan(name).await?;
    }

    // A new kubelet: who runs keeps what it has, and who comes gets what is planned for it.
    let plane = &stage.0.running.plane;
    stage.0.nodes[0].restart_kubelet(plane).await?;
    stage.offers(8).await?;
    stage.holds_its_plan("pair").await?;
    stage.runs("later", &[1]).await?;
    stage.0.delete("pair").await?;

    // Somebody removes our socket.
    let registrations = |stage: &Stage| -> Result<usize> {
        let log = stage.0.nodes[0].agent.as_ref().unwrap().log()?;
        Ok(log.matches("\"registered with the kubelet\"").count())
    };
    let before = registrations(&stage)?;
    std::fs::remove_file(stage.0.nodes[0].kubelet_folder().join("device-plugins/berth-nvidia.com-gpu.sock"))?;
    let again = || async { Ok((registrations(&stage)? > before).then_some(())) };
    stage.0.running.until(SOON, "another registration", again).await?;
    stage.offers(8).await?;
    stage.runs("after", &[2]).await?;
    stage.0.delete("after").await?;

    // A GPU that nobody has falls off the bus: it is offered no more until it is well.
    let taken = ["parts", "one", "later"];
    let mut held = BTreeSet::new();
    for name in taken {
        held.extend(stage.holds_its_plan(name).await?);
    }
    let gpus = stage.0.nodes[0].made().topology(None)?.into_parts().gpus;
    let lost = gpus.iter().find(|gpu| !held.contains(gpu.uuid.as_str())).unwrap();
    stage.0.nodes[0].made_mut().set_faults(&format!("lost: [{}]", lost.index.0))?;
    stage.0.until_offered(NODE, GPU, 7).await?;
    let rest = stage.runs("rest", &[2]).await?;
    assert!(!rest.contains(lost.uuid.as_str()), "{rest:?}");
    stage.0.nodes[0].made_mut().set_faults("")?;
    stage.offers(8).await?;
    stage.0.delete("rest").await?;

    // Its end is told beforehand: who runs goes on, who comes waits, and starts by itself when the plugin is back.
    assert!(stage.0.nodes[0].agent.as_mut().unwrap().terminate(SOON).await?.success());
    stage.0.until_accepting(NODE, "preferred", false).await?;
    stage.0.create(&gpu_pod("meanwhile", &[2])).await?;
    // By the kubelet's count or by our report, whichever kube-scheduler hears first; bound it is not, so not lost.
    stage.0.running.until_failed_scheduling("meanwhile", "", SOON).await?;
    stage.0.nodes[0].agent.as_mut().unwrap().restart()?;
    stage.offers(8).await?;
    stage.holds_its_plan("meanwhile").await?;
    for name in taken {
        stage.is_undisturbed(name).await?;
        stage.0.delete(name).await?;
    }
    Ok(())
}
