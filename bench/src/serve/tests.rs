//! The smallest run of `serve`, and the form of what it prints.

use std::collections::BTreeSet;

use super::*;
use crate::args::PodForm;
use crate::line::Line;

fn args() -> ServeArgs {
    ServeArgs {
        nodes: 50,
        names: vec![10, 50],
        rounds: 1,
        calls: 4,
        piece: 7,
        full_percent: 60,
        pod: PodForm::Lean,
        class: None,
        unknown_pods: false,
        events: 10,
    }
}

fn paths(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| paths(value, &format!("{at}.{key}"), out)),
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{at}[]"), out)),
        _ => {
            out.insert(at.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn a_small_run_measures_every_case_on_the_real_extender() {
    let figures = run(&args()).unwrap();
    assert_eq!(figures.cases.len(), 16);
    assert_eq!(figures.growth.len(), 8);
    for case in &figures.cases {
        assert!(case.extender.p50_us > 0.0 && case.echo.p50_us > 0.0 && case.p50_ratio > 0.0, "{case:?}");
        // One node changes before each call; the call itself looks at no other.
        let evaluated = if case.churn { 0.0..=1.0 } else { 0.0..=0.0 };
        assert!(evaluated.contains(&case.evaluations_per_call), "{case:?}");
    }
    let sizes: Vec<_> = figures.scale.iter().map(|s| (s.nodes, s.names, s.evaluations_per_call)).collect();
    assert_eq!(sizes, [(10, 10, 0.0), (50, 10, 0.0)], "nothing is evaluated where nothing changed");
    let full = |case: &&CaseFigures| case.verb == Verb::Filter && case.churn && case.names == 50;
    assert!(figures.cases.iter().filter(full).all(|case| case.evaluations_per_call == 1.0));
    let of = |verb, list| {
        let case = figures.cases.iter().find(|c| c.verb == verb && c.list == list && c.names == 50 && !c.churn);
        case.unwrap().names_asked
    };
    assert_eq!(of(Verb::Filter, List::All), 50);
    assert!(of(Verb::Prioritize, List::Short) < of(Verb::Prioritize, List::All));
}

#[test]
fn the_keys_of_the_line_are_pinned() {
    let text = Line::of("serve", run(&ServeArgs { names: vec![5, 50], calls: 1, events: 1, ..args() }).unwrap());
    let text = text.text().unwrap();
    let read: Line<Figures> = serde_json::from_str(&text).unwrap();
    assert_eq!((read.bench.as_str(), read.v), ("serve", 1));
    let mut keys = BTreeSet::new();
    paths(&serde_json::from_str(&text).unwrap(), "", &mut keys);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let pinned: Vec<&str> = include_str!("keys.txt").lines().collect();
    assert_eq!(keys, pinned);
}

#[test]
fn arguments_that_make_no_run_are_refused_with_the_flag_to_change() {
    let error = run(&ServeArgs { names: vec![51], ..args() }).unwrap_err().to_string();
    assert!(error.contains("--names") && error.contains("50"), "{error}");
    assert!(run(&ServeArgs { names: Vec::new(), ..args() }).is_err());
    assert!(run(&ServeArgs { rounds: 0, ..args() }).is_err());
}
