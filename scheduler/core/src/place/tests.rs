//! Claims about set choice; `oracle` compares it with brute force.

mod oracle;

use super::*;

fn all_nics_and(gpus: GpuSet) -> Free {
    Free { gpus, nics: (0..berth_model::NodeTopology::NICS_MAX).collect() }
}
use crate::testing::{Box8, fabric};
use berth_model::PcieLevel;

#[test]
fn one_gpu_is_taken_where_it_breaks_no_pair() {
    let fabric = fabric(Box8::PciePairs);
    let rule = Rule { size: 1, link: None, rail: Force::Off, zone: Force::Off };
    let free = GpuSet::from_bits(0b0000_1011);
    assert_eq!(
        choose(&fabric, all_nics_and(free), rule),
        Some(GpuSet::from_bits(0b1000)),
        "0 and 1 are a bridged pair, 3 is single"
    );
}

#[test]
fn above_the_exact_limit_the_set_is_grown_and_still_legal() {
    let fabric = crate::testing::ring_of_pairs(32);
    let rule = Rule { size: 8, link: LinkWish::parse("node"), rail: Force::Off, zone: Force::Required };
    let set = choose(&fabric, all_nics_and(GpuSet::first(32)), rule).unwrap();
    assert_eq!(set.gpu_count(), 8);
    assert!(fabric.zone(set).is_some());
    assert!(fabric.weakest(set) >= Some(LinkClass::Pcie(PcieLevel::Node)));
}

#[test]
fn a_rule_that_nothing_satisfies_has_no_choice() {
    let fabric = fabric(Box8::PciePairs);
    let rule = Rule { size: 3, link: LinkWish::parse("nvlink"), rail: Force::Off, zone: Force::Off };
    assert_eq!(choose(&fabric, all_nics_and(GpuSet::first(8)), rule), None);
    assert_eq!(choose(&fabric, all_nics_and(GpuSet::first(2)), Rule { size: 3, ..rule }), None);
}
