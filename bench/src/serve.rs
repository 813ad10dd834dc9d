//! The bench of the extender's calls: the real HTTP stack and decisions over an index of many nodes, against an echo on the
//! same stack, in one process on one keep-alive connection each.
//!
//! Each of the two servers has one thread of its own; the caller has another. So a call costs both arms the same way: socket,
//! HTTP, a body in and a body out. What the extender takes beyond the echo is Berth's.

pub(crate) mod cases;
mod churn;
mod cluster;
mod echo;
mod events;
mod pod;
mod scale;
pub(crate) mod stage;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::ServeArgs;
use crate::host::Memory;
use crate::sample::ratio;
use cases::{Case, CaseFigures, List, Verb};
use events::EventFigures;
use scale::Scale;
use stage::Stage;

/// What came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// The arguments.
    pub(crate) options: Value,
    /// GPUs of all nodes, and how many of them pods held before the first call.
    pub(crate) gpus: usize,
    /// See `gpus`.
    pub(crate) held_gpus: usize,
    /// Every combination of verb, number of names, list and churn.
    pub(crate) cases: Vec<CaseFigures>,
    /// How the extender's p50 grows from the smallest to the largest number of names.
    pub(crate) growth: Vec<Growth>,
    /// CPU time of a decision in a small and in a large cluster.
    pub(crate) scale: Vec<Scale>,
    /// Events of the API in the full index.
    pub(crate) events: EventFigures,
    /// Before the first call: nodes, reports and pods are in.
    pub(crate) memory_filled: Memory,
    /// After the last call. The caller's bodies are in it too.
    pub(crate) memory_ended: Memory,
}

/// How one call grows with the names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Growth {
    pub(crate) verb: Verb,
    pub(crate) list: List,
    pub(crate) churn: bool,
    /// Names asked with, in the smallest and the largest case.
    pub(crate) names: (usize, usize),
    /// The extender's p50 of the largest case over that of the smallest.
    pub(crate) p50_ratio: f64,
}

/// Runs the bench.
///
/// # Errors
/// The arguments make no run, or an answer is not what the extender's contract says: a defect.
pub(crate) fn run(args: &ServeArgs) -> Result<Figures> {
    ensure!(args.nodes > 0 && args.rounds > 0 && args.calls > 0 && args.events > 0, "every number must be above zero");
    ensure!(
        !args.names.is_empty() && args.names.iter().all(|names| (1..=args.nodes).contains(names)),
        "--names: every number must be between 1 and --nodes ({})",
        args.nodes
    );
    eprintln!("filling an index with {} nodes", args.nodes);
    let filled = cluster::fill(args.nodes, args.full_percent)?;
    let (gpus, held_gpus) = (filled.gpus, filled.held_gpus);
    let memory_filled = Memory::now();
    let mut stage = Stage::open(filled, args)?;
    let mut cases = Vec::new();
    for case in every_case(&args.names) {
        cases.push(stage.measure(case, args)?);
    }
    let events = events::measure(stage.cluster(), args.events)?;
    let memory_ended = Memory::now();
    drop(stage);
    let scale = scale::measure(args)?;
    Ok(Figures {
        options: serde_json::to_value(args)?,
        gpus,
        held_gpus,
        growth: growth(&cases),
        cases,
        scale,
        events,
        memory_filled,
        memory_ended,
    })
}

fn every_case(names: &[usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    for list in [List::Short, List::All] {
        for churn in [false, true] {
            for &names in names {
                cases.extend([Verb::Filter, Verb::Prioritize].map(|verb| Case { verb, names, list, churn }));
            }
        }
    }
    cases
}

fn growth(cases: &[CaseFigures]) -> Vec<Growth> {
    let mut growth: Vec<Growth> = Vec::new();
    for small in cases {
        let same = |one: &&CaseFigures| (one.verb, one.list, one.churn) == (small.verb, small.list, small.churn);
        let Some(large) = cases.iter().filter(same).max_by_key(|one| one.names) else { continue };
        let is_smallest = cases.iter().filter(same).all(|one| one.names >= small.names);
        if is_smallest && large.names > small.names {
            growth.push(Growth {
                verb: small.verb,
                list: small.list,
                churn: small.churn,
                names: (small.names, large.names),
                p50_ratio: ratio(large.extender.p50_us, small.extender.p50_us),
            });
        }
    }
    growth
}

#[cfg(test)]
mod tests;
