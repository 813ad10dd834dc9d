//! `sets`: which GPUs jobs get under Berth and under its peers, and how long the choice takes on 16 GPUs.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use berth_core::Fabric;
use berth_core::place::{Free, choose};
use berth_model::{GpuSet, NicSet};
use berth_pack::sets::allocator::Allocator;
use berth_pack::sets::ideal::Ideal;
use berth_pack::sets::machine::{Kind, report, sixteen};
use berth_pack::sets::policy::{NAMES, plain, policy};
use berth_pack::sets::replay::{Outcome, Protocol, replay};
use serde::Serialize;

use crate::args::SetsArgs;

/// All kinds of machines under all policies, and the times.
#[derive(Debug, Serialize)]
pub(crate) struct Sets {
    #[serde(flatten)]
    args: SetsArgs,
    runs: Vec<Run>,
    choice: Choice,
}

/// The mean of all seeds.
#[derive(Debug, Serialize)]
struct Run {
    machine: &'static str,
    policy: &'static str,
    /// Jobs that got GPUs, percent.
    accepted_pct: f64,
    /// Of the multi-GPU jobs that got GPUs those that got an ideal set, percent.
    at_ideal_pct: f64,
    /// Their mean ring, percent of the best of their size.
    ring_pct: f64,
}

/// Four of sixteen free GPUs with any links.
#[derive(Debug, Serialize)]
struct Choice {
    /// Partitions that go-gpuallocator's objective looks at.
    partitions: u64,
    enumeration_us: f64,
    /// The tables of the kind of machine, made once when its first report comes.
    tables_us: f64,
    /// The first choice for these free GPUs.
    search_us: f64,
    /// Every other.
    look_up_us: f64,
    /// Enumeration against look-up.
    ratio: f64,
}

/// Runs `sets`.
///
/// # Errors
/// A machine of the bench that is none: a defect.
pub(crate) fn run(args: &SetsArgs) -> Result<Sets> {
    let protocol = Protocol { nodes: args.nodes, jobs: args.jobs, load: args.load };
    let mut runs = Vec::new();
    for (machine, kind) in Kind::ALL {
        let topology = report(kind)?;
        let ideal = Ideal::of(&topology);
        for name in NAMES {
            let mut outcomes = Vec::new();
            for seed in &args.seed {
                outcomes.push(replay(protocol, *seed, &ideal, &mut *policy(name, &topology)?));
            }
            let mean = |value: fn(&Outcome) -> f64| {
                percent(outcomes.iter().map(value).sum::<f64>() / outcomes.len().max(1) as f64)
            };
            let run = Run {
                machine,
                policy: name,
                accepted_pct: mean(|o| o.accepted),
                at_ideal_pct: mean(|o| o.at_ideal),
                ring_pct: mean(|o| o.ring_quality),
            };
            eprintln!("{machine} {name}: {} % at ideal, {} % accepted", run.at_ideal_pct, run.accepted_pct);
            runs.push(run);
        }
    }
    Ok(Sets { args: args.clone(), runs, choice: time()? })
}

fn percent(share: f64) -> f64 {
    (share * 100_000.0).round() / 1000.0
}

/// So many look-ups are timed together: one is nanoseconds.
const LOOK_UPS: u32 = 1_000_000;

fn time() -> Result<Choice> {
    let machine = sixteen()?;
    let free = GpuSet::first(16);
    let us = |start: Instant| start.elapsed().as_secs_f64() * 1e6;
    let allocator = Allocator::of(&machine);
    let start = Instant::now();
    let partitions = black_box(allocator.choose(black_box(free), 4)).map_or(0, |(_, count)| count);
    let enumeration_us = us(start);
    let fabric = Fabric::of(&machine);
    let start = Instant::now();
    fabric.prepare();
    let tables_us = us(start);
    let one = || choose(&fabric, Free { gpus: black_box(free), nics: NicSet::EMPTY }, plain(4));
    let start = Instant::now();
    black_box(one());
    let search_us = us(start);
    let start = Instant::now();
    for _ in 0..LOOK_UPS {
        black_box(one());
    }
    let look_up_us = us(start) / f64::from(LOOK_UPS);
    Ok(Choice {
        partitions,
        enumeration_us,
        tables_us,
        search_us,
        look_up_us,
        ratio: (enumeration_us / look_up_us).round(),
    })
}
