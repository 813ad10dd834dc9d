//! Holds the arrows between crates: model <- probe, proto, core; core <- index <- extender; nobody looks at a leaf.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Which crates of ours each crate may look at, for building. What is not here is not allowed.
const ARROWS: [(&str, &[&str]); 14] = [
    ("berth-model", &[]),
    ("berth-probe", &["berth-model"]),
    ("berth-machine", &["berth-model", "berth-probe"]),
    ("berth-proto", &["berth-model"]),
    ("berth-core", &["berth-model"]),
    ("berth-index", &["berth-model", "berth-core"]),
    ("berth-scheduler", &["berth-model", "berth-machine", "berth-probe", "berth-proto", "berth-core", "berth-index"]),
    ("berth-agent", &["berth-model", "berth-probe", "berth-proto", "berth-core"]),
    ("berth-cli", &["berth-model", "berth-machine", "berth-probe", "berth-proto", "berth-core", "berth-index"]),
    ("berth-fake-nvml", &["berth-model", "berth-machine", "berth-probe"]),
    ("berth-pack", &["berth-model", "berth-core", "berth-index"]),
    ("berth-tests", &["*"]),
    ("berth-simulator", &["*"]),
    ("berth-bench", &["*"]),
];

/// Everything that the pure crates may use from outside. No clock, no IO, no async, no logging.
const PURE: [(&str, &[&str]); 2] = [
    ("berth-model", &["thiserror"]),
    ("berth-core", &["serde", "serde-saphyr", "serde_json", "serde_path_to_error", "thiserror"]),
];

/// Crates that only one place may name.
const WRAPPED: [(&str, &[&str]); 3] = [
    ("nvml-wrapper", &["berth-probe"]),
    ("nvml-wrapper-sys", &["berth-probe", "berth-fake-nvml"]),
    (
        "kube",
        &[
            "berth-proto",
            "berth-agent",
            "berth-cli",
            "berth-scheduler",
            "berth-tests",
            "berth-simulator",
            "berth-bench",
        ],
    ),
];

fn built_with() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let members = metadata.packages.iter().map(|package| {
        let needed = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        (package.name.to_string(), needed.map(|d| d.name.clone()).collect())
    });
    members.collect()
}

#[test]
fn crates_look_only_where_the_arrows_point() {
    let built = built_with();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    assert_eq!(built.keys().map(String::as_str).collect::<BTreeSet<_>>(), allowed.keys().copied().collect());
    for (name, needed) in &built {
        let allowed = allowed[name.as_str()];
        let ours = needed.iter().filter(|d| d.starts_with("berth-"));
        let wrong: Vec<_> = ours.filter(|d| !allowed.contains(&"*") && !allowed.contains(&d.as_str())).collect();
        assert!(wrong.is_empty(), "{name} looks at {wrong:?}");
    }
}

#[test]
fn pure_crates_take_nothing_from_outside_but_what_is_listed() {
    let built = built_with();
    for (name, allowed) in PURE {
        let outside = built[name].iter().filter(|d| !d.starts_with("berth-") && !allowed.contains(&d.as_str()));
        assert_eq!(outside.collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
}

#[test]
fn the_driver_and_the_api_are_named_only_where_they_belong() {
    let built = built_with();
    for (wrapped, owners) in WRAPPED {
        for (name, _) in built.iter().filter(|(_, needed)| needed.contains(wrapped)) {
            assert!(owners.contains(&name.as_str()), "{name} names {wrapped}");
        }
    }
}
