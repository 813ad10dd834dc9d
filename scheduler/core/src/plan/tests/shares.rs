//! Claims about shares of cards.

use super::*;
use crate::device::Extent;
use crate::view::{Compute, SharedGpu};

/// A pod of containers, each with so many cards, percent of cores and MiB of each; 0 for none.
pub(super) fn pod(containers: &[(u32, u32, u64)]) -> Demand {
    parse(containers, &Policy::default()).unwrap()
}

fn request(name: &str, (cards, cores, memory): (u32, u32, u64)) -> ContainerRequest {
    let amounts = [
        ("nvidia.com/gpu", u64::from(cards)),
        ("nvidia.com/gpucores", u64::from(cores)),
        ("nvidia.com/gpumem", memory),
    ];
    let named = amounts.into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k.to_owned(), n.to_string()));
    ContainerRequest { name: name.to_owned(), requests: named.collect(), ..ContainerRequest::default() }
}

fn parse(containers: &[(u32, u32, u64)], policy: &Policy) -> Result<Demand, Unfit> {
    let containers = containers.iter().enumerate().map(|(i, c)| request(&format!("c{i}"), *c)).collect();
    Demand::parse(&PodRequest { containers, ..PodRequest::default() }, policy)
}

pub(super) fn with_policy(lines: &str) -> Policy {
    crate::policy::parse(&format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n{lines}\n")).unwrap()
}

/// An idle node of equal cards of 80 GiB.
pub(super) fn node() -> NodeView {
    let mut parts = topology(Box8::Switched).into_parts();
    for gpu in &mut parts.gpus {
        gpu.memory = Some(MiB(81_920));
    }
    view_of(berth_model::NodeTopology::try_new(parts).unwrap())
}

pub(super) fn shared(cards: &[(u8, u32, u64)]) -> Vec<SharedGpu> {
    let one = |(index, cores_percent, memory): &(u8, u32, u64)| SharedGpu {
        index: GpuIndex(*index),
        taken: Portion { cores_percent: *cores_percent, memory: MiB(*memory) },
        share_count: 1,
    };
    cards.iter().map(one).collect()
}

fn cards(view: &NodeView, demand: &Demand) -> Result<Vec<u8>, Reason> {
    cards_under(view, demand, &Policy::default())
}

pub(super) fn cards_under(view: &NodeView, demand: &Demand, policy: &Policy) -> Result<Vec<u8>, Reason> {
    let plan = plan(view, demand, policy).map_err(|u| u.reason)?;
    Ok(plan.containers.iter().flat_map(|c| &c.devices).map(|d| d.index.0).collect())
}

#[test]
fn pods_of_half_and_three_tenths_of_a_gpu_land_on_one_card() {
    let half = plan(&node(), &pod(&[(1, 50, 40_960)]), &Policy::default()).unwrap();
    let device = &half.containers[0].devices[0];
    assert_eq!(device.extent, Extent::Share(Portion { cores_percent: 50, memory: MiB(40_960) }));
    let index = device.index;
    let after = NodeView { shared: shared(&[(index.0, 50, 40_960)]), ..node() };
    assert_eq!(cards(&after, &pod(&[(1, 30, 24_576)])), Ok(vec![index.0]));
    assert_eq!(cards(&after, &pod(&[(1, 30, 0)])), Ok(vec![index.0]), "cores alone");
    // And the node that has the half stands before an empty one.
    let empty = decide(&node(), &pod(&[(1, 30, 24_576)]).shape, &Policy::default(), &mut Afresh).unwrap();
    let used = decide(&after, &pod(&[(1, 30, 24_576)]).shape, &Policy::default(), &mut Afresh).unwrap();
    assert!(used.score > empty.score);
}

#[test]
fn the_fullest_card_that_fits_is_taken_and_both_amounts_bind() {
    let view = NodeView { shared: shared(&[(2, 40, 8192), (4, 70, 8192), (6, 10, 77_824)]), ..node() };
    for (asked, card) in [((1, 30, 0), 4), ((1, 31, 0), 6), ((1, 0, 4096), 6), ((1, 10, 4096), 6), ((1, 80, 4097), 0)] {
        assert_eq!(cards(&view, &pod(&[asked])), Ok(vec![card]), "{asked:?}");
    }
}

#[test]
fn whole_gpus_and_shares_keep_away_from_each_other() {
    let view = NodeView { held: bits(0b0000_1111), shared: shared(&[(4, 10, 1024)]), ..node() };
    assert_eq!(planned(&view, &demand(3, &[])), Ok(bits(0b1110_0000)));
    assert_eq!(planned(&view, &demand(4, &[])), Err(Reason::GpusBusy));
    let full = NodeView { held: bits(0b1110_1111), ..view };
    assert_eq!(cards(&full, &pod(&[(1, 90, 0)])), Ok(vec![4]));
    assert_eq!(
        cards(&NodeView { shared: Vec::new(), held: bits(0xff), ..full }, &pod(&[(1, 1, 0)])),
        Err(Reason::GpusBusy)
    );
}

#[test]
fn what_is_short_is_named() {
    let all =
        |cores, memory| NodeView { shared: shared(&(0..8).map(|i| (i, cores, memory)).collect::<Vec<_>>()), ..node() };
    for (view, asked, reason) in [
        (all(80, 0), vec![(1, 30, 1024)], Reason::CoresBusy),
        (all(10, 80_000), vec![(1, 30, 8192)], Reason::GpuMemoryBusy),
        (node(), vec![(1, 30, 90_000)], Reason::ShareTooLarge),
        (node(), vec![(8, 60, 0), (8, 60, 0)], Reason::NotOffered),
        (all(60, 0), vec![(1, 30, 0), (8, 30, 0)], Reason::NotOffered),
        (all(0, 81_920), vec![(1, 30, 0), (1, 0, 1)], Reason::GpuMemoryBusy),
    ] {
        let refused = plan(&view, &pod(&asked), &Policy::default()).unwrap_err();
        assert_eq!(refused.reason, reason, "{asked:?}: {}", refused.detail);
    }
    let halves = NodeView { shared: shared(&[(0, 90, 0), (1, 0, 80_000)]), held: bits(0b1111_1100), ..node() };
    let refused = plan(&halves, &pod(&[(1, 30, 8192)]), &Policy::default()).unwrap_err();
    assert_eq!(refused.reason, Reason::SharesBusy);
    assert_eq!(refused.detail, "asked 30% cores + 8192 MiB; free are GPU0: 10% + 81920 MiB, GPU1: 100% + 1920 MiB");
}

#[test]
fn cards_of_one_container_are_apart_and_those_of_two_need_not_be() {
    assert_eq!(cards(&node(), &pod(&[(2, 30, 0)])), Ok(vec![0, 1]));
    assert_eq!(cards(&node(), &pod(&[(1, 30, 0), (1, 30, 0)])), Ok(vec![0, 0]));
    assert_eq!(cards(&node(), &pod(&[(1, 60, 0), (1, 60, 0)])), Ok(vec![0, 1]));
    // The greedy way down puts the small one beside the 30 and finds no place for the last.
    let two = NodeView { held: bits(0b1111_1100), shared: shared(&[(0, 30, 0)]), ..node() };
    assert_eq!(cards(&two, &pod(&[(1, 40, 0), (1, 40, 0), (1, 90, 0)])), Err(Reason::SharesBusy));
    assert_eq!(cards(&two, &pod(&[(1, 30, 0), (1, 70, 0), (1, 70, 0)])), Ok(vec![1, 0, 1]));
}

#[test]
fn an_init_container_reuses_the_cards_of_the_others_and_its_share_counts_where_it_is_larger() {
    let pod = PodRequest {
        init_containers: vec![request("init", (1, 70, 1024))],
        containers: vec![request("main", (1, 50, 4096))],
        ..PodRequest::default()
    };
    let demand = Demand::parse(&pod, &Policy::default()).unwrap();
    let view = NodeView { shared: shared(&[(0, 40, 0)]), ..node() };
    let plan = plan(&view, &demand, &Policy::default()).unwrap();
    let given: Vec<_> =
        plan.containers.iter().map(|c| (c.reuses, c.devices[0].index.0, c.devices[0].extent.clone())).collect();
    let share = |cores_percent, memory| Extent::Share(Portion { cores_percent, memory: MiB(memory) });
    assert_eq!(given, [(true, 1, share(70, 1024)), (false, 1, share(50, 4096))], "40 + 70 is too much for card 0");
    let held = crate::annotation::Note::of(&plan, "u").devices().unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].extent.clone(), held[0].device_count), (share(70, 4096), 1));
}

#[test]
fn all_cores_want_the_card_alone_and_no_claim_does_not_go_where_all_is_claimed() {
    let memory_only = NodeView { shared: shared(&[(0, 0, 1024)]), held: bits(0b1111_1100), ..node() };
    assert_eq!(cards(&memory_only, &pod(&[(1, 100, 0)])), Ok(vec![1]));
    let claimed = NodeView { shared: shared(&[(0, 100, 1024)]), held: bits(0b1111_1110), ..node() };
    assert_eq!(cards(&claimed, &pod(&[(1, 0, 1024)])), Err(Reason::CoresBusy));
}

#[test]
fn over_commit_is_the_policys() {
    let policy = with_policy("shares: {coresOvercommitPercent: 150, memoryOvercommitPercent: 200}");
    let view = NodeView { shared: shared(&[(0, 90, 81_920)]), held: bits(0b1111_1110), ..node() };
    assert_eq!(cards(&view, &pod(&[(1, 60, 1024)])), Err(Reason::CoresBusy));
    assert!(plan(&view, &pod(&[(1, 60, 81_920)]), &policy).is_ok());
    assert_eq!(plan(&view, &pod(&[(1, 61, 0)]), &policy).unwrap_err().reason, Reason::CoresBusy);
    let all = with_policy("shares: {unnamedMemory: all}");
    let cores_only = parse(&[(1, 10, 0)], &all).unwrap();
    let part = NodeView { shared: shared(&[(0, 10, 1024)]), ..node() };
    let plan = plan(&part, &cores_only, &all).unwrap();
    let share = Extent::Share(Portion { cores_percent: 10, memory: MiB(81_920) });
    assert_eq!((plan.containers[0].devices[0].index.0, &plan.containers[0].devices[0].extent), (1, &share));
}

#[test]
fn wishes_hold_for_shares_too() {
    let with = |wish: (&str, &str), containers: &[(u32, u32, u64)]| {
        let containers = containers.iter().enumerate().map(|(i, c)| request(&format!("c{i}"), *c)).collect();
        let annotations = [(wish.0.to_owned(), wish.1.to_owned())].into();
        Demand::parse(&PodRequest { containers, annotations, ..PodRequest::default() }, &Policy::default()).unwrap()
    };
    let view = idle(Box8::Switched);
    assert_eq!(cards(&view, &with(("berth.dev/gpu-product", "*H100*"), &[(1, 10, 0)])), Ok(vec![4]));
    assert_eq!(cards(&view, &with(("berth.dev/gpus", "6,7"), &[(2, 10, 0)])), Ok(vec![6, 7]));
    assert_eq!(cards(&view, &with(("berth.dev/rail", "required"), &[(7, 10, 0)])), Err(Reason::RailUnmet));
    assert_eq!(cards(&view, &with(("berth.dev/zone", "required"), &[(5, 10, 0)])), Err(Reason::ZoneUnmet));
    let cross = NodeView { shared: shared(&[(0, 95, 0), (1, 95, 0), (2, 95, 0), (4, 95, 0)]), ..idle(Box8::Switched) };
    assert_eq!(cards(&cross, &with(("berth.dev/zone", "required"), &[(2, 10, 0)])), Ok(vec![5, 6]));
    let pairs = idle(Box8::PciePairs);
    assert_eq!(cards(&pairs, &with(("berth.dev/link", "nvlink"), &[(3, 10, 0)])), Err(Reason::LinkUnmet));
    assert_eq!(cards(&pairs, &with(("berth.dev/link", "nvlink"), &[(2, 10, 0)])), Ok(vec![0, 1]));
}

#[test]
fn a_pod_may_have_whole_gpus_and_shares() {
    let plan = plan(&node(), &pod(&[(2, 0, 0), (1, 50, 0)]), &Policy::default()).unwrap();
    let extents: Vec<Vec<bool>> =
        plan.containers.iter().map(|c| c.devices.iter().map(|d| d.extent == Extent::Whole).collect()).collect();
    assert_eq!(extents, [vec![true, true], vec![false]]);
    assert_eq!(plan.set.map(GpuSet::gpu_count), Some(3));
}

#[test]
fn a_share_without_gpus_and_amounts_that_no_card_has_are_refused() {
    for (asked, said) in [
        ((0, 50, 0), "nvidia.com/gpucores: without nvidia.com/gpu the container would get no GPU"),
        ((0, 0, 1024), "nvidia.com/gpumem: without nvidia.com/gpu"),
        ((1, 101, 0), "nvidia.com/gpucores: 101, at most 100 percent"),
        ((1, 0, 16 << 30), "nvidia.com/gpumem: 17179869184, it counts MiB"),
    ] {
        let unfit = parse(&[asked], &Policy::default()).unwrap_err();
        assert_eq!(unfit.reason, Reason::BadWish);
        assert!(unfit.detail.contains("spec.containers[c0]") && unfit.detail.contains(said), "{}", unfit.detail);
    }
}

#[test]
fn a_node_without_a_report_takes_no_shares() {
    let missing = NodeView { knowledge: Knowledge::Missing, hardware: None, ..node() };
    let policy = with_policy("topology: {missing: byCount}");
    assert_eq!(plan(&missing, &pod(&[(1, 10, 0)]), &policy).unwrap_err().reason, Reason::NoTopology);
}

#[test]
fn gpus_that_nobody_can_name_count_against_free_cards_not_against_shared_ones() {
    let view = NodeView { unplanned_gpu_count: 7, held: bits(0b1), shared: Vec::new(), ..node() };
    assert_eq!(cards(&view, &pod(&[(1, 10, 0)])), Err(Reason::GpusBusy));
    let beside = NodeView { shared: shared(&[(3, 10, 0)]), requested: Compute::default(), ..view };
    assert_eq!(cards(&beside, &pod(&[(1, 10, 0)])), Ok(vec![3]));
}
