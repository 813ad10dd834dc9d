//! Owns a real control plane for tests, benches and people: etcd, kube-apiserver
//! and, on demand, kube-scheduler, as child processes on loopback, with their
//! keys, their logs and one folder. Knows nothing of Berth but the names of its accounts.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use berth_tests::controlplane::{ControlPlane, NodeSpec, Options};
//!
//! let plane = ControlPlane::start(Options::default()).await?;      // about 3 s
//! plane.create_node(&NodeSpec::gpus("na", 8)).await?;
//! let agent = plane.agent_identity("na").await?;                   // a kubeconfig for na's agent
//! let scheduler = plane.start_kube_scheduler("").await?;           // stock configuration
//! println!("{}", plane.kubectl(&["get", "nodes"]).await?);
//! # Ok(()) }
//! ```
//!
//! Any number run side by side. Everything ends when the value is dropped, and also when this
//! process dies, `kill -9` included. Set `BERTH_TESTS_KEEP=1` to keep the folder with the logs.
//! The first use on a machine builds the programs from Go modules (see [`programs`]).

mod access;
mod build;
mod folder;
pub(crate) mod guard;
mod http;
mod identity;
mod kube_scheduler;
mod nodes;
mod pki;
mod process;
mod servers;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::Instant;

pub use build::{BuildOptions, Programs, programs};
pub use identity::{AGENT_ACCOUNT, NAMESPACE, SCHEDULER_ACCOUNT};
pub use kube_scheduler::KubeScheduler;
pub(crate) use nodes::IN_FLIGHT;
pub use nodes::NodeSpec;
pub use process::{Process, ProcessSpec};

use access::{ADMIN_TOKEN, Access};
pub(crate) use folder::Folder;
use pki::Pki;
pub use servers::free_port;

pub(crate) use servers::{PORT_TRIES, port_taken};
use servers::{etcd_spec, start_apiserver};

/// kubectl must not ask for the API server's time for longer than any test wants to wait.
const KUBECTL_TIMEOUT: Duration = Duration::from_secs(60);

/// How a control plane is to be. The default is what nearly every test wants.
#[derive(Debug, Clone)]
pub struct Options {
    /// Flags added to kube-apiserver's own.
    pub apiserver_args: Vec<String>,
    /// How long the API server may take to be ready, on a machine that is busy with other planes.
    pub ready_within: Duration,
    /// Where the programs come from.
    pub build: BuildOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self { apiserver_args: Vec::new(), ready_within: Duration::from_secs(60), build: BuildOptions::default() }
    }
}

/// A running control plane. Its clients belong to the Tokio runtime that started it.
pub struct ControlPlane {
    // Fields drop in this order: the API server before its store, the folder last.
    apiserver: Process,
    _etcd: Process,
    client: Client,
    access: Access,
    pki: Pki,
    kubeconfig: PathBuf,
    programs: Programs,
    started: AtomicU32,
    folder: Folder,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane")
            .field("server", &self.access.server)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Builds the programs if need be, starts etcd and kube-apiserver, and waits until the API is ready.
    ///
    /// # Errors
    /// The programs cannot be built, or a server does not come up in time: then the text carries
    /// the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let build = options.build.clone();
        let programs = tokio::task::spawn_blocking(move || programs(&build)).await??;
        let folder = Folder::new("berth-plane-")?;
        let pki = pki::write(folder.path())?;
        let kubeconfig = folder.path().join("admin.kubeconfig");
        let etcd = Process::spawn(etcd_spec(&programs, folder.path()), folder.path())?;
        let (apiserver, access) = start_apiserver(&options, &programs, folder.path(), &pki).await?;
        access.write_kubeconfig(&kubeconfig, ADMIN_TOKEN)?;
        Ok(Self {
            client: access.client(ADMIN_TOKEN, None)?,
            apiserver,
            _etcd: etcd,
            access,
            pki,
            kubeconfig,
            programs,
            started: AtomicU32::new(0),
            folder,
        })
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's address, `https://127.0.0.1:PORT`.
    pub fn server(&self) -> &str {
        &self.access.server
    }

    /// A client that says nothing of who it is: for a proxy, whose callers do.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn anonymous(&self) -> Result<Client> {
        self.access.anonymous()
    }

    /// The folder of this plane, with `etcd.log`, `kube-apiserver.log` and so on; gone after drop.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client for any token, also one that the API server will refuse.
    ///
    /// # Errors
    /// The client cannot be made; nothing is sent yet.
    pub fn client_for(&self, token: &str) -> Result<Client> {
        self.access.client(token, None)
    }

    /// A client as any user with any groups, by impersonation: a person without rights is
    /// `client_as("ada", &["researchers"])`.
    ///
    /// # Errors
    /// The client cannot be made; nothing is sent yet.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        self.access.client(ADMIN_TOKEN, Some((user, groups)))
    }

    /// Writes a kubeconfig `<name>.kubeconfig` for any token and returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_for(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        self.access.write_kubeconfig(&path, token)?;
        Ok(path)
    }

    /// Starts a program of any kind beside the plane, with its log in the plane's folder.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn(&self, spec: ProcessSpec) -> Result<Process> {
        Process::spawn(spec, self.folder.path())
    }

    /// Runs the built kubectl as administrator and returns what it printed.
    ///
    /// # Errors
    /// It fails; the text carries its standard error.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_output(args).await?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the built kubectl as administrator, for tests that expect a refusal.
    ///
    /// # Errors
    /// It cannot be started, or takes longer than any test should wait.
    pub async fn kubectl_output(&self, args: &[&str]) -> Result<std::process::Output> {
        let output = tokio::process::Command::new(self.programs.kubectl())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            // The discovery cache would be the user's, and ports come round again.
            .arg("--cache-dir")
            .arg(self.folder.path().join("kubectl-cache"))
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(KUBECTL_TIMEOUT, output)
            .await
            .with_context(|| format!("kubectl {} still runs after {KUBECTL_TIMEOUT:?}", args.join(" ")))?
            .context("start kubectl")
    }

    /// `kubectl apply -k`, then waits until every custom resource definition is served.
    ///
    /// # Errors
    /// The API server refuses an object, or a definition is not established in time.
    pub async fn apply_kustomize(&self, folder: &Path) -> Result<String> {
        let folder = folder.to_str().context("the kustomization's path is not UTF-8")?;
        let said = self.kubectl(&["apply", "-k", folder]).await?;
        self.wait_for_definitions(Duration::from_secs(30)).await?;
        Ok(said)
    }

    /// Stops the API server in its tracks: connections stay open and nothing is answered, until [`ControlPlane::thaw`].
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn freeze(&self) -> Result<()> {
        self.apiserver.freeze()
    }

    /// Lets a frozen API server go on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn thaw(&self) -> Result<()> {
        self.apiserver.thaw()
    }

    /// The built programs, for callers that run one in their own way.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    async fn wait_for_definitions(&self, within: Duration) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client());
        let deadline = Instant::now() + within;
        loop {
            let all = definitions.list(&ListParams::default()).await?;
            let waiting: Vec<_> = all.iter().filter(|one| !established(one)).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let names: Vec<_> = waiting.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
                bail!("not served after {within:?}: {}", names.join(", "));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A number that no other child of this plane has, for names of logs and files.
    fn next_number(&self) -> u32 {
        self.started.fetch_add(1, Ordering::Relaxed)
    }
}

/// The body of a plain `http://` page that answers 200.
///
/// # Errors
/// No answer in time, or another status.
pub async fn fetch(url: &str) -> Result<String> {
    match http::Getter::plain(url)?.get().await? {
        (200, body) => Ok(body),
        (status, body) => bail!("{url}: {status} {body}"),
    }
}

/// The JSON that a plain `http://` page answers to this JSON with 200.
///
/// # Errors
/// No answer in time, another status, or no JSON.
pub async fn ask(url: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
    match http::Getter::plain(url)?.post(body).await? {
        (200, answer) => serde_json::from_str(&answer).with_context(|| format!("{url}: {answer}")),
        (status, answer) => bail!("{url}: {status} {answer}"),
    }
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
}
