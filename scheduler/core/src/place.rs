//! Which GPUs of a node: the best set of a size among those that are free. MIG instances are in [`mig`].

pub mod mig;

pub mod share;

use std::cmp::Reverse;
use std::sync::Arc;

use berth_model::{GpuIndex, GpuSet, LinkClass};

use crate::demand::Shape;
use crate::fabric::Fabric;
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
/// Met wishes first, then rails where they are wished, then how good the set is together with how good the sets are that it leaves,
/// then the lowest positions, so that there is one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    wishes_met: u32,
    railed: u32,
    value: u32,
    lowest: Reverse<u32>,
}

/// Chooses sets. Implementations must answer as [`choose`] does; they may remember answers.
pub trait Chooser {
    /// The best set of the rule's size inside `free`, or none that satisfies it.
    fn choose(&mut self, fabric: &Arc<Fabric>, free: GpuSet, rule: Rule) -> Option<GpuSet>;

    /// How good a card is for a share: the greatest is taken, equal ones by position.
    fn share_worth(&self, offer: &share::Offer) -> i64 {
        share::worth(offer)
    }
}

/// Chooses afresh every time.
#[derive(Debug, Default)]
pub struct Afresh;

impl Chooser for Afresh {
    fn choose(&mut self, fabric: &Arc<Fabric>, free: GpuSet, rule: Rule) -> Option<GpuSet> {
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
pub fn choose(fabric: &Fabric, free: GpuSet, rule: Rule) -> Option<GpuSet> {
    if rule.size == 0 {
        return Some(GpuSet::EMPTY);
    }
    let tabled = if rule.is_plain() { fabric.tabled(free, rule.size) } else { None };
    if let Some(best) = tabled {
        return best;
    }
    let eligible = if rule.rail == Force::Required { free.and(fabric.railed()) } else { free };
    if choices(eligible.gpu_count(), rule.size) > EXACT_CHOICES_MAX {
        return grow(fabric, eligible, rule.size).filter(|set| satisfies(fabric, *set, rule));
    }
    let legal = eligible.subsets(rule.size).filter(|set| satisfies(fabric, *set, rule));
    legal.max_by_key(|set| worth(fabric, free, *set, rule))
}

/// Whether the set meets every required wish of the rule.
#[must_use]
pub fn satisfies(fabric: &Fabric, set: GpuSet, rule: Rule) -> bool {
    let link = rule.link.filter(|l| l.force == Force::Required);
    let link_met = link.is_none_or(|l| link_meets(fabric, set, l));
    let rail_met = rule.rail != Force::Required || fabric.idle_rails().serves(set);
    let zone_met = rule.zone != Force::Required || fabric.zone(set).is_some();
    link_met && rail_met && zone_met
}

fn link_meets(fabric: &Fabric, set: GpuSet, wish: LinkWish) -> bool {
    fabric.weakest(set).is_none_or(|weakest| weakest >= wish.least)
}

/// How many wishes the rule prefers, and how many of them the set meets.
pub(crate) fn preferred(fabric: &Fabric, set: GpuSet, rule: Rule) -> (u32, u32) {
    let link = rule.link.filter(|l| l.force == Force::Preferred).map(|l| link_meets(fabric, set, l));
    let rail = (rule.rail == Force::Preferred).then(|| fabric.idle_rails().serves(set));
    let zone = (rule.zone == Force::Preferred).then(|| fabric.zone(set).is_some());
    [link, rail, zone]
        .into_iter()
        .flatten()
        .fold((0, 0), |(wished, met), is_met| (wished.saturating_add(1), met.saturating_add(u32::from(is_met))))
}

fn worth(fabric: &Fabric, free: GpuSet, set: GpuSet, rule: Rule) -> Worth {
    let (_, wishes_met) = preferred(fabric, set, rule);
    let railed = if rule.rail == Force::Off { 0 } else { fabric.idle_rails().matched(set).gpu_count };
    let value = fabric.quality(set).0.saturating_add(fabric.kept(free.minus(set)).0);
    Worth { wishes_met, railed, value, lowest: Reverse(set.bits()) }
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
