//! Floors of the MIG protocol, and claims about its reference.

use super::*;

fn small(policies: &[&str]) -> Protocol {
    Protocol {
        arrival_count: 30_000,
        seeds: vec![1, 2, 3],
        loads_percent: vec![95],
        policies: policies.iter().map(|p| (*p).to_owned()).collect(),
        ..Protocol::default()
    }
}

fn ratio(answer: &Answer, policy: &str) -> f64 {
    answer.rows.iter().find(|r| r.policy == policy).unwrap().ratio_to_first_fit
}

#[test]
fn berth_turns_away_at_most_0_62_of_what_first_fit_does_and_less_than_its_nearest_peers() {
    let peers = ["hami", "frag"];
    let answer = run(&small(&[&["berth", "repack"], &peers[..]].concat())).unwrap();
    let berth = ratio(&answer, "berth");
    assert!(berth <= 0.62, "{berth}");
    for peer in peers {
        assert!(berth < ratio(&answer, peer), "{peer}: {berth} is not below {}", ratio(&answer, peer));
    }
    assert!(ratio(&answer, "repack") < berth, "nothing beats moving at will");
}

#[test]
fn layouts_that_stay_turn_away_more_than_instances_that_are_made_where_they_fit() {
    let answer = run(&Protocol { arrival_count: 5_000, ..small(&["berth", "frozen-even", "frozen-fitted"]) }).unwrap();
    let (made, even, fitted) =
        (ratio(&answer, "berth"), ratio(&answer, "frozen-even"), ratio(&answer, "frozen-fitted"));
    assert!(made < fitted && fitted < even, "{made} {fitted} {even}");
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let protocol = Protocol { arrival_count: 3_000, ..small(&["berth-seen"]) };
    let text = |a: Answer| format!("{:?}", a.rows);
    assert_eq!(text(run(&protocol).unwrap()), text(run(&protocol).unwrap()));
}

#[test]
fn a_policy_that_nobody_knows_is_refused_with_the_known_ones() {
    let error = run(&small(&["bestfit"])).unwrap_err().to_string();
    assert!(error.contains("\"bestfit\"") && error.contains("best-fit"), "{error}");
}

/// Whether the instances fit, tried one by one in every place.
fn fits_by_trying(board: &Board, cards: &mut [berth_core::place::mig::Occupied], list: &[usize]) -> bool {
    let Some((first, rest)) = list.split_first() else { return true };
    for gpu in 0..cards.len() {
        let before = cards[gpu];
        for placement in board.placements(*first) {
            if let Some(next) = before.with(&board.table, board.profiles[*first].1, *placement) {
                cards[gpu] = next;
                if fits_by_trying(board, cards, rest) {
                    return true;
                }
            }
        }
        cards[gpu] = before;
    }
    false
}

#[test]
fn the_reference_says_yes_exactly_where_trying_every_place_does() {
    let board = Board::a100().unwrap();
    let mut yes = 0;
    for code in 0..4_u32.pow(6) {
        let counts = [0, 1, 2, 3, 4, 5].map(|p| i64::from(code / 4_u32.pow(p) % 4));
        // Largest first, or trying takes for ever.
        let list: Vec<usize> =
            (0..6).rev().flat_map(|p| std::iter::repeat_n(p, usize::try_from(counts[p]).unwrap())).collect();
        let slots: u32 = list.iter().map(|p| arrivals::SLOTS[*p]).sum();
        if slots > 16 {
            continue;
        }
        let tried = fits_by_trying(&board, &mut [berth_core::place::mig::Occupied::default(); 2], &list);
        assert_eq!(repack::fits(2, counts), tried, "{counts:?}");
        yes += u32::from(tried);
    }
    assert!(yes > 100, "{yes}");
}
