//! Claims about short lists and wire scores.

use super::*;
use std::collections::BTreeSet;

fn candidates(count: u32, seed: u32) -> Vec<Candidate> {
    let one = |i: u32| {
        let m = i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8;
        Candidate {
            name_rank: i,
            score: Score { is_trusted: !m.is_multiple_of(7), value: Ppm(m % 40 * 25_000) },
            zone: Some(m % 5).filter(|zone| *zone < 3),
            is_avoided: !m.is_multiple_of(3),
            is_outside: false,
        }
    };
    (0..count).map(one).collect()
}

fn keys(candidates: &[Candidate]) -> Vec<Key> {
    candidates.iter().map(Candidate::key).collect()
}

fn zoned(candidates: &[Candidate]) -> Vec<(Key, Option<u32>)> {
    candidates.iter().map(|candidate| (candidate.key(), candidate.zone)).collect()
}

const LIST: ShortList = ShortList { size: Some(8), size_soft: None, per_zone: 2 };

#[test]
fn the_short_list_is_what_sorting_everything_would_give() {
    for seed in 0..40 {
        let all = candidates(97, seed);
        let listed = short_list(&all, Some(8), LIST);
        let order = ranked(&all);
        let mut expected: BTreeSet<usize> = order.iter().take(8).copied().collect();
        for zone in [0, 1, 2] {
            expected.extend(order.iter().filter(|p| all[**p].zone == Some(zone)).take(2));
        }
        expected.extend(order.iter().filter(|p| !all[**p].is_avoided).take(2));
        let expected: Vec<usize> = order.into_iter().filter(|p| expected.contains(p)).collect();
        assert_eq!(listed, expected, "seed {seed}");
    }
}

#[test]
fn once_a_selection_is_settled_no_worse_node_is_taken_and_not_before() {
    for seed in 0..40 {
        let mut all = candidates(97, seed);
        all.sort_unstable_by_key(Candidate::key);
        let mut selection = Selection::new(8, 2);
        let mut settled_at = None;
        for (at, one) in all.iter().enumerate() {
            let is_taken = selection.offer(one.key(), at, one.zone, one.is_avoided);
            assert!(!is_taken || settled_at.is_none(), "seed {seed}: {at} came after {settled_at:?}");
            settled_at = settled_at.or(selection.is_settled(3).then_some(at));
        }
        let last = selection.finish().into_iter().max();
        assert_eq!(settled_at, last, "seed {seed}: the one that was missing");
    }
}

#[test]
fn a_list_longer_than_the_cluster_or_none_names_everybody() {
    let all = candidates(5, 1);
    assert_eq!(short_list(&all, Some(5), LIST), [0, 1, 2, 3, 4]);
    assert_eq!(short_list(&all, None, LIST), [0, 1, 2, 3, 4]);
    assert!(short_list(&[], Some(5), LIST).is_empty());
}

#[test]
fn unique_ranks_differ_everywhere_and_follow_the_scores() {
    let all = candidates(50, 3);
    let ranks = unique_ranks(&keys(&all));
    assert_eq!(ranks.iter().collect::<BTreeSet<_>>().len(), 50);
    for a in 0..50 {
        for b in 0..50 {
            assert!(all[a].score <= all[b].score || ranks[a] > ranks[b]);
        }
    }
    assert_eq!((ranks.iter().min(), ranks.iter().max()), (Some(&1), Some(&50)));
}

#[test]
fn soft_ranks_have_few_steps_and_never_turn_the_order_of_a_zone_round() {
    let all = candidates(50, 5);
    let ranks = soft_ranks(&zoned(&all), 4);
    assert!(ranks.iter().collect::<BTreeSet<_>>().len() <= 5);
    for a in 0..50 {
        for b in 0..50 {
            let is_alike = all[a].zone != all[b].zone || all[a].score > all[b].score;
            assert!(is_alike || ranks[a] <= ranks[b]);
        }
        assert_eq!(ranks[a] == 0, !all[a].score.is_trusted);
    }
}

#[test]
fn soft_classes_part_what_differs_and_leave_small_differences_alone() {
    let of = |values: &[u32]| {
        let one = |value: &u32| Candidate {
            name_rank: 0,
            score: Score { is_trusted: true, value: Ppm(*value) },
            zone: None,
            is_avoided: false,
            is_outside: false,
        };
        soft_ranks(&zoned(&values.iter().map(one).collect::<Vec<_>>()), 4)
    };
    assert_eq!(of(&[600_000, 740_000]), [3, 4], "most of the score is the same everywhere");
    assert_eq!(of(&[640_001, 740_000]), [4, 4], "less than a class");
    assert_eq!(of(&[0, 250_000, 500_000, 750_000, 1_000_000]), [1, 2, 3, 4, 4]);
    assert_eq!(of(&[]), [0_i64; 0]);
}

#[test]
fn the_best_nodes_of_all_zones_are_alike_to_a_pod_that_is_spread() {
    let one = |zone, value| (Key::of(Score { is_trusted: true, value: Ppm(value) }, 0), zone);
    let (a, b) = (Some(0), Some(1));
    let ranks =
        soft_ranks(&[one(a, 900_000), one(a, 500_000), one(b, 300_000), one(b, 100_000), one(None, 700_000)], 4);
    assert_eq!(ranks, [4, 1, 4, 3, 4]);
}

#[test]
fn equal_scores_fall_to_the_name() {
    let score = Score { is_trusted: true, value: Ppm(5) };
    let named = |name_rank| Candidate { name_rank, score, zone: None, is_avoided: false, is_outside: false };
    assert_eq!(ranked(&[named(2), named(0), named(1)]), [1, 2, 0]);
}

#[test]
fn trust_comes_before_value_and_value_before_the_name() {
    let one = |is_trusted, value, name_rank| Candidate {
        name_rank,
        score: Score { is_trusted, value: Ppm(value) },
        zone: None,
        is_avoided: false,
        is_outside: false,
    };
    let all = [one(false, 1_000_000, 0), one(true, 0, 1), one(true, 1, u32::MAX), one(true, 1_000_000, 7)];
    assert_eq!(ranked(&all), [3, 2, 1, 0]);
}

#[test]
fn a_key_keeps_the_score_that_it_was_made_of() {
    for candidate in candidates(97, 9) {
        assert_eq!(candidate.key().score(), candidate.score);
        assert!(candidate.key() < Key::LAST);
    }
}

#[test]
fn outside_of_the_groups_clique_comes_behind_inside_and_keeps_its_score() {
    let score = |value| Score { is_trusted: true, value: Ppm(value) };
    let (poor, rich) = (Key::of(score(1), 9), Key::of(score(1_000_000), 0).outside());
    let distrusted = Key::of(Score { is_trusted: false, value: Ppm(1_000_000) }, 0);
    assert!(poor < rich && rich < distrusted && distrusted.outside() < Key::UNKNOWN);
    assert_eq!(rich.score(), score(1_000_000));
    assert_eq!(unique_ranks(&[rich, poor, distrusted]), [2, 3, 1]);
    assert_eq!(soft_ranks(&[(rich, None), (poor, None), (distrusted, None)], 4), [4, 5, 0]);
}
