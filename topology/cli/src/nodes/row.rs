//! The lines of `berth nodes` as values: what the JSON form holds and the table shows.

use berth_core::{Knowledge, NodeView, level};
use berth_index::{Holder, NodeSlot};
use berth_model::{GpuIndex, GpuSet, LinkClass, NodeTopology};
use serde::Serialize;

use super::Read;

/// The whole cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inventory {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) totals: Totals,
    pub(crate) items: Vec<NodeRow>,
}

/// Sums over the nodes shown.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    pub(crate) node_count: usize,
    pub(crate) gpu_count: u32,
    /// `None` as soon as it is not known of one node.
    pub(crate) free_gpu_count: Option<u32>,
    pub(crate) unhealthy_gpu_count: u32,
    /// The largest of all nodes.
    pub(crate) free_island_gpu_count: Option<u32>,
    /// How many nodes have any word against them.
    pub(crate) troubled_node_count: usize,
}

/// One node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRow {
    pub(crate) name: String,
    /// Products joined by commas; empty without a report.
    pub(crate) product: String,
    pub(crate) gpu_count: u32,
    /// `None` where pods could not be listed.
    pub(crate) free_gpu_count: Option<u32>,
    pub(crate) unhealthy_gpu_count: u32,
    /// The strongest link between any two GPUs; empty without a report.
    pub(crate) link_class: String,
    /// The largest set of free GPUs that are all joined by NVLink; `None` where there is no NVLink or it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) free_island: Option<Vec<u8>>,
    /// What plans for the node promise: advice, preferred or enforced; empty without a report.
    pub(crate) level: &'static str,
    /// Words of a closed list; empty when all is well.
    pub(crate) status: Vec<&'static str>,
    /// `None` where pods could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) holders: Option<Vec<HolderRow>>,
}

/// One pod's part of a node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HolderRow {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) gpus: Vec<u8>,
    /// GPUs that it takes beyond those, which nobody can name.
    pub(crate) unplanned_gpu_count: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) problem: String,
}

/// The wanted nodes of what was read, by name.
pub(crate) fn inventory(read: &Read, wanted: impl Fn(&NodeRow) -> bool) -> Inventory {
    let snapshot = read.snapshot();
    let mut items: Vec<NodeRow> = snapshot.nodes().map(|slot| row(slot, read)).filter(wanted).collect();
    items.sort_by(|a, b| a.name.cmp(&b.name));
    let totals = Totals {
        node_count: items.len(),
        gpu_count: items.iter().map(|r| r.gpu_count).sum(),
        free_gpu_count: items.iter().map(|r| r.free_gpu_count).sum(),
        unhealthy_gpu_count: items.iter().map(|r| r.unhealthy_gpu_count).sum(),
        free_island_gpu_count: items.iter().filter_map(NodeRow::free_island_gpu_count).max(),
        troubled_node_count: items.iter().filter(|r| !r.status.is_empty()).count(),
    };
    Inventory { api_version: "cli.berth.dev/v1alpha1", kind: "NodeInventory", totals, items }
}

impl NodeRow {
    /// How many GPUs the largest free island has.
    pub(crate) fn free_island_gpu_count(&self) -> Option<u32> {
        self.free_island.as_ref().and_then(|island| u32::try_from(island.len()).ok())
    }
}

fn row(slot: &NodeSlot, read: &Read) -> NodeRow {
    let view = &slot.view;
    let topology = view.hardware.as_ref().map(|h| h.topology.as_ref());
    let name = view.name.to_string();
    let offered = view.offered_gpu_count(read.gpu_resources.iter().map(String::as_str));
    let gpus = topology.map_or(&[][..], |t| &t.parts().gpus);
    let gpu_count = if topology.is_some() { view_gpu_count(gpus.len()) } else { offered.unwrap_or(0) };
    NodeRow {
        product: topology.map(NodeTopology::products).unwrap_or_default(),
        gpu_count,
        free_gpu_count: read.has_pods.then(|| free(view, topology, offered)),
        unhealthy_gpu_count: view_gpu_count(gpus.iter().filter(|g| !g.health.is_usable()).count()),
        link_class: topology.map(NodeTopology::link_class).unwrap_or_default(),
        free_island: topology.filter(|_| read.has_pods && !view.is_imprecise).and_then(|t| free_island(view, t)),
        level: topology.map(|_| level::promised(view).word()).unwrap_or_default(),
        status: status(slot, read, &name, offered),
        holders: read.has_pods.then(|| holders(&slot.holders)),
        name,
    }
}

fn view_gpu_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// GPUs that a new pod could get: by the report, and by the kubelet's count where that is smaller.
fn free(view: &NodeView, topology: Option<&NodeTopology>, offered: Option<u32>) -> u32 {
    let by_report = topology.map(|t| view.unheld(t.usable_gpus()).gpu_count().saturating_sub(view.unplanned_gpu_count));
    let by_count = offered.map(|o| o.saturating_sub(view.taken_gpu_count()));
    match (by_report, by_count) {
        (Some(report), Some(count)) => report.min(count),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => 0,
    }
}

fn free_island(view: &NodeView, topology: &NodeTopology) -> Option<Vec<u8>> {
    let joined = |a: GpuIndex, b: GpuIndex| {
        topology.weakest_link(GpuSet::EMPTY.with(a).with(b)).is_some_and(|c| matches!(c, LinkClass::NvLink(_)))
    };
    let all = topology.all_gpus();
    let neighbours: Vec<GpuSet> = all.iter().map(|a| all.iter().filter(|b| joined(a, *b)).collect()).collect();
    if neighbours.iter().all(|n| n.is_empty()) {
        return None;
    }
    let mut best = GpuSet::EMPTY;
    largest(&neighbours, GpuSet::EMPTY, view.unheld(topology.usable_gpus()), &mut best);
    Some(best.iter().map(|i| i.0).collect())
}

/// Extends `chosen` by GPUs that are joined with all of it. At most 32 GPUs, and a branch that cannot win is cut.
fn largest(neighbours: &[GpuSet], chosen: GpuSet, mut candidates: GpuSet, best: &mut GpuSet) {
    if chosen.gpu_count() > best.gpu_count() {
        *best = chosen;
    }
    for index in candidates.iter() {
        if chosen.gpu_count() + candidates.gpu_count() <= best.gpu_count() {
            return;
        }
        let near = neighbours.get(usize::from(index.0)).copied().unwrap_or_default();
        candidates = candidates.minus(GpuSet::EMPTY.with(index));
        largest(neighbours, chosen.with(index), candidates.and(near), best);
    }
}

fn status(slot: &NodeSlot, read: &Read, name: &str, offered: Option<u32>) -> Vec<&'static str> {
    let view = &slot.view;
    let is_missing = view.knowledge == Knowledge::Missing;
    let is_stale = view.knowledge == Knowledge::Stale;
    let is_agent_away = read.absent_agents.contains(name);
    let is_broken = read.broken_reports.contains_key(name);
    let words = [
        (!slot.exists && !read.conditions.is_empty(), "no-node-object"),
        (is_broken, "bad-report"),
        (is_missing && !is_broken && offered.is_some_and(|o| o > 0), "no-report"),
        (is_stale && is_agent_away, "stale:agent-away"),
        (is_stale && !is_agent_away, "stale:rebooted"),
        (level::is_away(view), "plugin-away"),
        (view.is_imprecise, "imprecise"),
    ];
    let own = read.conditions.get(name).map_or(&[][..], Vec::as_slice);
    own.iter().copied().chain(words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word)).collect()
}

fn holders(holders: &[Holder]) -> Vec<HolderRow> {
    let row = |holder: &Holder| HolderRow {
        namespace: holder.namespace.clone(),
        pod: holder.name.clone(),
        gpus: holder.set.iter().map(|i| i.0).collect(),
        unplanned_gpu_count: holder.unplanned_gpu_count,
        problem: holder.problem.clone(),
    };
    let mut rows: Vec<HolderRow> = holders.iter().map(row).collect();
    rows.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    rows
}

#[cfg(test)]
mod tests;
