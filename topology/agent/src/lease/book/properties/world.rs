//! The world that leases are tried in: an API server, a kubelet that admits one pod after the other, and processes that outlive both.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::annotation::Note;

use super::super::*;
use super::CARDS;
use crate::lease::testing::{GPU, plan, pod};
use crate::lease::unleased::Unleased;
use crate::pods::Container;

const NAMES: [&str; 3] = ["p", "q", "r"];

/// A pod as the kubelet has it: the ids of each container that it was answered for.
#[derive(Clone)]
pub(super) struct Taken {
    pub(super) pod: Pod,
    pub(super) held: BTreeMap<String, BTreeSet<String>>,
    pub(super) answered: BTreeMap<LeaseName, String>,
    /// Containers that another plugin gave these devices.
    pub(super) bare: BTreeMap<String, BTreeSet<String>>,
}

impl Taken {
    fn of(pod: Pod) -> Self {
        Self { pod, held: BTreeMap::new(), answered: BTreeMap::new(), bare: BTreeMap::new() }
    }

    /// What the kubelet keeps of a pod that has ended, once somebody else is admitted.
    fn clear(&mut self) {
        self.held.clear();
        self.answered.clear();
        self.bare.clear();
    }
}

/// The pod whose admission is under way: the containers that wait for an answer, and an answer that is on its way.
pub(super) struct Admission {
    uid: String,
    left: Vec<Container>,
    pub(super) flying: Option<(Option<LeaseName>, String, BTreeSet<String>)>,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    /// Whether the kubelet's own file can be read, all the time.
    pub(super) is_file_readable: bool,
    /// In how many steps the node begins to enforce plans; until then another plugin gives what the kubelet chose.
    pub(super) enforces_in: u32,
    pub(super) unleased: Unleased,
    pub(super) uids: u32,
    /// The API server's pods, and how the watch shows them.
    pub(super) api: BTreeMap<String, Pod>,
    pub(super) watched: OnNode,
    /// Every plan that ever was, by UID.
    pub(super) plans: BTreeMap<String, Option<Note>>,
    pub(super) kubelet: Vec<Taken>,
    pub(super) admission: Option<Admission>,
    pub(super) book: Book,
    pub(super) sequence: u64,
    /// Whose each answer is.
    pub(super) truth: BTreeMap<LeaseName, (String, String)>,
    /// Devices of containers whose processes run, by UID.
    pub(super) processes: BTreeMap<String, BTreeSet<String>>,
    pub(super) given: usize,
    pub(super) refused: BTreeSet<RefusalReason>,
    /// How often a lease was refused for who had none.
    pub(super) blocked: usize,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_file_readable = random.u8(..10) > 0;
        let enforces_in = if random.bool() { random.u32(..80) } else { 0 };
        Self {
            random,
            is_file_readable,
            enforces_in,
            unleased: Unleased::default(),
            uids: 0,
            api: BTreeMap::new(),
            watched: OnNode::listed([]),
            plans: BTreeMap::new(),
            kubelet: Vec::new(),
            admission: None,
            book: Book::new(),
            sequence: 0,
            truth: BTreeMap::new(),
            processes: BTreeMap::new(),
            given: 0,
            refused: BTreeSet::new(),
            blocked: 0,
        }
    }

    pub(super) fn step(&mut self) {
        self.enforces_in = self.enforces_in.saturating_sub(1);
        match self.random.u8(..12) {
            0 => self.create(),
            1 | 2 => self.admit(),
            3 => self.end_or_delete(),
            4 => self.forget(),
            5 => self.start(),
            6 => self.exit(),
            7 | 8 => self.watched = OnNode::listed(self.api.values().cloned()),
            _ => self.look(),
        }
        self.check();
    }

    fn planned(&mut self, uid: &str, containers: &[(&'static str, Kind, usize)]) -> Option<Note> {
        let mut free: Vec<&str> = CARDS.into_iter().collect();
        if self.random.u8(..4) > 0 {
            let planned = self.api.values().filter_map(|pod| self.plans[&pod.uid].as_ref());
            let taken: BTreeSet<String> =
                planned.flat_map(|note| note.gpus().unwrap_or_default()).map(|g| g.to_string()).collect();
            free.retain(|uuid| !taken.contains(*uuid));
        }
        self.random.shuffle(&mut free);
        // Init containers use what the first of the others has.
        let mut at = 0;
        let parts: Vec<(&str, Kind, Vec<&str>)> = containers
            .iter()
            .map(|(name, kind, count)| {
                let uuids = free.iter().skip(at).take(*count).copied().collect();
                at += if *kind == Kind::Init { 0 } else { *count };
                (*name, *kind, uuids)
            })
            .collect();
        let parts: Vec<(&str, Kind, &[&str])> = parts.iter().map(|(n, k, u)| (*n, *k, u.as_slice())).collect();
        match self.random.u8(..12) {
            0 => None,
            1 => Some(plan("another", &parts)),
            2 => Some(plan(uid, &parts[..parts.len() - 1])),
            _ => Some(plan(uid, &parts)),
        }
    }

    fn create(&mut self) {
        let name = NAMES[self.random.usize(..NAMES.len())];
        if self.api.contains_key(name) {
            return;
        }
        self.uids += 1;
        let uid = format!("uid-{}", self.uids);
        let all = [
            vec![("main", Kind::Main, 1)],
            vec![("main", Kind::Main, 2)],
            vec![("main", Kind::Main, 1), ("second", Kind::Main, 1)],
            vec![("pull", Kind::Init, 1), ("main", Kind::Main, 1)],
            vec![
                ("pull", Kind::Init, 1),
                ("again", Kind::Init, 1),
                ("side", Kind::Sidecar, 1),
                ("main", Kind::Main, 1),
            ],
        ];
        let containers = &all[self.random.usize(..all.len())];
        let note = self.planned(&uid, containers);
        let made = pod(name, &uid, containers, note.as_ref());
        self.plans.insert(uid, note);
        self.api.insert(name.to_owned(), made);
    }

    /// One step of the kubelet's serial admission: an answer is asked for, or arrives, or is lost and with it the pod.
    pub(super) fn admit(&mut self) {
        let Some(mut admission) = self.admission.take() else {
            let known: BTreeSet<String> = self.kubelet.iter().map(|taken| taken.pod.uid.clone()).collect();
            let new: Vec<Pod> = self.api.values().filter(|p| !known.contains(&p.uid) && !p.is_ended).cloned().collect();
            let Some(pod) = self.random.choice(&new).cloned() else { return };
            // What ended holds nothing any more once somebody else is admitted.
            let ended: BTreeSet<&String> = self.api.values().filter(|p| p.is_ended).map(|p| &p.uid).collect();
            self.kubelet.iter_mut().filter(|taken| ended.contains(&taken.pod.uid)).for_each(Taken::clear);
            let (uid, left) = (pod.uid.clone(), pod.containers.clone());
            self.kubelet.push(Taken::of(pod));
            self.admission = Some(Admission { uid, left, flying: None });
            return;
        };
        let is_lost = self.random.u8(..30) == 0;
        match admission.flying.take() {
            Some(_) if is_lost => return self.fail(&admission.uid),
            Some((lease, container, ids)) => {
                if let Some(taken) = self.kubelet.iter_mut().find(|taken| taken.pod.uid == admission.uid) {
                    taken.held.insert(container.clone(), ids.clone());
                    match lease {
                        Some(lease) => drop(taken.answered.insert(lease, container)),
                        None => drop(taken.bare.insert(container, ids)),
                    }
                }
            }
            None if admission.left.is_empty() => return,
            None => {
                let container = admission.left.remove(0);
                let Some(ids) = self.choose(&admission.uid, &container) else { return self.fail(&admission.uid) };
                let is_enforced = self.enforces_in == 0;
                let lease = is_enforced.then(|| self.grant(&admission.uid, &container.name, &ids));
                admission.flying = Some((lease, container.name, ids));
            }
        }
        self.admission = Some(admission);
    }

    /// Which ids the kubelet gives: those of the pod's own init containers first, then any that are free.
    fn choose(&mut self, uid: &str, container: &Container) -> Option<BTreeSet<String>> {
        let count = container.resources[GPU];
        let own = self.kubelet.iter().find(|taken| taken.pod.uid == uid)?;
        let is_init = |name: &String| own.pod.containers.iter().any(|c| c.name == *name && c.kind == Kind::Init);
        let mut ids: BTreeSet<String> =
            own.held.iter().filter(|(name, _)| is_init(name)).flat_map(|(_, ids)| ids.clone()).collect();
        for ids_of_main in own.held.iter().filter(|(name, _)| !is_init(name)).map(|(_, ids)| ids) {
            ids.retain(|id| !ids_of_main.contains(id));
        }
        let taken: BTreeSet<String> =
            self.kubelet.iter().flat_map(|taken| taken.held.values().flatten().cloned()).collect();
        let mut free: Vec<&str> = CARDS.into_iter().filter(|id| !taken.contains(*id)).collect();
        self.random.shuffle(&mut free);
        ids.extend(free.into_iter().take(count.saturating_sub(ids.len())).map(str::to_owned));
        (ids.len() == count).then_some(ids)
    }

    fn grant(&mut self, uid: &str, container: &str, ids: &BTreeSet<String>) -> LeaseName {
        let name = LeaseName::parse(&format!("lease-{:032x}", self.random.u128(..))).unwrap();
        let (sequence, resource, ids) = (self.sequence, GPU.to_owned(), ids.iter().cloned().collect());
        self.book.insert(name.clone(), Lease { name: name.clone(), sequence, resource, ids, holder: None });
        self.sequence += 1;
        self.truth.insert(name.clone(), (uid.to_owned(), container.to_owned()));
        name
    }

    fn fail(&mut self, uid: &str) {
        self.api.values_mut().filter(|pod| pod.uid == uid).for_each(|pod| pod.is_ended = true);
        self.kubelet.retain(|taken| taken.pod.uid != uid);
    }

    fn end_or_delete(&mut self) {
        let Some(name) = self.random.choice(self.api.keys().cloned().collect::<Vec<_>>()) else { return };
        match self.random.u8(..3) {
            // By force: gone from the API server, while kubelet and processes do not know yet.
            0 => drop(self.api.remove(&name)),
            1 => self.api.get_mut(&name).unwrap().is_deleting = true,
            // By somebody else's hand: its processes may run on.
            _ => self.api.get_mut(&name).unwrap().is_ended = true,
        }
    }

    /// The kubelet learns that pods are gone; those that end by themselves leave the API server after it.
    pub(super) fn forget(&mut self) {
        let admitting = self.admission.as_ref().map(|admission| admission.uid.clone());
        let gone = |taken: &Taken| !self.api.values().any(|pod| pod.uid == taken.pod.uid);
        let Some(at) = self.kubelet.iter().position(|taken| gone(taken) && Some(&taken.pod.uid) != admitting.as_ref())
        else {
            let over = self.api.values().find(|pod| pod.is_deleting && !self.processes.contains_key(&pod.uid));
            if let Some(pod) = over.filter(|pod| Some(&pod.uid) != admitting.as_ref()).cloned() {
                self.kubelet.retain(|taken| taken.pod.uid != pod.uid);
                self.api.remove(&pod.name);
            }
            return;
        };
        self.kubelet.remove(at);
    }

    /// A container whose lease has a spec starts, and one that needs none.
    fn start(&mut self) {
        for taken in &self.kubelet {
            let is_live = self.api.values().any(|pod| pod.uid == taken.pod.uid && !pod.is_ended && !pod.is_deleting);
            if is_live && !taken.bare.is_empty() {
                let ids = taken.bare.values().flatten().cloned();
                self.processes.entry(taken.pod.uid.clone()).or_default().extend(ids);
            }
            for holder in taken.answered.keys().filter_map(|lease| self.book.get(lease)?.holder.as_ref()) {
                if is_live {
                    let ids = holder.devices.iter().map(|device| cards::id(device).to_owned());
                    self.processes.entry(taken.pod.uid.clone()).or_default().extend(ids);
                }
            }
        }
    }

    pub(super) fn exit(&mut self) {
        let is_live = |uid: &String| self.api.values().any(|p| p.uid == *uid && !p.is_ended && !p.is_deleting);
        let ending: Vec<String> = self.processes.keys().filter(|uid| !is_live(uid)).cloned().collect();
        if let Some(uid) = self.random.choice(ending) {
            self.processes.remove(&uid);
        }
    }
}
