//! Owns real nodes: a kubelet and a containerd of its own each, on a stage where this machine is the one of a machine file, with the
//! unmodified agent beside them. Needs root.

mod cgroups;
mod config;
mod devices;
mod machine;
mod runtime;
mod stage;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_machine::Machine;
use berth_proto::kubelet::podresources::pod_resources_lister_client::PodResourcesListerClient;
use berth_proto::kubelet::podresources::{ListPodResourcesRequest, PodResources};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::controlplane::{AGENT_ACCOUNT, ControlPlane, Folder, NAMESPACE, Process, ProcessSpec};
use crate::go_module::say;
use crate::made_node::MadeNode;

pub use devices::{SHARED, files};
pub use runtime::IMAGE;

use runtime::Runtime;
use stage::Stage;

/// A kubelet or a containerd on a machine that is busy with other tests.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// How often a condition is looked at again while waiting for it.
const POLL: Duration = Duration::from_millis(20);

/// Where nvidia-ctk writes its spec.
const CDI_SPEC: &str = "/run/cdi/nvidia.json";

/// What a kubelet remembers of its pods' CPUs, memory and devices: it refuses to start with what another policy wrote.
const REMEMBERED: [&str; 3] =
    ["cpu_manager_state", "memory_manager_state", "device-plugins/kubelet_internal_checkpoint"];

/// Whether a test of real nodes can run here. One that cannot is said to be not run, and is a failure where `CI` is `true`.
///
/// # Errors
/// It cannot, and this is CI.
pub fn can_run(test: &str) -> Result<bool> {
    let Some(lack) = stage::lacks() else { return Ok(true) };
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        bail!("{test}: real nodes need {lack}, and in CI every test must run");
    }
    say(&format!("{test}: not run: needs {lack}"));
    Ok(false)
}

/// What a container of the tests' image said when it started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Said {
    /// What Berth's lease gave it.
    #[serde(rename = "BERTH_DEVICES")]
    pub berth_devices: Option<String>,
    /// What a device plugin gave it.
    #[serde(rename = "NVIDIA_VISIBLE_DEVICES")]
    pub nvidia_visible_devices: Option<String>,
    /// Paths of the driver's device nodes that it sees.
    pub nodes: Vec<String>,
}

/// A running node. Everything ends when it is dropped.
#[derive(Debug)]
pub struct RealNode {
    /// The unmodified agent, where one was started.
    pub agent: Option<Process>,
    /// The kubelet.
    pub kubelet: Process,
    /// Its container runtime.
    pub containerd: Process,
    made: MadeNode,
    stage: Stage,
}

impl RealNode {
    /// Starts a node of `tests/machines/<machine>.yaml` and waits until it is Ready. `rules` are keys of the kubelet's configuration
    /// over those of the harness.
    ///
    /// # Errors
    /// A program cannot be built or does not come up in time; the text carries the end of its log.
    pub async fn start(plane: &ControlPlane, machine: &str, name: &str, rules: &Value) -> Result<Self> {
        let runtime = tokio::task::spawn_blocking(runtime::runtime).await??;
        let mut made = MadeNode::new(machine, name)?;
        let folder = Folder::new("berth-real-")?;
        let path = folder.path();
        for below in ["kubelet/device-plugins", "berth", "cni", "pods"] {
            std::fs::create_dir_all(path.join(below))?;
        }
        machine::write(made.machine(), path)?;
        std::os::unix::fs::symlink(made.boot_id_path(), path.join("boot_id"))?;
        std::fs::write(path.join("cni/10-none.conflist"), config::NETWORK)?;
        std::fs::write(path.join("runc"), config::runc(&runtime.programs))?;
        std::fs::set_permissions(path.join("runc"), Permissions::from_mode(0o755))?;
        std::fs::write(path.join("containerd.toml"), config::containerd(path, &runtime.programs))?;

        let topology = made.topology(None)?;
        std::fs::write(path.join("nodes"), devices::names(&topology).join("\n") + "\n")?;
        let stage = Stage::set(folder).await?;
        std::fs::write(stage.inside(CDI_SPEC), devices::cdi_spec(&topology).to_string())?;
        let containerd = start_containerd(&stage, &runtime).await?;
        write_rules(&mut made, &stage, rules)?;
        let kubelet = stage.spawn(kubelet_spec(plane, &stage, name))?;
        let mut node = Self { agent: None, kubelet, containerd, made, stage };
        node.until_ready(plane).await?;
        Ok(node)
    }

    /// The machine that it is of.
    pub fn made(&self) -> &MadeNode {
        &self.made
    }

    /// The same, to break and heal it.
    pub fn made_mut(&mut self) -> &mut MadeNode {
        &mut self.made
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.made.name()
    }

    /// The folder with its logs and everything else of it; gone after drop.
    pub fn folder(&self) -> &Path {
        self.stage.folder()
    }

    /// A path as the node's programs know it, as this process reaches it.
    pub fn inside(&self, path: &str) -> PathBuf {
        self.stage.inside(path)
    }

    /// The control group below which all its processes are.
    pub fn cgroup(&self) -> String {
        self.stage.cgroup()
    }

    /// The folder that its programs know as `/var/lib/kubelet`.
    pub fn kubelet_folder(&self) -> PathBuf {
        self.stage.folder().join("kubelet")
    }

    /// Starts a program where the kubelet is, with its log in the node's folder.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn(&self, spec: ProcessSpec) -> Result<Process> {
        self.stage.spawn(spec)
    }

    /// Starts the unmodified agent where the kubelet is, under its own account, with these arguments more. The pod in whose name it
    /// speaks is a real one.
    ///
    /// # Errors
    /// The API server refuses its pod, or the agent cannot be started.
    pub async fn start_agent(&mut self, plane: &ControlPlane, args: &[&str]) -> Result<()> {
        plane.ensure_account(AGENT_ACCOUNT).await?;
        let pods: Api<Pod> = Api::namespaced(plane.client(), NAMESPACE);
        let mut pod = pod(&format!("{AGENT_ACCOUNT}-{}", self.name()), &json!({}));
        pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "berth", "app.kubernetes.io/component": "agent"});
        pod["spec"]["nodeName"] = json!(self.name());
        pod["spec"]["serviceAccountName"] = json!(AGENT_ACCOUNT);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await.context("create the agent's pod")?;
        let kubeconfig = plane.agent_identity(self.name()).await?;
        self.agent = Some(self.spawn(self.made.agent(&kubeconfig)?.args(args))?);
        Ok(())
    }

    /// Gives it the CPUs, zones and memory of another machine. Its kubelet sees them at its next start.
    ///
    /// # Errors
    /// The machine says too little of them.
    pub fn set_machine(&self, machine: &Machine) -> Result<()> {
        machine::write(machine, self.stage.folder())
    }

    /// Stops the kubelet, gives it other rules, and waits until it is Ready with them. It forgets what its pods held, so there must be
    /// none.
    ///
    /// # Errors
    /// It does not start with them.
    pub async fn set_rules(&mut self, plane: &ControlPlane, rules: &Value) -> Result<()> {
        self.kubelet.terminate(UP_WITHIN).await?;
        for file in REMEMBERED {
            let path = self.kubelet_folder().join(file);
            if path.exists() {
                std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        write_rules(&mut self.made, &self.stage, rules)?;
        self.restart_kubelet(plane).await
    }

    /// Kills the kubelet if it runs, starts it, and waits until its node is Ready.
    ///
    /// # Errors
    /// It does not become Ready.
    pub async fn restart_kubelet(&mut self, plane: &ControlPlane) -> Result<()> {
        self.kill_kubelet(plane).await?;
        self.until_ready(plane).await
    }

    /// Kills the kubelet if it runs, and starts it; whoever goes on at once asks [`RealNode::is_ready`] later.
    ///
    /// # Errors
    /// It cannot be killed or started.
    pub async fn kill_kubelet(&mut self, plane: &ControlPlane) -> Result<()> {
        // The one that went cannot take it back, and its successor says it again.
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let nodes: Api<Node> = Api::all(plane.client());
        self.kubelet.kill()?;
        nodes.patch_status(self.name(), &PatchParams::default(), &Patch::Strategic(unready)).await?;
        self.kubelet.restart()
    }

    /// Whether its kubelet says that it is Ready. One that does takes pods from then on.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn is_ready(&self, plane: &ControlPlane) -> Result<bool> {
        let nodes: Api<Node> = Api::all(plane.client());
        if !nodes.get_opt(self.name()).await?.is_some_and(|node| is_ready(&node)) {
            return Ok(false);
        }
        // As for a node that is made by hand: it is the controller-manager that would take it away.
        let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
        nodes.patch(self.name(), &PatchParams::default(), &untainted).await?;
        Ok(true)
    }

    /// Whether a process of the container with this id, as the runtime named it, still lives.
    pub fn is_alive(&self, container_id: &str) -> bool {
        self.stage.is_alive(container_id)
    }

    async fn until_ready(&mut self, plane: &ControlPlane) -> Result<()> {
        let deadline = Instant::now() + UP_WITHIN;
        while !self.is_ready(plane).await? {
            if let Some(status) = self.kubelet.ended()? {
                bail!("the kubelet of {} ended, {status}; its log ends:\n{}", self.name(), self.kubelet.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} is not Ready; its kubelet's log ends:\n{}", self.name(), self.kubelet.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// What the containers of the tests' image said, one entry per start of the container.
    ///
    /// # Errors
    /// One said something else.
    pub fn said(&self, pod: &Pod, container: &str) -> Result<Vec<Said>> {
        let meta = &pod.metadata;
        let [namespace, name, uid] = [&meta.namespace, &meta.name, &meta.uid].map(|t| t.as_deref().unwrap_or_default());
        let folder = self.stage.folder().join(format!("pods/{namespace}_{name}_{uid}/{container}"));
        let Ok(logs) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
        let mut paths: Vec<PathBuf> = logs.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut said = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            // `<time> stdout F <line>`
            for line in text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)) {
                said.push(serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?);
            }
        }
        Ok(said)
    }

    /// Socket of the kubelet's PodResources service, as the node's programs see it too.
    pub fn pod_resources(&self) -> PathBuf {
        self.kubelet_folder().join("pod-resources/kubelet.sock")
    }

    /// What the kubelet says of who holds what.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn held(&self) -> Result<Vec<PodResources>> {
        let endpoint = format!("unix:{}", self.pod_resources().display());
        let mut client = PodResourcesListerClient::connect(endpoint).await.context("connect to PodResources")?;
        Ok(client.list(ListPodResourcesRequest {}).await?.into_inner().pod_resources)
    }
}

async fn start_containerd(stage: &Stage, runtime: &Runtime) -> Result<Process> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    // It looks for its shim there.
    let search = std::env::join_paths([runtime.programs.clone()].into_iter().chain(std::env::split_paths(&own)))?;
    let config = stage.folder().join("containerd.toml");
    let spec = ProcessSpec::new("containerd", runtime.programs.join("containerd")).env("PATH", search);
    let mut containerd = stage.spawn(spec.arg("--config").arg(config))?;
    containerd.wait_for_log("containerd successfully booted", UP_WITHIN).await?;
    let import = ProcessSpec::new("ctr", runtime.programs.join("ctr"))
        .arg("--address")
        .arg(stage.folder().join("containerd.sock"))
        .args(["-n", "k8s.io", "images", "import", "--local", "--snapshotter", "native"])
        .arg(&runtime.image);
    let mut import = stage.spawn(import)?;
    if !import.wait_for_end(UP_WITHIN).await?.success() {
        bail!("ctr cannot import the pods' image:\n{}", import.log_tail());
    }
    Ok(containerd)
}

fn kubelet_spec(plane: &ControlPlane, stage: &Stage, name: &str) -> ProcessSpec {
    let folder = stage.folder();
    ProcessSpec::new("kubelet", plane.programs().kubelet())
        .arg("--config")
        .arg(folder.join("kubelet.yaml"))
        .arg("--kubeconfig")
        .arg(plane.kubeconfig_path())
        .args(["--hostname-override", name, "--v", "2", "--cert-dir"])
        .arg(folder.join("kubelet/pki"))
}

/// Writes the kubelet's configuration where the kubelet and where the agent look for it.
fn write_rules(made: &mut MadeNode, stage: &Stage, rules: &Value) -> Result<()> {
    let text = config::kubelet(stage.folder(), &stage.cgroup(), rules).to_string();
    std::fs::write(stage.folder().join("kubelet.yaml"), &text)?;
    made.set_kubelet_config(text)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// A pod of one container `main` of the tests' image, with these limits. It ends at the first signal.
#[must_use]
pub fn pod(name: &str, limits: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "hostNetwork": true,
            // The first process of a namespace is not ended by a signal that it does not handle.
            "shareProcessNamespace": true,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [container("main", limits)],
        },
    })
}

/// A container of the tests' image.
#[must_use]
pub fn container(name: &str, limits: &Value) -> Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "Never", "resources": {"limits": limits}})
}
