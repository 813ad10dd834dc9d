//! What the rounds of `scheduler` say together, and the form of what it prints.

use super::*;
use crate::line::Line;

fn figures(arm: Arm, pods_per_second: f64) -> ArmFigures {
    ArmFigures { arm, pods_per_second, failed_attempts: 0, berth_memory: None }
}

fn args() -> SchedulerArgs {
    SchedulerArgs { nodes: 4, pods: 8, rounds: 1, qps: 5000, berth_scheduler: None }
}

#[test]
fn an_arm_is_compared_with_the_in_tree_arm_of_its_own_round() {
    let round = |in_tree, short| vec![figures(Arm::Short, short), figures(Arm::InTree, in_tree)];
    // The second round had a machine of half the speed.
    let summary = summarize(&[round(100.0, 150.0), round(50.0, 75.0), round(100.0, 90.0)]);
    let of = |arm| summary.iter().find(|s| s.arm == arm).unwrap();
    assert_eq!((of(Arm::Short).pods_per_second, of(Arm::Short).ratio_to_in_tree), (90.0, 1.5));
    assert_eq!(of(Arm::InTree).ratio_to_in_tree, 1.0);
}

#[test]
fn the_form_of_the_line_is_pinned() {
    let memory = Memory { rss_kib: 2, anon_kib: 1 };
    let rounds = vec![vec![ArmFigures { berth_memory: Some(memory), ..figures(Arm::InTree, 1.5) }]];
    let arms = vec![Summary { arm: Arm::Full, pods_per_second: 1.0, ratio_to_in_tree: 0.5 }];
    let result = Figures { options: serde_json::to_value(args()).unwrap(), rounds, arms };
    let text = Line::of("scheduler", result).text().unwrap();
    let (_, result) = text.split_once("\"result\":").unwrap();
    let pinned = r#"{"options":{"nodes":4,"pods":8,"qps":5000,"rounds":1},"rounds":[[{"arm":"in-tree","pods_per_second":1.5,"failed_attempts":0,"berth_memory":{"rss_kib":2,"anon_kib":1}}]],"arms":[{"arm":"full","pods_per_second":1.0,"ratio_to_in_tree":0.5}]}}"#;
    assert_eq!(result, pinned);
    let read: Line<Figures> = serde_json::from_str(&text).unwrap();
    assert_eq!(read.result.rounds[0][0].berth_memory, Some(memory));
}

#[test]
fn pods_for_which_there_is_no_room_are_refused_before_anything_starts() {
    let error = run(&SchedulerArgs { pods: 16, ..args() }).unwrap_err().to_string();
    assert!(error.contains("--pods") && error.contains("16"), "{error}");
    assert!(run(&SchedulerArgs { pods: 1, ..args() }).is_err());
}

#[test]
fn a_missing_berth_scheduler_is_told_with_the_command_that_makes_it() {
    let error = run(&SchedulerArgs { berth_scheduler: Some("/nowhere".into()), ..args() }).unwrap_err().to_string();
    assert!(error.contains("cargo build"), "{error}");
}
