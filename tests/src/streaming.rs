//! Owns berth-schedulers that take report streams on a real control plane, with certificates by `berth certs`, and what an agent needs
//! to stream to them. Everything is as overlay `stream` has it but for names and ports: no headless Service can be resolved here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::binaries::binaries;
use crate::controlplane::{ControlPlane, Folder, NAMESPACE, Options, Process, ProcessSpec, ask, fetch, free_port};
use crate::installed::overlay;
use crate::made_node::MadeNode;
use crate::rest::Call;
use crate::running::pod;

/// How often a condition is looked at again while waiting for it.
const POLL: Duration = Duration::from_millis(20);
/// Start, first lists and reviews on a machine that is busy with other tests.
pub const WITHIN: Duration = Duration::from_secs(60);
/// Where pods find their files about reports.
const MOUNTED: &str = "/etc/berth/reports";
const NAMESPACED: &str = "/api/v1/namespaces/berth-system";

/// A control plane with overlay `stream`, and certificates.
#[derive(Debug)]
pub struct Streaming {
    /// The control plane.
    pub plane: ControlPlane,
    /// A folder for each pod that mounts something.
    folder: Folder,
}

/// One berth-scheduler.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub process: Process,
    /// Where agents stream to.
    pub reports: SocketAddr,
    /// Where kube-scheduler asks.
    pub extender: SocketAddr,
    admin: SocketAddr,
}

impl Streaming {
    /// Starts the control plane, applies overlay `stream` and the certificates as README.md of the manifests says.
    ///
    /// # Errors
    /// A part does not come up, or the API server refuses something.
    pub async fn start() -> Result<Self> {
        let plane = ControlPlane::start(Options::default()).await?;
        let folder = Folder::new("berth-stream-")?;
        plane.apply_kustomize(&overlay("stream")).await?;
        let site = Self { plane, folder };
        site.certify().await?;
        site.mount_certificate().await?;
        Ok(site)
    }

    /// Makes an authority and a certificate by `berth certs`, and applies both. The schedulers have it once it is mounted.
    ///
    /// # Errors
    /// The program fails, or the API server refuses what it wrote.
    pub async fn certify(&self) -> Result<()> {
        let folder = tempfile::tempdir_in(self.folder.path())?;
        let mut certs = Command::new(&binaries()?.cli);
        let made = certs.args(["certs", "--out"]).arg(folder.path()).output().context("start berth certs")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let manifests = folder.path().join("manifests.yaml");
        self.plane.kubectl(&["apply", "-f", manifests.to_str().context("path")?]).await?;
        Ok(())
    }

    /// Brings the Secret to the schedulers, as their kubelets do after a while.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub async fn mount_certificate(&self) -> Result<()> {
        let secret = Call::get(format!("{NAMESPACED}/secrets/berth-reports-tls")).done(&self.plane.client()).await?;
        let secret: Secret = serde_json::from_value(secret)?;
        let folder = self.mount("schedulers")?;
        for (name, bytes) in secret.data.context("an empty Secret")? {
            std::fs::write(folder.join(name), bytes.0)?;
        }
        Ok(())
    }

    fn mount(&self, pod: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(pod);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The variables about reports that the overlay gives to a container, with files in `folder`.
    async fn variables(&self, workload: &str, containers: &str, folder: &Path) -> Result<Vec<(String, String)>> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/{workload}");
        let object = Call::get(path).done(&self.plane.client()).await?;
        let folder = folder.to_str().context("path")?;
        let all = object["spec"]["template"]["spec"][containers].as_array().into_iter().flatten();
        let all = all.flat_map(|one| one["env"].as_array().into_iter().flatten());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ours: Vec<_> = all
            .map(|variable| (text(&variable["name"]), text(&variable["value"]).replace(MOUNTED, folder)))
            .filter(|(name, _)| name.starts_with("BERTH_REPORTS_"))
            .collect();
        ensure!(ours.len() == 3, "overlay stream says of reports to {workload}: {ours:?}");
        Ok(ours)
    }

    /// Starts a berth-scheduler, the `number`th here, and waits until it is ready.
    ///
    /// # Errors
    /// It does not come up in time; the text carries the end of its log.
    pub async fn replica(&self, number: u8) -> Result<Replica> {
        // An address of its own for each, as pods have: 127.0.0.0/8 is all loopback.
        let on = |port: u16| SocketAddr::from(([127, 0, 0, number.saturating_add(1)], port));
        let (reports, extender, admin) = (on(free_port()?), on(free_port()?), on(free_port()?));
        let spec = ProcessSpec::new(format!("berth-scheduler-{number}"), &binaries()?.scheduler)
            .arg("--kubeconfig")
            .arg(self.plane.scheduler_identity().await?)
            .args([
                format!("--listen={extender}"),
                format!("--admin-listen={admin}"),
                "--pre-stop-seconds=0".to_owned(),
            ]);
        let variables =
            self.variables("deployments/berth-scheduler", "initContainers", &self.mount("schedulers")?).await?;
        let spec = variables.into_iter().fold(spec, |spec, (name, value)| {
            // The address is the pod's; here each replica has one of loopback.
            spec.env(name, value.replace("0.0.0.0:8890", &reports.to_string()))
        });
        let mut process = self.plane.spawn(spec)?;
        process.wait_for_http(&format!("http://{admin}/readyz"), WITHIN).await?;
        Ok(Replica { process, reports, extender, admin })
    }

    /// Makes the Node object and the agent's account and pod, and returns the agent without streams.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn agent(&self, node: &MadeNode) -> Result<ProcessSpec> {
        self.plane.create_node(&node.node_spec()?).await?;
        node.agent(&self.plane.agent_identity(node.name()).await?)
    }

    /// As [`Streaming::agent`], of an agent that reads the hardware as often as said.
    ///
    /// # Errors
    /// As [`Streaming::agent`].
    pub async fn agent_polling(&self, node: &MadeNode, interval: &str) -> Result<ProcessSpec> {
        self.plane.create_node(&node.node_spec()?).await?;
        node.agent_polling(&self.plane.agent_identity(node.name()).await?, interval)
    }

    /// The agent with streams to these replicas, which it shows that token, as the overlay configures it.
    ///
    /// # Errors
    /// A file of its mount cannot be written.
    pub async fn streaming(&self, agent: ProcessSpec, replicas: &[&Replica], token: &str) -> Result<ProcessSpec> {
        let folder = self.mount(agent.name())?;
        let map = Call::get(format!("{NAMESPACED}/configmaps/berth-reports-ca")).done(&self.plane.client()).await?;
        std::fs::write(folder.join("ca.crt"), map["data"]["ca.crt"].as_str().context("no authority")?)?;
        std::fs::write(folder.join("token"), token)?;
        let addresses: Vec<String> = replicas.iter().map(|replica| replica.reports.to_string()).collect();
        let agent = agent.env("BERTH_REPORTS_ADDRESSES", addresses.join(","));
        let variables = self.variables("daemonsets/berth-agent", "containers", &folder).await?;
        Ok(variables.into_iter().fold(agent, |agent, (name, value)| agent.env(name, value)))
    }
}

impl Replica {
    /// Starts a berth-scheduler without an API server, over a folder of machine files, taking streams in plain text on loopback.
    ///
    /// # Errors
    /// It does not come up in time; the text carries the end of its log.
    pub async fn without_api(machines: &Path, log_folder: &Path) -> Result<Self> {
        let on = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (reports, extender, admin) = (on(free_port()?), on(free_port()?), on(free_port()?));
        let spec = ProcessSpec::new("berth-scheduler", &binaries()?.scheduler)
            .arg("--machines")
            .arg(machines)
            .args([format!("--listen={extender}"), format!("--admin-listen={admin}")])
            .args([format!("--reports-listen={reports}"), "--pre-stop-seconds=0".to_owned()]);
        let mut process = Process::spawn(spec, log_folder)?;
        process.wait_for_http(&format!("http://{admin}/livez"), WITHIN).await?;
        Ok(Self { process, reports, extender, admin })
    }

    /// Whether a pod with so many GPUs fits on the node, by filter's answer.
    ///
    /// # Errors
    /// No answer, or one that is none.
    pub async fn fits(&self, node: &str, gpus: u32) -> Result<bool> {
        let mut pod = pod("probe", gpus, &[]);
        pod["metadata"]["namespace"] = json!("default");
        pod["metadata"]["uid"] = json!("probe");
        let args = json!({"Pod": pod, "NodeNames": [node]});
        let answer = ask(&format!("http://{}/filter", self.extender), &args).await?;
        let names = answer["NodeNames"].as_array().with_context(|| format!("filter answers {answer}"))?;
        Ok(names.iter().any(|name| name == node))
    }

    /// Waits until filter answers so.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn until_fits(&self, node: &str, gpus: u32, fits: bool) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        while self.fits(node, gpus).await? != fits {
            let tail = || self.process.log_tail();
            ensure!(Instant::now() < deadline, "{gpus} GPUs on {node}: fits stays {}\n{}", !fits, tail());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Its metrics.
    ///
    /// # Errors
    /// No answer.
    pub async fn metrics(&self) -> Result<String> {
        fetch(&format!("http://{}/metrics", self.admin)).await
    }

    /// Waits for a line of its metrics. A process that is not there yet is waited for.
    ///
    /// # Errors
    /// It does not come in time.
    pub async fn until_metric(&self, line: &str) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let said = self.metrics().await.unwrap_or_default();
            if said.lines().any(|one| one == line) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no {line} in\n{said}\n{}", self.process.log_tail());
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The fields of a line of a log.
///
/// # Errors
/// The line is no JSON.
pub fn fields(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| line.to_owned())
}
