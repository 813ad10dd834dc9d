//! The checks, in a fixed order, from what was read to what is wrong. Pure.

use berth_core::Knowledge;
use berth_core::level::{demanded, is_away, promised};
use berth_core::unfit::Reason;
use berth_index::{Holder, NodeSlot};
use berth_model::{GpuIndex, Health, NodeTopology, Refusal};
use berth_probe::xid;
use serde::Serialize;

use super::{Complaint, Examined};
use crate::lint::{self, Remark, Severity};
use crate::nodes::Read;

/// Words of the checks and what each looks at, in order. REFERENCE.md has the same table; a test compares them.
pub(crate) const CHECKS: [(&str, &str); 5] = [
    ("node", "the Node is there, Ready and not cordoned"),
    (
        "agent",
        "the node's agent is there and its report is readable, and of this boot; its device plugin accepts pods and promises what the pool demands",
    ),
    ("gpus", "every GPU may get pods"),
    (
        "hardware",
        "links, NICs, zones, driver and MIG are as those of their like: errors and warnings of berth topo lint",
    ),
    ("pods", "every pod holds what was planned, no device has two holders, and no container is refused its devices"),
];

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) state: State,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nothing found.
    Ok,
    /// What it looks at could not be read, or is not there.
    Unknown,
    /// The worst found is a warning.
    Warning,
    /// The worst found is an error.
    Error,
}

/// Every node that anything is known of, by name.
pub(crate) fn examine(read: &Read) -> Vec<Examined> {
    let snapshot = read.snapshot();
    let slots: Vec<_> = snapshot.nodes().collect();
    let topologies: Vec<NodeTopology> = slots.iter().filter_map(|slot| topology(slot).cloned()).collect();
    let remarks: Vec<Remark> = lint::lint(&topologies).into_iter().filter(|r| r.severity != Severity::Note).collect();
    let mut all: Vec<Examined> = slots.iter().map(|slot| one(slot, read, &remarks)).collect();
    all.sort_by(|a, b| a.node.cmp(&b.node));
    all
}

fn topology(slot: &NodeSlot) -> Option<&NodeTopology> {
    slot.view.hardware.as_ref().map(|hardware| hardware.topology.as_ref())
}

fn one(slot: &NodeSlot, read: &Read, remarks: &[Remark]) -> Examined {
    let node = slot.view.name.to_string();
    let mut complaints = Vec::new();
    of_node(slot, read, &node, &mut complaints);
    of_agent(slot, read, &node, &mut complaints);
    for remark in remarks.iter().filter(|r| r.node == node) {
        complaints.push(of_hardware(slot, remark));
    }
    for holder in &slot.holders {
        complaints.extend(of_pod(holder));
    }
    complaints.extend(refusals(slot).iter().map(of_refusal));
    let order = |check: &str| CHECKS.iter().position(|(name, _)| *name == check);
    complaints.sort_by(|a, b| (order(a.check), a.severity, &a.about).cmp(&(order(b.check), b.severity, &b.about)));
    let checks = CHECKS.iter().map(|(name, _)| Check { name, state: state(name, slot, read, &complaints) }).collect();
    Examined { node, checks, complaints }
}

fn state(name: &str, slot: &NodeSlot, read: &Read, complaints: &[Complaint]) -> State {
    let worst = complaints.iter().filter(|c| c.check == name).map(|c| c.severity).min();
    let is_unknown = match name {
        "node" => read.conditions.is_empty(),
        "gpus" | "hardware" => topology(slot).is_none(),
        "pods" => !read.has_pods,
        _ => false,
    };
    match worst {
        Some(Severity::Error) => State::Error,
        Some(_) => State::Warning,
        None if is_unknown => State::Unknown,
        None => State::Ok,
    }
}

fn complaint(check: &'static str, severity: Severity, text: impl Into<String>, advice: &str) -> Complaint {
    Complaint { check, severity, about: String::new(), text: text.into(), pods: Vec::new(), advice: advice.to_owned() }
}

fn of_node(slot: &NodeSlot, read: &Read, node: &str, complaints: &mut Vec<Complaint>) {
    if !slot.exists && !read.conditions.is_empty() {
        let advice = "delete the NodeTopology object if the node is gone for good; its agent would make it anew";
        complaints.push(complaint("node", Severity::Warning, "there is a report or a pod and no Node object", advice));
    }
    for word in read.conditions.get(node).into_iter().flatten() {
        let (severity, advice) = match *word {
            "cordoned" => (Severity::Warning, "kubectl uncordon it once the repair is done"),
            _ => (Severity::Error, "see kubectl describe node, and the kubelet's log on the node"),
        };
        complaints.push(complaint("node", severity, *word, advice));
    }
}

fn of_agent(slot: &NodeSlot, read: &Read, node: &str, complaints: &mut Vec<Complaint>) {
    let is_offering = slot.view.offered.iter().any(|(name, count)| *count > 0 && read.gpu_resources.contains(name));
    let (text, advice) = if let Some(why) = read.broken_reports.get(node) {
        (format!("its report cannot be used: {why}"), lint::entry(lint::code::REPORT_UNREADABLE).advice)
    } else if read.absent_agents.contains(node) {
        (
            "its agent has been away for too long: the report may be old".to_owned(),
            "see the agent's pod and log in berth-system",
        )
    } else {
        match slot.view.knowledge {
            Knowledge::Stale => (
                "its report is of another boot".to_owned(),
                "wait for the agent to report again; see its log if it does not",
            ),
            Knowledge::Missing if is_offering => (
                "it offers GPUs and no agent reports them".to_owned(),
                "see that the agent's DaemonSet selects and tolerates the node",
            ),
            Knowledge::Missing => return,
            Knowledge::Current => return complaints.extend(of_plugin(slot, read)),
        }
    };
    complaints.push(complaint("agent", Severity::Error, text, advice));
}

/// Why the device plugin of a node whose agent is there keeps pods away.
fn of_plugin(slot: &NodeSlot, read: &Read) -> Option<Complaint> {
    let (promised, demanded) = (promised(&slot.view), demanded(&slot.view, &read.policy));
    if demanded > promised {
        let text = format!("it promises level {}, and its pool demands {}", promised.word(), demanded.word());
        return Some(complaint("agent", Severity::Error, text, Reason::LevelUnmet.advice()));
    }
    let is_away = is_away(&slot.view);
    is_away.then(|| {
        let text = "its device plugin accepts no pods now";
        complaint("agent", Severity::Warning, text, Reason::PluginAway.advice())
    })
}

/// What the agent refused, as far as its report is still true.
fn refusals(slot: &NodeSlot) -> &[Refusal] {
    match slot.view.knowledge {
        Knowledge::Current => topology(slot).map_or(&[], |topology| &topology.parts().refusals),
        Knowledge::Stale | Knowledge::Missing => &[],
    }
}

fn of_refusal(refusal: &Refusal) -> Complaint {
    let Refusal { pod, container, reason, text, .. } = refusal;
    let text = format!("container {container} gets no devices: {}: {text}", reason.word());
    Complaint { about: pod.clone(), ..complaint("pods", Severity::Error, text, reason.advice()) }
}

/// A remark of lint, with who holds the GPU and what its Xid means.
fn of_hardware(slot: &NodeSlot, remark: &Remark) -> Complaint {
    let gpus = topology(slot).map_or(&[][..], |topology| &topology.parts().gpus);
    let gpu = gpus.iter().find(|gpu| gpu.index.to_string() == remark.device);
    let is_health = [lint::code::GPU_UNHEALTHY, lint::code::GPU_HEALTH_UNKNOWN].contains(&remark.code.as_str());
    let xid = gpu.filter(|_| is_health).and_then(|gpu| xid::named_in(gpu.health.reason()));
    let advice = match xid {
        Some(xid) => xid::meaning(xid).map_or(xid::UNLISTED_ADVICE, |row| row.advice),
        None => remark.advice,
    };
    let is_sick = gpu.is_some_and(|gpu| matches!(gpu.health, Health::Unhealthy(_)));
    let pods = gpu.filter(|_| is_health && is_sick).map_or_else(Vec::new, |gpu| holders_of(slot, gpu.index));
    Complaint {
        check: if is_health { "gpus" } else { "hardware" },
        severity: remark.severity,
        about: remark.device.clone(),
        text: remark.text.clone(),
        pods,
        advice: advice.to_owned(),
    }
}

fn holders_of(slot: &NodeSlot, index: GpuIndex) -> Vec<String> {
    let holders = slot.holders.iter().filter(|holder| holder.set.contains(index) && !holder.name.is_empty());
    holders.map(pod_name).collect()
}

fn pod_name(holder: &Holder) -> String {
    format!("{}/{}", holder.namespace, holder.name)
}

/// What is wrong with a pod's devices. The sickness of its GPUs is told with them.
fn of_pod(holder: &Holder) -> Option<Complaint> {
    if holder.problem.is_empty() || holder.name.is_empty() {
        return None;
    }
    let (severity, advice) = if holder.is_without_devices {
        (Severity::Error, "register the device plugin, then delete the pod: the kubelet gives it no device later")
    } else if holder.drifted_from.is_some() {
        (Severity::Warning, "the stock device plugin chose by itself; level preferred or enforced makes plans hold")
    } else {
        (Severity::Warning, "see berth explain of the pod; a pod that another scheduler bound has no plan")
    };
    let about = pod_name(holder);
    Some(Complaint { about, ..complaint("pods", severity, holder.problem.clone(), advice) })
}
