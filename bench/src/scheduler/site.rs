//! The control plane with its nodes, and the schedulers that an arm starts beside it and ends again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_tests::controlplane::{ControlPlane, KubeScheduler, NAMESPACE, Options, Process, ProcessSpec, free_port};
use berth_tests::installed::overlay;
use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::ArmFigures;
use super::arm::Arm;
use super::pods::Crowd;
use crate::args::SchedulerArgs;
use crate::call::Caller;
use crate::host::Memory;
use crate::nodes;
use crate::sample::{number, ratio};

/// Machine file of all nodes.
const MACHINE: &str = "dgx-h100";
/// First lists of thousands of objects, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// After a start berth-scheduler refuses binds for some seconds; a busy machine adds to that.
const FIRST_BIND_WITHIN: Duration = Duration::from_secs(60);

/// A control plane with Berth's default overlay and nodes.
pub(super) struct Site {
    // Fields drop in this order: a watch without its API server would only complain.
    crowd: Crowd,
    plane: ControlPlane,
    kubeconfig: PathBuf,
    berth_scheduler: PathBuf,
    qps: u32,
    runs: usize,
}

/// A running berth-scheduler.
struct Berth {
    process: Process,
    url: String,
    address: std::net::SocketAddr,
}

impl Site {
    /// Starts everything that all arms share.
    pub(super) async fn start(args: &SchedulerArgs) -> Result<Self> {
        let berth_scheduler = match &args.berth_scheduler {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("berth-scheduler"),
        };
        ensure!(
            berth_scheduler.is_file(),
            "{} is not there: cargo build --release -p berth-scheduler, or --berth-scheduler FILE",
            berth_scheduler.display()
        );
        eprintln!("starting a control plane with {} nodes", args.nodes);
        let plane = ControlPlane::start(Options::default()).await?;
        plane.apply_kustomize(&overlay("sidecar")).await?;
        let kubeconfig = plane.scheduler_identity().await?;
        let names: Vec<String> = (0..args.nodes).map(nodes::name).collect();
        plane.create_reported_nodes(MACHINE, &names).await?;
        let crowd = Crowd::watch(plane.client());
        Ok(Self { crowd, plane, kubeconfig, berth_scheduler, qps: args.qps, runs: 0 })
    }

    /// Lets one arm place so many pods, and takes them away again.
    pub(super) async fn run(&mut self, arm: Arm, pods: usize) -> Result<ArmFigures> {
        self.runs += 1;
        self.crowd.make("pod", pods).await?;
        let mut berth = match arm.policy() {
            Some(policy) => Some(self.start_berth(policy).await?),
            None => None,
        };
        let url = berth.as_ref().map_or("", |berth| &berth.url);
        let mut scheduler = self.plane.start_kube_scheduler_as(&self.kubeconfig, &arm.config(url, self.qps)?).await?;
        let bound = self.crowd.until_bound("pod", pods).await;
        let (first, last) = match (bound, &berth) {
            (Ok(times), _) => times,
            (Err(error), Some(berth)) => return Err(error.context(berth.process.log_tail())),
            (Err(error), None) => return Err(error),
        };
        let failed_attempts = failed_attempts(&scheduler).await?;
        scheduler.process.kill()?;
        let berth_memory = berth.as_ref().and_then(|berth| Memory::of(berth.process.pid()));
        if let Some(berth) = &mut berth {
            berth.process.kill()?;
        }
        self.crowd.clear().await?;
        let seconds = last.duration_since(first).as_secs_f64();
        Ok(ArmFigures { arm, pods_per_second: ratio(number(pods - 1), seconds), failed_attempts, berth_memory })
    }

    /// Starts berth-scheduler under a policy, and waits until it binds.
    async fn start_berth(&self, policy: &str) -> Result<Berth> {
        let maps: Api<ConfigMap> = Api::namespaced(self.plane.client(), NAMESPACE);
        let patch = Patch::Merge(json!({"data": {"policy.yaml": policy}}));
        maps.patch("berth-policy", &PatchParams::default(), &patch).await.context("write the policy")?;
        let (port, admin_port) = (free_port()?, free_port()?);
        let mut process = self.plane.spawn(berth_spec(
            &format!("berth-scheduler-{}", self.runs),
            &self.berth_scheduler,
            &self.kubeconfig,
            (port, admin_port),
        ))?;
        process.wait_for_http(&format!("http://127.0.0.1:{admin_port}/readyz"), READY_WITHIN).await?;
        let berth = Berth {
            process,
            url: format!("http://127.0.0.1:{port}"),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], port)),
        };
        self.bind_one(&berth).await.with_context(|| berth.process.log_tail())?;
        Ok(berth)
    }

    /// Has one pod bound, as kube-scheduler would. Binds that wait for their first turn would come in one heap otherwise, and
    /// make the rate look better than it is.
    async fn bind_one(&self, berth: &Berth) -> Result<()> {
        let name = format!("warm-up-{}", self.runs);
        let pod = self.crowd.make_one(&name).await?;
        let args = json!({
            "PodName": name, "PodNamespace": "default",
            "PodUID": pod.metadata.uid.context("a pod without a UID")?, "Node": nodes::name(0),
        });
        let body = Bytes::from(args.to_string());
        let deadline = Instant::now() + FIRST_BIND_WITHIN;
        let mut caller = Caller::connect(berth.address).await?;
        loop {
            let (_, answer) = caller.post("/bind", body.clone()).await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            match answer["Error"].as_str() {
                Some("") => return Ok(()),
                error if Instant::now() > deadline => bail!("no bind after {FIRST_BIND_WITHIN:?}: {error:?}"),
                _ => {}
            }
        }
    }
}

fn berth_spec(name: &str, program: &Path, kubeconfig: &Path, (port, admin_port): (u16, u16)) -> ProcessSpec {
    ProcessSpec::new(name, program).args([
        "--mode=allocate".to_owned(),
        format!("--listen=127.0.0.1:{port}"),
        format!("--admin-listen=127.0.0.1:{admin_port}"),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--pre-stop-seconds=0".to_owned(),
    ])
}

/// Attempts that ended without a bound pod, from kube-scheduler's own count.
async fn failed_attempts(scheduler: &KubeScheduler) -> Result<u64> {
    Ok(count_failed(&scheduler.metrics().await?))
}

fn count_failed(metrics: &str) -> u64 {
    let attempts = metrics.lines().filter(|line| line.starts_with("scheduler_schedule_attempts_total{"));
    let failed = attempts.filter(|line| !line.contains("result=\"scheduled\""));
    failed.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attempts_that_bound_nothing_are_counted_as_failed() {
        let metrics = "# TYPE scheduler_schedule_attempts_total counter\n\
            scheduler_schedule_attempts_total{profile=\"berth\",result=\"scheduled\"} 500\n\
            scheduler_schedule_attempts_total{profile=\"berth\",result=\"unschedulable\"} 3\n\
            scheduler_schedule_attempts_total{profile=\"berth\",result=\"error\"} 4\n\
            scheduler_scheduling_attempt_duration_seconds_count{result=\"error\"} 9\n";
        assert_eq!(count_failed(metrics), 7);
    }
}
