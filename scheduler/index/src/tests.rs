//! Claims about the index: rebuilt equals lived through, holds, imprecision, growth, and cached verdicts.

mod devices;
mod holds;
mod positions;
mod properties;
mod rails;
mod site;
mod truth;

use std::collections::BTreeMap;

use berth_core::demand::{ContainerRequest, PodRequest, Totals};
use berth_core::device::HeldDevice;
use berth_core::unfit::Reason;
use berth_core::view::{Compute, Knowledge};
use berth_core::{Demand, Policy};
use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuIndex, GpuSet, GpuUuid, Health, Link, LinkMatrix, MiB, NodeName,
    NodeTopology, Parts, PciAddress, PcieLevel,
};

use crate::{Event, HoldId, Index, Kind, NodeFacts, PlanNote, PodFacts, PodUid, Rank};

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn node(text: &str) -> Event {
    Event::Node(NodeFacts {
        name: name(text),
        boot_id: Some(BootId::parse("boot").unwrap()),
        offered: [("nvidia.com/gpu".to_owned(), 4)].into(),
        allocatable: Compute { cpu_milli: 64_000, memory: MiB(512 << 10) },
        zone: None,
        is_avoided: false,
        labels: berth_core::level::LabelSet::default(),
    })
}

fn topology(text: &str, generation: u64, sick: Option<u8>) -> NodeTopology {
    let gpu = |i: u8| Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(&format!("GPU-{text}-{i}")).unwrap(),
        pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
        product: "X".to_owned(),
        memory: None,
        zone: None,
        cpus: CpuSet::default(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: None,
        health: if sick == Some(i) { Health::Unhealthy("lost".to_owned()) } else { Health::Healthy },
        detail: berth_model::GpuDetail::default(),
    };
    NodeTopology::try_new(Parts {
        node: name(text),
        boot_id: BootId::parse("boot").unwrap(),
        generation: Generation(generation),
        driver: Driver::Loaded("".into()),
        zones: Vec::new(),
        gpus: (0..4).map(gpu).collect(),
        nics: Vec::new(),
        links: LinkMatrix::build(4, |a, b| Link { nvlinks: u8::from(a / 2 == b / 2), pcie: Some(PcieLevel::Sys) }),
        host: berth_model::Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
    .unwrap()
}

fn report(text: &str, generation: u64, sick: Option<u8>) -> Event {
    Event::Report(Box::new(topology(text, generation, sick)))
}

fn pod(uid: &str, node: &str, gpus: u64, devices: Option<&[u8]>) -> PodFacts {
    let uuid = |i: &u8| GpuUuid::parse(&format!("GPU-{node}-{i}")).unwrap();
    PodFacts {
        uid: PodUid::new(uid),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        node: Some(name(node)),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals: Totals {
            cpu_milli: 1000,
            memory: MiB(1024),
            extended: [("nvidia.com/gpu".to_owned(), gpus)].into(),
            ..Totals::default()
        },
        rank: Rank::default(),
        note: devices
            .map_or(PlanNote::Absent, |d| PlanNote::Devices(d.iter().map(uuid).map(HeldDevice::whole).collect())),
        truth: BTreeMap::new(),
    }
}

fn bound(uid: &str, node: &str, gpus: u64, devices: Option<&[u8]>) -> Event {
    Event::Pod(Box::new(pod(uid, node, gpus, devices)))
}

fn demand(gpus: u32) -> Demand {
    let container = ContainerRequest {
        name: "main".to_owned(),
        requests: [("nvidia.com/gpu".to_owned(), gpus.to_string())].into(),
        ..ContainerRequest::default()
    };
    let pod = PodRequest { containers: vec![container], ..PodRequest::default() };
    Demand::parse(&pod, &Policy::default()).unwrap()
}

fn with(events: impl IntoIterator<Item = Event>) -> Index {
    let index = Index::default();
    for event in events {
        index.apply(event);
    }
    index
}

fn held(index: &Index, node: &str) -> (u32, u32, bool) {
    let snapshot = index.snapshot();
    let view = &snapshot.node(node).unwrap().view;
    (view.held.bits(), view.unplanned_gpu_count, view.is_imprecise)
}

/// The pod, with what the kubelet says it gave it.
fn told(mut pod: PodFacts, devices: &[u8]) -> Event {
    let node = pod.node.clone().unwrap();
    let ids = devices.iter().map(|i| format!("GPU-{node}-{i}")).collect();
    pod.truth = [("nvidia.com/gpu".to_owned(), ids)].into();
    Event::Pod(Box::new(pod))
}

#[test]
fn plans_of_bound_live_pods_are_the_ledger() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 2, Some(&[1, 2]))]);
    assert_eq!(held(&index, "a"), (0b110, 0, false));
    index.apply(Event::PodGone(PodUid::new("p")));
    assert_eq!(held(&index, "a"), (0, 0, false));
}

#[test]
fn a_pod_bound_by_others_counts_and_makes_the_node_imprecise() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 2, None)]);
    assert_eq!(held(&index, "a"), (0, 2, true));
}

#[test]
fn a_plan_with_unknown_devices_counts_as_used() {
    let mut foreign = pod("p", "a", 2, None);
    foreign.note = PlanNote::Devices(
        ["GPU-elsewhere", "GPU-a-0"].map(|u| HeldDevice::whole(GpuUuid::parse(u).unwrap())).into_iter().collect(),
    );
    let index = with([node("a"), report("a", 1, None), Event::Pod(Box::new(foreign))]);
    assert_eq!(held(&index, "a"), (0b1, 1, true));
}

#[test]
fn a_device_in_two_plans_costs_two_gpus_and_is_named() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 1, Some(&[0])), bound("q", "a", 1, Some(&[0]))]);
    assert_eq!(held(&index, "a"), (0b1, 1, true));
    let snapshot = index.snapshot();
    let problems: Vec<&str> = snapshot.node("a").unwrap().holders.iter().map(|h| h.problem.as_str()).collect();
    assert_eq!(problems, ["", "GPUs 0 are in another plan too"]);
}

#[test]
fn a_plan_that_vanishes_from_a_live_pod_still_counts() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 1, Some(&[3]))]);
    index.apply(bound("p", "a", 1, None));
    assert_eq!(held(&index, "a"), (0b1000, 0, false));
}

#[test]
fn a_pod_that_is_gone_is_not_brought_back_by_an_older_list() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 1, Some(&[0]))]);
    index.apply(Event::PodGone(PodUid::new("p")));
    index.apply(bound("p", "a", 1, Some(&[0])));
    assert_eq!(held(&index, "a"), (0, 0, false));
}

#[test]
fn an_ended_pod_holds_nothing() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 1, Some(&[0]))]);
    let mut ended = pod("p", "a", 1, Some(&[0]));
    ended.is_ended = true;
    index.apply(Event::Pod(Box::new(ended)));
    assert_eq!(held(&index, "a"), (0, 0, false));
}

#[test]
fn two_binds_at_once_never_share_a_device() {
    let index = with([node("a"), report("a", 1, None)]);
    let policy = Policy::default();
    let plans: Vec<_> = (0..3)
        .map(|i| index.plan_and_hold(&PodUid::new(&format!("p{i}")), &name("a"), &demand(2), &[], &policy, 100))
        .collect();
    let sets: Vec<GpuSet> = plans.iter().flatten().filter_map(|p| p.0.set).collect();
    assert_eq!(sets.len(), 2);
    assert!(sets[0].is_disjoint(sets[1]));
    assert_eq!(plans[2].as_ref().unwrap_err().reason, Reason::GpusBusy);
}

#[test]
fn a_hold_ends_by_release_by_time_by_binding_and_by_deletion() {
    let policy = Policy::default();
    type End = fn(&Index, HoldId);
    let ends: [(&str, End, u32); 4] = [
        ("release", |i, id| drop(i.apply(Event::HoldReleased(id))), 0),
        ("time", |i, _| assert_eq!(i.expire_holds(100), 1), 0),
        ("binding", |i, _| drop(i.apply(bound("p", "a", 2, Some(&[2, 3])))), 0b1100),
        ("deletion", |i, _| drop(i.apply(Event::PodGone(PodUid::new("p")))), 0),
    ];
    for (how, end, left) in ends {
        let index = with([node("a"), report("a", 1, None)]);
        let (_, id) = index.plan_and_hold(&PodUid::new("p"), &name("a"), &demand(2), &[], &policy, 100).unwrap();
        assert_eq!(held(&index, "a").0, 0b11, "{how}");
        assert_eq!(index.expire_holds(99), 0);
        end(&index, id);
        assert_eq!(held(&index, "a").0, left, "{how}");
        assert_eq!(index.snapshot().hold_count(), 0, "{how}");
    }
}

/// Found by the simulator: the hold was gone, and the GPUs of its node stayed held until something else changed there.
#[test]
fn a_hold_on_another_node_ends_too_when_its_pod_is_bound_or_deleted_elsewhere() {
    let policy = Policy::default();
    type End = fn(&Index);
    let ends: [(&str, End); 2] = [
        ("bound", |i| drop(i.apply(bound("p", "b", 2, Some(&[2, 3]))))),
        ("bound and deleted", |i| {
            i.apply(bound("p", "b", 2, Some(&[2, 3])));
            i.plan_and_hold(&PodUid::new("p"), &name("a"), &demand(2), &[], &Policy::default(), 100).unwrap();
            i.apply(Event::PodGone(PodUid::new("p")));
            assert_eq!(held(i, "b").0, 0);
        }),
    ];
    for (how, end) in ends {
        let index = with([node("a"), report("a", 1, None), node("b"), report("b", 1, None)]);
        index.plan_and_hold(&PodUid::new("p"), &name("a"), &demand(2), &[], &policy, 100).unwrap();
        assert_eq!(held(&index, "a").0, 0b11, "{how}");
        end(&index);
        assert_eq!(held(&index, "a").0, 0, "{how}");
    }
}

#[test]
fn a_second_try_of_the_same_pod_is_not_blocked_by_its_own_holds() {
    let index = with([node("a"), report("a", 1, None)]);
    let policy = Policy::default();
    for _ in 0..3 {
        index.plan_and_hold(&PodUid::new("p"), &name("a"), &demand(4), &[], &policy, 100).unwrap();
    }
    assert_eq!(index.snapshot().hold_count(), 3, "an earlier write may still land");
}

#[test]
fn the_highest_generation_wins_and_a_refused_report_keeps_the_last_good_one() {
    let index = with([node("a"), report("a", 5, None)]);
    let older = index.apply(report("a", 4, Some(0)));
    assert_eq!(older.refused.unwrap(), "generation: 4 is not above 5, which is known");
    assert!(index.apply(report("a", 5, Some(0))).refused.is_some(), "same generation, other facts");
    assert!(index.apply(report("a", 5, None)).refused.is_none());
    let snapshot = index.snapshot();
    let hardware = snapshot.node("a").unwrap().view.hardware.clone().unwrap();
    assert_eq!(hardware.topology.usable_gpus().gpu_count(), 4);
}

#[test]
fn growth_is_told_from_change() {
    let index = with([node("a"), report("a", 1, None)]);
    assert!(!index.apply(report("a", 2, Some(0))).has_grown);
    assert!(index.apply(report("a", 3, None)).has_grown);
    assert!(!index.apply(Event::Agent { node: name("a"), is_there: false }).has_grown);
    assert!(index.apply(Event::Agent { node: name("a"), is_there: true }).has_grown);
    assert!(!index.apply(bound("p", "a", 1, Some(&[0]))).has_grown);
    assert!(index.apply(Event::PodGone(PodUid::new("p"))).has_grown);
}

#[test]
fn another_boot_or_an_absent_agent_makes_a_report_stale_not_void() {
    let index = with([node("a"), report("a", 1, None)]);
    let knowledge = |index: &Index| index.snapshot().node("a").unwrap().view.knowledge;
    assert_eq!(knowledge(&index), Knowledge::Current);
    index.apply(Event::Agent { node: name("a"), is_there: false });
    assert_eq!(knowledge(&index), Knowledge::Stale);
    index.apply(Event::Agent { node: name("a"), is_there: true });
    let Event::Node(mut facts) = node("a") else { unreachable!() };
    facts.boot_id = Some(BootId::parse("next").unwrap());
    index.apply(Event::Node(facts));
    assert_eq!(knowledge(&index), Knowledge::Stale);
    assert!(index.snapshot().node("a").unwrap().view.hardware.is_some());
}

#[test]
fn a_relist_drops_what_it_does_not_name() {
    let index = with([node("a"), node("b"), report("a", 1, None), bound("p", "a", 1, Some(&[0]))]);
    index.reset(Kind::Nodes, vec![node("a")]);
    assert!(index.snapshot().node("b").is_none());
    assert_eq!(held(&index, "a").0, 0b1, "pods and reports are not nodes");
    index.reset(Kind::Pods, vec![bound("q", "a", 1, Some(&[1]))]);
    assert_eq!(held(&index, "a").0, 0b10);
    index.reset(Kind::Pods, vec![]);
    assert_eq!(held(&index, "a").0, 0);
    index.reset(Kind::Reports, vec![]);
    assert!(index.snapshot().node("a").unwrap().view.hardware.is_none());
}
