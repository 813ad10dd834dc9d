//! The bench of the node agent: what the unmodified program takes of a node on which nothing happens.
//!
//! It runs over a made-up node (a machine file, the fake driver library, a generated kernel tree) beside a real API server. Once its
//! report is published and it had time to calm down, it is watched twice for equally long: first by what the kernel counts anyway, then
//! with its system calls counted, which slows it down.

mod idle;
mod trace;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_tests::controlplane::{ControlPlane, Options, Process};
use berth_tests::installed::overlay;
use berth_tests::made_node::{MadeNode, admin_url, machine_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::AgentArgs;
use crate::host::Memory;
use idle::Watched;

/// Machine file of the node.
const MACHINE: &str = "dgx-h100";
/// Its NICs that the budget does not speak of: ten of twelve stay.
const NICS_LEFT_OUT: [&str; 2] = ["nic: mlx5_10,", "nic: mlx5_11,"];
const NODE: &str = "gpu-1";
/// The first report of an agent on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// The arguments.
    pub(crate) options: Value,
    pub(crate) gpus: usize,
    pub(crate) nics: usize,
    /// Of the agent, after the first watch.
    pub(crate) memory: Memory,
    pub(crate) threads: usize,
    /// The first watch.
    pub(crate) idle: Idle,
    /// The second watch; absent where there is no strace.
    pub(crate) system_calls: Option<SystemCalls>,
}

/// What the kernel and the fake driver counted of an agent in peace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Idle {
    pub(crate) seconds: f64,
    /// Of user and system time together.
    pub(crate) cpu_ms: u64,
    /// Of one CPU.
    pub(crate) cpu_percent: f64,
    pub(crate) context_switches_per_minute: f64,
    /// Lines of its log. What says nothing new should not be there.
    pub(crate) log_lines: usize,
    /// Calls to the driver library by name.
    pub(crate) nvml_calls_per_minute: BTreeMap<String, f64>,
}

/// System calls of all threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SystemCalls {
    pub(crate) seconds: f64,
    pub(crate) per_minute: f64,
    /// The same by name.
    pub(crate) by_name: BTreeMap<String, f64>,
}

/// Runs the bench.
///
/// # Errors
/// The control plane or the agent does not come up, or the agent ends.
pub(crate) fn run(args: &AgentArgs) -> Result<Figures> {
    ensure!(args.seconds > 0, "--seconds must be above zero");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        eprintln!("starting a control plane and the agent");
        let plane = ControlPlane::start(Options::default()).await?;
        plane.apply_kustomize(&overlay("agent-only")).await?;
        let node = MadeNode::of_text(&machine()?, NODE)?;
        plane.create_node(&node.node_spec()?).await?;
        let kubeconfig = plane.agent_identity(NODE).await?;
        let mut agent = plane.spawn(node.agent_by_default(&kubeconfig)?)?;
        let url = admin_url(&mut agent).await?;
        agent.wait_for_http(&format!("{url}/readyz"), READY_WITHIN).await?;
        watch(args, &node, &mut agent).await
    })
}

async fn watch(args: &AgentArgs, node: &MadeNode, agent: &mut Process) -> Result<Figures> {
    let window = Duration::from_secs(args.seconds);
    tokio::time::sleep(Duration::from_secs(args.settle_seconds)).await;
    eprintln!("watching it for {window:?}");
    let before = Watched::now(node, agent)?;
    tokio::time::sleep(window).await;
    let after = Watched::now(node, agent)?;
    let memory = Memory::of(agent.pid()).context("the agent is gone")?;
    let system_calls = trace::count(agent.pid(), window).await?;
    ensure!(agent.ended()?.is_none(), "the agent ended:\n{}", agent.log_tail());
    let parts = node.topology(None)?.into_parts();
    Ok(Figures {
        options: serde_json::to_value(args)?,
        gpus: parts.gpus.len(),
        nics: parts.nics.len(),
        memory,
        threads: after.threads,
        idle: after.since(&before),
        system_calls,
    })
}

/// The machine of the budget: eight GPUs and ten NICs.
fn machine() -> Result<String> {
    let path = machine_file(MACHINE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let kept = text.lines().filter(|line| !NICS_LEFT_OUT.iter().any(|nic| line.contains(nic)));
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests;
