//! The bench of whole scheduling: a real etcd, API server and kube-scheduler, and pods per second with Berth and without.
//!
//! In every round each arm places the same pods on the same empty nodes, in an order that turns from round to round. The pods
//! are there before kube-scheduler starts, so that nothing but placing and binding is timed: from the first pod that has a
//! node to the last.

mod arm;
mod pods;
mod site;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::SchedulerArgs;
use crate::host::Memory;
use crate::sample::{median, ratio};
use arm::Arm;
use site::Site;

/// What came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// The arguments.
    pub(crate) options: Value,
    /// All rounds, each in the order in which its arms ran.
    pub(crate) rounds: Vec<Vec<ArmFigures>>,
    /// What the rounds say together.
    pub(crate) arms: Vec<Summary>,
}

/// One arm of one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArmFigures {
    pub(crate) arm: Arm,
    pub(crate) pods_per_second: f64,
    /// Scheduling attempts of kube-scheduler that did not end with a bound pod.
    pub(crate) failed_attempts: u64,
    /// Of berth-scheduler, where there is one, when the last pod was bound.
    pub(crate) berth_memory: Option<Memory>,
}

/// All rounds of one arm.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) arm: Arm,
    /// Median of the rounds.
    pub(crate) pods_per_second: f64,
    /// Over the in-tree arm of the same round; the median of those.
    pub(crate) ratio_to_in_tree: f64,
}

/// Runs the bench.
///
/// # Errors
/// The control plane does not come up, or an arm does not place its pods in time.
pub(crate) fn run(args: &SchedulerArgs) -> Result<Figures> {
    ensure!(args.nodes > 0 && args.rounds > 0, "every number must be above zero");
    ensure!(args.pods > 1, "--pods: a rate needs two pods");
    let room = args.nodes * pods::PODS_PER_NODE;
    ensure!(args.pods < room, "--pods: {} nodes have room for {room} pods, one of which is the warm-up", args.nodes);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut site = Site::start(args).await?;
        let mut rounds = Vec::new();
        for number in 0..args.rounds {
            let mut order = Arm::ALL;
            order.rotate_left(number % Arm::ALL.len());
            let mut round = Vec::new();
            for arm in order {
                let figures = site.run(arm, args.pods).await.with_context(|| format!("round {number}, {arm:?}"))?;
                eprintln!("round {number}: {arm:?} {} pods/s", figures.pods_per_second);
                round.push(figures);
            }
            rounds.push(round);
        }
        Ok(Figures { options: serde_json::to_value(args)?, arms: summarize(&rounds), rounds })
    })
}

fn summarize(rounds: &[Vec<ArmFigures>]) -> Vec<Summary> {
    let rate = |round: &[ArmFigures], arm| round.iter().find(|f| f.arm == arm).map_or(0.0, |f| f.pods_per_second);
    let summary = |arm| Summary {
        arm,
        pods_per_second: median(&rounds.iter().map(|round| rate(round, arm)).collect::<Vec<_>>()),
        ratio_to_in_tree: median(
            &rounds.iter().map(|round| ratio(rate(round, arm), rate(round, Arm::InTree))).collect::<Vec<_>>(),
        ),
    };
    Arm::ALL.map(summary).into()
}

#[cfg(test)]
mod tests;
