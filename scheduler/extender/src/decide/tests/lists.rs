//! The quick way through a list of names answers as the slow one does, whatever the list and the cluster went through.

use super::*;
use crate::wire::{encode_filter, encode_priorities};

/// A small generator: the cases must be the same on every machine.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    /// The names of a call: pieces in any order, some missing, some strangers, some twice.
    fn names(&mut self, known: &[String]) -> Vec<String> {
        let mut names: Vec<String> = match self.below(3) {
            0 => known.to_vec(),
            1 => known.iter().filter(|_| self.0.is_multiple_of(2) || self.below(4) > 0).cloned().collect(),
            _ => known.iter().skip(self.below(known.len())).take(self.below(40)).cloned().collect(),
        };
        let piece = 1 + self.below(71);
        let mut pieces: Vec<Vec<String>> = names.chunks(piece).map(<[String]>::to_vec).collect();
        for last in (1..pieces.len()).rev() {
            pieces.swap(last, self.below(last + 1));
        }
        names = pieces.concat();
        for _ in 0..self.below(4) {
            let at = self.below(names.len() + 1);
            let name = match self.below(4) {
                0 => "stranger".to_owned(),
                1 => "n0".to_owned(),
                2 => "n0010".to_owned(),
                _ => known[self.below(known.len())].clone(),
            };
            names.insert(at, name);
        }
        names
    }
}

fn list(names: &[String]) -> Vec<u8> {
    let text = serde_json::to_string(names).unwrap();
    text.trim_start_matches('[').trim_end_matches(']').as_bytes().to_vec()
}

fn same(quick: &[u8], slow: &[u8], what: &dyn std::fmt::Debug) {
    let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    assert_eq!(value(quick), value(slow), "{what:?}");
}

/// One event of a cluster's life.
fn change(rig: &mut Rig, draws: &mut Draws, round: usize) {
    let node = rig.names[draws.below(rig.names.len())].clone();
    match draws.below(9) {
        0 => {
            rig.cluster.index.apply(Event::NodeGone(name(&node)));
        }
        1 => {
            let zone = ["a", "b", "c", "d"].get(draws.below(5)).copied();
            let is_avoided = draws.below(3) == 0;
            let facts = NodeFacts { zone: zone.map(str::to_owned), is_avoided, ..node_facts(&node) };
            rig.cluster.index.apply(Event::Node(facts));
        }
        2 => {
            let new = format!("m{round:04}");
            add_node(&rig.cluster, &new, Some("b"));
            rig.names.push(new);
        }
        3 => {
            rig.cluster.index.apply(Event::PodGone(PodUid::new(&format!("h{}", draws.below(round + 1)))));
        }
        4 => {
            let rack = u32::try_from(draws.below(5)).unwrap();
            let generation = u64::try_from(round).unwrap() + 2;
            rig.cluster.index.apply(Event::Report(Box::new(racked(&node, generation, rack))));
        }
        _ => {
            let devices: Vec<u8> = (0..4).filter(|_| draws.below(2) == 0).collect();
            hold(&rig.cluster, &format!("h{round}"), &node, &devices);
            groups::join(&rig.cluster, &format!("g{round}"), &node, ["red", "blue"][round % 2]);
        }
    }
}

#[test]
fn the_quick_way_says_what_the_slow_one_says_after_every_event() {
    let mut draws = Draws(3);
    let mut rig = rig(300);
    rig.cluster.set_policy(groups::policy(""));
    let (mut written, mut left_to_the_slow_way) = (0, 0);
    for round in 0..1500_usize {
        change(&mut rig, &mut draws, round);
        if round == 700 {
            rig.cluster.set_policy(groups::policy("shortList: {size: all, sizeSoft: 20}\n"));
        }
        let names = draws.names(&rig.names);
        let gpus = u32::try_from(1 + draws.below(5)).unwrap();
        let group = ["red", "blue", "green", ""][draws.below(4)];
        let mut quick_pod = groups::member(&format!("q{round}"), gpus, group);
        if draws.below(3) == 0 {
            let owner = OwnerReference { kind: "ReplicaSet".to_owned(), controller: true };
            quick_pod.metadata.owner_references.push(owner);
        }
        let mut slow_pod = quick_pod.clone();
        slow_pod.metadata.uid = format!("s{round}");
        let list = list(&names);
        let known = |name: &&String| rig.cluster.index.snapshot().position(name).is_some();
        let nodes: Vec<&String> = names.iter().filter(known).collect();
        let has_twice = nodes.iter().collect::<BTreeSet<_>>().len() < nodes.len();
        let borrowed: Vec<Cow<'_, str>> = names.iter().map(|name| Cow::Borrowed(name.as_str())).collect();
        // A pod that comes back gets a longer list, on either way.
        for attempt in 0..=draws.below(3) {
            let slow = rig.decider.filter(&slow_pod, &borrowed, Instant::now()).unwrap();
            match rig.decider.filter_list(&pod_request(&quick_pod), &list) {
                Some(quick) => {
                    assert_eq!((quick.asked_count, quick.named_count), (names.len(), slow.fits.len()));
                    same(&quick.body, &encode_filter(&slow, &borrowed), &(round, attempt, gpus));
                    written += 1;
                }
                None => {
                    assert!(slow.fits.is_empty() || has_twice, "only where nothing fits, round {round}");
                    left_to_the_slow_way += 1;
                    break;
                }
            }
        }
        let slow = rig.decider.prioritize(&slow_pod, &borrowed, Instant::now()).unwrap();
        let quick = rig.decider.prioritize_list(&pod_request(&quick_pod), &list);
        assert_eq!(quick.is_none(), has_twice, "round {round}");
        if let Some(quick) = quick {
            same(&quick.body, &encode_priorities(&slow, &borrowed), &round);
        }
    }
    assert!(written > 1000 && left_to_the_slow_way > 100, "{written} {left_to_the_slow_way}");
}

#[test]
fn a_list_that_go_would_not_write_is_left_to_the_parser() {
    let rig = rig(3);
    for list in [
        r#""n000",,"n001""#,
        r#""n000","#,
        r#","n000""#,
        r#""n000" ,"n001""#,
        r#""n000""n001""#,
        r#""n000",1"#,
        r#""n000",null"#,
        r#""n\u0030\u0030""#,
        r#""n000"#,
        r#"n000"#,
        "\"a\u{1}\"",
        "\"\u{fffd}",
    ] {
        assert_eq!(rig.decider.filter_list(&pod_request(&pod("p", 1)), list.as_bytes()), None, "{list}");
    }
    assert_eq!(rig.decider.filter_list(&pod_request(&pod("p", 1)), b"\"n000\",\"\xff\""), None);
    assert!(rig.decider.filter_list(&pod_request(&pod("p", 1)), br#""n000","stranger""#).is_some());
    let no_gpu = rig.decider.filter_list(&pod_request(&pod("p", 0)), br#""n000""#);
    assert_eq!(no_gpu, None, "a pod that is not ours");
}
