//! Leases against a kubelet, an API server and a watch that do things in any order. The world knows the truth that the book must find out:
//! which container each answer went to, what its plan says, and whose processes run.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::lease::testing::{GPU, NODE, cards};
use crate::lease::witness::Entry;

use world::{Taken, World};

const CARDS: [&str; 4] = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"];
const SEEDS: u64 = 400;
const STEPS: usize = 250;

impl World {
    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        let mut names = BTreeSet::new();
        for taken in &self.kubelet {
            let name = (taken.pod.namespace.clone(), taken.pod.name.clone());
            if !names.insert(name.clone()) {
                listing.twice.insert(name);
            }
            for (container, ids) in &taken.held {
                let kind = taken.pod.containers.iter().find(|c| c.name == *container).unwrap().kind;
                if kind != Kind::Init {
                    let (namespace, pod) = (taken.pod.namespace.clone(), taken.pod.name.clone());
                    let devices = [(GPU.to_owned(), ids.clone())].into();
                    listing.containers.push(Listed { namespace, pod, container: container.clone(), devices });
                }
            }
        }
        listing
    }

    fn witness(&self) -> Witness {
        if !self.is_file_readable {
            return Witness::default();
        }
        let of = |taken: &Taken| {
            let uid = taken.pod.uid.clone();
            let entries =
                taken.answered.iter().map(move |(lease, container)| (lease.clone(), (uid.clone(), container.clone())));
            entries.collect::<Vec<_>>()
        };
        let leased = Witness::of_holders(self.kubelet.iter().flat_map(of).collect());
        let bare = self.kubelet.iter().flat_map(|taken| {
            taken.bare.iter().map(|(container, ids)| Entry {
                pod_uid: taken.pod.uid.clone(),
                container: container.clone(),
                resource: GPU.to_owned(),
                ids: ids.clone(),
                leases: BTreeSet::new(),
            })
        });
        Witness::of(leased.entries.into_iter().chain(bare).collect())
    }

    /// As the steering does.
    fn unleased(&mut self, witness: &Witness, listing: &Listing) -> Vec<Holder> {
        let over = self.unleased.over(&self.watched, listing);
        let gone = over.into_iter().filter(|uid| !self.processes.contains_key(uid)).collect();
        self.unleased.see(witness, &self.book);
        self.unleased.forget(&gone);
        self.unleased.holders(&self.watched, &NodeName::parse(NODE).unwrap(), &cards(&CARDS))
    }

    /// As the steering does: the sequence first, then list and file, with the kubelet going on in between.
    fn look(&mut self) {
        let asked_at = self.sequence;
        if self.random.u8(..4) == 0 {
            self.admit();
        }
        let listing = self.listing();
        if self.random.u8(..4) == 0 {
            self.admit();
        }
        let witness = self.witness();
        if self.random.u8(..4) == 0 {
            self.admit();
        }
        let (node, cards, pods) = (NodeName::parse(NODE).unwrap(), cards(&CARDS), self.watched.clone());
        let unleased = self.unleased(&witness, &listing);
        let look = Look {
            node: &node,
            asked_at,
            listing: &listing,
            witness: &witness,
            pods: &pods,
            cards: Some(&cards),
            unleased: &unleased,
        };
        for (lease, uid) in over(&self.book, &look) {
            if !self.processes.contains_key(&uid) {
                self.released(&lease, &uid);
                self.book.remove(&lease);
            }
        }
        let mut pending: Vec<Lease> = self.book.values().filter(|lease| lease.holder.is_none()).cloned().collect();
        pending.sort_by_key(|lease| lease.sequence);
        for lease in pending {
            match judge(&self.book, &lease, &look) {
                Verdict::Give(holder) => {
                    for earlier in superseded(&self.book, &lease, &holder) {
                        self.book.remove(&earlier);
                    }
                    self.book.get_mut(&lease.name).unwrap().holder = Some(*holder);
                    self.given += 1;
                }
                Verdict::Refuse(refusal) => {
                    self.blocked += usize::from(refusal.text.contains("without a lease"));
                    self.refused.insert(refusal.reason);
                }
                Verdict::Drop => self.dropped(&lease.name),
                Verdict::Wait | Verdict::Unseen => {}
            }
        }
    }

    /// The oracle of releases: who lives keeps the lease, and so does who is gone for the API server only, while the kubelet lists it. An
    /// init container is not listed; without its spec it does not start any more.
    fn released(&self, lease: &LeaseName, uid: &str) {
        let is_live = self.api.values().any(|pod| pod.uid == uid && !pod.is_ended);
        let is_init = self.book[lease].holder.as_ref().unwrap().init;
        let is_held = self.kubelet.iter().any(|taken| taken.pod.uid == uid && taken.answered.contains_key(lease));
        let is_held = is_held && !is_init;
        assert!(!is_live, "{uid} lives and lost its lease");
        // What has ended stays so, also after it is gone.
        let is_ended = self.watched.of_uid(uid).is_some_and(|pod| pod.is_ended);
        assert!(!is_held || is_ended, "{uid} is still the kubelet's and lost its lease");
    }

    /// What is dropped is no container's that could still start.
    fn dropped(&mut self, lease: &LeaseName) {
        let is_held = self.kubelet.iter().any(|taken| taken.answered.contains_key(lease));
        let is_flying =
            self.admission.iter().any(|a| a.flying.as_ref().is_some_and(|(name, ..)| name.as_ref() == Some(lease)));
        assert!(!is_held, "the kubelet's file names it");
        assert!(!is_flying, "its answer is on its way");
        self.book.remove(lease);
    }

    fn check(&self) {
        assert!(self.is_file_readable || self.given == 0, "the list alone does not say whose a lease is");
        let held: Vec<(&Lease, &Holder)> = self.book.values().filter_map(|l| Some((l, l.holder.as_ref()?))).collect();
        for (i, (lease, holder)) in held.iter().enumerate() {
            let truth = &self.truth[&lease.name];
            assert_eq!((&holder.pod_uid, &holder.container), (&truth.0, &truth.1), "whose the answer was");
            let note = self.plans[&holder.pod_uid].as_ref().unwrap();
            assert_eq!(note.pod_uid, holder.pod_uid);
            let part = note.containers.iter().find(|part| part.name == holder.container).unwrap();
            assert_eq!(part.devices, holder.devices, "what its plan names");
            for (_, other) in &held[..i] {
                let is_shared =
                    holder.devices.iter().any(|d| other.devices.iter().any(|theirs| cards::exclude(d, theirs)));
                let may = holder.pod_uid == other.pod_uid && (holder.init || other.init);
                assert!(!is_shared || may, "{holder:?} and {other:?} live at once");
            }
        }
        let mut seen: BTreeMap<&String, &String> = BTreeMap::new();
        for (uid, devices) in &self.processes {
            for device in devices {
                let Some(other) = seen.insert(device, uid) else { continue };
                // A kubelet without leases gives the devices of a pod that was deleted by force while its program still runs.
                let has_lease = |uid: &String| held.iter().any(|(_, holder)| holder.pod_uid == *uid);
                assert!(!has_lease(uid) && !has_lease(other), "{device} in two pods that run");
            }
        }
    }

    /// Everything comes to rest: who can have a lease has one, and who is gone has none.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.admit();
            self.forget();
            self.exit();
            self.watched = OnNode::listed(self.api.values().cloned());
            self.look();
            self.check();
        }
        for holder in self.book.values().filter_map(|lease| lease.holder.as_ref()) {
            let is_live = self.api.values().any(|pod| pod.uid == holder.pod_uid && !pod.is_ended);
            assert!(is_live, "{} is gone and has a lease", holder.pod_uid);
        }
        for taken in &self.kubelet {
            let pod = &taken.pod;
            let is_live = self.api.values().any(|p| p.uid == pod.uid && !p.is_ended && !p.is_deleting);
            let own = self.plans[&pod.uid].as_ref().filter(|note| note.pod_uid == pod.uid && is_live);
            let Some(note) = own.filter(|note| note.containers.len() == pod.containers.len()) else { continue };
            let is_whole =
                note.containers.iter().zip(&pod.containers).all(|(part, c)| part.devices.len() == c.resources[GPU]);
            let others = self.book.values().filter_map(|l| l.holder.as_ref()).filter(|h| h.pod_uid != pod.uid);
            let taken_by_others: Vec<_> = others.flat_map(|h| &h.devices).collect();
            let bare = self.kubelet.iter().flat_map(|taken| taken.bare.values().flatten());
            let bare: BTreeSet<&String> = bare.collect();
            let mut planned = note.containers.iter().flat_map(|p| &p.devices);
            let is_free = planned.all(|d| !taken_by_others.contains(&d) && !bare.contains(&d.uuid));
            if self.is_file_readable && is_whole && is_free && taken.held.len() == pod.containers.len() {
                for container in pod.containers.iter().filter(|c| !taken.bare.contains_key(&c.name)) {
                    let mut holders = self.book.values().filter_map(|lease| lease.holder.as_ref());
                    let has = holders.any(|h| h.pod_uid == pod.uid && h.container == container.name);
                    assert!(has, "{} of {} waits for nothing", container.name, pod.uid);
                }
            }
        }
    }
}

#[test]
fn in_any_order_no_device_is_in_two_leases_and_no_lease_is_without_its_plan() {
    let (mut given, mut blocked, mut refused) = (0, 0, BTreeSet::new());
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
            world.settle();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
        given += world.given;
        blocked += world.blocked;
        refused.append(&mut world.refused);
    }
    use RefusalReason as R;
    assert!(given > 1500 && blocked > 100, "{given} leases and {blocked} blocked are too few to show anything");
    let all = BTreeSet::from([R::NoPlan, R::ForeignPlan, R::OtherPlan, R::DeviceLeased, R::Ambiguous]);
    assert!(all.is_subset(&refused), "{refused:?}");
}
