//! What is wrong with nodes: findings with a fixed table of codes. Pure.
//!
//! The table is in [`code`]. What one report shows is in [`node`] and [`links`]; what shows only between nodes is in [`fleet`].

pub(crate) mod code;
mod fleet;
mod links;
mod node;

use std::collections::BTreeMap;

use berth_machine::Contradiction;
use berth_model::{NodeTopology, PcieLevel};
use serde::Serialize;

pub(crate) use code::{Severity, entry};

/// Pairs that are named one by one; more are counted.
const PAIRS_TOLD_MAX: usize = 6;

/// One finding of lint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Remark {
    /// Whose.
    pub(crate) node: String,
    /// Word of the table.
    pub(crate) code: String,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What it is about: `GPU3`, `NIC5`, a PCI address, or empty for the node.
    pub(crate) device: String,
    /// What was seen.
    pub(crate) text: String,
    /// What helps.
    pub(crate) advice: &'static str,
}

/// Remarks as they come up.
#[derive(Debug)]
struct Remarks<'a> {
    node: &'a str,
    list: Vec<Remark>,
}

impl<'a> Remarks<'a> {
    fn of(node: &'a str) -> Self {
        Self { node, list: Vec::new() }
    }

    fn add(&mut self, code: &str, device: impl Into<String>, text: impl Into<String>) {
        let entry = entry(code);
        self.list.push(Remark {
            node: self.node.to_owned(),
            code: code.to_owned(),
            severity: entry.severity,
            device: device.into(),
            text: text.into(),
            advice: entry.advice,
        });
    }
}

/// All remarks on the nodes: node by node, the worst first.
pub(crate) fn lint(nodes: &[NodeTopology]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for node in nodes {
        let mut of_node = Remarks::of(node.parts().node.as_str());
        node::look(node, &mut of_node);
        links::look(node, &mut of_node);
        remarks.append(&mut of_node.list);
    }
    remarks.extend(fleet::look(nodes));
    sort(&mut remarks);
    remarks
}

/// A remark on a node whose report could not be read at all.
pub(crate) fn unreadable(node: &str, why: &str) -> Remark {
    let mut remarks = Remarks::of(node);
    remarks.add(code::REPORT_UNREADABLE, "", why);
    remarks.list.remove(0)
}

/// A remark on a capture that contradicts itself: what it prints of some pairs is not what their zones say.
pub(crate) fn contradicted(node: &str, list: &[Contradiction]) -> Option<Remark> {
    let told = |c: &Contradiction| {
        let shown = c.pairs.iter().take(PAIRS_TOLD_MAX).map(String::as_str).collect::<Vec<_>>().join(" ");
        let more = c.pairs.len().saturating_sub(PAIRS_TOLD_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let zones = if c.captured == PcieLevel::Sys { "inside one zone" } else { "between zones" };
        format!("{} {zones}: {shown}{more}", c.captured.word())
    };
    let mut remarks = Remarks::of(node);
    remarks.add(code::CELLS_CONTRADICTED, "", list.iter().map(told).collect::<Vec<_>>().join("; "));
    (!list.is_empty()).then(|| remarks.list.remove(0))
}

/// By node, then the worst first, then by code; devices keep their order.
pub(crate) fn sort(remarks: &mut [Remark]) {
    remarks.sort_by(|a, b| (&a.node, a.severity, &a.code).cmp(&(&b.node, b.severity, &b.code)));
}

/// What most have, and how many have it: `None` where no value is held by more than half.
fn majority<T: Ord + Clone>(values: impl IntoIterator<Item = T>) -> Option<(T, usize)> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let total: usize = counts.values().sum();
    counts.into_iter().find(|(_, count)| count * 2 > total)
}

#[cfg(test)]
mod provoked;
#[cfg(test)]
mod tests;
