//! A cluster whose nodes enforce plans, and what the tests of leases ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_core::annotation::Device;
use berth_tests::controlplane::fetch;
use berth_tests::made_node::admin_url;
use berth_tests::real_cluster::{GPU, RealCluster, SOON};
use berth_tests::real_node::{RealNode, SHARED, files, pod};
use berth_tests::running::plan_of;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

/// The node that every stage has, of eight GPUs.
pub(super) const NODE: &str = "kn1";

/// Where the agent of these tests looks for device files; they are made by a test, not by the stage.
pub(super) const DEV: &str = "/var/lib/berth/dev";

/// What the agents are told.
const ARGUMENTS: [&str; 4] = ["--level", "enforced", "--dev-root", DEV];

/// Limits of a container with so many devices of a resource.
pub(super) fn limits_of(resource: &str, count: u32) -> Value {
    json!({resource: count.to_string(), "cpu": "1", "memory": "64Mi"})
}

pub(super) fn limits(gpus: u32) -> Value {
    limits_of(GPU, gpus)
}

pub(super) fn gpu_pod(name: &str, gpus: u32) -> Value {
    let mut pod = pod(name, &limits(gpus));
    pod["spec"]["schedulerName"] = json!("berth");
    pod
}

/// The id by which a container knows a planned device.
pub(super) fn id(device: &Device) -> String {
    device.mig.as_ref().and_then(|mig| mig.uuid.clone()).unwrap_or_else(|| device.uuid.clone())
}

/// A lease that somebody holds: name and UID of the pod, and the devices.
pub(super) type Held = (String, String, Vec<Device>);

/// The leases that somebody holds, of a state folder.
pub(super) fn leases_in(folder: &Path) -> Result<Vec<Held>> {
    let mut leases = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // One that is being written is none yet, and one that ends meanwhile is none.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(text) = std::fs::read(path) else { continue };
        let lease: Value = serde_json::from_slice(&text)?;
        if let Some(holder) = lease["lease"].get("holder") {
            let text = |key: &str| holder[key].as_str().unwrap().to_owned();
            leases.push((text("pod"), text("podUID"), serde_json::from_value(holder["devices"].clone())?));
        }
    }
    Ok(leases)
}

/// A cluster with real nodes whose agents enforce plans.
pub(super) struct Stage(pub(super) RealCluster);

impl Stage {
    /// One node of eight GPUs.
    pub(super) async fn start() -> Result<Self> {
        Self::start_on(&[("dgx-h100", NODE)]).await
    }

    /// Nodes of these machines, of which the first is of eight GPUs.
    pub(super) async fn start_on(nodes: &[(&str, &str)]) -> Result<Self> {
        Self::ready(RealCluster::start(nodes, &json!({}), &ARGUMENTS).await?).await
    }

    /// One node of eight GPUs, and a proxy that fails on request between berth-scheduler and the API server.
    pub(super) async fn start_behind_a_proxy() -> Result<Self> {
        let nodes = [("dgx-h100", NODE)];
        Self::ready(RealCluster::start_behind_a_proxy(&nodes, &json!({}), &ARGUMENTS).await?).await
    }

    async fn ready(cluster: RealCluster) -> Result<Self> {
        let stage = Self(cluster);
        stage.0.until_offered(NODE, GPU, 8).await?;
        stage.until_accepting().await?;
        Ok(stage)
    }

    pub(super) async fn until_accepting(&self) -> Result<()> {
        self.0.until_accepting(NODE, "enforced", true).await
    }

    /// Lets the scheduler evict who waits for 5 s.
    pub(super) async fn allow_eviction(&self) -> Result<()> {
        let plane = &self.0.running.plane;
        let subject = "--serviceaccount=berth-system:berth-scheduler";
        plane.kubectl(&["create", "clusterrole", "evict", "--verb=create", "--resource=pods/eviction"]).await?;
        plane.kubectl(&["create", "clusterrolebinding", "evict", "--clusterrole=evict", subject]).await?;
        let pool = "levels: [{nodeSelector: {kubernetes.io/hostname: kn1}, level: enforced, evictAfterSeconds: 5}]";
        let head = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n";
        self.0.running.set_policy(&format!("{head}{pool}\n")).await
    }

    /// Binds a pod as a scheduler that errs would: with this text as its plan.
    pub(super) async fn bind(&self, name: &str, plan: &str) -> Result<()> {
        self.0.bind(name, NODE, plan).await
    }

    /// Runs a shell's line where the kubelet is.
    pub(super) async fn shell(&self, line: &str) -> Result<()> {
        self.0.shell(line).await
    }

    pub(super) async fn make_device_files(&self) -> Result<()> {
        let nodes = "for n in 0 1 2 3 4 5 6 7 ctl; do mknod -m 666 nvidia$n c 1 3; done";
        self.shell(&format!("mkdir -p {DEV} && cd {DEV} && {nodes}")).await
    }

    pub(super) async fn metric(&mut self, name: &str) -> Result<f64> {
        let url = admin_url(self.0.nodes[0].agent.as_mut().unwrap()).await?;
        let text = fetch(&format!("{url}/metrics")).await?;
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {text}"))?;
        Ok(value.trim().parse()?)
    }

    pub(super) async fn until_metric(&mut self, name: &str, wanted: f64) -> Result<()> {
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

    fn node_of(&self, pod: &Pod) -> Result<&RealNode> {
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        self.0.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no real node {name:?}"))
    }

    /// What the plan names for each container.
    pub(super) fn planned(pod: &Pod) -> Result<BTreeMap<String, Vec<String>>> {
        let mut planned: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in plan_of(pod)?.containers {
            planned.entry(part.name).or_default().extend(part.devices.iter().map(id));
        }
        Ok(planned)
    }

    /// What the plan names for a pod's one container `main`, as one text.
    pub(super) fn planned_main(pod: &Pod) -> Result<String> {
        Ok(Self::planned(pod)?.get("main").context("no part of the plan")?.join(","))
    }

    /// Waits until the pod runs, and holds what each of its containers sees, plain init containers among them, against its plan.
    pub(super) async fn holds_its_plan(&self, name: &str) -> Result<Pod> {
        let (pod, _) = self.0.until_running(name).await?;
        let files = files(&self.node_of(&pod)?.made().topology(None)?);
        for (container, ids) in Self::planned(&pod)? {
            let look = || async { self.0.said(&pod, &container) };
            let said = self.0.running.until(SOON, &format!("words of {name}/{container}"), look).await?;
            let told: BTreeSet<&str> = said.berth_devices.as_deref().unwrap_or_default().split(',').collect();
            assert_eq!(told, ids.iter().map(String::as_str).collect(), "{name}, {container}");
            assert_eq!(said.nvidia_visible_devices.as_deref(), Some("void"), "{name}, {container}");
            let planned: BTreeSet<String> = ids.iter().flat_map(|id| files[id].clone()).collect();
            let own = said.nodes.into_iter().filter(|path| !SHARED.contains(&path.as_str()));
            assert_eq!(own.collect::<BTreeSet<_>>(), planned, "{name}, {container}");
        }
        Ok(pod)
    }

    /// That the pod waits for its devices and no container of it has started, and why.
    pub(super) async fn is_refused(&self, name: &str, words: &str) -> Result<String> {
        let told = self.0.running.until_told(name, "DevicesRefused", words, SOON).await?;
        let pod = self.0.running.pods().get(name).await?;
        assert!(self.0.said(&pod, "main")?.is_none(), "{name} has started");
        Ok(told)
    }

    /// Waits until the pod is gone: nobody of the test deletes it.
    pub(super) async fn is_evicted(&self, name: &str) -> Result<()> {
        let gone = || async { Ok(self.0.running.pods().get_opt(name).await?.is_none().then_some(())) };
        self.0.running.until(SOON, &format!("eviction of {name}"), gone).await
    }

    /// As [`leases_in`].
    pub(super) fn leases(&self) -> Result<Vec<Held>> {
        leases_in(&self.0.nodes[0].folder().join("berth/leases"))
    }

    /// UIDs of the pods that have a lease, by the names of their pods.
    pub(super) fn leased(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.leases()?.into_iter().map(|(pod, uid, _)| (pod, uid)).collect())
    }

    /// How often the kubelet could not make a container.
    pub(super) async fn failures(&self) -> Result<i32> {
        let events: Api<Event> = Api::default_namespaced(self.0.running.plane.client());
        let failed = events.list(&ListParams::default().fields("reason=Failed")).await?;
        Ok(failed.items.iter().map(|event| event.count.unwrap_or(1)).sum())
    }
}
