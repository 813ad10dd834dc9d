//! Who holds what on one node: the fold of its bound live pods and its holds over its last good report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_core::view::{Compute, Hardware, Knowledge};
use berth_core::{Fabric, NodeView};
use berth_model::{GpuSet, GpuUuid, MiB, NodeName, NodeTopology};

use crate::event::{NodeFacts, PlanNote, PodFacts, PodUid};
use crate::hold::Hold;

/// One pod's part of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The pod.
    pub uid: PodUid,
    /// Its namespace; empty for a hold whose pod is not seen as bound yet.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// GPUs of the node that it holds: those that the kubelet says, else those of its plan.
    pub set: GpuSet,
    /// GPUs of its plan that are on the node, where the kubelet gave it others: drift.
    pub drifted_from: Option<GpuSet>,
    /// GPUs that it takes beyond those.
    pub unplanned_gpu_count: u32,
    /// What is wrong with its plan; empty when nothing is.
    pub problem: String,
}

/// What is kept of one node. An entry exists as soon as anything names the node.
#[derive(Debug, Default)]
pub(crate) struct NodeEntry {
    pub(crate) facts: Option<NodeFacts>,
    pub(crate) offered: Arc<BTreeMap<String, u64>>,
    pub(crate) report: Option<(Arc<NodeTopology>, Arc<Fabric>)>,
    pub(crate) is_agent_away: bool,
    pub(crate) pods: BTreeMap<PodUid, Arc<PodFacts>>,
}

impl NodeEntry {
    pub(crate) fn is_empty(&self) -> bool {
        self.facts.is_none() && self.report.is_none() && self.pods.is_empty()
    }

    fn knowledge(&self) -> Knowledge {
        let Some((topology, _)) = &self.report else { return Knowledge::Missing };
        let boot_now = self.facts.as_ref().and_then(|f| f.boot_id.as_ref());
        let is_other_boot = boot_now.is_some_and(|b| *b != topology.parts().boot_id);
        if self.is_agent_away || is_other_boot { Knowledge::Stale } else { Knowledge::Current }
    }

    /// The view of the node and who holds what on it.
    pub(crate) fn fold<'a>(
        &self,
        name: &NodeName,
        gpu_names: &BTreeSet<String>,
        holds: impl Iterator<Item = (&'a PodUid, &'a Hold)>,
    ) -> (NodeView, Vec<Holder>) {
        let mut view = NodeView {
            name: name.clone(),
            hardware: self.report.as_ref().map(|(t, f)| Hardware { topology: Arc::clone(t), fabric: Arc::clone(f) }),
            knowledge: self.knowledge(),
            held: GpuSet::EMPTY,
            unplanned_gpu_count: 0,
            is_imprecise: false,
            offered: Arc::clone(&self.offered),
            allocatable: self.facts.as_ref().map_or_else(Compute::default, |f| f.allocatable),
            requested: Compute::default(),
        };
        let mut holders = Vec::new();
        for pod in self.pods.values() {
            add_compute(&mut view.requested, pod.totals.cpu_milli, pod.totals.memory);
            let wanted = gpus_wanted(pod, gpu_names);
            if wanted == 0 && pod.note == PlanNote::Absent {
                continue;
            }
            holders.push(count_pod(&mut view, pod, wanted, gpu_names));
        }
        for (uid, hold) in holds.filter(|(uid, _)| !self.pods.contains_key(*uid)) {
            add_compute(&mut view.requested, hold.compute.cpu_milli, hold.compute.memory);
            let (set, unknown) = positions(&view, &hold.devices);
            view.held = view.held.or(set);
            let unplanned_gpu_count = unknown.saturating_add(hold.unnamed_gpu_count);
            view.unplanned_gpu_count = view.unplanned_gpu_count.saturating_add(unplanned_gpu_count);
            let problem = "binding".to_owned();
            let (namespace, name) = (String::new(), String::new());
            holders.push(Holder {
                uid: uid.clone(),
                namespace,
                name,
                set,
                drifted_from: None,
                unplanned_gpu_count,
                problem,
            });
        }
        (view, holders)
    }
}

fn add_compute(sum: &mut Compute, cpu_milli: u64, memory: MiB) {
    sum.cpu_milli = sum.cpu_milli.saturating_add(cpu_milli);
    sum.memory = MiB(sum.memory.0.saturating_add(memory.0));
}

fn gpus_wanted(pod: &PodFacts, gpu_names: &BTreeSet<String>) -> u32 {
    let counts = pod.totals.extended.iter().filter(|(name, _)| gpu_names.contains(*name));
    let sum = counts.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// Counts one bound pod into the view. What the kubelet says it has is held, and where it has not said all, what the plan names;
/// what the pod takes beyond that counts without a position.
fn count_pod(view: &mut NodeView, pod: &PodFacts, wanted: u32, gpu_names: &BTreeSet<String>) -> Holder {
    let (planned, plan_ids, mut problem) = planned(view, pod);
    let truth = truth(pod, gpu_names);
    let true_ids = u32::try_from(truth.len()).unwrap_or(u32::MAX);
    let (given, unknown) = positions(view, &truth);
    let is_all_said = true_ids > 0 && true_ids >= wanted;
    let (set, ids) = if is_all_said { (given, true_ids) } else { (given.or(planned), plan_ids.max(true_ids)) };
    let drifted_from = (is_all_said && plan_ids > 0 && planned != given).then_some(planned);
    if is_all_said {
        problem = match (drifted_from, unknown) {
            (Some(planned), _) => format!("drift: planned GPUs {planned}, the kubelet gave {given}"),
            (None, 0) => String::new(),
            (None, _) => format!("{unknown} devices that the kubelet gave it are not on the node"),
        };
    }
    let twice = set.and(view.held);
    if !twice.is_empty() {
        let by = if is_all_said { "are held by another pod too" } else { "are in another plan too" };
        problem = format!("GPUs {twice} {by}");
    }
    // A device of two pods is one device, so the pod takes another that nobody can name.
    let named = set.minus(view.held).gpu_count();
    let unplanned_gpu_count = wanted.max(ids).saturating_sub(named);
    view.held = view.held.or(set);
    view.unplanned_gpu_count = view.unplanned_gpu_count.saturating_add(unplanned_gpu_count);
    view.is_imprecise |= unplanned_gpu_count > 0;
    Holder {
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        set,
        drifted_from,
        unplanned_gpu_count,
        problem,
    }
}

/// Positions of the plan's devices, how many it names, and what is wrong with it.
fn planned(view: &NodeView, pod: &PodFacts) -> (GpuSet, u32, String) {
    match &pod.note {
        PlanNote::Absent => (GpuSet::EMPTY, 0, "bound without a plan".to_owned()),
        PlanNote::Void(why) => (GpuSet::EMPTY, 0, why.clone()),
        PlanNote::Devices(devices) => {
            let (set, unknown) = positions(view, devices);
            let problem = match (unknown, devices.is_empty()) {
                (0, false) => String::new(),
                (0, true) => "its plan names no devices".to_owned(),
                _ => format!("{unknown} devices of its plan are not on the node"),
            };
            (set, u32::try_from(devices.len()).unwrap_or(u32::MAX), problem)
        }
    }
}

/// Whole GPUs that the kubelet says it gave the pod, each once. A shared card's id ends in `::` and a number: the card counts.
///
/// Source: ids of replicas in github.com/NVIDIA/k8s-device-plugin `internal/rm/device_map.go`, `AnnotatedID`.
fn truth(pod: &PodFacts, gpu_names: &BTreeSet<String>) -> Vec<GpuUuid> {
    let ids = pod.truth.iter().filter(|(name, _)| gpu_names.contains(*name)).flat_map(|(_, ids)| ids);
    let card = |id: &String| id.split_once("::").map_or(id.as_str(), |(card, _)| card).to_owned();
    let mut uuids: Vec<GpuUuid> = ids.filter_map(|id| GpuUuid::parse(&card(id)).ok()).collect();
    uuids.sort_unstable();
    uuids.dedup();
    uuids
}

/// Positions of devices in the report, and how many are not in it.
fn positions(view: &NodeView, devices: &[GpuUuid]) -> (GpuSet, u32) {
    let gpus = view.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().gpus);
    let set: GpuSet = gpus.iter().filter(|g| devices.contains(&g.uuid)).map(|g| g.index).collect();
    let named = u32::try_from(devices.len()).unwrap_or(u32::MAX);
    (set, named.saturating_sub(set.gpu_count()))
}
