//! Who holds what on one node: the fold of its bound live pods and its holds over its last good report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_core::view::{Compute, Hardware, Knowledge};
use berth_core::{Fabric, NodeView};
use berth_model::{GpuSet, MiB, NodeName, NodeTopology};

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
    /// GPUs of its plan that are on the node.
    pub set: GpuSet,
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
            holders.push(count_pod(&mut view, pod, wanted));
        }
        for (uid, hold) in holds.filter(|(uid, _)| !self.pods.contains_key(*uid)) {
            add_compute(&mut view.requested, hold.compute.cpu_milli, hold.compute.memory);
            let (set, unknown) = positions(&view, &hold.devices);
            view.held = view.held.or(set);
            let unplanned_gpu_count = unknown.saturating_add(hold.unnamed_gpu_count);
            view.unplanned_gpu_count = view.unplanned_gpu_count.saturating_add(unplanned_gpu_count);
            let problem = "binding".to_owned();
            let (namespace, name) = (String::new(), String::new());
            holders.push(Holder { uid: uid.clone(), namespace, name, set, unplanned_gpu_count, problem });
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

/// Counts one bound pod into the view. What its plan names is held; what it takes beyond that counts without a position.
fn count_pod(view: &mut NodeView, pod: &PodFacts, wanted: u32) -> Holder {
    let (set, mut problem) = match &pod.note {
        PlanNote::Absent => (GpuSet::EMPTY, "bound without a plan".to_owned()),
        PlanNote::Void(why) => (GpuSet::EMPTY, why.clone()),
        PlanNote::Devices(devices) => {
            let (set, unknown) = positions(view, devices);
            let problem = match (unknown, devices.is_empty()) {
                (0, false) => String::new(),
                (0, true) => "its plan names no devices".to_owned(),
                _ => format!("{unknown} devices of its plan are not on the node"),
            };
            (set, problem)
        }
    };
    let twice = set.and(view.held);
    if !twice.is_empty() {
        problem = format!("GPUs {twice} are in another plan too");
    }
    // A device in two plans is one device, so the pod takes another that nobody can name.
    let named = set.minus(view.held).gpu_count();
    let devices = match &pod.note {
        PlanNote::Devices(devices) => u32::try_from(devices.len()).unwrap_or(u32::MAX),
        PlanNote::Absent | PlanNote::Void(_) => 0,
    };
    let unplanned_gpu_count = wanted.max(devices).saturating_sub(named);
    view.held = view.held.or(set);
    view.unplanned_gpu_count = view.unplanned_gpu_count.saturating_add(unplanned_gpu_count);
    view.is_imprecise |= unplanned_gpu_count > 0;
    Holder {
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        set,
        unplanned_gpu_count,
        problem,
    }
}

/// Positions of devices in the report, and how many are not in it.
fn positions(view: &NodeView, devices: &[berth_model::GpuUuid]) -> (GpuSet, u32) {
    let gpus = view.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().gpus);
    let set: GpuSet = gpus.iter().filter(|g| devices.contains(&g.uuid)).map(|g| g.index).collect();
    let named = u32::try_from(devices.len()).unwrap_or(u32::MAX);
    (set, named.saturating_sub(set.gpu_count()))
}
