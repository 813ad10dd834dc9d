//! The story of a pod as text: its own state, its Events, its plan, and what the scheduler says.

use std::collections::BTreeMap;

use berth_core::annotation::{Level, Note};
use berth_model::{GpuIndex, GpuUuid};
use jiff::Timestamp;

use super::explanation::explanation;
use super::ink::{bad, faint, good, strong, warn};
use super::size::{indented, percent};

/// The scheduler that Berth's manifests set up.
const SCHEDULER_NAME: &str = "berth";

/// All that is known of a pod. A part that could not be had says why.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) pod: PodSummary,
    pub(crate) events: Result<Vec<Happening>, String>,
    pub(crate) plan: PlanState,
    pub(crate) scheduler: Result<serde_json::Value, String>,
}

/// What the pod itself says.
#[derive(Debug, Default)]
pub(crate) struct PodSummary {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) created: Option<Timestamp>,
    pub(crate) is_terminating: bool,
    pub(crate) node: Option<String>,
    pub(crate) scheduler_name: String,
    pub(crate) asks: Vec<Ask>,
    pub(crate) wishes: Vec<(String, String)>,
    pub(crate) conditions: Vec<Condition>,
}

/// An extended resource that a container asks for.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) container: String,
    pub(crate) resource: String,
    pub(crate) amount: String,
}

/// A condition of the pod.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Option<Timestamp>,
}

/// An Event of the pod.
#[derive(Debug)]
pub(crate) struct Happening {
    pub(crate) last: Option<Timestamp>,
    pub(crate) count: i32,
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What is known of the plan.
#[derive(Debug)]
pub(crate) enum PlanState {
    /// The pod is on no node yet.
    NotBound,
    /// It is on a node without a plan: somebody else bound it.
    Absent,
    /// The annotation is none of this pod's plans.
    Void(String),
    /// The plan, with the indexes of the node's GPUs where its report can be read.
    Known { note: Box<Note>, indexes: Result<BTreeMap<GpuUuid, GpuIndex>, String> },
}

/// The whole story, read at `now`.
pub(crate) fn story(story: &Story, now: Timestamp) -> String {
    let mut text = heading(&story.pod, now);
    text.push_str(&conditions(&story.pod, now));
    text.push_str(&events(&story.events, now));
    text.push_str(&plan(&story.plan));
    text.push_str(&scheduler(&story.scheduler));
    text
}

fn heading(pod: &PodSummary, now: Timestamp) -> String {
    let phase = match (pod.is_terminating, pod.phase.as_str()) {
        (true, _) => warn("terminating, still holds its devices"),
        (false, "Running" | "Succeeded") => good(&pod.phase),
        (false, "Failed") => bad(&pod.phase),
        (false, _) => warn(&pod.phase),
    };
    let place = pod.node.as_ref().map_or_else(|| "on no node".to_owned(), |n| format!("on node {n}"));
    let name = strong(format!("{}/{}", pod.namespace, pod.name));
    let mut text = format!("pod {name}  {phase}  {place}  {} old\n", age(pod.created, now));
    for ask in &pod.asks {
        text.push_str(&format!("  asks   {} x {} ({})\n", ask.amount, ask.resource, ask.container));
    }
    if pod.asks.is_empty() {
        text.push_str(&format!("  asks   {}\n", warn("for no GPU or other extended resource: Berth has no say in it")));
    }
    for (key, value) in &pod.wishes {
        text.push_str(&format!("  wishes {key}: {value}\n"));
    }
    if pod.scheduler_name != SCHEDULER_NAME {
        let said = format!("schedulerName is {}: Berth has a say only if that scheduler calls it", pod.scheduler_name);
        text.push_str(&format!("  {}\n", warn(said)));
    }
    text
}

fn conditions(pod: &PodSummary, now: Timestamp) -> String {
    let mut text = format!("\n{}\n", strong("Conditions"));
    match (pod.conditions.is_empty(), &pod.node) {
        (false, _) => {}
        (true, None) => text.push_str("  none yet: no scheduler has looked at the pod\n"),
        (true, Some(node)) => text.push_str(&format!("  none yet: the kubelet of {node} has not looked at the pod\n")),
    }
    for c in &pod.conditions {
        let state = if c.status == "True" { good(&c.status) } else { warn(&c.status) };
        text.push_str(&format!("  {} {state}  {}", c.kind, faint(format!("for {}", age(c.since, now)))));
        if !c.reason.is_empty() {
            text.push_str(&format!("  {}", c.reason));
        }
        text.push('\n');
        if !c.message.is_empty() {
            text.push_str(&indented(&c.message, "    "));
        }
    }
    text
}

fn events(events: &Result<Vec<Happening>, String>, now: Timestamp) -> String {
    let mut text = format!("\n{}\n", strong("Events, newest last"));
    match events {
        Err(reason) => text.push_str(&format!("  {}\n", warn(reason))),
        Ok(list) if list.is_empty() => text.push_str("  none (the API server forgets them after an hour)\n"),
        Ok(list) => {
            for e in list {
                let kind = if e.kind == "Normal" { e.kind.clone() } else { warn(&e.kind) };
                let times = if e.count > 1 { format!(" x{}", e.count) } else { String::new() };
                text.push_str(&format!("  {} ago  {kind}  {}{times}\n", age(e.last, now), e.reason));
                text.push_str(&indented(&e.message, "    "));
            }
        }
    }
    text
}

fn plan(plan: &PlanState) -> String {
    let mut text = format!("\n{}\n", strong("Plan"));
    match plan {
        PlanState::NotBound => text.push_str("  none: the pod is on no node yet\n"),
        PlanState::Absent => {
            text.push_str(&format!(
                "  {}\n",
                warn("none: the pod was bound without Berth, which counts its GPUs by number")
            ));
        }
        PlanState::Void(reason) => text.push_str(&format!("  {}\n", bad(format!("void: {reason}")))),
        PlanState::Known { note, indexes } => text.push_str(&known_plan(note, indexes)),
    }
    text
}

fn known_plan(note: &Note, indexes: &Result<BTreeMap<GpuUuid, GpuIndex>, String>) -> String {
    let promise = match note.level {
        Level::Advice => "advice: the node's device plugin may have given others",
        Level::Preferred => "preferred: the kubelet was asked for these",
        Level::Enforced => "enforced: these, or the container does not start",
    };
    let mut text = format!("  {promise}\n");
    for container in &note.containers {
        let devices: Vec<String> = container.devices.iter().map(|d| named(&d.uuid, indexes)).collect();
        let devices = if devices.is_empty() { "devices not known".to_owned() } else { devices.join("  ") };
        text.push_str(&format!("  {}  {}  {devices}\n", container.name, container.resource));
    }
    if let Err(reason) = indexes {
        text.push_str(&format!("  {}\n", warn(format!("UUIDs without indexes: {reason}"))));
    }
    if !note.nics.is_empty() {
        text.push_str(&format!("  NICs under the same switches: {}\n", note.nics.join(" ")));
    }
    let zone = note.zone.map_or_else(String::new, |z| format!(", zone {z}"));
    let generation = note.topology_generation;
    text.push_str(&format!("  score {}{zone}, from report generation {generation}\n", percent(note.score)));
    if !note.why.is_empty() {
        text.push_str(&indented(&format!("why: {}", note.why), "  "));
    }
    text
}

/// `GPU3 (GPU-...)`; the UUID alone where the report does not know it.
fn named(uuid: &str, indexes: &Result<BTreeMap<GpuUuid, GpuIndex>, String>) -> String {
    let Ok(indexes) = indexes else { return uuid.to_owned() };
    match GpuUuid::parse(uuid).ok().and_then(|u| indexes.get(&u)) {
        Some(index) => format!("{} {}", strong(index), faint(format!("({uuid})"))),
        None => bad(format!("{uuid} (not in the node's report)")),
    }
}

fn scheduler(answer: &Result<serde_json::Value, String>) -> String {
    let heading = strong("What the scheduler says");
    match answer {
        Err(reason) => format!("\n{heading}\n  {}\n", warn(reason)),
        Ok(answer) => format!("\n{heading}\n{}", indented(&explanation(answer), "  ")),
    }
}

/// How long ago, in kubectl's short form.
fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return "unknown".to_owned() };
    // Clocks differ: what seems to come from the future just happened.
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
