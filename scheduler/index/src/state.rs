//! The mutable state behind the index: one entry per node, kept folded after every event.

mod capacity;
mod room;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use berth_core::policy::Resources;
use berth_core::value::rooms::Rooms;
use berth_core::{Demand, Group, Plan, Policy, Unfit, group, plan};
use berth_model::gpu::detail::FabricClique;
use berth_model::{NodeName, NodeTopology};

use crate::event::{Change, Event, Kind, NodeFacts, PlanNote, PodFacts, PodUid};
use crate::hold::{HoldId, Holds, hold_of, taken_in_turn};
use crate::kinds::Kinds;
use crate::ledger::NodeEntry;
use crate::pages::Pages;
use crate::roll::{Roll, Standing};
use crate::snapshot::{NodeSlot, Snapshot};
use crate::stage::{Nominee, Stage};
use capacity::capacity;

/// UIDs of pods that are gone, remembered so that a list older than the watch cannot bring them back. A list is at most
/// seconds old; this many deletions do not happen in that time.
const GRAVES_MAX: usize = 16_384;

#[derive(Debug)]
pub(crate) struct State {
    names: Resources,
    entries: BTreeMap<NodeName, NodeEntry>,
    /// The bound pods of every group.
    groups: BTreeMap<Group, BTreeMap<PodUid, NodeName>>,
    /// Where every known pod is counted; a pod that is not bound is not known here.
    pod_nodes: HashMap<PodUid, NodeName>,
    graves: VecDeque<PodUid>,
    grave_set: BTreeSet<PodUid>,
    holds: Holds,
    kinds: Kinds,
    pages: Pages,
    /// Of all nodes as they stand in `pages`.
    rooms: Arc<Rooms>,
    positions: BTreeMap<NodeName, usize>,
    roll: Arc<Roll>,
    /// Whether a node came, went or was labelled anew since the roll was made.
    is_roll_old: bool,
    version: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            names: Policy::default().resources().clone(),
            entries: BTreeMap::new(),
            groups: BTreeMap::new(),
            pod_nodes: HashMap::new(),
            graves: VecDeque::new(),
            grave_set: BTreeSet::new(),
            holds: Holds::default(),
            kinds: Kinds::default(),
            pages: Pages::default(),
            rooms: Arc::default(),
            positions: BTreeMap::new(),
            roll: Arc::default(),
            is_roll_old: false,
            version: 0,
        }
    }
}

impl State {
    pub(crate) fn apply(&mut self, event: Event) -> Change {
        match event {
            Event::Node(facts) => self.take_node(facts),
            Event::NodeGone(name) => self.edit(&name, |entry| {
                entry.facts = None;
                entry.offered = Arc::default();
            }),
            Event::Report(topology) => self.take_report(*topology),
            Event::ReportGone(name) => self.edit(&name, |entry| entry.report = None),
            Event::Agent { node, is_there } => self.edit(&node, |entry| entry.is_agent_away = !is_there),
            Event::Pod(pod) => self.take_pod(*pod),
            Event::PodGone(uid) => self.drop_pod(&uid),
            Event::Resources(names) => self.take_names(names),
            Event::Expected(kinds) => self.take_expected(kinds),
            Event::HoldReleased(id) => match self.holds.release(&id) {
                Some(node) => self.edit(&node, |_| ()),
                None => Change::default(),
            },
        }
    }

    /// What `live` does not name is gone.
    pub(crate) fn reset(&mut self, kind: Kind, live: Vec<Event>) -> Vec<Change> {
        let gone = match kind {
            Kind::Nodes => self.nodes_missing_from(&live),
            Kind::Reports => self.reports_missing_from(&live),
            Kind::Pods => self.pods_missing_from(&live),
        };
        gone.into_iter().chain(live).map(|event| self.apply(event)).collect()
    }

    fn nodes_missing_from(&self, live: &[Event]) -> Vec<Event> {
        let named = |event: &Event| if let Event::Node(facts) = event { Some(facts.name.clone()) } else { None };
        let named: BTreeSet<NodeName> = live.iter().filter_map(named).collect();
        let absent = self.entries.iter().filter(|(name, entry)| entry.facts.is_some() && !named.contains(*name));
        absent.map(|(name, _)| Event::NodeGone(name.clone())).collect()
    }

    fn reports_missing_from(&self, live: &[Event]) -> Vec<Event> {
        let named = |event: &Event| if let Event::Report(t) = event { Some(t.parts().node.clone()) } else { None };
        let named: BTreeSet<NodeName> = live.iter().filter_map(named).collect();
        let absent = self.entries.iter().filter(|(name, entry)| entry.report.is_some() && !named.contains(*name));
        absent.map(|(name, _)| Event::ReportGone(name.clone())).collect()
    }

    fn pods_missing_from(&self, live: &[Event]) -> Vec<Event> {
        let named = |event: &Event| if let Event::Pod(pod) = event { Some(pod.uid.clone()) } else { None };
        let named: BTreeSet<PodUid> = live.iter().filter_map(named).collect();
        let absent = self.pod_nodes.keys().filter(|uid| !named.contains(uid));
        absent.cloned().map(Event::PodGone).collect()
    }

    fn take_node(&mut self, facts: NodeFacts) -> Change {
        // Most updates of a node are its conditions: they must not cost every cached verdict of it.
        if self.entries.get(&facts.name).is_some_and(|entry| entry.facts.as_ref() == Some(&facts)) {
            return Change::default();
        }
        let name = facts.name.clone();
        self.edit(&name, |entry| {
            entry.offered = Arc::new(facts.offered.clone());
            entry.facts = Some(facts);
        })
    }

    fn take_report(&mut self, topology: NodeTopology) -> Change {
        let name = topology.parts().node.clone();
        let generation = topology.parts().generation;
        let known = self.entries.get(&name).and_then(|e| e.report.as_ref()).map(|h| Arc::clone(&h.topology));
        if let Some(known) = known {
            let newest = known.parts().generation;
            if generation < newest || (generation == newest && *known != topology) {
                let refused = format!("generation: {generation} is not above {newest}, which is known");
                return Change { node: None, has_grown: false, refused: Some(refused) };
            }
            if *known == topology {
                return Change::default();
            }
        }
        let hardware = self.kinds.hardware(topology);
        self.edit(&name, |entry| entry.report = Some(hardware))
    }

    fn take_pod(&mut self, mut pod: PodFacts) -> Change {
        if self.grave_set.contains(&pod.uid) {
            return Change::default();
        }
        let Some(node) = pod.node.clone().filter(|_| !pod.is_ended) else {
            // Ended pods hold nothing, and an ended pod never lives again.
            return if pod.is_ended { self.drop_pod(&pod.uid) } else { Change::default() };
        };
        let uid = pod.uid.clone();
        let known = self.entries.get(&node).and_then(|e| e.pods.get(&uid));
        if let Some(known) = known {
            // A plan that vanishes from a live pod still counts as held: the devices did not vanish.
            if matches!(known.note, PlanNote::Devices(_)) && !matches!(pod.note, PlanNote::Devices(_)) {
                pod.note = known.note.clone();
                pod.is_enforced = known.is_enforced;
            }
            // Nor does a status that says less than an older one: a running pod keeps its devices.
            for (resource, ids) in &known.truth {
                let said = pod.truth.entry(resource.clone()).or_default();
                if said.len() < ids.len() {
                    said.clone_from(ids);
                }
            }
            // A list of one node's pods does not know groups.
            if pod.totals.group.is_none() {
                pod.totals.group.clone_from(&known.totals.group);
            }
            if **known == pod {
                return Change::default();
            }
        }
        let held_on = self.holds.release_all(&uid);
        if let Some(group) = &pod.totals.group {
            self.groups.entry(group.clone()).or_default().insert(uid.clone(), node.clone());
        }
        self.pod_nodes.insert(uid.clone(), node.clone());
        let change = self.edit(&node, |entry| {
            entry.pods.insert(uid, Arc::new(pod));
        });
        let others = held_on.into_iter().filter(|other| *other != node).map(|other| self.edit(&other, |_| ()));
        most(std::iter::once(change).chain(others).collect())
    }

    fn drop_pod(&mut self, uid: &PodUid) -> Change {
        if self.grave_set.insert(uid.clone()) {
            self.graves.push_back(uid.clone());
            if self.graves.len() > GRAVES_MAX
                && let Some(oldest) = self.graves.pop_front()
            {
                self.grave_set.remove(&oldest);
            }
        }
        let held_on = self.holds.release_all(uid);
        let nodes: BTreeSet<NodeName> = self.pod_nodes.remove(uid).into_iter().chain(held_on).collect();
        let drop = |node: &NodeName| {
            self.leave_group(node, uid);
            self.edit(node, |entry| {
                entry.pods.remove(uid);
            })
        };
        most(nodes.iter().map(drop).collect())
    }

    fn leave_group(&mut self, node: &NodeName, uid: &PodUid) {
        let group = self.entries.get(node).and_then(|entry| entry.pods.get(uid)?.totals.group.clone());
        if let Some(group) = group
            && let Some(members) = self.groups.get_mut(&group)
        {
            members.remove(uid);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Of every pod of a group that is bound or held its node.
    pub(crate) fn nodes_of_group(&self, group: &Group) -> Vec<NodeName> {
        let bound = self.groups.get(group).into_iter().flat_map(BTreeMap::values).cloned();
        bound.chain(self.holds.of_group(group)).collect()
    }

    fn take_names(&mut self, names: Resources) -> Change {
        if names == self.names {
            return Change::default();
        }
        self.names = names;
        let nodes: Vec<NodeName> = self.entries.keys().cloned().collect();
        let grown = nodes.iter().map(|n| self.edit(n, |_| ())).filter(|c| c.has_grown);
        grown.last().unwrap_or_default()
    }

    /// Changes one entry, folds it anew, and says what that did.
    fn edit(&mut self, name: &NodeName, change: impl FnOnce(&mut NodeEntry)) -> Change {
        let before = self.slot(name).map(|s| capacity(&s.view, s.exists));
        let entry = self.entries.entry(name.clone()).or_default();
        change(entry);
        if entry.is_empty() && self.holds.on(name).next().is_none() {
            self.entries.remove(name);
            self.drop_slot(name);
            return Change { node: Some(name.clone()), has_grown: false, refused: None };
        }
        self.fold(name);
        let after = self.slot(name).map(|s| capacity(&s.view, s.exists));
        Change { node: Some(name.clone()), has_grown: after > before, refused: None }
    }

    fn fold(&mut self, name: &NodeName) {
        let Some(entry) = self.entries.get(name) else { return };
        let (view, holders) = entry.fold(name, &self.names, self.holds.on(name));
        self.version = self.version.saturating_add(1);
        let slot = NodeSlot {
            version: self.version,
            view,
            exists: entry.facts.is_some(),
            zone: entry.facts.as_ref().and_then(|f| f.zone.clone()),
            is_avoided: entry.facts.as_ref().is_some_and(|f| f.is_avoided),
            clique: entry.report.as_ref().and_then(|report| group::clique(&report.topology)).cloned(),
            holders,
        };
        let stood = self.slot(name).map(standing);
        self.is_roll_old |= stood != Some(standing(&slot));
        let position = self.positions.get(name).copied().unwrap_or_else(|| self.pages.free_position());
        self.positions.entry(name.clone()).or_insert(position);
        self.put(position, Some(slot));
    }

    fn slot(&self, name: &NodeName) -> Option<&NodeSlot> {
        self.pages.slot(*self.positions.get(name)?).map(Arc::as_ref)
    }

    fn drop_slot(&mut self, name: &NodeName) {
        if let Some(position) = self.positions.remove(name) {
            self.put(position, None);
            self.is_roll_old = true;
        }
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        if std::mem::take(&mut self.is_roll_old) {
            self.roll = Arc::new(self.call_the_roll());
        }
        Snapshot {
            pages: self.pages.clone(),
            roll: Arc::clone(&self.roll),
            hold_count: self.holds.count(),
            rooms: Arc::clone(&self.rooms),
        }
    }

    fn call_the_roll(&self) -> Roll {
        let (mut zones, mut cliques) = (BTreeMap::new(), BTreeMap::new());
        // Positions are in the order of their names.
        Roll::of(
            self.roll.serial().saturating_add(1),
            (0..).zip(&self.positions).filter_map(|(name_rank, (name, position))| {
                let slot = self.pages.slot(*position)?;
                let zone = slot.zone.as_deref().map(|zone| number(&mut zones, zone));
                let clique = slot.clique.as_ref().map(|clique| number(&mut cliques, clique));
                Some((name.as_str(), *position, Standing { name_rank, zone, is_avoided: slot.is_avoided, clique }))
            }),
        )
    }

    pub(crate) fn plan_and_hold(
        &mut self,
        uid: &PodUid,
        node: &NodeName,
        demand: &Demand,
        nominees: &[Nominee],
        policy: &Policy,
        until_ms: u64,
    ) -> Result<(Plan, HoldId), Unfit> {
        let entry = self.entries.entry(node.clone()).or_default();
        let others = self.holds.on(node).filter(|(known, _)| *known != uid);
        let (mut view, _) = entry.fold(node, &self.names, others);
        if !nominees.is_empty()
            && let Some(mut stage) = self.stage(node.as_str(), uid)
        {
            nominees.iter().for_each(|nominee| stage.reserve(nominee, policy));
            view = stage.view();
        }
        let planned = taken_in_turn(&view).and_then(|()| plan(&view, demand, policy)).map(|plan| {
            let hold = self.holds.take(uid.clone(), hold_of(&plan, demand, until_ms));
            (plan, hold)
        });
        self.edit(node, |_| ());
        planned
    }

    pub(crate) fn awaits_kubelet(&self, uid: &PodUid, node: &NodeName) -> bool {
        let Some(entry) = self.entries.get(node) else { return false };
        let (view, _) = entry.fold(node, &self.names, self.holds.on(node).filter(|(known, _)| *known != uid));
        taken_in_turn(&view).is_err()
    }

    pub(crate) fn stage(&self, node: &str, asks: &PodUid) -> Option<Stage> {
        let (name, entry) = self.entries.get_key_value(&NodeName::parse(node).ok()?)?;
        let holds = self.holds.on(name).filter(|(uid, _)| *uid != asks);
        entry.facts.is_some().then(|| Stage {
            name: name.clone(),
            entry: entry.clone(),
            holds: holds.map(|(uid, hold)| (uid.clone(), hold.clone())).collect(),
            names: self.names.clone(),
        })
    }

    pub(crate) fn expire_holds(&mut self, now_ms: u64) -> usize {
        let nodes = self.holds.expire(now_ms);
        for node in &nodes {
            self.edit(node, |_| ());
        }
        nodes.len()
    }
}

/// What of a slot the roll tells.
fn standing(slot: &NodeSlot) -> (Option<&str>, bool, Option<&FabricClique>) {
    (slot.zone.as_deref(), slot.is_avoided, slot.clique.as_ref())
}

/// The number of a key, a new one for a new key.
fn number<K: Ord>(numbers: &mut BTreeMap<K, u32>, key: K) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    *numbers.entry(key).or_insert(next)
}

/// The news of several changes: the first that grew, else the first.
fn most(changes: Vec<Change>) -> Change {
    let at = changes.iter().position(|change| change.has_grown).unwrap_or(0);
    changes.into_iter().nth(at).unwrap_or_default()
}
