//! Owns stock kube-schedulers beside a control plane: completes their
//! configuration with what only the harness knows and waits until they are ready.
//! Profiles and extenders are the caller's.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::http::Getter;
use super::servers::{PORT_TRIES, free_port, port_taken};
use super::{ControlPlane, Process, ProcessSpec};

/// It is ready as soon as its caches are filled; thousands of nodes take some seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running kube-scheduler. Dropping it kills it.
#[derive(Debug)]
pub struct KubeScheduler {
    /// The child, to be killed, ended or restarted (then wait with [`KubeScheduler::wait_until_ready`]).
    pub process: Process,
    url: String,
    authority_der: Vec<u8>,
}

impl KubeScheduler {
    /// Waits until it is ready, which [`ControlPlane::start_kube_scheduler`] has done already.
    ///
    /// # Errors
    /// It ends or does not become ready; the text carries the end of its log.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let ready = Getter::trusting(&format!("{}/readyz", self.url), &self.authority_der)?;
        self.process.wait_for_ok(&ready, READY_WITHIN).await?;
        Ok(())
    }

    /// Its metrics, in Prometheus' text form.
    ///
    /// # Errors
    /// It does not answer 200.
    pub async fn metrics(&self) -> Result<String> {
        let getter = Getter::trusting(&format!("{}/metrics", self.url), &self.authority_der)?;
        match getter.get().await? {
            (200, body) => Ok(body),
            (status, body) => bail!("{}: {status} {body}", getter.url()),
        }
    }
}

impl ControlPlane {
    /// Starts kube-scheduler with the administrator's rights. `config` is a
    /// `KubeSchedulerConfiguration` in YAML or JSON; what it leaves out is filled in: version and
    /// kind, the kubeconfig, and no leader election. The empty text is the stock configuration.
    ///
    /// # Errors
    /// The configuration is not YAML, or kube-scheduler refuses it: then the text carries its log.
    pub async fn start_kube_scheduler(&self, config: &str) -> Result<KubeScheduler> {
        self.start_kube_scheduler_as(self.kubeconfig_path(), config).await
    }

    /// As [`ControlPlane::start_kube_scheduler`], under the identity of another kubeconfig.
    ///
    /// # Errors
    /// As there.
    pub async fn start_kube_scheduler_as(&self, kubeconfig: &Path, config: &str) -> Result<KubeScheduler> {
        let name = format!("kube-scheduler-{}", self.next_number());
        let path = self.folder().join(format!("{name}.json"));
        fs::write(&path, complete(config, kubeconfig)?.to_string())?;
        for _ in 1..PORT_TRIES {
            match self.try_kube_scheduler(&name, &path).await {
                Err(error) if port_taken(&error) => {}
                other => return other,
            }
        }
        self.try_kube_scheduler(&name, &path).await
    }

    async fn try_kube_scheduler(&self, name: &str, config: &Path) -> Result<KubeScheduler> {
        let port = free_port()?;
        let folder = self.folder();
        let spec = ProcessSpec::new(name, self.programs().kube_scheduler()).folder(folder).args([
            format!("--config={}", config.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", self.pki.server_certificate_path.display()),
            format!("--tls-private-key-file={}", self.pki.server_key_path.display()),
            // Loopback only, and a test must not need an account to read a metric.
            "--authorization-always-allow-paths=/livez,/readyz,/healthz,/metrics".to_owned(),
        ]);
        let mut scheduler = KubeScheduler {
            process: self.spawn(spec)?,
            url: format!("https://127.0.0.1:{port}"),
            authority_der: self.pki.authority_der.clone(),
        };
        scheduler.wait_until_ready().await?;
        Ok(scheduler)
    }
}

/// The configuration with what the caller left out.
fn complete(config: &str, kubeconfig: &Path) -> Result<Value> {
    let mut document: Map<String, Value> = if config.trim().is_empty() {
        Map::new()
    } else {
        serde_saphyr::from_str(config).context("the kube-scheduler configuration is not a YAML mapping")?
    };
    document.entry("apiVersion").or_insert_with(|| json!("kubescheduler.config.k8s.io/v1"));
    document.entry("kind").or_insert_with(|| json!("KubeSchedulerConfiguration"));
    put_default(&mut document, "clientConnection", "kubeconfig", json!(kubeconfig))?;
    put_default(&mut document, "leaderElection", "leaderElect", json!(false))?;
    Ok(Value::Object(document))
}

fn put_default(document: &mut Map<String, Value>, section: &str, key: &str, value: Value) -> Result<()> {
    let Value::Object(section) = document.entry(section).or_insert_with(|| json!({})) else {
        bail!("{section} of the kube-scheduler configuration is not a mapping");
    };
    section.entry(key).or_insert(value);
    Ok(())
}
