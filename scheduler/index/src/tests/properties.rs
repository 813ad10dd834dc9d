//! Claims over random events: cached equals fresh, rebuilt equals lived through, one pod dirties one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::place::Afresh;
use berth_core::plan::{decide, rest};
use berth_core::unfit::Reason;
use berth_core::value::Typical;
use berth_core::value::rooms::Rooms;
use berth_core::{Demand, Policy};
use berth_model::NodeName;

use super::{bound, demand, devices, name, node, pod, report, told, with};
use crate::{Evaluator, Event, Index, Kind, PodUid, Verdict};

/// A small deterministic generator: tests must replay from their seed.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn random_event(draw: &mut Draw, generation: u64) -> Event {
    let nodes = ["a", "b", "c"];
    let at = nodes[usize::try_from(draw.below(3)).unwrap()];
    let uid = format!("p{}", draw.below(400));
    match draw.below(12) {
        0 => node(at),
        1 => Event::NodeGone(name(at)),
        2 => report(at, generation, u8::try_from(draw.below(8)).ok().filter(|i| *i < 4)),
        3 => Event::ReportGone(name(at)),
        4 => Event::Agent { node: name(at), is_there: draw.below(3) > 0 },
        5..=6 => Event::PodGone(PodUid::new(&uid)),
        7 => told(pod(&uid, at, 1, None), &[u8::try_from(draw.below(4)).unwrap()]),
        8 => bound(&uid, at, draw.below(3), None),
        _ => bound(&uid, at, 1, Some(&[u8::try_from(draw.below(4)).unwrap()])),
    }
}

#[test]
fn cached_verdicts_equal_fresh_ones_after_every_event() {
    let index = Index::default();
    let evaluator = Evaluator::default();
    let policy = Arc::new(Policy::default());
    let mut draw = Draw(42);
    for step in 0..4000 {
        index.apply(random_event(&mut draw, step));
        let snapshot = index.snapshot();
        let shape = demand(u32::try_from(draw.below(4)).unwrap() + 1).shape;
        let names = ["a", "b", "c", "nobody"];
        let positions: Vec<_> = names.iter().map(|n| snapshot.position(n)).collect();
        let cached = evaluator.verdicts(&snapshot, &positions, &shape, &policy);
        for (name, cached) in names.iter().zip(cached) {
            let fresh = snapshot.node(name).filter(|s| s.exists).map(|slot| {
                match decide(&slot.view, &shape, &policy, &mut Afresh) {
                    Ok(fit) => Verdict::Fit(fit.score),
                    Err(reason) => Verdict::Unfit(reason),
                }
            });
            assert_eq!(cached, fresh, "step {step}, node {name}");
        }
    }
}

#[test]
fn a_ledger_rebuilt_from_a_list_equals_the_one_that_lived_through_the_events() {
    let index = Index::default();
    let mut draw = Draw(7);
    let mut nodes: BTreeMap<NodeName, Event> = BTreeMap::new();
    let mut reports: BTreeMap<NodeName, Event> = BTreeMap::new();
    let mut pods: BTreeMap<PodUid, Event> = BTreeMap::new();
    for step in 0..4000_u64 {
        let event = match draw.below(5) {
            0 => node(["a", "b"][usize::try_from(draw.below(2)).unwrap()]),
            1 => report(["a", "b"][usize::try_from(draw.below(2)).unwrap()], step, None),
            2 if !pods.is_empty() => {
                let at = usize::try_from(draw.below(u64::try_from(pods.len()).unwrap())).unwrap();
                Event::PodGone(pods.keys().nth(at).unwrap().clone())
            }
            _ => {
                let device = u8::try_from(draw.below(4)).unwrap();
                bound(&format!("p{step}"), ["a", "b"][usize::try_from(draw.below(2)).unwrap()], 1, Some(&[device]))
            }
        };
        match &event {
            Event::Node(facts) => drop(nodes.insert(facts.name.clone(), event.clone())),
            Event::Report(topology) => drop(reports.insert(topology.parts().node.clone(), event.clone())),
            Event::Pod(pod) => drop(pods.insert(pod.uid.clone(), event.clone())),
            Event::PodGone(uid) => drop(pods.remove(uid)),
            _ => unreachable!(),
        }
        index.apply(event);
        if step % 250 == 0 {
            let rebuilt = with(pods.values().chain(reports.values()).chain(nodes.values()).cloned());
            let (lived, rebuilt) = (index.snapshot(), rebuilt.snapshot());
            for slot in lived.nodes() {
                let other = rebuilt.node(slot.view.name.as_str()).unwrap();
                assert_eq!((&slot.view, &slot.holders), (&other.view, &other.holders), "step {step}");
            }
        }
    }
}

/// Events of a node one of whose GPUs MIG cuts: its pods ask for GPUs, shares and instances, with plans, words of the kubelet, and neither.
fn random_device_event(draw: &mut Draw, generation: u64, live: &mut Vec<String>) -> Event {
    match draw.below(12) {
        0 => devices::facts(),
        1..=2 => devices::report(generation),
        3 => Event::Agent { node: name("a"), is_there: draw.below(3) > 0 },
        4 => Event::ReportGone(name("a")),
        5..=7 if !live.is_empty() && live.len() < 4 => {
            // It says more, or less, than before.
            let at = usize::try_from(draw.below(u64::try_from(live.len()).unwrap())).unwrap();
            devices::random_bound(&live[at], draw)
        }
        _ if draw.below(4) < u64::try_from(live.len()).unwrap() => {
            let at = usize::try_from(draw.below(u64::try_from(live.len()).unwrap())).unwrap();
            Event::PodGone(PodUid::new(&live.swap_remove(at)))
        }
        _ => {
            live.push(format!("d{generation}"));
            devices::random_bound(&format!("d{generation}"), draw)
        }
    }
}

#[test]
fn cached_verdicts_equal_fresh_ones_with_shares_and_instances_in_the_mix() {
    let index = with([devices::facts(), devices::report(1)]);
    let (evaluator, policy, mut draw) = (Evaluator::default(), Arc::new(Policy::default()), Draw(23));
    let (mut fits, mut busy, mut live) = (0, 0, Vec::new());
    for step in 0..6000 {
        index.apply(random_device_event(&mut draw, step + 2, &mut live));
        let snapshot = index.snapshot();
        let shape = Demand::parse(&devices::request("q", &devices::random_ask(&mut draw)), &policy).unwrap().shape;
        let cached = evaluator.verdicts(&snapshot, &[snapshot.position("a")], &shape, &policy);
        let fresh = snapshot.node("a").filter(|s| s.exists).map(|slot| {
            match decide(&slot.view, &shape, &policy, &mut Afresh) {
                Ok(fit) => Verdict::Fit(fit.score),
                Err(reason) => Verdict::Unfit(reason),
            }
        });
        assert_eq!(cached, [fresh], "step {step}");
        fits += u32::from(matches!(fresh, Some(Verdict::Fit(_))));
        busy += u32::from(matches!(fresh, Some(Verdict::Unfit(Reason::MigBusy))));
    }
    assert!(fits > 500 && busy > 50, "{fits} fit, {busy} find no free instance: too one-sided to show much");
}

#[test]
fn one_bound_pod_dirties_one_node() {
    let nodes: Vec<String> = (0..50).map(|i| format!("n{i}")).collect();
    let index = with(nodes.iter().flat_map(|n| [node(n), report(n, 1, None)]));
    let evaluator = Evaluator::default();
    let policy = Arc::new(Policy::default());
    let shape = demand(1).shape;
    let run = || {
        let snapshot = index.snapshot();
        let positions: Vec<_> = nodes.iter().map(|n| snapshot.position(n)).collect();
        drop(evaluator.verdicts(&snapshot, &positions, &shape, &policy));
        evaluator.evaluation_count()
    };
    assert_eq!((run(), run()), (50, 50));
    index.apply(bound("p", "n7", 1, Some(&[0])));
    assert_eq!(run(), 51);
}

#[test]
fn a_node_update_that_says_nothing_new_dirties_nothing() {
    let index = with([node("a"), report("a", 1, None)]);
    let version = |index: &Index| index.snapshot().node("a").unwrap().version;
    let before = version(&index);
    assert_eq!(index.apply(node("a")), crate::Change::default());
    assert_eq!(version(&index), before);
}

#[test]
fn the_room_of_all_nodes_equals_the_sum_over_them_after_every_event() {
    // Nodes of these tests tell of no cores.
    let kind = |gpu_count| Typical { gpu_count, gpu_milli: 1000, cpu_milli: 0 };
    let mixes: [Arc<[Typical]>; 2] = [[kind(2), kind(4)].into(), [kind(3)].into()];
    let index = Index::default();
    let mut draw = Draw(43);
    let (mut mix, mut seen) = (Arc::clone(&mixes[0]), 0);
    index.apply(Event::Expected(Arc::clone(&mix)));
    for step in 0..4000 {
        if draw.below(50) == 0 {
            // Else the nodes are full for ever.
            index.reset(Kind::Pods, Vec::new());
            mix = Arc::clone(&mixes[usize::try_from(draw.below(2)).unwrap()]);
            index.apply(Event::Expected(Arc::clone(&mix)));
        }
        index.apply(random_event(&mut draw, step));
        let snapshot = index.snapshot();
        let mut afresh = Rooms::of(Arc::clone(&mix));
        for slot in snapshot.nodes().filter(|slot| slot.exists) {
            let Some(hardware) = &slot.view.hardware else { continue };
            afresh.add(rest(&slot.view, hardware).remainder());
        }
        assert_eq!(*snapshot.rooms(), afresh, "step {step}");
        seen += afresh.counts().sum::<u64>();
    }
    assert!(seen > 1000, "there was hardly ever any room: {seen}");
}
