//! The oracle: how many sets of instances the rule allows, counted out over the tables.

use std::collections::BTreeSet;

use super::*;
use crate::mig::SlotMask;

/// A set of instances: sorted pairs of profile and start.
type Set = BTreeSet<(String, u8)>;

/// Every valid set of instances of the named profiles: disjoint, caps held. The empty one is among them.
fn valid_sets(board: &str, names: &[&str]) -> Vec<Set> {
    let capability = KnownBoard::by_name(board).unwrap().capability().unwrap();
    let profiles: Vec<&MigProfile> = names.iter().map(|n| capability.by_name(n).unwrap()).collect();
    let mut found: BTreeSet<Set> = BTreeSet::from([Set::new()]);
    let mut open = vec![(Set::new(), SlotMask::EMPTY)];
    while let Some((set, taken)) = open.pop() {
        for profile in &profiles {
            let held = set.iter().filter(|(name, _)| name == profile.name()).count();
            if held >= usize::from(profile.instances_max()) {
                continue;
            }
            for placement in profile.free_placements(taken) {
                let mut larger = set.clone();
                larger.insert((profile.name().to_owned(), placement.start()));
                let slots = taken.join_disjoint(placement.mask()).unwrap();
                if found.insert(larger.clone()) {
                    open.push((larger, slots));
                }
            }
        }
    }
    found.into_iter().collect()
}

fn multiset(set: &Set) -> Vec<&str> {
    let mut names: Vec<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

fn multisets(sets: &[Set]) -> usize {
    sets.iter().map(multiset).collect::<BTreeSet<_>>().len()
}

/// Sets to which nothing can be added.
fn maximal(sets: &[Set]) -> Vec<Set> {
    let is_maximal = |set: &&Set| !sets.iter().any(|other| other.len() == set.len() + 1 && other.is_superset(set));
    sets.iter().filter(is_maximal).cloned().collect()
}

/// Kinds of sets that no larger kind contains: 3g at slot 0 leaves room for three 1g only, but as a kind 3g+3x1g is part of 3g+4x1g.
fn largest_multisets(sets: &[Set]) -> usize {
    let kinds: BTreeSet<Vec<&str>> = sets.iter().map(multiset).collect();
    let count = |kind: &[&str], name: &str| kind.iter().filter(|n| **n == name).count();
    let within = |a: &[&str], b: &[&str]| a.len() < b.len() && a.iter().all(|n| count(a, n) <= count(b, n));
    kinds.iter().filter(|kind| !kinds.iter().any(|other| within(kind, other))).count()
}

#[test]
fn every_row_is_a_profile_and_every_table_a_capability() {
    for board in BOARDS {
        let capability = board.capability().unwrap();
        let texts: Vec<String> = capability.profiles().iter().map(ToString::to_string).collect();
        assert_eq!(texts, board.profiles, "{}", board.name);
    }
}

#[test]
fn a_seven_slice_board_allows_298_sets_of_the_five_plain_profiles() {
    let sets = valid_sets("a100-40", &["1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]);
    let counted = (sets.len(), multisets(&sets), maximal(&sets).len(), largest_multisets(&sets));
    assert_eq!(counted, (298, 38, 19, 12));
}

#[test]
fn double_memory_and_media_profiles_add_the_counted_sets() {
    let plain = ["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
    let double = valid_sets("h100-80", &[&plain[..], &["1g.20gb"]].concat());
    assert_eq!((double.len(), multisets(&double)), (723, 78));
    let media = valid_sets("h100-80", &[&plain[..], &["1g.20gb", "1g.10gb+me"]].concat());
    assert_eq!((media.len(), multisets(&media), maximal(&media).len()), (2319, 128, 239));
}

#[test]
fn an_a30_allows_26_sets() {
    let sets = valid_sets("a30", &["1g.6gb", "2g.12gb", "4g.24gb"]);
    assert_eq!((sets.len(), multisets(&sets), maximal(&sets).len()), (26, 10, 5));
}

#[test]
fn the_compute_slices_fit_in_every_set_that_the_slots_allow() {
    for board in BOARDS {
        let capability = board.capability().unwrap();
        let names: Vec<&str> = capability.profiles().iter().map(MigProfile::name).collect();
        let most = capability.profiles().iter().map(MigProfile::slices).max().unwrap();
        for set in valid_sets(board.name, &names) {
            let slices: u8 = set.iter().map(|(name, _)| capability.by_name(name).unwrap().slices()).sum();
            assert!(slices <= most, "{}: {set:?}", board.name);
        }
    }
}
