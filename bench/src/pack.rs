//! `pack` and `churn`: a trace replayed under one policy, on the same draws for all of them.

use anyhow::{Context, Result};
use berth_core::Policy;
use berth_pack::openb::arrive::{Arrivals, churn, fill};
use berth_pack::openb::berth::{BERTH, Berth, LEARNING};
use berth_pack::openb::judge::Judge;
use berth_pack::openb::peers::{self, Peer};
use berth_pack::openb::replay::{Outcome, replay};
use berth_pack::openb::trace::{self, Trace};
use serde::Serialize;

use crate::args::{ChurnArgs, PackArgs, TraceArgs};

/// The mean of all seeds, and every run.
#[derive(Debug, Serialize)]
pub(crate) struct Packed {
    policy: String,
    pods_file: String,
    #[serde(flatten)]
    load: Load,
    /// GPUs in use after the last arrival, percent of those installed.
    allocated_pct: f64,
    /// GPUs asked for when the first pod was lost, percent of those installed; the least over the seeds.
    first_loss_pct: Option<f64>,
    /// GPU demand lost in the second half, percent of what was asked for in it; where pods leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_loss_pct: Option<f64>,
    /// GPUs in use over the second half, percent of those installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_allocated_pct: Option<f64>,
    runs: Vec<Run>,
}

/// What was asked for, in multiples of the GPUs installed.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Load {
    /// All together; nothing leaves.
    Demand(f64),
    /// At any moment.
    Load(f64),
}

/// One seed.
#[derive(Debug, Serialize)]
struct Run {
    seed: u64,
    allocated_pct: f64,
    first_loss_pct: Option<f64>,
    late_loss_pct: f64,
    late_allocated_pct: f64,
    pods: usize,
    lost: Lost,
    evaluations_per_pod: f64,
}

/// Pods that fitted nowhere.
#[derive(Debug, Serialize)]
struct Lost {
    cpu_only: usize,
    share: usize,
    one_gpu: usize,
    multi_gpu: usize,
}

/// Runs `pack`.
///
/// # Errors
/// A file that cannot be read, or a policy that is not known.
pub(crate) fn pack(args: &PackArgs) -> Result<Packed> {
    let load = Load::Demand(args.demand);
    packed(&args.trace, load, |trace, seed| fill(trace, args.demand, seed))
}

/// Runs `churn`.
///
/// # Errors
/// A file that cannot be read, or a policy that is not known.
pub(crate) fn churned(args: &ChurnArgs) -> Result<Packed> {
    let load = Load::Load(args.load);
    packed(&args.trace, load, |trace, seed| churn(trace, args.load, args.pod_count, seed))
}

fn packed(args: &TraceArgs, load: Load, arrivals: impl Fn(&Trace, u64) -> Arrivals) -> Result<Packed> {
    let trace = trace::read(&args.nodes, &args.pods)?;
    let one = |seed: &u64| -> Result<Run> {
        let outcome = replay(&trace, &arrivals(&trace, *seed), &mut *judge(&args.policy, &trace, *seed)?);
        eprintln!("{} seed {seed}: {:.2} % allocated", args.policy, 100.0 * outcome.allocated);
        Ok(run_of(*seed, &outcome))
    };
    let runs = args.seed.iter().map(one).collect::<Result<Vec<Run>>>()?;
    let mean = |value: fn(&Run) -> f64| round(runs.iter().map(value).sum::<f64>() / runs.len() as f64);
    let does_leave = matches!(load, Load::Load(_));
    Ok(Packed {
        policy: args.policy.clone(),
        pods_file: args.pods.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
        load,
        allocated_pct: mean(|r| r.allocated_pct),
        first_loss_pct: runs.iter().filter_map(|r| r.first_loss_pct).reduce(f64::min),
        late_loss_pct: does_leave.then(|| mean(|r| r.late_loss_pct)),
        late_allocated_pct: does_leave.then(|| mean(|r| r.late_allocated_pct)),
        runs,
    })
}

fn judge(policy: &str, trace: &Trace, seed: u64) -> Result<Box<dyn Judge>> {
    if policy == BERTH {
        return Ok(Box::new(Berth::of(trace, Policy::default())?));
    }
    if policy == LEARNING {
        return Ok(Box::new(Berth::learning(trace, Policy::default())?));
    }
    let peer: Peer = policy.parse().context("--policy")?;
    Ok(peers::judge(peer, trace, seed))
}

fn run_of(seed: u64, outcome: &Outcome) -> Run {
    let lost = outcome.lost;
    Run {
        seed,
        allocated_pct: round(100.0 * outcome.allocated),
        first_loss_pct: outcome.first_loss.map(|at| round(100.0 * at)),
        late_loss_pct: round(100.0 * outcome.late_loss),
        late_allocated_pct: round(100.0 * outcome.late_allocated),
        pods: outcome.pods,
        lost: Lost { cpu_only: lost.cpu_only, share: lost.share, one_gpu: lost.one, multi_gpu: lost.multi },
        evaluations_per_pod: round(outcome.evaluations),
    }
}

/// Three digits behind the point: one GPU of a thousand.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
