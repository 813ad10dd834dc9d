//! NICs in plans are held, like the GPUs beside them.

use berth_model::{LinkLayer, Nic, NicFunction, NicName, NicSet, PortState};

use super::*;

/// The node of the other tests with a NIC under the switch of every GPU.
fn railed(text: &str, generation: u64) -> Event {
    let mut parts = topology(text, generation, None).into_parts();
    let nic = |i: usize| Nic {
        name: NicName::parse(&format!("mlx5_{i}")).unwrap(),
        pci: None,
        zone: None,
        link_layer: LinkLayer::InfiniBand,
        state: PortState::Active,
        rate_gbps: None,
        function: NicFunction::default(),
    };
    parts.nics = (0..4).map(nic).collect();
    let links = parts.links;
    parts.links = LinkMatrix::build(8, |a, b| {
        let level = if b == a + 4 { PcieLevel::Pxb } else { PcieLevel::Sys };
        links.link(a, b).unwrap_or(Link { nvlinks: 0, pcie: Some(level) })
    });
    Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
}

fn wishing(gpus: u32) -> Demand {
    let mut demand = demand(gpus);
    demand.shape.rail = berth_core::wish::Force::Required;
    demand
}

fn nics_held(index: &Index) -> NicSet {
    index.snapshot().node("n").unwrap().view.nics_held
}

#[test]
fn a_hold_and_then_the_bound_pod_have_their_nics_until_they_are_gone() {
    let index = with([node("n"), railed("n", 1)]);
    let uid = PodUid::new("p");
    let (plan, _) = index.plan_and_hold(&uid, &name("n"), &wishing(2), &[], &Policy::default(), 100).unwrap();
    let set = plan.set.unwrap();
    let own: NicSet = set.iter().map(|gpu| usize::from(gpu.0)).collect();
    assert_eq!(nics_held(&index), own, "{plan:?}");

    let mut bound = pod("p", "n", 2, None);
    let note = berth_core::annotation::Note::of(&plan, "p");
    bound.note = PlanNote::Devices(note.holding().unwrap());
    index.apply(Event::Pod(Box::new(bound.clone())));
    assert_eq!(nics_held(&index), own);
    // The annotation vanishes: the devices did not.
    bound.note = PlanNote::Absent;
    index.apply(Event::Pod(Box::new(bound)));
    assert_eq!(nics_held(&index), own);
    assert!(index.apply(Event::PodGone(uid)).has_grown);
    assert_eq!(nics_held(&index), NicSet::EMPTY);
}

#[test]
fn a_free_gpu_whose_nic_is_held_is_no_gpu_with_a_rail() {
    let index = with([node("n"), railed("n", 1)]);
    let mut holder = pod("p", "n", 1, Some(&[0]));
    let PlanNote::Devices(holding) = &mut holder.note else { panic!("no devices") };
    // A plan made before the report changed: GPU 0 with the NIC of GPU 1.
    holding.nics = vec![NicName::parse("mlx5_1").unwrap(), NicName::parse("elsewhere").unwrap()];
    index.apply(Event::Pod(Box::new(holder)));
    let plan = |gpus| index.plan_and_hold(&PodUid::new("q"), &name("n"), &wishing(gpus), &[], &Policy::default(), 100);
    assert_eq!(plan(3).unwrap_err().reason, Reason::RailBusy);
    assert_eq!(plan(2).unwrap().0.set.unwrap().bits(), 0b1100);
}
