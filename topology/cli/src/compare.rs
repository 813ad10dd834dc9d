//! What differs between two reports, in words an operator can act on. Pure.
//!
//! Devices are matched by what stays theirs: UUID, PCI address, name; an index is no identity. Two reports of different nodes are
//! compared for likeness: their UUIDs differ by nature and say nothing. Links are in [`links`].

mod links;

use std::fmt::Display;

use berth_model::gpu::detail::PcieLink;
use berth_model::{Driver, Gpu, HugePages, LinkLayer, MiB, Nic, NodeTopology, PortState, ZoneId};
use serde::Serialize;

use crate::render::card::pcie;
use crate::render::host::{HostLine, host_lines, huge_pages};
use crate::render::size::gib;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// What it is about: `node`, `zone 1`, `GPU3`, `NIC5`.
    pub(crate) subject: String,
    /// Closed word for the kind of fact, e.g. `health`, `nvlink`.
    pub(crate) fact: &'static str,
    /// One sentence.
    pub(crate) text: String,
}

/// Differences as they come up.
#[derive(Debug, Default)]
struct Found {
    list: Vec<Difference>,
}

impl Found {
    fn add(&mut self, subject: impl Display, fact: &'static str, text: impl Into<String>) {
        self.list.push(Difference { subject: subject.to_string(), fact, text: text.into() });
    }

    /// Adds `SUBJECT: WHAT BEFORE -> AFTER` where the two differ.
    fn changed<T: PartialEq>(
        &mut self,
        subject: &str,
        fact: &'static str,
        what: &str,
        (before, after): (&T, &T),
        shown: impl Fn(&T) -> String,
    ) {
        if before != after {
            self.add(subject, fact, format!("{subject}: {what} {} -> {}", shown(before), shown(after)));
        }
    }
}

/// A pair of positions, before and after.
type Match = (usize, usize);

/// All differences: node, zones, GPUs, NICs, links, findings.
pub(crate) fn differences(before: &NodeTopology, after: &NodeTopology) -> Vec<Difference> {
    let mut found = Found::default();
    let (a, b) = (before.parts(), after.parts());
    let is_same_node = a.node == b.node;
    driver(&a.driver, &b.driver, &mut found);
    zones(before, after, &mut found);
    host(before, after, &mut found);
    let gpus = match_gpus(&a.gpus, &b.gpus, is_same_node);
    compare_gpus(before, after, &gpus, is_same_node, &mut found);
    let nics = match_nics(&a.nics, &b.nics);
    compare_nics(before, after, &nics, &mut found);
    let shift = |(x, y): &Match| (x + a.gpus.len(), y + b.gpus.len());
    let devices: Vec<Match> = gpus.iter().copied().chain(nics.iter().map(shift)).collect();
    links::compare(before, after, &devices, gpus.len(), &mut found);
    let key = |f: &berth_model::Finding| (f.code.clone(), f.device.clone());
    let mut found = Found { list: merged(&found.list) };
    for finding in b.findings.iter().filter(|f| a.findings.iter().all(|g| key(g) != key(f))) {
        found.add("node", "finding", format!("new finding {}: {} {}", finding.code, finding.device, finding.text));
    }
    for finding in a.findings.iter().filter(|f| b.findings.iter().all(|g| key(g) != key(f))) {
        found.add("node", "finding", format!("finding {} {} is no longer there", finding.code, finding.device));
    }
    found.list
}

/// Tells once what is the same of several GPUs: `8 GPUs: memory 32 GiB -> 79.6 GiB`.
fn merged(list: &[Difference]) -> Vec<Difference> {
    let tail = |d: &Difference| {
        let kind = d.subject.trim_end_matches(|c: char| c.is_ascii_digit());
        (kind == "GPU").then(|| d.text.strip_prefix(&format!("{}: ", d.subject)).map(str::to_owned)).flatten()
    };
    let count = |text: &String| list.iter().filter(|d| tail(d).as_ref() == Some(text)).count();
    let mut kept: Vec<Difference> = Vec::new();
    for difference in list {
        match tail(difference).map(|text| (count(&text), text)) {
            Some((count, text)) if count > 1 => {
                let merged = Difference {
                    subject: format!("{count} GPUs"),
                    fact: difference.fact,
                    text: format!("{count} GPUs: {text}"),
                };
                if !kept.contains(&merged) {
                    kept.push(merged);
                }
            }
            _ => kept.push(difference.clone()),
        }
    }
    kept
}

fn driver(before: &Driver, after: &Driver, found: &mut Found) {
    let version = |v: &String| if v.is_empty() { "of unknown version".to_owned() } else { v.clone() };
    let text = match (before, after) {
        (Driver::Loaded(a), Driver::Loaded(b)) if a.driver != b.driver => {
            format!("driver {} -> {}", version(&a.driver), version(&b.driver))
        }
        (Driver::Loaded(a), Driver::Absent(why)) => format!("the driver {} is gone: {why}", version(&a.driver)),
        (Driver::Absent(_), Driver::Loaded(b)) => format!("the driver {} is loaded now", version(&b.driver)),
        (Driver::Loaded(_), Driver::Loaded(_)) | (Driver::Absent(_), Driver::Absent(_)) => return,
    };
    found.add("node", "driver", text);
}

fn zones(before: &NodeTopology, after: &NodeTopology, found: &mut Found) {
    let (a, b) = (&before.parts().zones, &after.parts().zones);
    for zone in a.iter().filter(|z| b.iter().all(|o| o.id != z.id)) {
        found.add(format!("zone {}", zone.id), "zone", format!("zone {} is gone", zone.id));
    }
    for zone in b.iter().filter(|z| a.iter().all(|o| o.id != z.id)) {
        found.add(format!("zone {}", zone.id), "zone", format!("zone {} is new", zone.id));
    }
    let is_same_set = a.iter().map(|z| z.id).eq(b.iter().map(|z| z.id));
    for (old, new) in a.iter().filter_map(|z| b.iter().find(|o| o.id == z.id).map(|o| (z, o))) {
        let name = format!("zone {}", old.id);
        found.changed(&name, "cpus", "CPUs", (&old.cpus, &new.cpus), |c| or_none(&c.to_string()));
        found.changed(&name, "memory", "memory", (&old.memory, &new.memory), size);
        let pages = |pools: &Option<Vec<HugePages>>| {
            let known = pools.as_ref().map(|p| huge_pages(Some(p)).unwrap_or_else(|| "none".to_owned()));
            known.unwrap_or_else(|| "not known".to_owned())
        };
        found.changed(&name, "huge-pages", "huge pages", (&old.huge_pages, &new.huge_pages), pages);
        if is_same_set {
            let distances = |d: &Vec<u16>| or_none(&d.iter().map(u16::to_string).collect::<Vec<_>>().join(" "));
            found.changed(&name, "distances", "distances", (&old.distances, &new.distances), distances);
        }
    }
}

/// Facts of the host that are no longer there, and those that are new, by line.
fn host(before: &NodeTopology, after: &NodeTopology, found: &mut Found) {
    let (a, b) = (host_lines(before), host_lines(after));
    let facts = |lines: &[HostLine], label: &str| {
        lines.iter().find(|l| l.label == label).map(|l| l.facts.clone()).unwrap_or_default()
    };
    let fresh = b.iter().filter(|l| a.iter().all(|o| o.label != l.label));
    for label in a.iter().chain(fresh).map(|l| l.label) {
        let (old, new) = (facts(&a, label), facts(&b, label));
        let gone: Vec<String> = old.iter().filter(|f| !new.contains(f)).cloned().collect();
        let come: Vec<String> = new.iter().filter(|f| !old.contains(f)).cloned().collect();
        let shown = |list: &[String]| if list.is_empty() { "not told".to_owned() } else { list.join(", ") };
        if gone != come {
            found.add("node", "host", format!("{label}: {} -> {}", shown(&gone), shown(&come)));
        }
    }
}

/// Whether two devices are taken for one.
type Same<'a, T> = &'a dyn Fn(&T, &T) -> bool;

/// Pairs of devices that are the same by a rule, the first rule first; a device is in one pair at most.
fn matched<T>(before: &[T], after: &[T], rules: &[Same<'_, T>]) -> Vec<Match> {
    let mut matches: Vec<Match> = Vec::new();
    for same in rules {
        for (i, device) in before.iter().enumerate() {
            if matches.iter().any(|m| m.0 == i) {
                continue;
            }
            let is_free = |j: usize| matches.iter().all(|m| m.1 != j);
            if let Some((j, _)) = after.iter().enumerate().find(|(j, other)| is_free(*j) && same(device, other)) {
                matches.push((i, j));
            }
        }
    }
    matches.sort_unstable();
    matches
}

/// GPUs that are the same card, or stand in the same place.
fn match_gpus(before: &[Gpu], after: &[Gpu], is_same_node: bool) -> Vec<Match> {
    let uuid: Same<'_, Gpu> = &|a, b| a.uuid == b.uuid;
    let place: Same<'_, Gpu> = &|a, b| a.pci == b.pci;
    // Nodes of one make may number their buses differently: the order of the bus is all that is left.
    let order: Same<'_, Gpu> = &|a, b| a.index == b.index;
    let rules = if is_same_node { [uuid, place] } else { [place, order] };
    matched(before, after, &rules)
}

fn compare_gpus(before: &NodeTopology, after: &NodeTopology, matches: &[Match], is_same_node: bool, found: &mut Found) {
    let (a, b) = (&before.parts().gpus, &after.parts().gpus);
    for (i, gpu) in a.iter().enumerate().filter(|(i, _)| matches.iter().all(|m| m.0 != *i)) {
        found.add(
            format!("GPU{i}"),
            "presence",
            format!("GPU{i} is gone ({}, {}, {})", gpu.product, gpu.pci, gpu.uuid),
        );
    }
    for (j, gpu) in b.iter().enumerate().filter(|(j, _)| matches.iter().all(|m| m.1 != *j)) {
        found.add(format!("GPU{j}"), "presence", format!("GPU{j} is new ({}, {}, {})", gpu.product, gpu.pci, gpu.uuid));
    }
    for (old, new) in matches.iter().filter_map(|(i, j)| Some((a.get(*i)?, b.get(*j)?))) {
        compare_gpu(old, new, is_same_node, found);
        // A change of CPUs that only follows a change of zone, or of the zone's own CPUs, has been told.
        let zone_cpus = |node: &NodeTopology, gpu: &Gpu| {
            let zone = node.parts().zones.iter().find(|z| Some(z.id) == gpu.zone);
            zone.is_some_and(|z| z.cpus == gpu.cpus)
        };
        if !(zone_cpus(before, old) && zone_cpus(after, new)) {
            let name = old.index.to_string();
            found.changed(&name, "cpus", "nearest CPUs", (&old.cpus, &new.cpus), |c| or_none(&c.to_string()));
        }
    }
}

fn compare_gpu(old: &Gpu, new: &Gpu, is_same_node: bool, found: &mut Found) {
    let name = old.index.to_string();
    if is_same_node && old.uuid != new.uuid {
        found.add(&name, "uuid", format!("{name} was replaced at {}: {} -> {}", old.pci, old.uuid, new.uuid));
    } else if is_same_node && old.pci != new.pci {
        found.add(&name, "pci", format!("{name} moved from {} to {}", old.pci, new.pci));
    }
    if old.index != new.index {
        found.add(&name, "index", format!("{name} is {} now (an index is no identity)", new.index));
    }
    found.changed(&name, "product", "product", (&old.product, &new.product), Clone::clone);
    found.changed(&name, "memory", "memory", (&old.memory, &new.memory), size);
    moved(&name, old.zone, new.zone, found);
    found.changed(&name, "memory-zone", "zone of its memory", (&old.memory_zone, &new.memory_zone), |z| {
        z.map_or_else(|| "none".to_owned(), |z| z.to_string())
    });
    let mig = |on: &Option<bool>| match on {
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
        None => "not known".to_owned(),
    };
    found.changed(&name, "mig", "MIG", (&old.mig_enabled, &new.mig_enabled), mig);
    if old.mig_enabled == Some(true) && new.mig_enabled == Some(true) {
        let instances = |gpu: &Gpu| {
            let list = gpu.detail.mig_instances.iter();
            list.map(|i| format!("{}@{}+{}", i.profile, i.placement.start(), i.placement.size())).collect::<Vec<_>>()
        };
        found.changed(&name, "mig-instances", "MIG instances", (&instances(old), &instances(new)), |list| {
            or_none(&list.join(" "))
        });
    }
    let link = |link: &Option<PcieLink>| link.map_or_else(|| "not known".to_owned(), pcie);
    found.changed(&name, "pcie-link", "link", (&old.detail.pcie, &new.detail.pcie), link);
    if old.health != new.health {
        let why = if new.health.reason().is_empty() { String::new() } else { format!(": {}", new.health.reason()) };
        let word = match &new.health {
            berth_model::Health::Unknown(_) => "of unknown health",
            berth_model::Health::Healthy | berth_model::Health::Unhealthy(_) => new.health.word(),
        };
        found.add(&name, "health", format!("{name} is {word}{why} (was {})", old.health.word()));
    }
}

/// NICs that are in the same place, else of the same name.
fn match_nics(before: &[Nic], after: &[Nic]) -> Vec<Match> {
    matched(before, after, &[&|a, b| a.pci.is_some() && a.pci == b.pci, &|a, b| a.name == b.name])
}

fn compare_nics(before: &NodeTopology, after: &NodeTopology, matches: &[Match], found: &mut Found) {
    let (a, b) = (&before.parts().nics, &after.parts().nics);
    for (i, nic) in a.iter().enumerate().filter(|(i, _)| matches.iter().all(|m| m.0 != *i)) {
        found.add(format!("NIC{i}"), "presence", format!("NIC{i} ({}) is gone", nic.name));
    }
    for (j, nic) in b.iter().enumerate().filter(|(j, _)| matches.iter().all(|m| m.1 != *j)) {
        found.add(format!("NIC{j}"), "presence", format!("NIC{j} ({}) is new", nic.name));
    }
    for ((i, _), old, new) in matches.iter().filter_map(|m| Some((m, a.get(m.0)?, b.get(m.1)?))) {
        let name = format!("NIC{i} ({})", old.name);
        if old.name != new.name {
            found.add(&name, "name", format!("{name} is called {} now", new.name));
        } else if old.pci != new.pci {
            found.changed(&name, "pci", "PCI address", (&old.pci, &new.pci), |p| {
                p.map_or_else(|| "none".to_owned(), |p| p.to_string())
            });
        }
        moved(&name, old.zone, new.zone, found);
        if old.state != new.state {
            let word = match new.state {
                PortState::Active => "is active",
                PortState::Down => "is down",
                PortState::Unknown => "does not show its state any more",
            };
            found.add(&name, "state", format!("{name} {word}"));
        }
        let layer = |layer: &LinkLayer| format!("{layer:?}");
        found.changed(&name, "link-layer", "link layer", (&old.link_layer, &new.link_layer), layer);
        let rate = |rate: &Option<u32>| rate.map_or_else(|| "not known".to_owned(), |r| format!("{r} Gbit/s"));
        found.changed(&name, "rate", "rate", (&old.rate_gbps, &new.rate_gbps), rate);
    }
}

fn moved(name: &str, old: Option<ZoneId>, new: Option<ZoneId>, found: &mut Found) {
    let text = match (old, new) {
        (a, b) if a == b => return,
        (Some(a), Some(b)) => format!("{name} moved from zone {a} to zone {b}"),
        (Some(a), None) => format!("the zone of {name} is not known any more (was {a})"),
        (None, b) => format!("{name} is in zone {} (was not known)", b.map_or_else(String::new, |z| z.to_string())),
    };
    found.add(name, "zone", text);
}

fn size(memory: &Option<MiB>) -> String {
    memory.map_or_else(|| "not known".to_owned(), gib)
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
