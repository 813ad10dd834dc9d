//! Claims about holds: a device that a write may still give away is planned for nobody else, however often a pod is tried again.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::Policy;
use berth_model::GpuSet;

use super::properties::Draw;
use super::{bound, demand, held, name, node, report, with};
use crate::{Event, HoldId, Index, PodUid};

fn uid(i: u64) -> PodUid {
    PodUid::new(&format!("p{i}"))
}

/// Plans and holds until `until_ms`: the GPUs and the claim.
fn hold(index: &Index, pod: &PodUid, at: &str, gpus: u32, until_ms: u64) -> Option<(GpuSet, HoldId)> {
    let planned = index.plan_and_hold(pod, &name(at), &demand(gpus), &[], &Policy::default(), until_ms);
    planned.ok().map(|(plan, id)| (plan.set.unwrap(), id))
}

#[test]
fn a_pod_tried_on_another_node_keeps_what_an_unknown_write_may_still_give_it() {
    let index = with([node("a"), node("b"), report("a", 1, None), report("b", 1, None)]);
    let (p, q) = (uid(0), uid(1));
    hold(&index, &p, "a", 4, 100).unwrap();
    hold(&index, &p, "b", 4, 200).unwrap();
    assert_eq!((held(&index, "a").0, held(&index, "b").0), (0b1111, 0b1111));
    assert!(hold(&index, &q, "a", 1, 100).is_none(), "the write to a may land yet");
    assert_eq!(index.expire_holds(100), 1);
    assert!(hold(&index, &q, "a", 1, 300).is_some());
    // It is seen bound on b: nothing else can happen to it.
    let change = index.apply(bound("p0", "b", 4, Some(&[0, 1, 2, 3])));
    assert_eq!((change.node, index.snapshot().hold_count()), (Some(name("b")), 1));
}

#[test]
fn a_pod_that_turns_up_on_one_node_frees_the_other() {
    for gone in [false, true] {
        let index = with([node("a"), node("b"), report("a", 1, None), report("b", 1, None)]);
        hold(&index, &uid(0), "a", 4, 100).unwrap();
        hold(&index, &uid(0), "b", 2, 100).unwrap();
        let end = if gone { Event::PodGone(uid(0)) } else { bound("p0", "a", 4, Some(&[0, 1, 2, 3])) };
        let change = index.apply(end);
        assert!(change.has_grown, "gone: {gone}: {change:?}");
        assert_eq!(held(&index, "b").0, 0);
        assert_eq!(held(&index, "a").0, if gone { 0 } else { 0b1111 });
        assert_eq!(index.snapshot().hold_count(), 0);
    }
}

#[test]
fn one_claim_given_back_leaves_the_others_of_its_pod() {
    let index = with([node("a"), report("a", 1, None)]);
    let (_, first) = hold(&index, &uid(0), "a", 2, 100).unwrap();
    let (_, second) = hold(&index, &uid(0), "a", 2, 100).unwrap();
    assert_ne!(first, second);
    index.apply(Event::HoldReleased(second.clone()));
    assert_eq!(held(&index, "a").0, 0b11, "the first write is still unknown");
    index.apply(Event::HoldReleased(second));
    index.apply(Event::HoldReleased(first));
    assert_eq!((held(&index, "a").0, index.snapshot().hold_count()), (0, 0));
}

#[test]
fn equal_claims_of_one_pod_take_their_amounts_once_and_their_number_is_bounded() {
    let index = with([node("a"), report("a", 1, None)]);
    for _ in 0..40 {
        hold(&index, &uid(0), "a", 2, 100).unwrap();
    }
    assert_eq!(held(&index, "a"), (0b11, 0, false));
    assert!(index.snapshot().hold_count() <= 16);
}

/// A write that was sent and whose answer nobody saw.
struct OnItsWay {
    pod: u64,
    at: &'static str,
    gpus: Vec<u8>,
    until_ms: u64,
}

/// What the API server has: who is bound where with which GPUs. No pod is bound twice.
#[derive(Default)]
struct Truth {
    bound: BTreeMap<u64, (&'static str, Vec<u8>)>,
}

impl Truth {
    fn land(&mut self, index: &Index, pod: u64, at: &'static str, gpus: &[u8]) {
        if self.bound.contains_key(&pod) {
            return;
        }
        for (other, (node, theirs)) in &self.bound {
            let twice = *node == at && theirs.iter().any(|gpu| gpus.contains(gpu));
            assert!(!twice, "pods {pod} and {other} both have a GPU of {gpus:?} on {at}");
        }
        self.bound.insert(pod, (at, gpus.to_vec()));
        index.apply(bound(&format!("p{pod}"), at, u64::try_from(gpus.len()).unwrap(), Some(gpus)));
    }
}

#[test]
fn writes_that_land_late_or_never_give_no_device_to_two_pods() {
    let mut landed_late = 0;
    for seed in 0..40 {
        let index = with([node("a"), node("b"), report("a", 1, None), report("b", 1, None)]);
        let (mut draw, mut truth, mut on_its_way, mut now_ms) = (Draw(seed), Truth::default(), Vec::new(), 0);
        let mut dead = BTreeSet::new();
        for _ in 0..300 {
            let pod = draw.below(60);
            let at = ["a", "b"][usize::try_from(draw.below(2)).unwrap()];
            match draw.below(8) {
                0 => now_ms += draw.below(20),
                1 => {
                    // Only what was sent within the life of its hold lands.
                    let at = usize::try_from(draw.below(8)).unwrap();
                    if at < on_its_way.len() {
                        let OnItsWay { pod, at, gpus, .. } = on_its_way.remove(at);
                        landed_late += usize::from(!truth.bound.contains_key(&pod));
                        truth.land(&index, pod, at, &gpus);
                    }
                }
                2 => {
                    if truth.bound.remove(&pod).is_some() {
                        // A UID never comes back.
                        index.apply(Event::PodGone(uid(pod)));
                        on_its_way.retain(|write| write.pod != pod);
                        dead.insert(pod);
                    }
                }
                kind => {
                    if truth.bound.contains_key(&pod) || dead.contains(&pod) {
                        continue;
                    }
                    let gpus = u32::try_from(1 + draw.below(3)).unwrap();
                    let Some((set, id)) = hold(&index, &uid(pod), at, gpus, now_ms + 30) else { continue };
                    let gpus: Vec<u8> = set.iter().map(|gpu| gpu.0).collect();
                    match kind {
                        3 => drop(index.apply(Event::HoldReleased(id))),
                        4 | 5 => truth.land(&index, pod, at, &gpus),
                        _ => on_its_way.push(OnItsWay { pod, at, gpus, until_ms: now_ms + 30 }),
                    }
                }
            }
            index.expire_holds(now_ms);
            on_its_way.retain(|write| write.until_ms > now_ms);
            let holders: BTreeSet<u64> = on_its_way.iter().map(|w| w.pod).chain(truth.bound.keys().copied()).collect();
            let snapshot = index.snapshot();
            assert!(snapshot.nodes().all(|slot| !slot.view.is_imprecise), "seed {seed}");
            assert!(snapshot.hold_count() <= 16 * holders.len(), "holds of nobody");
        }
    }
    assert!(landed_late > 50, "{landed_late}");
}
