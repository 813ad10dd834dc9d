//! Claims about the worth of what is left.

use super::*;

const TUNING: Tuning = Tuning {
    covered_permille: 950,
    unusable_permille: 1000,
    room_permille: 100,
    multi_permille: 0,
    multi_share_permille: 0,
    scarce_permille: 0,
    scarce_roots: 2,
    waste_permille: 1500,
    step_milli: 40,
};

fn kind(gpu_count: u32, gpu_milli: u32, cpu_milli: u64) -> Typical {
    Typical { gpu_count, gpu_milli, cpu_milli }
}

fn expected(tuning: Tuning) -> Expected {
    let counts = [
        (kind(1, 1000, 8000), 40),
        (kind(1, 810, 4000), 18),
        (kind(1, 470, 6000), 12),
        (kind(1, 320, 6000), 8),
        (kind(0, 0, 4000), 10),
        (kind(8, 1000, 64_000), 1),
    ];
    Expected::of(&counts, tuning)
}

fn worth(expected: &Expected, gpus: &[u32], cpu_milli: u64) -> i64 {
    expected.worth(Remainder { cpu_milli, gpus }).all
}

#[test]
fn a_free_gpu_without_cpu_is_worth_less_than_one_with() {
    let expected = expected(TUNING);
    assert!(worth(&expected, &[1000, 1000], 16_000) > worth(&expected, &[1000, 1000], 1000));
}

#[test]
fn a_small_piece_costs_least_where_nothing_else_fits() {
    let expected = expected(TUNING);
    let loss = |before: &[u32], after: &[u32]| worth(&expected, before, 32_000) - worth(&expected, after, 32_000);
    let beside_810 = loss(&[190, 530], &[30, 530]);
    let beside_470 = loss(&[190, 530], &[190, 370]);
    assert!(beside_810 < beside_470, "{beside_810} {beside_470}");
}

#[test]
fn the_order_of_gpus_and_of_kinds_does_not_matter() {
    let counts = [(kind(1, 470, 1), 3), (kind(1, 810, 1), 3), (kind(2, 1000, 1), 3)];
    let mut turned = counts;
    turned.reverse();
    assert_eq!(Expected::of(&counts, TUNING), Expected::of(&turned, TUNING));
    let expected = expected(TUNING);
    assert_eq!(worth(&expected, &[0, 190, 1000], 9000), worth(&expected, &[1000, 0, 190], 9000));
}

#[test]
fn rare_kinds_are_left_out_but_those_of_several_gpus_may_count_in_full() {
    let idle = [1000; 8];
    let broken = [1000, 1000, 1000, 1000, 1000, 1000, 1000, 0];
    let broken_by = |taker| {
        let expected = expected(Tuning { multi_share_permille: 10_000, ..TUNING });
        let worth = |gpus| expected.worth(Remainder { cpu_milli: 96_000, gpus });
        expected.steps(taker, worth(&idle), worth(&broken))
    };
    assert!(broken_by(Taker::Share) < broken_by(Taker::Whole));
}

#[test]
fn a_step_hides_what_is_smaller() {
    let expected = expected(TUNING);
    let steps =
        |all| expected.steps(Taker::Whole, Worth { all: 0, multi: 0, scarce: 0 }, Worth { all, multi: 0, scarce: 0 });
    assert_eq!(steps(39_999_999), 0);
    assert_eq!(steps(40_000_000), 1);
    assert_eq!(steps(-1), -1, "down is a step at once");
}

/// What is scarce where the cluster has these rooms for pods of eight among so many GPUs.
fn seen(expected: &Expected, rooms: u32, gpus: u32) -> Expected {
    let mut all = Rooms::of(Arc::clone(expected.large()));
    (0..rooms).for_each(|_| all.add(Remainder { cpu_milli: 64_000, gpus: &[1000; 8] }));
    (rooms * 8..gpus).for_each(|_| all.add(Remainder { cpu_milli: 0, gpus: &[0] }));
    expected.seeing(&all).unwrap_or_else(|| expected.clone())
}

#[test]
fn room_is_scarce_from_a_few_roots_of_what_is_there_at_once_until_twice_as_much() {
    let tuning = Tuning { scarce_permille: 1000, scarce_roots: 5, ..TUNING };
    // All ask for 76.78 GPUs, one of them for eight: a cluster of 1229 GPUs has 16 of those at once.
    let known = expected(tuning);
    let is_scarce = |expected: &Expected| expected.scarce().count() == 1;
    assert!(is_scarce(&seen(&known, 20, 1229)) && !is_scarce(&seen(&known, 21, 1229)));
    let scarce = seen(&known, 0, 1229);
    assert!(is_scarce(&seen(&scarce, 40, 1229)) && !is_scarce(&seen(&scarce, 41, 1229)), "not at once");
    assert!(is_scarce(&seen(&known, 5, 80)), "however rare, one is expected");
    assert!(!is_scarce(&seen(&expected(TUNING), 0, 1229)), "nothing is scarce that does not count");
}

#[test]
fn only_room_that_is_scarce_has_its_price_and_shares_pay_none_of_it() {
    let plenty = expected(Tuning { scarce_permille: 4000, ..TUNING });
    let scarce = seen(&plenty, 0, 1229);
    let steps = |expected: &Expected, taker, before: &[u32], after: &[u32]| {
        let worth = |gpus| expected.worth(Remainder { cpu_milli: 64_000, gpus });
        expected.steps(taker, worth(before), worth(after))
    };
    let (idle, broken, gone) =
        ([1000; 8], [1000, 1000, 1000, 1000, 1000, 1000, 1000, 0], [1000, 1000, 1000, 1000, 1000, 1000, 0, 0]);
    assert!(steps(&scarce, Taker::Whole, &idle, &broken) < steps(&plenty, Taker::Whole, &idle, &broken));
    assert_eq!(steps(&scarce, Taker::Whole, &broken, &gone), steps(&plenty, Taker::Whole, &broken, &gone));
    assert_eq!(steps(&scarce, Taker::Share, &idle, &broken), steps(&plenty, Taker::Share, &idle, &broken));
}

#[test]
fn room_counted_for_other_kinds_says_nothing() {
    let expected = expected(Tuning { scarce_permille: 4000, ..TUNING });
    assert_eq!(expected.seeing(&Rooms::default()), None);
    assert!(seen(&expected, 0, 80).seeing(&Rooms::default()).is_none());
}

#[test]
fn amounts_at_their_limits_do_not_overflow() {
    let all = Tuning {
        covered_permille: 1000,
        unusable_permille: 10_000,
        room_permille: 10_000,
        multi_permille: 10_000,
        multi_share_permille: 10_000,
        scarce_permille: 10_000,
        scarce_roots: 100,
        waste_permille: 10_000,
        step_milli: 1,
    };
    let counts: Vec<(Typical, u64)> =
        (1..=1000_u32).map(|milli| (kind(if milli == 1000 { 32 } else { 1 }, milli, 1), 1_000_000)).collect();
    let expected = Expected::of(&counts, all);
    worth(&expected, &[1000; 32], u64::MAX);
}
