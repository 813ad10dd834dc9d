//! From scores to answers: which nodes a filter answer names, and the integers of a prioritize answer.
//!
//! kube-scheduler breaks equal scores at random, and one step of ours (weight 200 x 10) outweighs all its own scores. So
//! either every node has a rank of its own, or equal ranks say: here the choice is yours.

use std::collections::BTreeMap;

use crate::policy::ShortList;
use crate::score::Score;

/// One node that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Place of its name among all names: the last tie-break, so that equal clusters give equal answers.
    pub name_rank: u32,
    /// How good it is.
    pub score: Score,
    /// Number of the zone that its label names, where there is one.
    pub zone: Option<u32>,
    /// Whether it carries a `PreferNoSchedule` taint.
    pub is_avoided: bool,
}

/// A position in the candidates behind what orders it, best first. Thousands are compared in every call, most of them with
/// equal scores, so the order is one integer.
type Keyed = (u64, usize);

/// Largest value that the order tells apart. Scores are parts per million.
const VALUE_MAX: u32 = 0x7fff_ffff;

fn keyed((position, candidate): (usize, &Candidate)) -> Keyed {
    let Score { is_trusted, value } = candidate.score;
    let distrust = u64::from(!is_trusted) << 63;
    let lack = u64::from(VALUE_MAX.saturating_sub(value.0)) << 32;
    (distrust | lack | u64::from(candidate.name_rank), position)
}

/// Positions of all candidates, best first.
#[must_use]
pub fn ranked(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<Keyed> = candidates.iter().enumerate().map(keyed).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, position)| position).collect()
}

/// Positions of the candidates that a filter answer names, best first: the best `size` of all, and the best few of every
/// zone and of the nodes without `PreferNoSchedule` taint, so that kube-scheduler still has something to choose from.
#[must_use]
pub fn short_list(candidates: &[Candidate], size: Option<usize>, list: ShortList) -> Vec<usize> {
    let Some(size) = size.filter(|s| *s < candidates.len()) else {
        return ranked(candidates);
    };
    let mut best: Vec<Keyed> = candidates.iter().enumerate().map(keyed).collect();
    // The nodes without the taint are the stratum `None`.
    let mut strata: BTreeMap<Option<u32>, Vec<Keyed>> = BTreeMap::new();
    if list.per_zone > 0 {
        for (candidate, key) in candidates.iter().zip(&best) {
            let untainted = (!candidate.is_avoided).then_some(None);
            for stratum in [untainted, candidate.zone.map(Some)].into_iter().flatten() {
                keep_best(strata.entry(stratum).or_default(), *key, list.per_zone);
            }
        }
    }
    // The best few need no order among the rest: this is linear in the nodes.
    if let Some(last) = size.checked_sub(1) {
        best.select_nth_unstable(last);
    }
    best.truncate(size);
    best.extend(strata.into_values().flatten());
    best.sort_unstable();
    best.dedup();
    best.into_iter().map(|(_, position)| position).collect()
}

/// Keeps `kept` the best `count`, best first.
fn keep_best(kept: &mut Vec<Keyed>, one: Keyed, count: usize) {
    if kept.len() >= count && kept.last().is_some_and(|worst| *worst <= one) {
        return;
    }
    kept.insert(kept.partition_point(|k| *k <= one), one);
    kept.truncate(count);
}

/// Wire scores that leave nothing to chance: the worst node gets 1, every better one a step more.
#[must_use]
pub fn unique_ranks(candidates: &[Candidate]) -> Vec<i64> {
    let mut scores = vec![0_i64; candidates.len()];
    for (rank, position) in ranked(candidates).into_iter().rev().enumerate() {
        if let Some(score) = scores.get_mut(position) {
            *score = i64::try_from(rank).unwrap_or(i64::MAX).saturating_add(1);
        }
    }
    scores
}

/// Narrowest class of [`soft_ranks`], in parts per million: two of eight GPUs with their cpu and memory, under the default weights.
/// Nodes that differ by less are alike to a pod that kube-scheduler spreads; else its replicas would stack on the first one's node.
const CLASS_WIDTH_MIN: u32 = 100_000;

/// Wire scores in at most `steps` classes: inside a class the choice is kube-scheduler's. The classes part what lies between the best
/// and the worst score of the call, since most of a score may be the same on all nodes. Nodes that are not trusted get 0.
#[must_use]
pub fn soft_ranks(candidates: &[Candidate], steps: u32) -> Vec<i64> {
    let trusted = || candidates.iter().filter(|c| c.score.is_trusted).map(|c| c.score.value.0);
    let best = trusted().max().unwrap_or(0);
    let range = best.saturating_sub(trusted().min().unwrap_or(0));
    let steps = steps.max(1);
    // Rounded up past the range, so that the worst is in the last class.
    let width = range.checked_div(steps).unwrap_or(0).saturating_add(1).max(CLASS_WIDTH_MIN);
    let class = |c: &Candidate| {
        let behind = best.saturating_sub(c.score.value.0).checked_div(width).unwrap_or(0);
        if c.score.is_trusted { i64::from(steps.saturating_sub(behind).max(1)) } else { 0 }
    };
    candidates.iter().map(class).collect()
}

#[cfg(test)]
mod tests;
