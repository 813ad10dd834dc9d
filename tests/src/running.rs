//! Owns a whole Berth at work: a real control plane with the default overlay, unmodified agents on made nodes, berth-scheduler and a
//! stock kube-scheduler with the overlay's own configuration, each under the account that the manifests give it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_core::annotation::{Note, PLAN_KEY};
use berth_model::NodeName;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::binaries::binaries;
use crate::controlplane::{
    ControlPlane, KubeScheduler, NAMESPACE, Options, PORT_TRIES, Process, ProcessSpec, free_port, port_taken,
};
use crate::faulty::Faulty;
use crate::installed::overlay;
use crate::made_node::MadeNode;

/// How often a condition is looked at again while waiting for it.
const POLL: Duration = Duration::from_millis(50);
/// Reports, caches and elections of a machine that is busy with other tests.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// A whole Berth at work. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Running {
    /// The stock kube-scheduler.
    pub kube_scheduler: KubeScheduler,
    /// The extender.
    pub scheduler: Process,
    /// One agent per node, in the order of the nodes.
    pub agents: Vec<Process>,
    /// The nodes.
    pub nodes: Vec<MadeNode>,
    /// The control plane.
    pub plane: ControlPlane,
    /// Where the extender answers.
    pub extender_port: u16,
    /// Where its probes and metrics are.
    pub admin_port: u16,
    faulty: Option<Faulty>,
}

impl Running {
    /// Starts everything and waits until every node's report is known. `nodes` are machine files and node names.
    ///
    /// # Errors
    /// A part does not come up in time; the text carries the end of its log.
    pub async fn start(nodes: &[(&str, &str)]) -> Result<Self> {
        Self::start_by(nodes, BTreeSet::new(), false).await
    }

    /// As [`Running::start`], where Berth is also sent the pods of these resources: nodes that come later offer them.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub async fn start_managing(nodes: &[(&str, &str)], resources: BTreeSet<String>) -> Result<Self> {
        Self::start_by(nodes, resources, false).await
    }

    /// As [`Running::start`], with a proxy that fails on request between berth-scheduler and the API server. kube-scheduler and the
    /// agents have no part in it.
    ///
    /// # Errors
    /// As there.
    pub async fn start_behind_a_proxy(nodes: &[(&str, &str)]) -> Result<Self> {
        Self::start_by(nodes, BTreeSet::new(), true).await
    }

    /// As [`Running::start_behind_a_proxy`] without made nodes, where Berth is also sent the pods of these resources.
    ///
    /// # Errors
    /// As there.
    pub async fn start_managing_behind_a_proxy(resources: BTreeSet<String>) -> Result<Self> {
        Self::start_by(&[], resources, true).await
    }

    async fn start_by(nodes: &[(&str, &str)], mut resources: BTreeSet<String>, has_proxy: bool) -> Result<Self> {
        let plane = ControlPlane::start(Options::default()).await?;
        plane.apply_kustomize(&overlay("sidecar")).await?;
        let (mut made, mut agents) = (Vec::new(), Vec::new());
        for (machine, name) in nodes {
            let node = MadeNode::new(machine, name)?;
            plane.create_node(&node.node_spec()?).await?;
            let kubeconfig = plane.agent_identity(name).await?;
            agents.push(plane.spawn(node.agent(&kubeconfig)?)?);
            made.push(node);
        }
        let identity = plane.scheduler_identity().await?;
        let faulty = if has_proxy { Some(Faulty::start(&plane).await?) } else { None };
        let own = faulty.as_ref().map_or(Ok(identity.clone()), |proxy| proxy.kubeconfig(&identity))?;
        let (scheduler, extender_port, admin_port) = start_scheduler(&plane, &own).await?;
        resources.extend(offered(&made)?);
        let config = kube_scheduler_config(extender_port, &resources)?;
        let kube_scheduler = plane.start_kube_scheduler_as(&identity, &config).await?;
        let running = Self { kube_scheduler, scheduler, agents, nodes: made, plane, extender_port, admin_port, faulty };
        for (_, name) in nodes {
            running.until(UP_WITHIN, &format!("a report of {name}"), || running.has_report(name)).await?;
        }
        Ok(running)
    }

    /// The proxy of [`Running::start_behind_a_proxy`].
    ///
    /// # Errors
    /// There is none.
    pub fn proxy(&self) -> Result<&Faulty> {
        self.faulty.as_ref().context("this one runs without a proxy")
    }

    /// Starts one more berth-scheduler under the same account and waits until it is ready: the process, and the ports of its extender and
    /// its metrics.
    ///
    /// # Errors
    /// It does not come up in time.
    pub async fn another_scheduler(&self) -> Result<(Process, u16, u16)> {
        start_scheduler(&self.plane, &self.plane.scheduler_identity().await?).await
    }

    pub(crate) async fn has_report(&self, node: &str) -> Result<Option<()>> {
        let reports: Api<berth_proto::NodeTopology> = Api::all(self.plane.client());
        Ok(reports.get_opt(node).await?.and_then(|r| r.status).map(|_| ()))
    }

    /// Waits until `look` finds something.
    ///
    /// # Errors
    /// It does not in time, or looking fails.
    pub async fn until<T, F>(&self, within: Duration, what: &str, look: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("no {what} after {within:?}\nberth-scheduler:\n{}", self.scheduler.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The pods of the namespace that tests use.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.plane.client())
    }

    /// Creates a pod for Berth with so many GPUs in one container.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn submit(&self, name: &str, gpus: u32, annotations: &[(&str, &str)]) -> Result<()> {
        let pod = serde_json::from_value(pod(name, gpus, annotations))?;
        self.pods().create(&PostParams::default(), &pod).await.with_context(|| format!("create pod {name}"))?;
        Ok(())
    }

    /// Waits until the pod is bound and returns it.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn until_bound(&self, name: &str, within: Duration) -> Result<Pod> {
        let bound = || async {
            let pod = self.pods().get(name).await?;
            Ok(pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some().then(|| pod.clone()))
        };
        match self.until(within, &format!("node for pod {name}"), bound).await {
            Ok(pod) => Ok(pod),
            Err(error) => {
                let told = self.plane.kubectl(&["describe", "pod", name]).await.unwrap_or_default();
                let tail: Vec<&str> = told.lines().rev().take(12).collect();
                Err(error.context(tail.into_iter().rev().collect::<Vec<_>>().join("\n")))
            }
        }
    }

    /// Deletes a pod at once, as nobody's kubelet would confirm it.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// The message of a FailedScheduling event of the pod that holds `words`.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn until_failed_scheduling(&self, pod: &str, words: &str, within: Duration) -> Result<String> {
        self.until_told(pod, "FailedScheduling", words, within).await
    }

    /// The message of an Event about the pod with this reason that holds `words`.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn until_told(&self, pod: &str, reason: &str, words: &str, within: Duration) -> Result<String> {
        let events: Api<Event> = Api::default_namespaced(self.plane.client());
        let selector = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
        let look = || async {
            let all = events.list(&selector).await?;
            Ok(all.items.into_iter().filter_map(|e| e.message).find(|m| m.contains(words)))
        };
        self.until(within, &format!("{reason} event of {pod} with {words:?}"), look).await
    }

    /// Puts a policy document into the ConfigMap.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn set_policy(&self, document: &str) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.plane.client(), NAMESPACE);
        let patch = json!({"data": {"policy.yaml": document}});
        maps.patch("berth-policy", &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// The scheduler's metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&mut self) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/metrics", self.admin_port);
        self.scheduler.wait_for_http(&url, UP_WITHIN).await
    }

    /// Waits until the scheduler's metrics have this line: gauges follow the snapshot by a clock of their own.
    ///
    /// # Errors
    /// It is not there in time.
    pub async fn until_metric(&mut self, line: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while !self.metrics().await?.lines().any(|said| said == line) {
            ensure!(Instant::now() < deadline, "no {line:?} in the metrics after {within:?}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Starts berth-scheduler on ports of its own, again when another process took one of them first.
async fn start_scheduler(plane: &ControlPlane, kubeconfig: &Path) -> Result<(Process, u16, u16)> {
    let mut tries = 1;
    loop {
        let (extender_port, admin_port) = (free_port()?, free_port()?);
        let mut scheduler = plane.spawn(scheduler_spec(kubeconfig, extender_port, admin_port)?)?;
        let ready = scheduler.wait_for_http(&format!("http://127.0.0.1:{admin_port}/readyz"), UP_WITHIN).await;
        match ready {
            Err(error) if tries < PORT_TRIES && port_taken(&error) => tries += 1,
            ready => return ready.map(|_| (scheduler, extender_port, admin_port)),
        }
    }
}

/// The command line of berth-scheduler under its own account.
fn scheduler_spec(kubeconfig: &Path, extender_port: u16, admin_port: u16) -> Result<ProcessSpec> {
    Ok(ProcessSpec::new("berth-scheduler", &binaries()?.scheduler)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--listen".to_owned(), format!("127.0.0.1:{extender_port}")])
        .args(["--admin-listen".to_owned(), format!("127.0.0.1:{admin_port}")])
        .args(["--pre-stop-seconds", "0"]))
}

/// The names of MIG devices that Berth is sent the pods of: those that the nodes offer.
pub(crate) fn offered(nodes: &[MadeNode]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for node in nodes {
        names.extend(node.node_spec()?.allocatable.into_keys().filter(|name| name.starts_with("nvidia.com/mig-")));
    }
    Ok(names)
}

/// The overlay's own configuration, with the port of this run, without an election, and with further managed resources, as
/// `berth policy scheduler-config --from-cluster` writes them.
fn kube_scheduler_config(extender_port: u16, resources: &BTreeSet<String>) -> Result<String> {
    let path = overlay("sidecar").join("kube-scheduler.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut config: BTreeMap<String, Value> = serde_saphyr::from_str(&text)?;
    config.insert("leaderElection".to_owned(), json!({"leaderElect": false}));
    let extender = config.get_mut("extenders").and_then(|e| e.get_mut(0)).context("the overlay names no extender")?;
    let managed = extender["managedResources"].as_array_mut().context("the overlay manages no resources")?;
    managed.extend(resources.iter().map(|name| json!({"name": name})));
    extender["urlPrefix"] = json!(format!("http://127.0.0.1:{extender_port}"));
    Ok(serde_json::to_string(&config)?)
}

/// A pod for Berth with so many GPUs in one container.
#[must_use]
pub fn pod(name: &str, gpus: u32, annotations: &[(&str, &str)]) -> Value {
    let annotations: Value = annotations.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "schedulerName": "berth",
            "containers": [{
                "name": "main",
                "image": "none",
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": gpus.to_string()}},
            }],
        },
    })
}

/// The plan of a bound pod, checked to be its own.
///
/// # Errors
/// It has none, or one that is void.
pub fn plan_of(pod: &Pod) -> Result<Note> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|a| a.get(PLAN_KEY)).with_context(|| format!("pod {name} carries no plan"))?;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).context("not bound")?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    Ok(Note::parse(text, uid, &NodeName::parse(node)?)?)
}
