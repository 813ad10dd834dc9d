//! The demo's words: plain columns that fit a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use berth_core::view::NodeView;
use berth_index::Snapshot;
use berth_model::GpuIndex;
use serde_json::Value;

use super::queue::DemoPod;
use crate::bind::memory::Bound;

/// One line of the queue.
pub(super) struct Row {
    pod: String,
    asks: String,
    node: String,
    devices: String,
    why: String,
}

impl Row {
    pub(super) fn bound(pod: &DemoPod, bound: &Bound) -> Self {
        let plan = &bound.plan;
        let gpus = plan.set.map_or_else(|| "?".to_owned(), ranges);
        let rails = match plan.nics.as_slice() {
            [] => String::new(),
            [only] => format!(" + {only}"),
            several => format!(" + {} NICs", several.len()),
        };
        let link = plan.weakest.map_or_else(String::new, |l| format!("all {l} or nearer, "));
        let zone = plan.zone.map_or_else(|| "two zones".to_owned(), |z| format!("zone {z}"));
        let part = |name: &str| plan.parts.iter().find(|p| p.name == name).map_or(0, |p| p.value.0 / 10_000);
        let set = match plan.weakest {
            Some(_) => format!(", set rated {}%", part("link")),
            None => String::new(),
        };
        let why = format!("{link}{zone}; node then {}% full{set}", part("gpu"));
        Self {
            pod: pod.name.clone(),
            asks: pod.asks(),
            node: plan.node.to_string(),
            devices: format!("GPU {gpus}{rails}"),
            why,
        }
    }

    pub(super) fn refused(pod: &DemoPod, reasons: &BTreeMap<String, usize>) -> Self {
        let mut counted: Vec<_> = reasons.iter().collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let told: Vec<String> = counted.iter().map(|(text, count)| format!("{count} x {}", short(text))).collect();
        Self {
            pod: pod.name.clone(),
            asks: pod.asks(),
            node: "-".to_owned(),
            devices: "-".to_owned(),
            why: told.join("; "),
        }
    }
}

/// `0-3,6`: positions as ranges.
fn ranges(set: berth_model::GpuSet) -> String {
    berth_model::CpuSet::from_cpus(set.iter().map(|i| u32::from(i.0))).to_string()
}

fn short(text: &str) -> &str {
    text.strip_prefix("berth: ").unwrap_or(text)
}

pub(super) fn header() -> String {
    let line = Row {
        pod: "POD".to_owned(),
        asks: "ASKS FOR".to_owned(),
        node: "NODE".to_owned(),
        devices: "GETS".to_owned(),
        why: "WHY".to_owned(),
    };
    row(&line)
}

pub(super) fn row(row: &Row) -> String {
    let mut asks = row.asks.as_str();
    if let Some((at, _)) = asks.char_indices().nth(ASKS_WIDTH - 1) {
        asks = asks.split_at(at).0;
    }
    format!("{:<13} {asks:<ASKS_WIDTH$} {:<8} {:<18} {}", row.pod, row.node, row.devices, row.why)
}

const ASKS_WIDTH: usize = 38;

fn sorted(snapshot: &Snapshot) -> Vec<&NodeView> {
    let mut views: Vec<&NodeView> = snapshot.nodes().map(|slot| &slot.view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// The cluster before the first pod.
pub(super) fn cluster(snapshot: &Snapshot) -> String {
    let mut out = String::from("A cluster of machines as they were captured:\n\n");
    let _ = writeln!(out, "{:<8} {:>4}  {:<26} {:<5} NICS", "NODE", "GPUS", "PRODUCT", "LINK");
    for view in sorted(snapshot) {
        let Some(hardware) = &view.hardware else { continue };
        let parts = hardware.topology.parts();
        let product = hardware.topology.products();
        let product = if product.is_empty() { "-" } else { &product };
        let (gpus, nics) = (parts.gpus.len(), parts.nics.len());
        let link = hardware.topology.link_class();
        let _ = writeln!(out, "{:<8} {gpus:>4}  {product:<26} {link:<5} {nics}", view.name);
    }
    out
}

/// Which GPUs are in use at the end.
pub(super) fn left(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let (mut free, mut total) = (0, 0);
    for view in sorted(snapshot) {
        let Some(hardware) = view.hardware.as_ref().filter(|h| h.fabric.gpu_count() > 0) else { continue };
        let all = hardware.topology.all_gpus();
        let mark = |i: GpuIndex| if view.held.contains(i) { '#' } else { '.' };
        let picture: String = all.iter().map(mark).collect();
        let unheld = view.unheld(hardware.topology.usable_gpus());
        free += unheld.gpu_count();
        total += all.gpu_count();
        let link = hardware.topology.weakest_link(unheld).map_or_else(String::new, |l| format!(", joined by {l}"));
        let _ = writeln!(out, "{:<8} {picture}  {} free{link}", view.name, unheld.gpu_count());
    }
    let _ = writeln!(out, "\n{free} of {total} GPUs free");
    out
}

/// An explanation in sentences.
pub(super) fn explanation(told: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!("{}\n", text(&told["summary"]));
    for reason in told["reasons"].as_array().into_iter().flatten() {
        let examples: Vec<String> = reason["examples"].as_array().into_iter().flatten().map(text).collect();
        let detail = Some(text(&reason["detail"])).filter(|d| !d.is_empty()).map(|d| format!(" ({d})"));
        let _ = writeln!(
            out,
            "  {} x {}{}\n      e.g. {}; what helps: {}",
            reason["nodes"],
            short(&text(&reason["text"])),
            detail.unwrap_or_default(),
            examples.join(", "),
            text(&reason["advice"]),
        );
    }
    out
}
