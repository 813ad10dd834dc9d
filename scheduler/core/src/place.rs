//! Which GPUs of a node: the best set of a size among those that are free.

use std::cmp::Reverse;
use std::sync::Arc;

use berth_model::{GpuSet, LinkClass};

use crate::demand::Shape;
use crate::fabric::{EXACT_CHOICES_MAX, Fabric, choices};
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
/// Met wishes first, then the weakest link (it bounds a collective), then all links inside, then one zone, then what stays
/// together outside, then the lowest positions, so that there is one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    wishes_met: u32,
    weakest: Option<LinkClass>,
    inside: u64,
    one_zone: bool,
    left_inside: u64,
    lowest: Reverse<u32>,
}

/// Chooses sets. Implementations must answer as [`choose`] does; they may remember answers.
pub trait Chooser {
    /// The best set of the rule's size inside `free`, or none that satisfies it.
    fn choose(&mut self, fabric: &Arc<Fabric>, free: GpuSet, rule: Rule) -> Option<GpuSet>;
}

/// Chooses afresh every time.
#[derive(Debug, Default)]
pub struct Afresh;

impl Chooser for Afresh {
    fn choose(&mut self, fabric: &Arc<Fabric>, free: GpuSet, rule: Rule) -> Option<GpuSet> {
        choose(fabric, free, rule)
    }
}

/// The best set of the rule's size inside `free`.
///
/// Exact where there are at most 20,000 choices (any 16 GPUs); beyond that the set grows greedily from every GPU and the
/// best of those is taken.
#[must_use]
pub fn choose(fabric: &Fabric, free: GpuSet, rule: Rule) -> Option<GpuSet> {
    let eligible = if rule.rail == Force::Required { free.and(fabric.railed()) } else { free };
    if rule.size == 0 {
        return Some(GpuSet::EMPTY);
    }
    if choices(eligible.gpu_count(), rule.size) > EXACT_CHOICES_MAX {
        return greedy(fabric, eligible, rule.size).filter(|set| satisfies(fabric, *set, rule));
    }
    let legal = eligible.subsets(rule.size).filter(|set| satisfies(fabric, *set, rule));
    legal.max_by_key(|set| worth(fabric, free, *set, rule))
}

/// Whether the set meets every required wish of the rule.
#[must_use]
pub fn satisfies(fabric: &Fabric, set: GpuSet, rule: Rule) -> bool {
    let link = rule.link.filter(|l| l.force == Force::Required);
    let link_met = link.is_none_or(|l| link_meets(fabric, set, l));
    let rail_met = rule.rail != Force::Required || set.is_subset(fabric.railed());
    let zone_met = rule.zone != Force::Required || fabric.zone(set).is_some();
    link_met && rail_met && zone_met
}

fn link_meets(fabric: &Fabric, set: GpuSet, wish: LinkWish) -> bool {
    fabric.weakest(set).is_none_or(|weakest| weakest >= wish.least)
}

/// How many wishes the rule prefers, and how many of them the set meets.
pub(crate) fn preferred(fabric: &Fabric, set: GpuSet, rule: Rule) -> (u32, u32) {
    let link = rule.link.filter(|l| l.force == Force::Preferred).map(|l| link_meets(fabric, set, l));
    let rail = (rule.rail == Force::Preferred).then(|| set.is_subset(fabric.railed()));
    let zone = (rule.zone == Force::Preferred).then(|| fabric.zone(set).is_some());
    [link, rail, zone]
        .into_iter()
        .flatten()
        .fold((0, 0), |(wished, met), is_met| (wished.saturating_add(1), met.saturating_add(u32::from(is_met))))
}

fn worth(fabric: &Fabric, free: GpuSet, set: GpuSet, rule: Rule) -> Worth {
    let (_, wishes_met) = preferred(fabric, set, rule);
    Worth {
        wishes_met,
        weakest: fabric.weakest(set),
        inside: fabric.inside(set),
        one_zone: fabric.zone(set).is_some(),
        left_inside: fabric.inside(free.minus(set)),
        lowest: Reverse(set.bits()),
    }
}

/// Grows a set from every free GPU by the nearest next one, and takes the best of those.
pub(crate) fn greedy(fabric: &Fabric, free: GpuSet, size: u32) -> Option<GpuSet> {
    let grown = free.iter().filter_map(|start| {
        let mut set = GpuSet::EMPTY.with(start);
        while set.gpu_count() < size {
            let near = |i: u8| -> u64 {
                set.iter().map(|m| u64::from(fabric.pair_value(usize::from(m.0), usize::from(i)))).sum()
            };
            let next = free.minus(set).iter().max_by_key(|i| (near(i.0), Reverse(i.0)))?;
            set = set.with(next);
        }
        Some(set)
    });
    grown.max_by_key(|set| (fabric.weakest(*set), fabric.inside(*set), Reverse(set.bits())))
}

#[cfg(test)]
mod tests;
