//! Claims about victims: on random nodes against every set there is, by an order of its own, and on machines one can picture.

use super::*;
use crate::demand::{ContainerRequest, Demand, PodRequest};
use crate::place::Afresh;
use crate::plan::decide;
use crate::policy::Policy;
use crate::score::Ppm;
use crate::testing::{Box8, cut, idle};
use crate::view::NodeView;

const PLENTY: u32 = 100_000;

fn guest(uid: &str, priority: i32, gpus: u32) -> Guest {
    Guest { uid: uid.to_owned(), priority, gpus: GpuSet::from_bits(gpus), ..Guest::default() }
}

/// A pod on every GPU that is its own, all of one priority.
fn one_each(count: u8) -> Vec<Guest> {
    (0..count).map(|i| guest(&format!("p{i}"), 0, 1 << i)).collect()
}

fn demand(gpus: u32, annotations: &[(&str, &str)]) -> Demand {
    asking(&[("nvidia.com/gpu", gpus)], annotations)
}

fn asking(asked: &[(&str, u32)], annotations: &[(&str, &str)]) -> Demand {
    let requests = asked.iter().map(|(name, count)| ((*name).to_owned(), count.to_string())).collect();
    let container = ContainerRequest { name: "main".to_owned(), requests, ..ContainerRequest::default() };
    let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let pod = PodRequest { annotations, containers: vec![container], ..PodRequest::default() };
    Demand::parse(&pod, &Policy::default()).unwrap()
}

/// The view with what the guests that stay hold.
fn left(view: &NodeView, guests: &[Guest], gone: &[bool]) -> NodeView {
    let stays = guests.iter().zip(gone).filter(|(_, gone)| !**gone);
    let held = stays.fold(view.held, |held, (guest, _)| held.or(guest.gpus));
    NodeView { held, ..view.clone() }
}

/// The GPUs that the victims free, and the victims.
fn freed(view: &NodeView, guests: &[Guest], demand: &Demand) -> Option<(u32, Victims)> {
    let mut tries = PLENTY;
    let seeds = seeds(view, &demand.shape);
    let mut fits = |gone: &[bool]| {
        decide(&left(view, guests, gone), &demand.shape, &Policy::default(), &mut Afresh).ok().map(|fit| fit.score)
    };
    let victims = choose(guests, &seeds, &mut tries, &mut fits)?;
    let set = victims.guests.iter().fold(GpuSet::EMPTY, |set, at| set.or(guests[*at].gpus));
    Some((set.bits(), victims))
}

#[test]
fn four_pods_go_that_free_an_island_and_not_any_four() {
    let view = idle(Box8::HybridMesh);
    for wishes in [vec![("berth.dev/link", "nvlink")], vec![]] {
        let (set, victims) = freed(&view, &one_each(8), &demand(4, &wishes)).unwrap();
        assert!(set == 0b1111 || set == 0b1111_0000, "{set:#b}");
        assert_eq!((victims.guests.len(), victims.violations), (4, 0));
    }
}

#[test]
fn a_more_important_pod_on_an_island_sends_the_other_island() {
    let view = idle(Box8::HybridMesh);
    let nvlink = demand(4, &[("berth.dev/link", "nvlink")]);
    let mut guests = one_each(8);
    guests[2].priority = 5;
    assert_eq!(freed(&view, &guests, &nvlink).unwrap().0, 0b1111_0000);
    guests[7].is_protected = true;
    let (set, victims) = freed(&view, &guests, &nvlink).unwrap();
    assert_eq!((set, victims.violations), (0b1111, 0), "a budget counts before a priority");
    guests[0].is_protected = true;
    guests[1].is_protected = true;
    let (set, victims) = freed(&view, &guests, &nvlink).unwrap();
    assert_eq!((set, victims.violations), (0b1111_0000, 1), "one broken budget is less than two");
    assert_eq!(victims.guests.len(), 4);
}

#[test]
fn a_gpu_that_nobody_may_take_leaves_no_help() {
    let pairs = idle(Box8::PciePairs);
    let held = NodeView { held: GpuSet::from_bits(0b0101_0101), ..pairs };
    let guests: Vec<Guest> = [1, 3, 5, 7].map(|i| guest(&format!("p{i}"), 0, 1 << i)).into();
    assert_eq!(freed(&held, &guests, &demand(2, &[("berth.dev/link", "nvlink")])), None);
    assert!(freed(&held, &guests, &demand(2, &[])).is_some(), "any two will do for others");
    assert_eq!(freed(&held, &guests, &demand(5, &[])), None);
}

#[test]
fn rails_and_instances_are_freed_as_they_lie() {
    let guests = one_each(8);
    let (set, victims) = freed(&idle(Box8::Switched), &guests, &demand(2, &[("berth.dev/rail", "required")])).unwrap();
    assert_eq!((set & 0b1100_0000, victims.guests.len()), (0, 2), "GPUs 6 and 7 have no NIC");

    // One card, 2g at 0 and 1g at 2 and 3 in use, a 3g at 4 in use: a 3g pod needs the last one's place, and no count of small ones.
    let view = cut(7, &[("2g.20gb", 0), ("1g.10gb", 2), ("1g.10gb", 3), ("3g.40gb", 4)]);
    let slot = |profile: &str, start, size| crate::view::HeldInstance {
        index: berth_model::GpuIndex(7),
        slot: crate::device::MigSlot { profile: profile.to_owned(), start, size },
    };
    let slots = [slot("2g.20gb", 0, 2), slot("1g.10gb", 2, 1), slot("1g.10gb", 3, 1), slot("3g.40gb", 4, 4)];
    let guests: Vec<Guest> = (0..4).map(|i| guest(&format!("p{i}"), 0, 1 << 7)).collect();
    let shape = asking(&[("nvidia.com/mig-3g.40gb", 1)], &[]).shape;
    let mut tries = PLENTY;
    let mut fits = |gone: &[bool]| {
        let stays = slots.iter().zip(gone).filter(|(_, gone)| !**gone).map(|(slot, _)| slot.clone());
        let view = NodeView { instances: stays.collect(), ..view.clone() };
        decide(&view, &shape, &Policy::default(), &mut Afresh).ok().map(|fit| fit.score)
    };
    assert_eq!(choose(&guests, &[], &mut tries, &mut fits).unwrap().guests, [3]);
}

#[test]
fn who_leaves_anyway_goes_first_and_who_must_go_is_always_named() {
    let view = idle(Box8::Switched);
    let mut guests = one_each(8);
    guests[5].is_leaving = true;
    guests[5].priority = 9;
    guests[5].is_protected = true;
    let (set, victims) = freed(&view, &guests, &demand(1, &[])).unwrap();
    assert_eq!((set, victims.violations), (0b10_0000, 0), "what goes anyway breaks nothing");
    guests[3].must_go = true;
    assert_eq!(freed(&view, &guests, &demand(1, &[])).unwrap().0, 0b1000);
    assert_eq!(freed(&view, &guests, &demand(2, &[])).unwrap().1.guests, [5, 3], "the most important first");
}

/// Room as a family of sets of pods: it is there when all pods of any of them are gone. What `fits` may be in general.
struct Family {
    sets: Vec<(u32, u32)>,
}

impl Family {
    /// The best score of a set whose pods are all gone.
    fn fits(&self, gone: &[bool]) -> Option<Score> {
        let bits = gone.iter().enumerate().fold(0_u32, |bits, (at, gone)| bits | u32::from(*gone) << at);
        let enough = self.sets.iter().filter(|(set, _)| set & bits == *set);
        enough.map(|(_, score)| Score { is_trusted: true, value: Ppm(*score) }).max()
    }
}

fn below(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

fn random(seed: &mut u64, count: u64) -> (Vec<Guest>, Family) {
    let guest = |i: u64, seed: &mut u64| Guest {
        uid: format!("u{i}"),
        priority: [-10, 0, 0, 7][usize::try_from(below(seed, 4)).unwrap()],
        started_at: ["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"][usize::try_from(below(seed, 3)).unwrap()]
            .to_owned(),
        is_protected: below(seed, 5) == 0,
        is_leaving: below(seed, 8) == 0,
        is_named: below(seed, 4) == 0,
        must_go: below(seed, 10) == 0,
        gpus: GpuSet::EMPTY,
    };
    let guests: Vec<Guest> = (0..count).map(|i| guest(i, seed)).collect();
    let sets = (0..1 + below(seed, 4)).map(|_| {
        let set = (0..count).fold(0, |set, at| set | u32::from(below(seed, 3) == 0) << at);
        (set, u32::try_from(below(seed, 3)).unwrap())
    });
    (guests, Family { sets: sets.collect() })
}

/// The rank of a set of victims as kube-scheduler's own text has it: every criterion alone, over lists. Less is better.
fn rank(guests: &[Guest], gone: &[bool]) -> (usize, i64, i64, usize) {
    let paid: Vec<&Guest> =
        guests.iter().zip(gone).filter(|(g, gone)| **gone && !g.is_leaving).map(|(g, _)| g).collect();
    let violating = paid.iter().filter(|g| g.is_protected).count();
    let highest = paid.iter().map(|g| i64::from(g.priority)).max().unwrap_or(i64::MIN);
    let sum = paid.iter().map(|g| i64::from(g.priority) + (1_i64 << 31)).sum();
    (violating, highest, sum, paid.len())
}

#[test]
fn of_all_sets_of_pods_that_make_room_no_one_is_cheaper() {
    let mut seed = 7;
    let mut helped = 0;
    for _ in 0..3000 {
        let count = 1 + below(&mut seed, 9);
        let (guests, family) = random(&mut seed, count);
        let mut tries = PLENTY;
        let chosen = choose(&guests, &[], &mut tries, &mut |gone| family.fits(gone));
        let all: Vec<Vec<bool>> =
            (0_u32..1 << count).map(|bits| (0..count).map(|at| bits >> at & 1 == 1).collect()).collect();
        let legal = all.iter().filter(|gone| guests.iter().zip(*gone).all(|(g, gone)| *gone || !g.must_go));
        let best = legal.filter(|gone| family.fits(gone).is_some()).min_by_key(|gone| {
            let score = family.fits(gone).unwrap();
            let leaving = guests.iter().zip(*gone).filter(|(g, gone)| **gone && g.is_leaving).count();
            (rank(&guests, gone), leaving, Reverse(score))
        });
        let Some(victims) = chosen else {
            assert_eq!(best, None);
            continue;
        };
        helped += 1;
        let mut gone = vec![false; guests.len()];
        victims.guests.iter().for_each(|at| gone[*at] = true);
        let best = best.unwrap();
        assert_eq!(rank(&guests, &gone), rank(&guests, best), "{guests:?}");
        assert_eq!(family.fits(&gone), family.fits(best), "of equal cost the best plan: {guests:?}");
        assert_eq!(victims.violations, u32::try_from(rank(&guests, &gone).0).unwrap());
        let order: Vec<_> = victims.guests.iter().map(|at| Reverse(guests[*at].priority)).collect();
        assert!(order.is_sorted(), "kube-scheduler takes the first for the highest priority");
    }
    assert!(helped > 1000, "{helped}");
}

#[test]
fn among_many_pods_nobody_goes_who_could_stay_and_the_work_is_bounded() {
    let mut seed = 11;
    let mut helped = 0;
    for _ in 0..300 {
        let count = 13 + below(&mut seed, 15);
        let (guests, family) = random(&mut seed, count);
        let seeds = [GpuSet::from_bits(1), GpuSet::from_bits(2)];
        let mut tries = PLENTY;
        let chosen = choose(&guests, &seeds, &mut tries, &mut |gone| family.fits(gone));
        let asked = PLENTY - tries;
        if guests.iter().filter(|g| !g.must_go).count() <= EXACT_GUESTS_MAX {
            continue;
        }
        assert!(asked <= 1 + 3 * (u32::try_from(count).unwrap() + 1), "{asked}");
        let Some(victims) = chosen else { continue };
        helped += 1;
        let mut gone = vec![false; guests.len()];
        victims.guests.iter().for_each(|at| gone[*at] = true);
        assert!(family.fits(&gone).is_some());
        for at in victims.guests {
            let mut less = gone.clone();
            less[at] = false;
            assert!(guests[at].must_go || family.fits(&less).is_none(), "{at} could stay: {guests:?}");
        }
    }
    assert!(helped > 100, "{helped}");
}

#[test]
fn many_small_pods_on_an_island_go_rather_than_a_few_that_free_none() {
    // Sixteen pods, two halves of each GPU: more than are compared set by set.
    let view = idle(Box8::HybridMesh);
    let guests: Vec<Guest> = (0..16).map(|i| guest(&format!("p{i:02}"), 0, 1 << (i / 2))).collect();
    let (set, victims) = freed(&view, &guests, &demand(4, &[("berth.dev/link", "nvlink")])).unwrap();
    assert!(set == 0b1111 || set == 0b1111_0000, "{set:#b}");
    assert_eq!(victims.guests.len(), 8);
}

#[test]
fn no_question_is_asked_that_is_not_paid_for() {
    let guests = one_each(8);
    for tries in 0..40 {
        let (mut left, mut asked) = (tries, 0);
        let mut fits = |gone: &[bool]| {
            asked += 1;
            let count = gone.iter().filter(|gone| **gone).count();
            (count >= 4).then(Score::default)
        };
        choose(&guests, &[], &mut left, &mut fits);
        assert_eq!(asked, tries - left);
    }
}
