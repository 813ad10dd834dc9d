//! The agent as a kubelet's device plugin, before a kubelet that does what a real one does at its worst: planned devices are preferred,
//! changes are told, and no pod is bound to a node whose plugin is away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use berth_core::annotation::Level;
use berth_proto::NodeTopology;
use berth_tests::controlplane::{Process, fetch};
use berth_tests::installed::overlay;
use berth_tests::kubelet_plugins::KubeletPlugins;
use berth_tests::kubelet_socket::KubeletSocket;
use berth_tests::made_node::{MadeNode, admin_url};
use berth_tests::running::{Running, plan_of};
use kube::api::Api;

const SOON: Duration = Duration::from_secs(60);
const GPU: &str = "nvidia.com/gpu";
const NODE: &str = "pairs";

/// A cluster with one node whose agent is the device plugin.
struct Stage {
    running: Running,
    node: MadeNode,
    kubelet: KubeletPlugins,
    pods: KubeletSocket,
    agent: Process,
    /// Ids and zones of its GPUs, by index.
    gpus: Vec<(String, Option<i64>)>,
}

impl Stage {
    async fn start() -> Result<Self> {
        let running = Running::start(&[]).await?;
        running.plane.apply_kustomize(&overlay("preferred")).await?;
        let node = MadeNode::new("bridged-pairs", NODE)?;
        running.plane.create_node(&node.node_spec()?).await?;
        let kubeconfig = running.plane.agent_identity(NODE).await?;
        let (kubelet, pods) = (KubeletPlugins::start()?, KubeletSocket::start()?);
        let agent = node.agent(&kubeconfig)?.args(["--level", "preferred", "--device-plugin-dir"]);
        let agent = agent.arg(kubelet.folder()).arg("--pod-resources").arg(pods.path());
        let agent = running.plane.spawn(agent)?;
        let gpus = node.topology(None)?.into_parts().gpus;
        let gpus = gpus.iter().map(|gpu| (gpu.uuid.to_string(), gpu.zone.map(|zone| zone.0.into()))).collect();
        let stage = Self { running, node, kubelet, pods, agent, gpus };
        stage.until_accepting(true).await?;
        Ok(stage)
    }

    /// What the kubelet should know of its GPUs, of which some are lost.
    fn devices(&self, lost: &[usize]) -> Vec<(String, bool, Option<i64>)> {
        let each = self.gpus.iter().enumerate();
        let mut devices: Vec<_> = each.map(|(i, (id, zone))| (id.clone(), !lost.contains(&i), *zone)).collect();
        devices.sort();
        devices
    }

    async fn until_told(&self, devices: Vec<(String, bool, Option<i64>)>) -> Result<()> {
        let told = || async { Ok((self.kubelet.devices(GPU) == devices).then_some(())) };
        self.running.until(SOON, &format!("{devices:?}, but {:?}", self.kubelet.devices(GPU)), told).await
    }

    async fn accepting(&self) -> Result<Option<(String, bool)>> {
        let reports: Api<NodeTopology> = Api::all(self.running.plane.client());
        let status = reports.get_opt(NODE).await?.and_then(|object| object.status);
        Ok(status.and_then(|status| status.device_plugin).map(|plugin| (plugin.level, plugin.accepting)))
    }

    async fn until_accepting(&self, accepting: bool) -> Result<()> {
        let wanted = Some(("preferred".to_owned(), accepting));
        let look = || async { Ok((self.accepting().await? == wanted).then_some(())) };
        self.running.until(SOON, &format!("accepting: {accepting}"), look).await
    }

    async fn metric(&mut self, line: &str) -> Result<bool> {
        let url = admin_url(&mut self.agent).await?;
        Ok(fetch(&format!("{url}/metrics")).await?.lines().any(|found| found == line))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_is_asked_for_the_planned_devices_and_told_of_every_change() -> Result<()> {
    let mut stage = Stage::start().await?;
    assert_eq!(stage.kubelet.devices(GPU), stage.devices(&[]));
    let all: Vec<String> = stage.devices(&[]).into_iter().map(|(id, ..)| id).collect();

    // Two pods: one is admitted, and is listed without devices; the other waits for its turn and is not.
    for (name, gpus) in [("first", 2), ("second", 4)] {
        stage.running.submit(name, gpus, &[]).await?;
    }
    let mut plans = Vec::new();
    for name in ["first", "second"] {
        let gpus = plan_of(&stage.running.until_bound(name, SOON).await?)?.gpus()?;
        plans.push(gpus.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    stage.pods.set(&[("default", "second", GPU, &[])]);
    assert_eq!(stage.kubelet.prefer(GPU, &all, 4).await?, plans[1]);
    let given = stage.kubelet.allocate(GPU, &plans[1]).await?;
    assert_eq!(given.envs["NVIDIA_VISIBLE_DEVICES"], plans[1].join(","));
    stage.pods.set(&[("default", "second", GPU, &plans[1]), ("default", "first", GPU, &[])]);
    let free: Vec<String> = all.iter().filter(|id| !plans[1].contains(id)).cloned().collect();
    assert_eq!(stage.kubelet.prefer(GPU, &free, 2).await?, plans[0]);
    assert!(stage.metric("berth_agent_plugin_preferred_total{devices=\"planned\"} 2").await?);

    // A pod that Berth did not plan gets none that are promised, as long as there are others; and is never lost.
    stage.pods.set(&[("default", "second", GPU, &plans[1])]);
    let promised: BTreeSet<&String> = plans[0].iter().collect();
    let other = stage.kubelet.prefer(GPU, &free, 2).await?;
    assert!(other.len() == 2 && other.iter().all(|id| free.contains(id) && !promised.contains(id)), "{other:?}");
    stage.pods.stop()?;
    assert_eq!(stage.kubelet.prefer(GPU, &free, 4).await?.len(), 4);
    assert!(stage.metric("berth_agent_plugin_preferred_total{devices=\"unplanned\"} 2").await?);

    stage.node.set_faults("lost: [3]")?;
    stage.until_told(stage.devices(&[3])).await?;
    stage.node.set_faults("")?;
    stage.until_told(stage.devices(&[])).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kubelet_and_a_removed_socket_are_registered_with_at_once() -> Result<()> {
    let mut stage = Stage::start().await?;
    let devices = stage.devices(&[]);
    assert_eq!(stage.kubelet.registrations(GPU), 1);

    std::fs::remove_file(stage.kubelet.socket(GPU).unwrap())?;
    let registered = |times| async move { Ok::<_, anyhow::Error>((times >= 2).then_some(())) };
    stage.running.until(SOON, "a second registration", || registered(stage.kubelet.registrations(GPU))).await?;
    stage.until_told(devices.clone()).await?;
    assert_eq!(stage.kubelet.prefer(GPU, &[devices[0].0.clone()], 1).await?, [devices[0].0.clone()]);
    stage.until_accepting(true).await?;

    stage.kubelet.stop();
    stage.until_accepting(false).await?;
    assert!(stage.metric("berth_agent_plugin_accepting 0").await?);
    stage.kubelet.serve()?;
    stage.until_told(devices).await?;
    stage.until_accepting(true).await?;
    assert_eq!(stage.kubelet.resources(), [GPU]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_is_said_before_it_happens() -> Result<()> {
    let mut stage = Stage::start().await?;
    let stopping = stage.agent.terminate(SOON);
    let status = stopping.await?;
    assert!(status.success(), "{status}");
    assert_eq!(stage.accepting().await?, Some(("preferred".to_owned(), false)));
    let log = stage.agent.log()?;
    assert!(log.contains("told to end") && !log.contains("was not told in time"), "{log}");

    // Nothing is bound to the node meanwhile, and the pod hears why.
    stage.running.submit("meanwhile", 1, &[]).await?;
    let words = "berth: device plugin of the node accepts no pods now";
    stage.running.until_failed_scheduling("meanwhile", words, SOON).await?;

    // The next one is in its place, and pods may come again.
    stage.agent.restart()?;
    stage.until_accepting(true).await?;
    assert_eq!(stage.kubelet.devices(GPU), stage.devices(&[]));
    let bound = plan_of(&stage.running.until_bound("meanwhile", SOON).await?)?;
    assert_eq!(bound.level, Level::Preferred);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_demands_more_than_its_node_gives_gets_no_pod() -> Result<()> {
    let stage = Stage::start().await?;
    let policy = |level: &str| {
        format!(
            "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n\
             levels: [{{nodeSelector: {{kubernetes.io/hostname: {NODE}}}, level: {level}}}]\n"
        )
    };
    stage
        .running
        .plane
        .kubectl(&["label", "--overwrite", "node", NODE, &format!("kubernetes.io/hostname={NODE}")])
        .await?;
    stage.running.set_policy(&policy("enforced")).await?;
    let url = format!("http://127.0.0.1:{}/metrics", stage.running.admin_port);
    let applied = || async {
        let metrics = fetch(&url).await?;
        let reloads = metrics.lines().find_map(|line| line.strip_prefix("berth_policy_reloads_total{result=\"ok\"} "));
        Ok(reloads.is_some_and(|count| count != "1" && count != "0").then_some(()))
    };
    stage.running.until(SOON, "policy", applied).await?;
    stage.running.submit("first", 1, &[]).await?;
    let words = "berth: device plugin of the node promises less than its pool demands";
    stage.running.until_failed_scheduling("first", words, SOON).await?;
    stage.running.set_policy(&policy("preferred")).await?;
    assert_eq!(plan_of(&stage.running.until_bound("first", SOON).await?)?.level, Level::Preferred);
    Ok(())
}
