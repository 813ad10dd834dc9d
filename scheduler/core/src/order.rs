//! From scores to answers: which nodes a filter answer names, and the integers of a prioritize answer.
//!
//! kube-scheduler breaks equal scores at random, and one step of ours (weight 200 x 10) outweighs all its own scores. So
//! either every node has a rank of its own, or equal ranks say: here the choice is yours.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::policy::ShortList;
use crate::score::Score;

/// One node that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Node name: the last tie-break, so that equal clusters give equal answers.
    pub name: &'a str,
    /// How good it is.
    pub score: Score,
    /// Value of the zone label, where there is one.
    pub zone: Option<&'a str>,
    /// Whether it carries a `PreferNoSchedule` taint.
    pub is_avoided: bool,
}

fn key<'a>(c: &Candidate<'a>) -> (Reverse<Score>, &'a str) {
    (Reverse(c.score), c.name)
}

/// Positions of all candidates, best first.
#[must_use]
pub fn ranked(candidates: &[Candidate<'_>]) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..candidates.len()).collect();
    positions.sort_unstable_by_key(|p| candidates.get(*p).map(key));
    positions
}

/// Positions of the candidates that a filter answer names, best first: the best `size` of all, and the best few of every
/// zone and of the nodes without `PreferNoSchedule` taint, so that kube-scheduler still has something to choose from.
#[must_use]
pub fn short_list(candidates: &[Candidate<'_>], size: Option<usize>, list: ShortList) -> Vec<usize> {
    let Some(size) = size.filter(|s| *s < candidates.len()) else {
        return ranked(candidates);
    };
    let mut best: Vec<usize> = (0..candidates.len()).collect();
    let sort_key = |p: &usize| candidates.get(*p).map(key);
    // The best few need no order among the rest: this is linear in the nodes.
    if let Some(last) = size.checked_sub(1) {
        best.select_nth_unstable_by_key(last, sort_key);
    }
    best.truncate(size);
    let mut strata: BTreeMap<(Option<&str>, bool), Vec<usize>> = BTreeMap::new();
    if list.per_zone > 0 {
        for (position, candidate) in candidates.iter().enumerate() {
            if let Some(zone) = candidate.zone {
                keep_best(strata.entry((Some(zone), false)).or_default(), position, list.per_zone, candidates);
            }
            if !candidate.is_avoided {
                keep_best(strata.entry((None, true)).or_default(), position, list.per_zone, candidates);
            }
        }
    }
    best.extend(strata.into_values().flatten());
    best.sort_unstable_by_key(sort_key);
    best.dedup();
    best
}

/// Keeps `kept` the best `count` positions, best first.
fn keep_best(kept: &mut Vec<usize>, position: usize, count: usize, candidates: &[Candidate<'_>]) {
    let rank = |p: usize| candidates.get(p).map(key);
    if kept.len() >= count && kept.last().is_some_and(|worst| rank(*worst) <= rank(position)) {
        return;
    }
    let at = kept.partition_point(|k| rank(*k) <= rank(position));
    kept.insert(at, position);
    kept.truncate(count);
}

/// Wire scores that leave nothing to chance: the worst node gets 1, every better one a step more.
#[must_use]
pub fn unique_ranks(candidates: &[Candidate<'_>]) -> Vec<i64> {
    let mut scores = vec![0_i64; candidates.len()];
    for (rank, position) in ranked(candidates).into_iter().rev().enumerate() {
        if let Some(score) = scores.get_mut(position) {
            *score = i64::try_from(rank).unwrap_or(i64::MAX).saturating_add(1);
        }
    }
    scores
}

/// Wire scores in `steps` classes: inside a class the choice is kube-scheduler's. Nodes that are not trusted get 0.
#[must_use]
pub fn soft_ranks(candidates: &[Candidate<'_>], steps: u32) -> Vec<i64> {
    let steps = u64::from(steps.max(1));
    let step = |c: &Candidate<'_>| {
        if !c.score.is_trusted {
            return 0;
        }
        let below_one = u64::from(c.score.value.0).min(999_999);
        let class = below_one.saturating_mul(steps) / 1_000_000;
        i64::try_from(class).unwrap_or(0).saturating_add(1)
    };
    candidates.iter().map(step).collect()
}

#[cfg(test)]
mod tests;
