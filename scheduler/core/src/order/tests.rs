//! Claims about short lists and wire scores.

use super::*;
use crate::score::Ppm;
use std::collections::BTreeSet;

fn candidates(names: &[String], seed: u32) -> Vec<Candidate<'_>> {
    let zones = ["a", "b", "c"];
    let one = |(i, name): (usize, &'_ String)| {
        let mixed = u32::try_from(i).unwrap().wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8;
        (mixed, name.clone())
    };
    let mixed: Vec<(u32, String)> = names.iter().enumerate().map(one).collect();
    names
        .iter()
        .zip(mixed)
        .map(|(name, (m, _))| Candidate {
            name,
            score: Score { is_trusted: m % 7 != 0, value: Ppm(m % 40 * 25_000) },
            zone: zones.get(usize::try_from(m % 5).unwrap()).copied(),
            is_avoided: m % 3 != 0,
        })
        .collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("n{i:04}")).collect()
}

const LIST: ShortList = ShortList { size: Some(8), size_soft: None, per_zone: 2 };

#[test]
fn the_short_list_is_what_sorting_everything_would_give() {
    for seed in 0..40 {
        let names = names(97);
        let all = candidates(&names, seed);
        let listed = short_list(&all, Some(8), LIST);
        let order = ranked(&all);
        let mut expected: BTreeSet<usize> = order.iter().take(8).copied().collect();
        for zone in ["a", "b", "c"] {
            expected.extend(order.iter().filter(|p| all[**p].zone == Some(zone)).take(2));
        }
        expected.extend(order.iter().filter(|p| !all[**p].is_avoided).take(2));
        let expected: Vec<usize> = order.into_iter().filter(|p| expected.contains(p)).collect();
        assert_eq!(listed, expected, "seed {seed}");
    }
}

#[test]
fn a_list_longer_than_the_cluster_or_none_names_everybody() {
    let names = names(5);
    let all = candidates(&names, 1);
    assert_eq!(short_list(&all, Some(5), LIST).len(), 5);
    assert_eq!(short_list(&all, None, LIST).len(), 5);
    assert!(short_list(&[], Some(5), LIST).is_empty());
}

#[test]
fn unique_ranks_differ_everywhere_and_follow_the_scores() {
    let names = names(50);
    let all = candidates(&names, 3);
    let ranks = unique_ranks(&all);
    assert_eq!(ranks.iter().collect::<BTreeSet<_>>().len(), 50);
    for a in 0..50 {
        for b in 0..50 {
            assert!(all[a].score <= all[b].score || ranks[a] > ranks[b]);
        }
    }
    assert_eq!((ranks.iter().min(), ranks.iter().max()), (Some(&1), Some(&50)));
}

#[test]
fn soft_ranks_have_few_steps_and_never_turn_the_order_round() {
    let names = names(50);
    let all = candidates(&names, 5);
    let ranks = soft_ranks(&all, 4);
    assert!(ranks.iter().collect::<BTreeSet<_>>().len() <= 5);
    for a in 0..50 {
        for b in 0..50 {
            assert!(all[a].score > all[b].score || ranks[a] <= ranks[b]);
        }
        assert_eq!(ranks[a] == 0, !all[a].score.is_trusted);
    }
}

#[test]
fn equal_scores_fall_to_the_name() {
    let names = names(3);
    let same = Score { is_trusted: true, value: Ppm(5) };
    let all: Vec<_> = names.iter().map(|name| Candidate { name, score: same, zone: None, is_avoided: false }).collect();
    assert_eq!(ranked(&all), [0, 1, 2]);
}
