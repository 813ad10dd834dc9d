//! Which GPUs of a node: the best set of a size among those that are free. MIG instances are in [`mig`].

pub mod mig;

pub mod share;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use berth_model::{GpuIndex, GpuSet, LinkClass, NicSet};

use crate::demand::Shape;
use crate::fabric::{Fabric, Matched, Rails};
use crate::wish::{Force, LinkWish};

/// What a set must and should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Whole GPUs.
    pub size: u32,
    /// Worst link inside.
    pub link: Option<LinkWish>,
    /// A rail for every GPU.
    pub rail: Force,
    /// One zone.
    pub zone: Force,
}

impl Rule {
    /// The rule of a demand.
    #[must_use]
    pub fn of(shape: &Shape) -> Self {
        Self { size: shape.gpu_count, link: shape.link, rail: shape.rail, zone: shape.zone }
    }

    /// Whether every set of the size is as welcome as any other.
    #[must_use]
    pub fn is_plain(self) -> bool {
        let is_any = self.link.is_none_or(|l| l.least == LinkClass::Unknown);
        is_any && self.rail == Force::Off && self.zone == Force::Off
    }

    /// The same rule without any hard or soft wish on rails, zone and link.
    #[must_use]
    pub fn link_only(self) -> Self {
        Self { rail: Force::Off, zone: Force::Off, ..self }
    }

    /// The same rule without the zone.
    #[must_use]
    pub fn without_zone(self) -> Self {
        Self { zone: Force::Off, ..self }
    }
}

/// How good a set is; the order of the fields is the order of what counts.
///
/// Met wishes first, then how many GPUs get a NIC of their own where rails are wished, then how good the set is together with how
/// good the sets are that it leaves, then nearer NICs, then the lowest positions, so that there is one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    wishes_met: u32,
    railed: u32,
    value: u32,
    nearest: u32,
    lowest: Reverse<u32>,
}

/// What is free on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Free {
    /// GPUs.
    pub gpus: GpuSet,
    /// NICs, as positions in the report. They matter to rules with a rail only.
    pub nics: NicSet,
}

/// Chooses sets. Implementations must answer as [`choose`] does; they may remember answers.
pub trait Chooser {
    /// The best set of the rule's size inside `free`, or none that satisfies it.
    fn choose(&mut self, fabric: &Arc<Fabric>, free: Free, rule: Rule) -> Option<GpuSet>;
}

/// Chooses afresh every time.
#[derive(Debug, Default)]
pub struct Afresh;

impl Chooser for Afresh {
    fn choose(&mut self, fabric: &Arc<Fabric>, free: Free, rule: Rule) -> Option<GpuSet> {
        choose(fabric, free, rule)
    }
}

/// Up to this many choices are compared one by one; above it the set is grown. 16 GPUs need at most 12,870.
const EXACT_CHOICES_MAX: u64 = 20_000;

/// The best set of the rule's size inside `free`.
///
/// Without wishes it is a look-up in the fabric's table, with wishes the best of all legal sets: exact up to 16 GPUs. On larger
/// machines it is exact among at most 20,000 choices, whose quality is then the sum of their link values; beyond that the set grows from
/// every GPU and the best of those is taken.
#[must_use]
pub fn choose(fabric: &Fabric, free: Free, rule: Rule) -> Option<GpuSet> {
    if rule.size == 0 {
        return Some(GpuSet::EMPTY);
    }
    let tabled = if rule.is_plain() { fabric.tabled(free.gpus, rule.size) } else { None };
    if let Some(best) = tabled {
        return best;
    }
    let judge = Judge::of(fabric, rule, free.nics);
    let eligible = if rule.rail == Force::Required { free.gpus.and(judge.railed()) } else { free.gpus };
    if choices(eligible.gpu_count(), rule.size) > EXACT_CHOICES_MAX {
        return grow(fabric, eligible, rule.size).filter(|set| judge.satisfies(*set));
    }
    let legal = eligible.subsets(rule.size).filter(|set| judge.satisfies(*set));
    legal.max_by_key(|set| judge.worth(free.gpus, *set))
}

/// Judges sets by one rule on one node, as far as NICs are free there.
#[derive(Debug)]
pub struct Judge<'f> {
    fabric: &'f Fabric,
    rule: Rule,
    /// Where rails are wished.
    rails: Option<Cow<'f, Rails>>,
}

impl<'f> Judge<'f> {
    /// The judge of a rule where these NICs are free.
    #[must_use]
    pub fn of(fabric: &'f Fabric, rule: Rule, nics: NicSet) -> Self {
        Self { fabric, rule, rails: (rule.rail != Force::Off).then(|| fabric.rails_of(nics)) }
    }

    /// Whether the set meets every required wish of the rule.
    #[must_use]
    pub fn satisfies(&self, set: GpuSet) -> bool {
        let link = self.rule.link.filter(|l| l.force == Force::Required);
        let link_met = link.is_none_or(|l| self.is_linked(set, l));
        let rail_met = self.rule.rail != Force::Required || self.is_railed(set);
        let zone_met = self.rule.zone != Force::Required || self.fabric.zone(set).is_some();
        link_met && rail_met && zone_met
    }

    /// How many wishes the rule prefers, and how many of them the set meets.
    #[must_use]
    pub fn preferred(&self, set: GpuSet) -> (u32, u32) {
        let link = self.rule.link.filter(|l| l.force == Force::Preferred).map(|l| self.is_linked(set, l));
        let rail = (self.rule.rail == Force::Preferred).then(|| self.is_railed(set));
        let zone = (self.rule.zone == Force::Preferred).then(|| self.fabric.zone(set).is_some());
        [link, rail, zone]
            .into_iter()
            .flatten()
            .fold((0, 0), |(wished, met), is_met| (wished.saturating_add(1), met.saturating_add(u32::from(is_met))))
    }

    /// The NIC of every GPU of the set that gets one, as position in the report: none where no rail is wished.
    #[must_use]
    pub fn nics(&self, set: GpuSet) -> Vec<(GpuIndex, usize)> {
        self.rails.as_ref().map_or_else(Vec::new, |rails| rails.assign(set))
    }

    fn railed(&self) -> GpuSet {
        self.rails.as_ref().map_or(GpuSet::EMPTY, |rails| rails.gpus())
    }

    fn is_railed(&self, set: GpuSet) -> bool {
        self.rails.as_ref().is_some_and(|rails| rails.serves(set))
    }

    fn is_linked(&self, set: GpuSet, wish: LinkWish) -> bool {
        self.fabric.weakest(set).is_none_or(|weakest| weakest >= wish.least)
    }

    fn worth(&self, free: GpuSet, set: GpuSet) -> Worth {
        let (_, wishes_met) = self.preferred(set);
        let matched = self.rails.as_ref().map_or_else(Matched::default, |rails| rails.matched(set));
        let value = self.fabric.worth(free, set);
        let lowest = Reverse(set.bits());
        Worth { wishes_met, railed: matched.gpu_count, value, nearest: matched.nearest_count, lowest }
    }
}

/// Grows a set from every free GPU by the nearest next one, and takes the best of those.
pub(crate) fn grow(fabric: &Fabric, free: GpuSet, size: u32) -> Option<GpuSet> {
    let grown = free.iter().filter_map(|start| {
        let mut set = GpuSet::EMPTY.with(start);
        while set.gpu_count() < size {
            let near = |i: GpuIndex| set.iter().map(|m| u64::from(fabric.pair_value(m, i))).sum::<u64>();
            let next = free.minus(set).iter().max_by_key(|i| (near(*i), Reverse(*i)))?;
            set = set.with(next);
        }
        Some(set)
    });
    grown.max_by_key(|set| (fabric.weakest(*set), fabric.inside(*set), Reverse(set.bits())))
}

/// How many sets of `size` out of `count` there are, capped.
fn choices(count: u32, size: u32) -> u64 {
    let size = size.min(count.saturating_sub(size));
    let mut result = 1_u64;
    for i in 0..u64::from(size) {
        result = result.saturating_mul(u64::from(count).saturating_sub(i)) / i.saturating_add(1);
    }
    result
}

#[cfg(test)]
mod tests;
