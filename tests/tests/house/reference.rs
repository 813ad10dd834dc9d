//! REFERENCE.md is an interface: every reason, wish and metric that a user can meet stands in it, word for word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use berth_core::unfit::Reason;
use berth_core::{policy, wish};
use berth_extender::bind::api::RESULTS;
use berth_extender::metrics::Metrics;

const REFERENCE: &str = include_str!("../../../REFERENCE.md");

#[test]
fn every_reason_stands_in_the_table_with_its_text_list_and_advice() {
    for reason in Reason::ALL {
        let list = if reason.helped_by_preemption() { "FailedNodes" } else { "FailedAndUnresolvableNodes" };
        let row = format!("| `{}` | {} | {list} | {} |", reason.code(), reason.text(), reason.advice());
        assert!(REFERENCE.contains(&row), "REFERENCE.md lacks\n{row}");
    }
}

#[test]
fn every_wish_stands_in_the_table() {
    for key in [wish::CLASS, wish::LINK, wish::RAIL, wish::ZONE, wish::GPU_PRODUCT, wish::GPU_MEMORY, wish::GPUS] {
        assert!(REFERENCE.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[test]
fn every_result_of_a_bind_stands_in_the_table() {
    for result in RESULTS {
        assert!(REFERENCE.contains(&format!("| `{result}` |")), "{result}");
    }
}

#[test]
fn every_metric_of_the_scheduler_stands_in_the_table() {
    let text = Arc::new(Metrics::new("test")).encode().unwrap();
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, _) = line.split_once(' ').unwrap();
        assert!(REFERENCE.contains(&format!("| `{name}")), "{name}");
    }
}

#[test]
fn the_installed_policy_is_the_documented_default() {
    let manifest = include_str!("../../../manifests/scheduler/policy.yaml");
    let installed = policy::parse(manifest).unwrap();
    assert_eq!(installed, policy::Policy::default());
}

#[test]
fn every_rule_of_gpu_health_stands_in_the_table() {
    for rule in berth_probe::assemble::health::RULES {
        let row = format!("| `{}` | {} |", rule.code, rule.text);
        assert!(REFERENCE.contains(&row), "REFERENCE.md lacks\n{row}");
    }
}
