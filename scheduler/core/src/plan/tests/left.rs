//! Claims about what is left behind.

use super::shares::{cards_under, node, pod, shared, with_policy};
use super::*;

/// Shares of 47 % and 81 % come most, then 32 %.
const EXPECTED: &str = "expected:
- {gpus: 1, cpuMilli: 8000, weight: 40}
- {gpus: 1, gpuMilli: 810, cpuMilli: 4000, weight: 18}
- {gpus: 1, gpuMilli: 470, cpuMilli: 6000, weight: 12}
- {gpus: 1, gpuMilli: 320, cpuMilli: 6000, weight: 8}
";

#[test]
fn a_share_goes_where_the_rest_is_of_use_and_not_just_to_the_fullest_card() {
    let view = NodeView { shared: shared(&[(2, 47, 0), (5, 32, 0)]), ..node() };
    let share = pod(&[(1, 32, 0)]);
    assert_eq!(cards_under(&view, &share, &Policy::default()), Ok(vec![2]), "nothing is expected: the fullest");
    // Beside the 32 stays room for a third one; beside the 47 stay 21 percent for nobody.
    assert_eq!(cards_under(&view, &share, &with_policy(EXPECTED)), Ok(vec![5]));
}

#[test]
fn the_use_of_gpus_stands_back_where_pods_are_expected() {
    let demand = demand(1, &[]);
    let weights = |policy: &Policy| -> Vec<(&str, u32)> {
        let parts = plan(&node(), &demand, policy).unwrap().parts;
        parts.iter().filter(|p| p.weight > 0).map(|p| (p.name, p.weight)).collect()
    };
    let usual = [("gpu", 3), ("cpu", 1), ("memory", 1), ("link", 4), ("kept", 2)];
    assert_eq!(weights(&Policy::default()), usual);
    assert_eq!(weights(&with_policy(EXPECTED)), [("link", 4), ("kept", 2), ("left", 8)]);
    for classes in ["{weights: {left: 0}}", "{placement: spread}"] {
        assert_eq!(weights(&with_policy(&format!("{EXPECTED}classes: {{default: {classes}}}"))), usual, "{classes}");
    }
}

#[test]
fn idle_nodes_are_kept_for_pods_of_all_gpus_where_the_policy_says_so() {
    let eight =
        format!("{EXPECTED}- {{gpus: 8, cpuMilli: 64000, weight: 1}}\nleft: {{multiPermille: 5000, stepMilli: 10}}\n");
    let policy = with_policy(&eight);
    let used = NodeView { held: bits(0b1), ..node() };
    let score = |view: &NodeView| plan(view, &demand(1, &[]), &policy).unwrap().score;
    assert!(score(&used) > score(&node()));
}

#[test]
fn gpus_of_pods_without_a_plan_are_not_left() {
    let policy = with_policy(EXPECTED);
    let part = |view: &NodeView| plan(view, &demand(1, &[]), &policy).unwrap().parts[5];
    let unplanned = NodeView { unplanned_gpu_count: 5, ..node() };
    let held = NodeView { held: bits(0b1111_1000), ..node() };
    assert_eq!(part(&unplanned), part(&held));
}
