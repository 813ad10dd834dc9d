//! Claims about what a snapshot keeps by position.

use super::*;

#[test]
fn standings_follow_the_names_and_the_labels_whatever_came_first() {
    let index = with(["c", "a", "b"].map(node));
    let labelled = |name: &str, zone: Option<&str>, is_avoided| match node(name) {
        Event::Node(facts) => Event::Node(NodeFacts { zone: zone.map(str::to_owned), is_avoided, ..facts }),
        other => other,
    };
    let of = |name: &str| {
        let snapshot = index.snapshot();
        snapshot.position(name).and_then(|p| snapshot.standing(p)).unwrap()
    };
    assert_eq!(["a", "b", "c"].map(|n| of(n).name_rank), [0, 1, 2]);
    index.apply(labelled("b", Some("z"), true));
    index.apply(labelled("c", Some("z"), false));
    assert_eq!(of("b").zone, of("c").zone);
    assert_eq!((of("a").zone, of("b").is_avoided, of("c").is_avoided), (None, true, false));
    index.apply(Event::NodeGone(name("a")));
    assert_eq!((of("b").name_rank, of("c").name_rank), (0, 1));
    index.apply(labelled("c", None, false));
    assert_eq!(of("c").zone, None);
}

#[test]
fn a_snapshot_shows_the_cluster_of_its_moment() {
    let names: Vec<String> = (0..200).map(|i| format!("n{i:03}")).collect();
    let index = with(names.iter().flat_map(|n| [node(n), report(n, 1, None)]));
    let before = index.snapshot();
    index.apply(bound("p", "n150", 1, Some(&[0])));
    index.apply(Event::NodeGone(name("n003")));
    index.apply(Event::ReportGone(name("n003")));
    let after = index.snapshot();
    assert!(before.node("n150").unwrap().holders.is_empty());
    assert_eq!(after.node("n150").unwrap().holders.len(), 1);
    assert!(before.node("n003").is_some() && after.node("n003").is_none());
    assert_eq!((before.nodes().count(), after.nodes().count()), (200, 199));
    // The position is free again.
    index.apply(node("new"));
    assert_eq!(index.snapshot().position("new"), before.position("n003"));
}
