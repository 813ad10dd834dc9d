//! MIG instances that come and go on many cards: how many requests each rule turns away, on the same draws.
//!
//! Requests arrive at random (Poisson) and live for a random time (exponential, mean 1). A request that fits nowhere is turned away and
//! does not come back. Counting begins after the first fifth. The load is the slots asked for at any moment, against those installed.

pub mod arrivals;
pub mod berth;
pub mod cluster;
pub mod frozen;
pub mod peers;
pub mod repack;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use arrivals::{MIXES, Mix};
use cluster::{Board, Rule, Tally};

/// How large a run is.
#[derive(Debug, Clone, Serialize)]
pub struct Protocol {
    /// Cards.
    pub gpu_count: usize,
    /// Cards of a node.
    pub gpus_per_node: usize,
    /// Requests per run.
    pub arrival_count: usize,
    /// One run each.
    pub seeds: Vec<u64>,
    /// Loads in percent.
    pub loads_percent: Vec<u32>,
    /// Rules by name; all where empty.
    pub policies: Vec<String>,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            gpu_count: 96,
            gpus_per_node: 8,
            arrival_count: 60_000,
            seeds: vec![0, 1, 2],
            loads_percent: vec![85, 95, 110],
            policies: Vec::new(),
        }
    }
}

/// Names of all rules with what they are, in the order of the answer.
pub const POLICIES: [(&str, &str); 11] = [
    ("first-fit", "the first card, lowest start"),
    ("best-fit", "the fullest card, lowest start"),
    ("hami", "the fullest card; 1g and 3g from the top, others from the bottom, as HAMi does"),
    ("das", "the node with the most free slots, its first card, lowest start, as InstaSlice does"),
    ("frag", "the least growth of blocked starts, after arXiv 2511.18906"),
    ("cap", "the least loss of further instances, plus a tenth of the free slots"),
    ("berth", "the table of berth-core at even prices"),
    ("berth-seen", "the same at prices from the demand seen so far"),
    ("repack", "every instance moved at will at every arrival: what no placement can beat for long"),
    ("frozen-even", "static layouts: 2x 1g, 2g and 3g on every card"),
    ("frozen-fitted", "static layouts: whole cards per profile, shared out by the mix"),
];

/// What one rule did at one load.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Rule.
    pub policy: &'static str,
    /// Load in percent.
    pub load_percent: u32,
    /// Percent of the requests turned away, by mix, mean of the seeds.
    pub rejected_pct: BTreeMap<&'static str, f64>,
    /// Percent of the slots asked for that were turned away, by mix, mean of the seeds.
    pub rejected_slots_pct: BTreeMap<&'static str, f64>,
    /// Sum over the mixes of what was turned away, against the sum of first-fit.
    pub ratio_to_first_fit: f64,
    /// The same of slots.
    pub slots_ratio_to_first_fit: f64,
}

/// What a run prints.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// How it was run.
    pub protocol: Protocol,
    /// Rule by rule, load by load.
    pub rows: Vec<Row>,
}

/// Runs the protocol.
///
/// # Errors
/// A rule that nobody knows, and a table of profiles that lacks one of the bench: a defect.
pub fn run(protocol: &Protocol) -> Result<Answer> {
    let board = Board::a100()?;
    let mut names: Vec<&'static str> = Vec::new();
    for (name, _) in POLICIES {
        if protocol.policies.is_empty() || name == "first-fit" || protocol.policies.iter().any(|p| p == name) {
            names.push(name);
        }
    }
    if let Some(unknown) = protocol.policies.iter().find(|p| !POLICIES.iter().any(|(name, _)| name == p)) {
        anyhow::bail!("policy {unknown:?} is none of {:?}", POLICIES.map(|(name, _)| name));
    }
    let mut rows = Vec::new();
    for load in &protocol.loads_percent {
        let mut first_fit = None;
        for name in &names {
            let tallies = MIXES.map(|mix| tally(protocol, &board, name, mix, *load));
            let mut done = Vec::with_capacity(tallies.len());
            for (mix, tally) in MIXES.iter().zip(tallies) {
                done.push((*mix, tally.with_context(|| format!("{name} under {}", mix.name))?));
            }
            let row = row(name, *load, &done, &mut first_fit);
            rows.push(row);
        }
    }
    Ok(Answer { protocol: protocol.clone(), rows })
}

/// All seeds of one rule at one load and mix.
fn tally(protocol: &Protocol, board: &Board, policy: &str, mix: Mix, load_percent: u32) -> Result<Vec<Tally>> {
    let one = |seed: &u64| {
        let requests = arrivals::draw(mix, load_percent, protocol.gpu_count, protocol.arrival_count, *seed);
        if policy == "repack" {
            return Ok(repack::run(&requests, protocol.gpu_count));
        }
        let mut rule: Box<dyn Rule> = match policy {
            "berth" => Box::new(berth::Table::even(board)),
            "berth-seen" => Box::new(berth::Table::of_demand_seen(board)),
            "frozen-even" => Box::new(frozen::Frozen::even(board, protocol.gpu_count)?),
            "frozen-fitted" => Box::new(frozen::Frozen::fitted(board, protocol.gpu_count, mix)?),
            _ => peers::by_name(policy, board).context("no such rule")?,
        };
        Ok(cluster::run(board, &requests, protocol.gpu_count, protocol.gpus_per_node, rule.as_mut()))
    };
    protocol.seeds.iter().map(one).collect()
}

fn row(policy: &'static str, load_percent: u32, done: &[(Mix, Vec<Tally>)], first_fit: &mut Option<(f64, f64)>) -> Row {
    let mean = |tallies: &[Tally], of: fn(&Tally) -> f64| tallies.iter().map(of).sum::<f64>() / count(tallies.len());
    let by = |of: fn(&Tally) -> f64| done.iter().map(|(mix, t)| (mix.name, mean(t, of))).collect::<BTreeMap<_, _>>();
    let (rejected_pct, rejected_slots_pct) = (by(Tally::rejected_pct), by(Tally::rejected_slots_pct));
    let sums = (rejected_pct.values().sum::<f64>(), rejected_slots_pct.values().sum::<f64>());
    let whole = *first_fit.get_or_insert(sums);
    Row {
        policy,
        load_percent,
        rejected_pct,
        rejected_slots_pct,
        ratio_to_first_fit: sums.0 / whole.0,
        slots_ratio_to_first_fit: sums.1 / whole.1,
    }
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
