//! Claims about shares and MIG instances in the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::annotation::Note;
use berth_core::demand::{ContainerRequest, PodRequest, Totals};
use berth_core::device::{Extent, HeldDevice, Holding, MigSlot, Portion};
use berth_core::unfit::Reason;
use berth_core::{Demand, NodeView, Policy};
use berth_model::gpu::detail::Board;
use berth_model::mig::catalog::KnownBoard;
use berth_model::{GpuIndex, GpuUuid, MiB, MigInstance, NodeTopology};

use super::properties::Draw;
use super::{name, node, topology, with};
use crate::{Event, Index, NodeFacts, PlanNote, PodFacts, PodUid, Rank};

const CARD: MiB = MiB(81_920);

/// Four GPUs of 80 GiB, of which the last is under MIG: two halves.
pub(super) fn report(generation: u64) -> Event {
    let mig = KnownBoard::by_name("h100-80").unwrap().capability().unwrap();
    let mut parts = topology("a", generation, None).into_parts();
    for gpu in &mut parts.gpus {
        gpu.memory = Some(CARD);
    }
    let cut = &mut parts.gpus[3];
    cut.mig_enabled = Some(true);
    let half = |start| MigInstance {
        placement: mig.by_name("3g.40gb").unwrap().placement(start, 4).unwrap(),
        profile: "3g.40gb".to_owned(),
        uuids: vec![format!("MIG-{start}")],
    };
    cut.detail.mig_instances = vec![half(0), half(4)];
    cut.detail.board = Arc::new(Board { mig, ..Board::default() });
    Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
}

pub(super) fn facts() -> Event {
    let Event::Node(facts) = node("a") else { unreachable!() };
    let offered = [("nvidia.com/gpu".to_owned(), 40), ("nvidia.com/mig-3g.40gb".to_owned(), 2)].into();
    Event::Node(NodeFacts { offered, ..facts })
}

pub(super) fn request(uid: &str, asked: &[(&str, u64)]) -> PodRequest {
    let requests = asked.iter().map(|(name, n)| (format!("nvidia.com/{name}"), n.to_string())).collect();
    let container = ContainerRequest { name: "main".to_owned(), requests, ..ContainerRequest::default() };
    PodRequest { uid: uid.to_owned(), name: uid.to_owned(), containers: vec![container], ..PodRequest::default() }
}

/// A pod on node a, as its annotation and the kubelet say.
fn pod(request: &PodRequest, note: PlanNote, truth: &[(&str, &[&str])]) -> PodFacts {
    let ids = |ids: &&[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    PodFacts {
        uid: PodUid::new(&request.uid),
        namespace: "ns".to_owned(),
        name: request.name.clone(),
        node: Some(name("a")),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals: Totals::of(request),
        rank: Rank::default(),
        note,
        truth: truth.iter().map(|(name, given)| (format!("nvidia.com/{name}"), ids(given))).collect(),
    }
}

fn bound(request: &PodRequest, note: PlanNote, truth: &[(&str, &[&str])]) -> Event {
    Event::Pod(Box::new(pod(request, note, truth)))
}

fn planned(devices: Vec<HeldDevice>) -> PlanNote {
    PlanNote::Devices(Holding { devices, ..Holding::default() })
}

fn share(card: u8, cores_percent: u32, memory: u64) -> PlanNote {
    let extent = Extent::Share(Portion { cores_percent, memory: MiB(memory) });
    let uuid = GpuUuid::parse(&format!("GPU-a-{card}")).unwrap();
    planned(vec![HeldDevice { uuid, extent, device_count: 1 }])
}

fn half(start: u8) -> PlanNote {
    let extent = Extent::Mig(MigSlot { profile: "3g.40gb".to_owned(), start, size: 4 });
    planned(vec![HeldDevice { uuid: GpuUuid::parse("GPU-a-3").unwrap(), extent, device_count: 1 }])
}

fn view(index: &Index) -> NodeView {
    index.snapshot().node("a").unwrap().view.clone()
}

/// Card, cores, MiB and number of shares.
fn shared(view: &NodeView) -> Vec<(u8, u32, u64, u32)> {
    view.shared.iter().map(|s| (s.index.0, s.taken.cores_percent, s.taken.memory.0, s.share_count)).collect()
}

fn starts(view: &NodeView) -> Vec<u8> {
    view.instances.iter().map(|i| i.slot.start).collect()
}

#[test]
fn shares_of_plans_add_up_and_go_with_their_pods() {
    let (p, q) = (request("p", &[("gpu", 1), ("gpucores", 50)]), request("q", &[("gpu", 1), ("gpumem", 1024)]));
    let index = with([facts(), report(1), bound(&p, share(1, 50, 0), &[]), bound(&q, share(1, 0, 1024), &[])]);
    assert_eq!(shared(&view(&index)), [(1, 50, 1024, 2)]);
    assert!(!view(&index).is_imprecise);
    assert!(index.apply(Event::PodGone(PodUid::new("p"))).has_grown, "a share that is free again is growth");
    assert_eq!(shared(&view(&index)), [(1, 0, 1024, 1)]);
}

#[test]
fn a_replica_that_the_kubelet_gave_is_a_share_of_its_card() {
    let p = request("p", &[("gpu", 1), ("gpucores", 50)]);
    let index = with([facts(), report(1), bound(&p, share(1, 50, 0), &[("gpu", &["GPU-a-1::7"])])]);
    assert_eq!((shared(&view(&index)), view(&index).is_imprecise), (vec![(1, 50, 0, 1)], false));
    index.apply(bound(&p, share(1, 50, 0), &[("gpu", &["GPU-a-2::0"])]));
    assert_eq!(shared(&view(&index)), [(2, 50, 0, 1)], "what the kubelet gave is held, as much as was planned");
    let holder = index.snapshot().node("a").unwrap().holders[0].clone();
    assert_eq!(holder.problem, "drift: planned GPUs 1, the kubelet gave GPUs 2");
    let foreign = with([facts(), report(1), bound(&p, PlanNote::Absent, &[("gpu", &["GPU-a-2::0"])])]);
    assert_eq!(shared(&view(&foreign)), [(2, 50, 0, 1)], "without a plan, what its containers ask for");
}

#[test]
fn a_share_without_plan_or_word_of_the_kubelet_counts_as_a_gpu() {
    let index =
        with([facts(), report(1), bound(&request("p", &[("gpu", 1), ("gpucores", 50)]), PlanNote::Absent, &[])]);
    assert_eq!((view(&index).unplanned_gpu_count, view(&index).is_imprecise), (1, true));
}

#[test]
fn no_card_is_both_whole_and_shared_whatever_plans_say() {
    let whole = planned(vec![HeldDevice::whole(GpuUuid::parse("GPU-a-1").unwrap())]);
    for (first, second) in [("p", "q"), ("q", "p")] {
        let shares = request(first, &[("gpu", 1), ("gpucores", 50)]);
        let index = with([
            facts(),
            report(1),
            bound(&shares, share(1, 50, 0), &[]),
            bound(&request(second, &[("gpu", 1)]), whole.clone(), &[]),
        ]);
        let view = view(&index);
        assert_eq!((view.held.bits(), shared(&view)), (0b10, vec![]), "{first} {second}");
        assert_eq!((view.unplanned_gpu_count, view.is_imprecise), (1, true));
    }
}

#[test]
fn instances_are_held_by_plan_by_the_kubelets_word_and_by_number() {
    let p = request("p", &[("mig-3g.40gb", 1)]);
    let index = with([facts(), report(1), bound(&p, half(4), &[])]);
    assert_eq!((starts(&view(&index)), view(&index).is_imprecise), (vec![4], false));
    index.apply(bound(&p, half(4), &[("mig-3g.40gb", &["MIG-0"])]));
    assert_eq!(starts(&view(&index)), [0]);
    let holder = index.snapshot().node("a").unwrap().holders[0].clone();
    assert_eq!(holder.problem, "drift: planned 3g.40gb at slot 4 of GPU3, the kubelet gave 3g.40gb at slot 0 of GPU3");

    let unknown = with([facts(), report(1), bound(&p, PlanNote::Absent, &[])]);
    assert_eq!(view(&unknown).unplanned_instances, [("3g.40gb".to_owned(), 1)].into());
    assert_eq!((view(&unknown).unplanned_gpu_count, view(&unknown).is_imprecise), (0, true));
    unknown.apply(bound(&p, PlanNote::Absent, &[("mig-3g.40gb", &["MIG-0"])]));
    assert_eq!((starts(&view(&unknown)), view(&unknown).is_imprecise), (vec![0], false));
}

#[test]
fn one_instance_in_two_plans_is_one_and_the_other_counts() {
    let (p, q) = (request("p", &[("mig-3g.40gb", 1)]), request("q", &[("mig-3g.40gb", 1)]));
    let index = with([facts(), report(1), bound(&p, half(4), &[]), bound(&q, half(4), &[])]);
    assert_eq!(starts(&view(&index)), [4]);
    assert!(view(&index).is_imprecise);
    let demand = Demand::parse(&request("r", &[("mig-3g.40gb", 1)]), &Policy::default()).unwrap();
    let refused = index.plan_and_hold(&PodUid::new("r"), &name("a"), &demand, &[], &Policy::default(), 100);
    assert_eq!(refused.unwrap_err().reason, Reason::MigBusy);
}

/// What a pod of the random run asks for.
pub(super) fn random_ask(draw: &mut Draw) -> Vec<(&'static str, u64)> {
    match draw.below(8) {
        0 => vec![("gpu", 1 + draw.below(2))],
        1 => vec![("mig-3g.40gb", 1 + draw.below(2))],
        2 => vec![("gpu", 1), ("mig-3g.40gb", 1)],
        3 => vec![("gpu", 2), ("gpucores", 1 + draw.below(60))],
        4 => vec![("gpu", 1), ("gpumem", 1 + draw.below(60_000))],
        _ => vec![("gpu", 1), ("gpucores", 1 + draw.below(100)), ("gpumem", 1 + draw.below(40_000))],
    }
}

#[test]
fn random_places_and_frees_never_overfill_a_card_and_a_rebuilt_ledger_is_the_same() {
    let index = with([facts(), report(1)]);
    let policy = Policy::default();
    let mut draw = Draw(11);
    let mut live: BTreeMap<String, Event> = BTreeMap::new();
    let (mut placed, mut refused) = (0, 0);
    for step in 0..6000 {
        if draw.below(5) < 2 && !live.is_empty() {
            let at = usize::try_from(draw.below(u64::try_from(live.len()).unwrap())).unwrap();
            let uid = live.keys().nth(at).unwrap().clone();
            live.remove(&uid);
            index.apply(Event::PodGone(PodUid::new(&uid)));
        } else {
            let uid = format!("p{step}");
            let request = request(&uid, &random_ask(&mut draw));
            let demand = Demand::parse(&request, &policy).unwrap();
            match index.plan_and_hold(&PodUid::new(&uid), &name("a"), &demand, &[], &policy, u64::MAX) {
                Err(_) => refused += 1,
                Ok((plan, _)) => {
                    placed += 1;
                    let during = view(&index);
                    let holding = Note::of(&plan, &uid).holding().unwrap();
                    let event = bound(&request, PlanNote::Devices(holding), &[]);
                    index.apply(event.clone());
                    live.insert(uid, event);
                    let after = view(&index);
                    assert_eq!(
                        (&during.held, &during.shared, &during.instances),
                        (&after.held, &after.shared, &after.instances)
                    );
                }
            }
        }
        let view = view(&index);
        assert!(!view.is_imprecise && view.unplanned_gpu_count == 0, "step {step}: every plan is taken as it is");
        for card in &view.shared {
            assert!(card.taken.cores_percent <= 100 && card.taken.memory <= CARD, "step {step}: {card:?}");
            assert!(!view.held.contains(card.index) && card.index != GpuIndex(3), "step {step}: {card:?}");
        }
        assert!(!view.held.contains(GpuIndex(3)) && starts(&view).len() <= 2);
        if step % 500 == 0 {
            let rebuilt = with([facts(), report(1)].into_iter().chain(live.values().cloned()));
            assert_eq!(view, super::devices::view(&rebuilt), "step {step}");
        }
    }
    assert!(placed > 1000 && refused > 100, "{placed} placed, {refused} refused");
}

/// A bound pod of this uid with a plan, a word of the kubelet, both or none; the same uid may say more the next time.
pub(super) fn random_bound(uid: &str, draw: &mut Draw) -> Event {
    let ask = random_ask(draw);
    let is_half = ask.iter().any(|(name, _)| *name == "mig-3g.40gb");
    let start = if draw.below(2) == 0 { 0 } else { 4 };
    let note = match draw.below(4) {
        0 => PlanNote::Absent,
        _ if is_half => half(start),
        _ => share(u8::try_from(draw.below(3)).unwrap(), 1 + u32::try_from(draw.below(60)).unwrap(), 1024),
    };
    let given = format!("MIG-{start}");
    let truth: &[(&str, &[&str])] =
        if is_half && draw.below(3) == 0 { &[("mig-3g.40gb", &[given.as_str()])] } else { &[] };
    bound(&request(uid, &ask), note, truth)
}
