//! Claims about set choice, against brute force.

use super::*;
use crate::testing::{Box8, fabric};
use berth_model::PcieLevel;

const KINDS: [Box8; 3] = [Box8::HybridMesh, Box8::PciePairs, Box8::Switched];

fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for size in 1..=8 {
        for link in [None, LinkWish::parse("nvlink"), LinkWish::parse("pix:preferred"), LinkWish::parse("phb")] {
            for rail in [Force::Off, Force::Required] {
                for zone in [Force::Off, Force::Preferred, Force::Required] {
                    rules.push(Rule { size, link, rail, zone });
                }
            }
        }
    }
    rules
}

/// What "best" means, said without the code under test: no legal set has more of the first thing on which they differ.
fn brute_force(fabric: &Fabric, free: GpuSet, rule: Rule) -> Option<GpuSet> {
    let pair = |a: u8, b: u8| u64::from(fabric.pair_value(usize::from(a), usize::from(b)));
    let sum = |set: GpuSet| -> u64 {
        set.iter()
            .flat_map(|a| set.iter().filter(move |b| *b > a).map(move |b| (a, b)))
            .map(|(a, b)| pair(a.0, b.0))
            .sum()
    };
    let mut best = None;
    for bits in 0..=255_u32 {
        let set = GpuSet::from_bits(bits);
        if !set.is_subset(free) || set.gpu_count() != rule.size {
            continue;
        }
        let meets = |l: LinkWish| fabric.weakest(set).is_none_or(|w| w >= l.least);
        let one_zone = fabric.zone(set).is_some();
        let railed = set.is_subset(fabric.railed());
        let hard = rule.link.is_none_or(|l| l.force != Force::Required || meets(l))
            && (rule.rail != Force::Required || railed)
            && (rule.zone != Force::Required || one_zone);
        if !hard {
            continue;
        }
        let soft = u32::from(rule.link.is_some_and(|l| l.force == Force::Preferred && meets(l)))
            + u32::from(rule.rail == Force::Preferred && railed)
            + u32::from(rule.zone == Force::Preferred && one_zone);
        let worth = (soft, fabric.weakest(set), sum(set), one_zone, sum(free.minus(set)), Reverse(bits));
        if best.as_ref().is_none_or(|(_, w)| worth > *w) {
            best = Some((set, worth));
        }
    }
    best.map(|(set, _)| set)
}

#[test]
fn every_choice_on_eight_gpus_equals_brute_force() {
    let mut checked = 0;
    for kind in KINDS {
        let fabric = fabric(kind);
        for (i, rule) in rules().into_iter().enumerate() {
            // Every free mask for every seventh rule, so that all are covered and the test stays quick.
            for bits in (0..=255_u32).filter(|b| (usize::try_from(*b).unwrap() + i) % 7 == 0) {
                let free = GpuSet::from_bits(bits);
                let expected = brute_force(&fabric, free, rule);
                let found = choose(&fabric, free, rule);
                assert_eq!(found, expected, "{kind:?} free {free} {rule:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 15_000, "{checked}");
}

#[test]
fn one_gpu_is_taken_where_it_breaks_no_pair() {
    let fabric = fabric(Box8::PciePairs);
    let rule = Rule { size: 1, link: None, rail: Force::Off, zone: Force::Off };
    let free = GpuSet::from_bits(0b0000_1011);
    assert_eq!(choose(&fabric, free, rule), Some(GpuSet::from_bits(0b1000)), "0 and 1 are a bridged pair, 3 is single");
}

#[test]
fn above_the_exact_limit_the_set_is_grown_and_still_legal() {
    let fabric = crate::testing::ring_of_pairs(32);
    let rule = Rule { size: 8, link: LinkWish::parse("node"), rail: Force::Off, zone: Force::Required };
    let set = choose(&fabric, GpuSet::first(32), rule).unwrap();
    assert_eq!(set.gpu_count(), 8);
    assert!(fabric.zone(set).is_some());
    assert!(fabric.weakest(set) >= Some(LinkClass::Pcie(PcieLevel::Node)));
}

#[test]
fn a_rule_that_nothing_satisfies_has_no_choice() {
    let fabric = fabric(Box8::PciePairs);
    let rule = Rule { size: 3, link: LinkWish::parse("nvlink"), rail: Force::Off, zone: Force::Off };
    assert_eq!(choose(&fabric, GpuSet::first(8), rule), None);
    assert_eq!(choose(&fabric, GpuSet::first(2), Rule { size: 3, ..rule }), None);
}
