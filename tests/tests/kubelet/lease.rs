//! Leases on a real kubelet and a real container runtime: a container has exactly what its plan names, or does not start, whatever happens
//! to agent, kubelet and folders in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_proto::NodeTopology;
use berth_tests::controlplane::{ProcessSpec, fetch};
use berth_tests::made_node::admin_url;
use berth_tests::real_cluster::{RealCluster, SOON};
use berth_tests::real_node::{SHARED, can_run, container, pod};
use berth_tests::running::plan_of;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

const GPU: &str = "nvidia.com/gpu";
const NODE: &str = "kn1";

/// Where the agent of these tests looks for device files; they are made by a test, not by the stage.
const DEV: &str = "/var/lib/berth/dev";

fn limits(gpus: u32) -> Value {
    json!({GPU: gpus.to_string(), "cpu": "1", "memory": "64Mi"})
}

fn gpu_pod(name: &str, gpus: u32) -> Value {
    let mut pod = pod(name, &limits(gpus));
    pod["spec"]["schedulerName"] = json!("berth");
    pod
}

/// A cluster with one real node whose agent enforces plans.
struct Stage(RealCluster);

impl Stage {
    async fn start() -> Result<Self> {
        let cluster =
            RealCluster::start(&[("dgx-h100", NODE)], &json!({}), &["--level", "enforced", "--dev-root", DEV]).await?;
        let subject = "--serviceaccount=berth-system:berth-agent";
        let role = ["create", "clusterrole", "leases", "--verb=get,list,watch", "--resource=pods"];
        cluster.running.plane.kubectl(&role).await?;
        cluster
            .running
            .plane
            .kubectl(&["create", "clusterrolebinding", "leases", "--clusterrole=leases", subject])
            .await?;
        let stage = Self(cluster);
        stage.0.until_offered(NODE, GPU, 8).await?;
        stage.until_accepting().await?;
        Ok(stage)
    }

    async fn until_accepting(&self) -> Result<()> {
        let reports: Api<NodeTopology> = Api::all(self.0.running.plane.client());
        let look = || async {
            let plugin = reports.get(NODE).await?.status.and_then(|status| status.device_plugin);
            Ok(plugin.is_some_and(|plugin| plugin.accepting && plugin.level == "enforced").then_some(()))
        };
        self.0.running.until(SOON, "an agent that accepts", look).await
    }

    /// Lets the scheduler evict who waits for 5 s.
    async fn allow_eviction(&self) -> Result<()> {
        let plane = &self.0.running.plane;
        let subject = "--serviceaccount=berth-system:berth-scheduler";
        plane.kubectl(&["create", "clusterrole", "evict", "--verb=create", "--resource=pods/eviction"]).await?;
        plane.kubectl(&["create", "clusterrolebinding", "evict", "--clusterrole=evict", subject]).await?;
        let pool = "levels: [{nodeSelector: {kubernetes.io/hostname: kn1}, level: enforced, evictAfterSeconds: 5}]";
        let head = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n";
        self.0.running.set_policy(&format!("{head}{pool}\n")).await
    }

    /// Runs a shell's line where the kubelet is.
    async fn shell(&self, line: &str) -> Result<()> {
        let mut shell = self.0.nodes[0].spawn(ProcessSpec::new("sh", "/bin/sh").args(["-c", line]))?;
        ensure!(shell.wait_for_end(SOON).await?.success(), "{line}: {}", shell.log_tail());
        Ok(())
    }

    async fn make_device_files(&self) -> Result<()> {
        let nodes = "for n in 0 1 2 3 4 5 6 7 ctl; do mknod -m 666 nvidia$n c 1 3; done";
        self.shell(&format!("mkdir -p {DEV} && cd {DEV} && {nodes}")).await
    }

    async fn metric(&mut self, name: &str) -> Result<f64> {
        let url = admin_url(self.0.nodes[0].agent.as_mut().unwrap()).await?;
        let text = fetch(&format!("{url}/metrics")).await?;
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {text}"))?;
        Ok(value.trim().parse()?)
    }

    async fn until_metric(&mut self, name: &str, wanted: f64) -> Result<()> {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let found = self.metric(name).await?;
            if (found - wanted).abs() < 0.5 {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "{name} is {found}, not {wanted}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The plan of a container as one text of ids.
    fn planned(pod: &Pod, container: &str) -> Result<String> {
        let note = plan_of(pod)?;
        let part = note.containers.iter().find(|part| part.name == container).context("a part of the plan")?;
        Ok(part.devices.iter().map(|device| device.uuid.clone()).collect::<Vec<_>>().join(","))
    }

    /// Waits until the pod runs, and holds what its container sees against its plan.
    async fn holds_its_plan(&self, name: &str) -> Result<Pod> {
        let (pod, said) = self.0.until_running(name).await?;
        let planned = Self::planned(&pod, "main")?;
        assert_eq!(said.berth_devices.as_ref(), Some(&planned), "{name}");
        assert_eq!(said.nvidia_visible_devices.as_deref(), Some("void"), "{name}");
        let topology = self.0.nodes[0].made().topology(None)?;
        let of_plan =
            topology.parts().gpus.iter().filter(|gpu| planned.split(',').any(|uuid| uuid == gpu.uuid.as_str()));
        let nodes: BTreeSet<String> = of_plan.map(|gpu| format!("/dev/nvidia{}", gpu.detail.minor.unwrap())).collect();
        let seen: BTreeSet<String> = said.nodes.into_iter().filter(|path| !SHARED.contains(&path.as_str())).collect();
        assert_eq!(seen, nodes, "{name}");
        Ok(pod)
    }

    /// That the pod waits for its devices and no container of it has started, and why.
    async fn is_refused(&self, name: &str, words: &str) -> Result<String> {
        let told = self.0.running.until_told(name, "DevicesRefused", words, SOON).await?;
        let pod = self.0.running.pods().get(name).await?;
        assert!(self.0.said(&pod, "main")?.is_none(), "{name} has started");
        Ok(told)
    }

    /// UIDs of the pods that have a lease, by the names of their pods.
    fn leased(&self) -> Result<BTreeMap<String, String>> {
        let mut leased = BTreeMap::new();
        for entry in std::fs::read_dir(self.0.nodes[0].folder().join("berth/leases"))? {
            let lease: Value = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
            if let Some(holder) = lease["lease"].get("holder") {
                leased
                    .insert(holder["pod"].as_str().unwrap().to_owned(), holder["podUID"].as_str().unwrap().to_owned());
            }
        }
        Ok(leased)
    }

    /// How often the kubelet could not make a container.
    async fn failures(&self) -> Result<i32> {
        let events: Api<Event> = Api::default_namespaced(self.0.running.plane.client());
        let failed = events.list(&ListParams::default().fields("reason=Failed")).await?;
        Ok(failed.items.iter().map(|event| event.count.unwrap_or(1)).sum())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_sees_exactly_its_own_part_of_the_plan() -> Result<()> {
    if !can_run("every_container_sees_exactly_its_own_part_of_the_plan")? {
        return Ok(());
    }
    let mut stage = Stage::start().await?;

    // An init container, a sidecar and two containers beside each other.
    let mut parts = gpu_pod("parts", 1);
    parts["spec"]["initContainers"] = json!([container("side", &limits(1))]);
    parts["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
    parts["spec"]["containers"].as_array_mut().unwrap().push(container("second", &limits(2)));
    stage.0.create(&parts).await?;
    let (pod, _) = stage.0.until_running("parts").await?;
    let mut all = BTreeSet::new();
    for container in ["side", "main", "second"] {
        let said = stage.0.said(&pod, container)?.context("nothing said")?;
        let planned = Stage::planned(&pod, container)?;
        assert_eq!(said.berth_devices.as_ref(), Some(&planned), "{container}");
        all.extend(planned.split(',').map(str::to_owned));
    }
    assert_eq!(all.len(), 4, "each its own");
    stage.0.delete("parts").await?;

    // Bursts of pods that are bound at the same moment.
    for round in 0..4 {
        let names: Vec<String> = (0..8).map(|i| format!("burst-{round}-{i}")).collect();
        for name in &names {
            stage.0.create(&gpu_pod(name, 1)).await?;
        }
        let mut taken = BTreeSet::new();
        for name in &names {
            let pod = stage.holds_its_plan(name).await?;
            assert!(taken.insert(Stage::planned(&pod, "main")?), "a device in two live containers");
        }
        for name in &names {
            stage.0.running.pods().delete(name, &DeleteParams::default()).await?;
        }
        stage.0.until_empty().await?;
    }
    stage.until_metric("berth_agent_leases{state=\"held\"}", 0.0).await?;
    assert!(stage.leased()?.is_empty());

    let log = stage.0.nodes[0].agent.as_ref().unwrap().log()?;
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut waited: Vec<u64> = entries.filter_map(|entry| entry["waited_us"].as_u64()).collect();
    waited.sort_unstable();
    assert_eq!(waited.len(), 35);
    let at = |percent: usize| waited[(waited.len() - 1) * percent / 100] / 100;
    let permuted = stage.metric("berth_agent_leased_total{result=\"permuted\"}").await?;
    let failures = stage.failures().await?;
    println!(
        "35 leases: spec {}.{} ms after Allocate (median), {}.{} ms (p99); {permuted} permuted; {failures} containers could not be made",
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
    let gone = || async { Ok(stage.0.running.pods().get_opt("by-hand").await?.is_none().then_some(())) };
    stage.0.running.until(SOON, "an evicted pod", gone).await?;

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
