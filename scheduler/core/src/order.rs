//! From scores to answers: which nodes a filter answer names, and the integers of a prioritize answer.
//!
//! kube-scheduler breaks equal scores at random, and one step of ours (weight 200 x 10) outweighs all its own scores. So
//! either every node has a rank of its own, or equal ranks say: here the choice is yours.

use std::collections::{BTreeMap, BinaryHeap};

use crate::policy::ShortList;
use crate::score::{Ppm, Score};

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
    /// Whether it is outside of the clique that the pod's group is in.
    pub is_outside: bool,
}

impl Candidate {
    /// What orders it.
    #[must_use]
    pub fn key(&self) -> Key {
        let key = Key::of(self.score, self.name_rank);
        if self.is_outside { key.outside() } else { key }
    }
}

/// What orders nodes, as one integer: the least is best. Thousands are compared in every call, most of them with equal scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

/// Largest value that the order tells apart. Scores are parts per million.
const VALUE_MAX: u32 = 0x3fff_ffff;
const DISTRUST: u64 = 1 << 63;
const OUTSIDE: u64 = 1 << 62;

impl Key {
    /// Comes after every node.
    pub const LAST: Self = Self(u64::MAX);
    /// Stands where a key is not known yet. No node has it.
    pub const UNKNOWN: Self = Self(u64::MAX - 1);

    /// Trusted before not, then the better score, then the name.
    #[must_use]
    pub fn of(score: Score, name_rank: u32) -> Self {
        let distrust = if score.is_trusted { 0 } else { DISTRUST };
        let lack = u64::from(VALUE_MAX.saturating_sub(score.value.0)) << 32;
        Self(distrust | lack | u64::from(name_rank))
    }

    /// The same for a node outside of the clique that the pod's group is in: behind all trusted ones inside.
    #[must_use]
    pub fn outside(self) -> Self {
        Self(self.0 | OUTSIDE)
    }

    fn is_outside(self) -> bool {
        self.0 & OUTSIDE != 0
    }

    /// The score that it was made of.
    #[must_use]
    pub fn score(self) -> Score {
        let lack = u32::try_from((self.0 & !DISTRUST & !OUTSIDE) >> 32).unwrap_or(VALUE_MAX);
        Score { is_trusted: self.0 & DISTRUST == 0, value: Ppm(VALUE_MAX.saturating_sub(lack)) }
    }
}

/// A key before a position.
type Keyed = (Key, usize);

fn keyed((position, candidate): (usize, &Candidate)) -> Keyed {
    (candidate.key(), position)
}

/// Positions of all candidates, best first.
#[must_use]
pub fn ranked(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<Keyed> = candidates.iter().enumerate().map(keyed).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, position)| position).collect()
}

/// Positions of the candidates that a filter answer names. A list that leaves nobody out is in the order of the candidates, any other
/// is what [`Selection`] keeps, best first.
#[must_use]
pub fn short_list(candidates: &[Candidate], size: Option<usize>, list: ShortList) -> Vec<usize> {
    let Some(size) = size.filter(|s| *s < candidates.len()) else {
        return (0..candidates.len()).collect();
    };
    let mut selection = Selection::new(size, list.per_zone);
    for (position, candidate) in candidates.iter().enumerate() {
        selection.offer(candidate.key(), position, candidate.zone, candidate.is_avoided);
    }
    selection.finish()
}

/// Keeps the best `size` of all nodes, and the best few of every zone and of the nodes without `PreferNoSchedule` taint, so that
/// kube-scheduler still has something to choose from. Linear in the nodes: the best few need no order among the rest.
#[derive(Debug)]
pub struct Selection {
    size: usize,
    best: BinaryHeap<Keyed>,
    per_zone: usize,
    untainted: Vec<Keyed>,
    zones: Vec<Vec<Keyed>>,
    /// Zones of which enough nodes are kept.
    full_zones: usize,
}

impl Selection {
    /// An empty selection.
    #[must_use]
    pub fn new(size: usize, per_zone: usize) -> Self {
        Self { size, best: BinaryHeap::new(), per_zone, untainted: Vec::new(), zones: Vec::new(), full_zones: 0 }
    }

    /// Takes a node if it is among the best so far, and says whether. Zones are numbered from 0.
    pub fn offer(&mut self, key: Key, position: usize, zone: Option<u32>, is_avoided: bool) -> bool {
        let one = (key, position);
        let mut is_taken = true;
        if self.best.len() < self.size {
            self.best.push(one);
        } else {
            match self.best.peek_mut() {
                Some(mut worst) if one < *worst => *worst = one,
                Some(_) | None => is_taken = false,
            }
        }
        if self.per_zone == 0 {
            return is_taken;
        }
        if !is_avoided {
            is_taken |= keep_best(&mut self.untainted, one, self.per_zone);
        }
        let Some(zone) = zone.and_then(|z| usize::try_from(z).ok()) else { return is_taken };
        if self.zones.len() <= zone {
            self.zones.resize_with(zone.saturating_add(1), Vec::new);
        }
        if let Some(kept) = self.zones.get_mut(zone) {
            let was_full = kept.len() >= self.per_zone;
            is_taken |= keep_best(kept, one, self.per_zone);
            self.full_zones = self.full_zones.saturating_add(usize::from(!was_full && kept.len() >= self.per_zone));
        }
        is_taken
    }

    /// Whether nothing is taken any more that is worse than all that was offered, where there are so many zones.
    #[must_use]
    pub fn is_settled(&self, zone_count: usize) -> bool {
        let has_all_parts = self.untainted.len() >= self.per_zone && self.full_zones >= zone_count;
        self.best.len() >= self.size && (self.per_zone == 0 || has_all_parts)
    }

    /// The positions that were kept, best first.
    #[must_use]
    pub fn finish(self) -> Vec<usize> {
        let mut kept = self.best.into_vec();
        kept.extend(self.untainted);
        kept.extend(self.zones.into_iter().flatten());
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|(_, position)| position).collect()
    }
}

/// Keeps `kept` the best `count`, best first; says whether `one` is among them.
#[inline]
fn keep_best(kept: &mut Vec<Keyed>, one: Keyed, count: usize) -> bool {
    if kept.len() >= count && kept.last().is_some_and(|worst| *worst <= one) {
        return false;
    }
    kept.insert(kept.partition_point(|k| *k <= one), one);
    kept.truncate(count);
    true
}

/// Wire scores that leave nothing to chance: the worst node gets 1, every better one a step more.
#[must_use]
pub fn unique_ranks(keys: &[Key]) -> Vec<i64> {
    let mut order: Vec<Keyed> = keys.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let mut scores = vec![0_i64; keys.len()];
    for (score, (_, position)) in (1_i64..).zip(order.into_iter().rev()) {
        if let Some(place) = scores.get_mut(position) {
            *place = score;
        }
    }
    scores
}

/// Narrowest class of [`soft_ranks`], in parts per million: two of eight GPUs with their cpu and memory, under the default weights.
/// Nodes that differ by less are alike to a pod that kube-scheduler spreads; else its replicas would stack on the first one's node.
const CLASS_WIDTH_MIN: u32 = 100_000;

/// Wire scores in at most `steps` classes, of nodes with the zones of their labels: inside a class the choice is kube-scheduler's. So is
/// the choice of the zone: a node's class is by how far it is behind the best of its own zone, else the zone that has the fullest
/// nodes would get all replicas. The classes part what lies between the best and the worst score of a zone, since most of a score
/// may be the same on all nodes. Nodes that are not trusted get 0.
#[must_use]
pub fn soft_ranks(nodes: &[(Key, Option<u32>)], steps: u32) -> Vec<i64> {
    let mut bests: BTreeMap<Option<u32>, u32> = BTreeMap::new();
    let scores = || nodes.iter().map(|(key, zone)| (key.score(), *zone));
    for (score, zone) in scores().filter(|(score, _)| score.is_trusted) {
        let best = bests.entry(zone).or_default();
        *best = score.value.0.max(*best);
    }
    let behind = |score: Score, zone| bests.get(&zone).map_or(0, |best| best.saturating_sub(score.value.0));
    let trusted = scores().filter(|(score, _)| score.is_trusted);
    let range = trusted.map(|(score, zone)| behind(score, zone)).max().unwrap_or(0);
    let steps = steps.max(1);
    // Rounded up past the range, so that the worst is in the last class.
    let width = range.checked_div(steps).unwrap_or(0).saturating_add(1).max(CLASS_WIDTH_MIN);
    // Outside of the group's clique the best is behind the worst inside.
    let has_outside = nodes.iter().any(|(key, _)| key.is_outside());
    let class = |(key, zone): &(Key, Option<u32>)| {
        let classes = behind(key.score(), *zone).checked_div(width).unwrap_or(0);
        let rank = steps.saturating_sub(classes).max(1);
        let rank = if has_outside && !key.is_outside() { rank.saturating_add(steps) } else { rank };
        if key.score().is_trusted { i64::from(rank) } else { 0 }
    };
    nodes.iter().map(class).collect()
}

#[cfg(test)]
mod tests;
