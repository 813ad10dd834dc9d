//! Claims about MIG instances.

mod oracle;

use super::*;
use crate::device::{Extent, MigSlot};
use crate::testing::cut;
use crate::view::HeldInstance;

const BALANCED: [(&str, u8); 4] = [("3g.40gb", 4), ("2g.20gb", 2), ("1g.10gb", 0), ("1g.10gb", 1)];

fn request(name: &str, asked: &[(&str, u32)]) -> ContainerRequest {
    let requests = asked.iter().map(|(profile, count)| (format!("nvidia.com/{profile}"), count.to_string()));
    ContainerRequest { name: name.to_owned(), requests: requests.collect(), ..ContainerRequest::default() }
}

fn pod(containers: &[&[(&str, u32)]], annotations: &[(&str, &str)]) -> Demand {
    let containers = containers.iter().enumerate().map(|(i, c)| request(&format!("c{i}"), c)).collect();
    let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Demand::parse(&PodRequest { containers, annotations, ..PodRequest::default() }, &Policy::default()).unwrap()
}

/// GPU, profile and start of a device.
type Dealt = (u8, String, u8);

/// Every device, container by container.
fn dealt(view: &NodeView, demand: &Demand) -> Result<Vec<Vec<Dealt>>, Reason> {
    let plan = plan(view, demand, &Policy::default()).map_err(|unfit| unfit.reason)?;
    let device = |d: &PlannedDevice| match &d.extent {
        Extent::Mig(slot) => (d.index.0, slot.profile.clone(), slot.start),
        Extent::Whole | Extent::Share(_) => (d.index.0, "whole".to_owned(), 0),
    };
    Ok(plan.containers.iter().map(|c| c.devices.iter().map(device).collect()).collect())
}

fn held(cards: impl Iterator<Item = u8>, profile: &str, start: u8, size: u8) -> Vec<HeldInstance> {
    let one = |gpu| HeldInstance { index: GpuIndex(gpu), slot: MigSlot { profile: profile.to_owned(), start, size } };
    cards.map(one).collect()
}

#[test]
fn an_instance_that_exists_and_is_free_is_given_beside_others_of_its_card() {
    let view = cut(6, &BALANCED);
    let one = pod(&[&[("mig-3g.40gb", 1)]], &[]);
    let (gpu, profile, start) = dealt(&view, &one).unwrap()[0][0].clone();
    assert_eq!((profile.as_str(), start), ("3g.40gb", 4));
    let used = NodeView { instances: held([gpu].into_iter(), "3g.40gb", 4, 4), ..view };
    let other = dealt(&used, &one).unwrap()[0][0].0;
    assert!(other >= 6 && other != gpu);
    let (small, _, _) = dealt(&used, &pod(&[&[("mig-1g.10gb", 1)]], &[])).unwrap()[0][0];
    assert_eq!(small, gpu, "the card that is used already");
}

#[test]
fn several_profiles_and_containers_get_instances_of_their_own() {
    let view = cut(7, &BALANCED);
    let demand = pod(&[&[("mig-1g.10gb", 2), ("mig-3g.40gb", 1)], &[("mig-2g.20gb", 1)], &[("gpu", 2)]], &[]);
    let mut starts = dealt(&view, &demand).unwrap();
    starts[0].sort();
    let slot = |profile: &str, start| (7, profile.to_owned(), start);
    assert_eq!(starts[0], [slot("1g.10gb", 0), slot("1g.10gb", 1)], "one entry of the plan per resource");
    assert_eq!((&starts[1][..], &starts[2][..]), (&[slot("3g.40gb", 4)][..], &[slot("2g.20gb", 2)][..]));
    assert!(starts[3].iter().all(|(gpu, kind, _)| *gpu < 7 && kind == "whole"));
}

#[test]
fn what_is_short_is_named() {
    let view = cut(6, &BALANCED);
    let busy = NodeView { instances: held(6..8, "3g.40gb", 4, 4), ..view.clone() };
    let gone = NodeView { offered: Arc::new([("nvidia.com/mig-3g.40gb".to_owned(), 9)].into()), ..view.clone() };
    let unknown = NodeView { unplanned_instances: [("3g.40gb".to_owned(), 1)].into(), ..view.clone() };
    for (view, asked, reason) in [
        (&idle(Box8::Switched), ("mig-3g.40gb", 1), Reason::MigAbsent),
        (&view, ("mig-7g.80gb", 1), Reason::MigNotOffered),
        (&view, ("mig-3g.40gb", 3), Reason::MigNotOffered),
        (&gone, ("mig-3g.40gb", 3), Reason::MigUnmet),
        (&busy, ("mig-3g.40gb", 1), Reason::MigBusy),
        (&unknown, ("mig-3g.40gb", 2), Reason::MigBusy),
    ] {
        assert_eq!(dealt(view, &pod(&[&[asked]], &[])), Err(reason), "{asked:?}");
    }
    assert!(Reason::MigBusy.helped_by_preemption());
    let unfit = plan(&busy, &pod(&[&[("mig-3g.40gb", 1)]], &[]), &Policy::default()).unwrap_err();
    let free = "free are 4 of 4 x 1g.10gb, 2 of 2 x 2g.20gb, 0 of 2 x 3g.40gb";
    assert_eq!(unfit.detail, format!("1 x 3g.40gb asked, 2 allocatable; {free}"));
}

#[test]
fn wishes_for_cards_hold_for_instances() {
    let view = cut(3, &BALANCED);
    let one = |wish: (&str, &str)| dealt(&view, &pod(&[&[("mig-3g.40gb", 1)]], &[wish]));
    assert_eq!(one(("berth.dev/gpus", "5")).unwrap()[0][0].0, 5);
    assert_eq!(one(("berth.dev/gpus", "0")), Err(Reason::NamedGpusAbsent));
    assert_eq!(one(("berth.dev/gpu-product", "*A100*")).unwrap()[0][0].0, 3);
    assert_eq!(one(("berth.dev/gpu-product", "*B200*")), Err(Reason::ProductUnmet));
    let zone = |count| dealt(&view, &pod(&[&[("mig-3g.40gb", count)]], &[("berth.dev/zone", "required")]));
    let four: Vec<u8> = zone(4).unwrap()[0].iter().map(|(gpu, ..)| *gpu).collect();
    assert!(four.iter().all(|gpu| *gpu >= 4), "GPU 3 is of the other zone: {four:?}");
    assert_eq!(zone(5), Err(Reason::ZoneUnmet));
}

#[test]
fn an_instance_without_exactly_one_device_is_given_to_nobody() {
    let mut parts = cut(7, &BALANCED).hardware.unwrap().topology.as_ref().clone().into_parts();
    parts.gpus[7].detail.mig_instances[0].uuids.clear();
    let offered = cut(7, &BALANCED).offered;
    let view = NodeView { offered, ..view_of(berth_model::NodeTopology::try_new(parts).unwrap()) };
    assert_eq!(dealt(&view, &pod(&[&[("mig-3g.40gb", 1)]], &[])), Err(Reason::MigUnmet));
}

#[test]
fn under_strategy_single_a_gpu_is_an_instance() {
    let mut view = cut(0, &[("3g.40gb", 0), ("3g.40gb", 4)]);
    view.offered = Arc::new([("nvidia.com/gpu".to_owned(), 16)].into());
    let plan = plan(&view, &pod(&[&[("gpu", 2)]], &[]), &Policy::default()).unwrap();
    assert_eq!(plan.containers[0].resource, "nvidia.com/gpu");
    assert!(
        plan.containers[0].devices.iter().all(|d| matches!(&d.extent, Extent::Mig(slot) if slot.profile == "3g.40gb"))
    );
    assert_eq!(plan.containers[0].devices.len(), 2);
    let full = (0..8).flat_map(|gpu| [0, 4].map(|start| held([gpu].into_iter(), "3g.40gb", start, 4)));
    let full = NodeView { instances: full.flatten().collect(), ..view };
    assert_eq!(dealt(&full, &pod(&[&[("gpu", 1)]], &[])), Err(Reason::MigBusy));
}

#[test]
fn a_card_with_instances_is_nobodys_whole_gpu_and_takes_no_shares() {
    let view = cut(7, &BALANCED);
    assert_eq!(dealt(&view, &pod(&[&[("gpu", 8)]], &[])), Err(Reason::NotOffered));
    let shares = pod(&[&[("gpu", 1), ("gpucores", 10)]], &[("berth.dev/gpus", "7")]);
    assert_eq!(dealt(&view, &shares), Err(Reason::NamedGpusAbsent));
}

#[test]
fn more_instances_make_a_fuller_node() {
    let view = cut(6, &BALANCED);
    let used = NodeView { instances: held(6..7, "3g.40gb", 4, 4), ..view.clone() };
    let score = |view: &NodeView| plan(view, &pod(&[&[("mig-1g.10gb", 1)]], &[]), &Policy::default()).unwrap().score;
    assert!(score(&used) > score(&view));
}

#[test]
fn whole_gpus_and_instances_of_a_pod_are_in_the_one_required_zone() {
    // Zone 0 has whole GPUs and no instance, zone 1 one of each kind.
    let view = cut(5, &BALANCED);
    let demand = pod(&[&[("gpu", 1)], &[("mig-3g.40gb", 1)]], &[("berth.dev/zone", "required")]);
    let dealt_now = dealt(&view, &demand).unwrap();
    assert!(dealt_now.iter().flatten().all(|(gpu, ..)| *gpu >= 4), "{dealt_now:?}");
    let busy = NodeView { held: GpuSet::from_bits(0b1_0000), ..view };
    assert_eq!(dealt(&busy, &demand), Err(Reason::ZoneBusy));
    let more = pod(&[&[("gpu", 2)], &[("mig-3g.40gb", 1)]], &[("berth.dev/zone", "required")]);
    assert_eq!(dealt(&cut(5, &BALANCED), &more), Err(Reason::ZoneUnmet));
}

#[test]
fn init_containers_lend_their_instances_to_those_after_them() {
    let init = request("init", &[("mig-1g.10gb", 2)]);
    let containers = vec![request("a", &[("mig-1g.10gb", 1), ("mig-2g.20gb", 1)]), request("b", &[("mig-1g.10gb", 1)])];
    let pod = PodRequest { containers, init_containers: vec![init], ..PodRequest::default() };
    let demand = Demand::parse(&pod, &Policy::default()).unwrap();
    assert_eq!(demand.shape.mig, [("1g.10gb".to_owned(), 2), ("2g.20gb".to_owned(), 1)].into());
    let plan = plan(&cut(7, &BALANCED), &demand, &Policy::default()).unwrap();
    let starts = |name: &str| -> Vec<u8> {
        let own = plan.containers.iter().filter(|c| c.name == name).flat_map(|c| &c.devices);
        own.filter_map(|d| if let Extent::Mig(slot) = &d.extent { Some(slot.start) } else { None }).collect()
    };
    assert_eq!((starts("init"), starts("a"), starts("b")), (vec![0, 1], vec![0, 2], vec![1]));
}

#[test]
fn a_plan_names_the_device_of_each_instance() {
    let demand = pod(&[&[("mig-2g.20gb", 1)]], &[]);
    let plan = plan(&cut(7, &BALANCED), &demand, &Policy::default()).unwrap();
    let json = crate::annotation::Note::of(&plan, "uid").to_json().unwrap();
    let device = r#"{"uuid":"GPU-7","mig":{"uuid":"MIG-7-2","profile":"2g.20gb","start":2,"size":2}}"#;
    assert!(json.contains(device), "{json}");
}

#[test]
fn slots_that_are_held_by_another_layout_are_given_to_nobody() {
    let one = pod(&[&[("mig-2g.20gb", 1)]], &[]);
    for stale in [held([7].into_iter(), "3g.40gb", 0, 4), held([7].into_iter(), "9g.999gb", 3, 1)] {
        let view = NodeView { instances: stale, ..cut(7, &BALANCED) };
        assert_eq!(dealt(&view, &one), Err(Reason::MigBusy));
    }
    let shared = crate::view::SharedGpu { index: GpuIndex(7), taken: Portion::default(), share_count: 1 };
    let view = NodeView { shared: vec![shared], ..cut(7, &BALANCED) };
    assert_eq!(dealt(&view, &one), Err(Reason::MigBusy), "a share where none should be");
}

#[test]
fn a_card_without_known_placements_or_health_gives_no_instance_and_costs_no_other() {
    let two = pod(&[&[("mig-1g.10gb", 3)]], &[]);
    let spoiled: [&dyn Fn(&mut berth_model::Gpu); 2] =
        [&|gpu| gpu.detail.board = Arc::default(), &|gpu| gpu.health = Health::Unhealthy("lost".to_owned())];
    for spoil in spoiled {
        let mut parts = cut(6, &BALANCED).hardware.unwrap().topology.as_ref().clone().into_parts();
        spoil(&mut parts.gpus[6]);
        let offered = cut(6, &BALANCED).offered;
        let view = NodeView { offered, ..view_of(berth_model::NodeTopology::try_new(parts).unwrap()) };
        let one = dealt(&view, &pod(&[&[("mig-1g.10gb", 2)]], &[])).unwrap();
        assert!(one[0].iter().all(|(gpu, ..)| *gpu == 7), "{one:?}");
        assert_eq!(dealt(&view, &two), Err(Reason::MigUnmet));
    }
}

#[test]
fn the_node_of_an_instance_is_the_one_whose_card_loses_least_however_full_it_is() {
    let one = pod(&[&[("mig-1g.10gb", 1)]], &[]);
    let busy = NodeView { held: GpuSet::first(6), ..cut(6, &BALANCED) };
    let begun = NodeView { instances: held(6..7, "1g.10gb", 0, 1), ..cut(6, &BALANCED) };
    let score = |view: &NodeView, policy: &Policy| decide(view, &one.shape, policy, &mut Afresh).unwrap().score;
    let policy = Policy::default();
    assert!(score(&begun, &policy) > score(&busy, &policy), "a card that is used already before an idle one");
    let by_use = crate::policy::parse(
        "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\nclasses:\n  default:\n    weights: {left: 0}\n",
    )
    .unwrap();
    assert!(score(&busy, &by_use) > score(&begun, &by_use));
    // A slot that only the largest profiles need costs more than one beside instances of the same size.
    let torn = NodeView { instances: held(6..8, "3g.40gb", 4, 4), ..cut(6, &BALANCED) };
    assert!(score(&begun, &policy) >= score(&torn, &policy));
    assert!(score(&torn, &policy) > score(&busy, &policy));
}
