//! Plans on nodes with MIG cards against brute force over all legal answers, from the report and the pod's YAML to the devices.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::mig::catalog::KnownBoard;
use berth_model::{MigInstance, NodeTopology, Placement};

use super::*;
use crate::place::mig::{Occupied, Worth};

/// Splitmix64: enough chance for cases, the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// Up to four cards under MIG in two zones, cut at random into at most four instances each, some held, some lost, some without a device.
fn random_node(chance: &mut Chance, boards: &[Arc<berth_model::gpu::detail::Board>]) -> NodeView {
    let mut parts = topology(Box8::Switched).into_parts();
    let mut held = Vec::new();
    for gpu in parts.gpus.iter_mut().skip(2 + chance.below(3)).take(1 + chance.below(4)) {
        gpu.mig_enabled = Some(true);
        if chance.below(12) == 0 {
            gpu.health = Health::Unhealthy("lost".to_owned());
        }
        let board = &boards[chance.below(boards.len())];
        gpu.detail.board = Arc::clone(board);
        let profiles = board.mig.profiles();
        let mut instances: Vec<MigInstance> = Vec::new();
        for _ in 0..chance.below(6) {
            let profile = &profiles[chance.below(profiles.len())];
            let placement = profile.placements()[chance.below(profile.placements().len())];
            let is_free = instances.iter().all(|i| i.placement.mask().is_disjoint(placement.mask()));
            if instances.len() < 4 && is_free {
                let uuid = format!("MIG-{}-{}", gpu.index.0, placement.start());
                let uuids = if chance.below(12) == 0 { Vec::new() } else { vec![uuid] };
                instances.push(MigInstance { placement, profile: profile.name().to_owned(), uuids });
            }
        }
        for instance in instances.iter().filter(|_| chance.below(4) == 0) {
            let (start, size) = (instance.placement.start(), instance.placement.size());
            let slot = MigSlot { profile: instance.profile.clone(), start, size };
            held.push(HeldInstance { index: gpu.index, slot });
        }
        if chance.below(12) == 0 {
            // A pod from before the card was cut anew.
            let profile = &profiles[chance.below(profiles.len())];
            let placement = profile.placements()[0];
            let slot = MigSlot { profile: profile.name().to_owned(), start: placement.start(), size: placement.size() };
            held.push(HeldInstance { index: gpu.index, slot });
        }
        instances.sort();
        gpu.detail.mig_instances = instances;
    }
    held.sort_unstable();
    held.dedup();
    let offered = [("nvidia.com/gpu".to_owned(), 8)].into_iter();
    let profiles = boards.iter().flat_map(|board| board.mig.profiles());
    let offered = offered.chain(profiles.map(|p| (format!("nvidia.com/mig-{}", p.name().replace('+', ".")), 64)));
    NodeView { instances: held, offered: Arc::new(offered.collect()), ..view_of(NodeTopology::try_new(parts).unwrap()) }
}

/// One instance that may be given: GPU, profile, place.
type Free = (GpuIndex, String, Placement);

/// What the plain facts leave: healthy cards, one device, no slot of it held.
fn free(view: &NodeView) -> Vec<Free> {
    let gpus = &view.hardware.as_ref().unwrap().topology.parts().gpus;
    let healthy = gpus.iter().filter(|gpu| gpu.mig_enabled == Some(true) && gpu.health == Health::Healthy);
    let whole = healthy.flat_map(|gpu| gpu.detail.mig_instances.iter().map(move |i| (gpu.index, i)));
    let is_free = |(index, instance): &(GpuIndex, &MigInstance)| {
        let slots = |slot: &MigSlot| slot.start..slot.start + slot.size;
        let own = instance.placement.start()..instance.placement.start() + instance.placement.size();
        let mut held = view.instances.iter().filter(|held| held.index == *index);
        instance.uuids.len() == 1 && held.all(|held| slots(&held.slot).all(|slot| !own.contains(&slot)))
    };
    whole.filter(is_free).map(|(index, i)| (index, i.profile.clone(), i.placement)).collect()
}

/// What pods hold of a card, where the card still offers it.
fn occupied(view: &NodeView, gpu: GpuIndex, worth: &Worth) -> Occupied {
    let mut card = Occupied::default();
    for held in view.instances.iter().filter(|held| held.index == gpu) {
        let Some(profile) = worth.table().named(&held.slot.profile) else { continue };
        let Some(placement) = worth.table().placement(profile, held.slot.start, held.slot.size) else { continue };
        card = card.with_existing(profile, placement).unwrap_or(card);
    }
    card
}

/// What it costs the cards to give these.
fn score(view: &NodeView, given: &[&Free]) -> i64 {
    let hardware = view.hardware.as_ref().unwrap();
    let gpus: BTreeSet<GpuIndex> = given.iter().map(|(gpu, ..)| *gpu).collect();
    let of = |gpu: GpuIndex| {
        let worth = hardware.worth(gpu).unwrap();
        let before = occupied(view, gpu, worth);
        let own = given.iter().filter(|(index, ..)| *index == gpu);
        let after = own.fold(before, |card, (_, profile, placement)| {
            card.with_existing(worth.table().named(profile).unwrap(), *placement).unwrap()
        });
        worth.gain(&before, &after).unwrap()
    };
    gpus.into_iter().map(of).sum()
}

/// The best score over every subset of what is free that is exactly what was asked for.
fn brute(view: &NodeView, free: &[Free], wanted: &[String], one_zone: bool) -> Option<i64> {
    let zone = |gpu: GpuIndex| view.hardware.as_ref().unwrap().zone(gpu);
    let free: Vec<&Free> = free.iter().filter(|(_, profile, _)| wanted.contains(&profile.replace('+', "."))).collect();
    let mut best = None;
    for code in 0..1_u32 << free.len() {
        if code.count_ones() != u32::try_from(wanted.len()).unwrap() {
            continue;
        }
        let given: Vec<&Free> =
            free.iter().enumerate().filter(|(at, _)| code & (1 << at) != 0).map(|(_, f)| *f).collect();
        let mut profiles: Vec<String> = given.iter().map(|(_, profile, _)| profile.replace('+', ".")).collect();
        profiles.sort();
        let is_in_one = given.iter().all(|(gpu, ..)| zone(*gpu) == zone(given[0].0));
        if profiles == wanted && (!one_zone || is_in_one) {
            best = best.max(Some(score(view, &given)));
        }
    }
    best
}

/// A pod that asks for these profiles, two in a container.
fn demand(wanted: &[String], one_zone: bool) -> Demand {
    let container = |(number, chunk): (usize, &[String])| {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        chunk.iter().for_each(|profile| *counts.entry(format!("mig-{profile}")).or_default() += 1);
        let asked: Vec<(&str, u32)> = counts.iter().map(|(profile, count)| (profile.as_str(), *count)).collect();
        request(&format!("c{number}"), &asked)
    };
    let containers = wanted.chunks(2).enumerate().map(container).collect();
    let zone = if one_zone { "required" } else { "off" };
    let annotations = [("berth.dev/zone".to_owned(), zone.to_owned())].into();
    Demand::parse(&PodRequest { containers, annotations, ..PodRequest::default() }, &Policy::default()).unwrap()
}

/// The instances of a plan, each of which must be a free one.
fn given<'f>(plan: &Plan, free: &'f [Free]) -> Vec<&'f Free> {
    let of = |device: &PlannedDevice| {
        let Extent::Mig(slot) = &device.extent else { panic!("{device:?} is no instance") };
        let is_it = |(gpu, _, placement): &&Free| {
            *gpu == device.index && (placement.start(), placement.size()) == (slot.start, slot.size)
        };
        free.iter().find(is_it).unwrap_or_else(|| panic!("{device:?} is not free"))
    };
    plan.containers.iter().flat_map(|c| &c.devices).map(of).collect()
}

#[test]
fn plans_of_instances_equal_brute_force_over_all_legal_answers() {
    let board = |name: &str| {
        let mig = KnownBoard::by_name(name).unwrap().capability().unwrap();
        Arc::new(berth_model::gpu::detail::Board { mig, ..Default::default() })
    };
    let boards = [board("h100-80"), board("a100-80"), board("a30")];
    let names: Vec<String> =
        boards[..1].iter().flat_map(|b| b.mig.profiles()).map(|p| p.name().replace('+', ".")).collect();
    let chance = &mut Chance(5);
    let (mut fits, mut refused) = (0, 0);
    for case in 0..20_000 {
        let view = random_node(chance, &boards);
        let free = free(&view);
        let mut wanted: Vec<String> = (0..=chance.below(4))
            .map(|_| match chance.below(4) {
                0 => names[chance.below(names.len())].clone(),
                _ if free.is_empty() => names[0].clone(),
                _ => free[chance.below(free.len())].1.replace('+', "."),
            })
            .collect();
        let one_zone = chance.below(4) == 0;
        let demand = demand(&wanted, one_zone);
        wanted.sort();
        let best = brute(&view, &free, &wanted, one_zone);
        let found = plan(&view, &demand, &Policy::default());
        let given = found.as_ref().map_or_else(|_| Vec::new(), |plan| given(plan, &free));
        let mut profiles: Vec<String> = given.iter().map(|(_, profile, _)| profile.replace('+', ".")).collect();
        profiles.sort();
        let unique: BTreeSet<_> = given.iter().map(|(gpu, _, p)| (*gpu, p.start())).collect();
        assert_eq!(unique.len(), given.len(), "case {case}: one instance for two containers");
        match found {
            Ok(_) => assert_eq!((Some(score(&view, &given)), &profiles), (best, &wanted), "case {case}"),
            Err(unfit) => assert_eq!(best, None, "case {case}: {unfit:?} for {wanted:?} of {free:?}"),
        }
        fits += u32::from(best.is_some());
        refused += u32::from(best.is_none());
    }
    assert!(fits > 5000 && refused > 3000, "{fits} fit, {refused} do not: too one-sided to show much");
}
