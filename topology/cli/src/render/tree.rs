//! `berth topo`: a node as an indented tree, zone by zone, for people who know lstopo.

use std::collections::BTreeMap;

use berth_model::{Driver, Finding, Gpu, Health, LinkLayer, Nic, NodeTopology, PortState, Zone};

use super::branch::{Branch, draw};
use super::card::{Mark, marks};
use super::fabric;
use super::host::{HostLine, function, host_lines, huge_pages};
use super::ink::{bad, faint, good, strong, warn};
use super::mig::slots;
use super::nesting::{Item, nesting};
use super::size::{gib, gpus, ranges};

/// The tree of a node.
pub(crate) fn tree(node: &NodeTopology) -> String {
    let parts = node.parts();
    let mut branches: Vec<Branch> = Vec::new();
    let mut empty_zones: Vec<u32> = Vec::new();
    for zone in &parts.zones {
        let devices = below(node, &nesting(node, Some(zone.id)));
        let owners = parts.gpus.iter().filter(|g| g.memory_zone == Some(zone.id)).map(|g| g.index);
        let owners: Vec<_> = owners.collect();
        if zone.cpus.is_empty() && devices.is_empty() && owners.is_empty() && zone.memory.is_none_or(|m| m.0 == 0) {
            empty_zones.push(u32::from(zone.id.0));
            continue;
        }
        let mut text = zone_text(zone);
        if !owners.is_empty() {
            text.push_str(&format!("  (the memory of {})", gpus(owners)));
        }
        branches.push(Branch::with(text, devices));
    }
    if !empty_zones.is_empty() {
        branches.push(Branch::leaf(faint(format!("zones {}  no CPUs, no memory", ranges(empty_zones)))));
    }
    let strays = below(node, &nesting(node, None));
    if !strays.is_empty() {
        branches.push(Branch::with("zone not known  (the kernel does not say; usual in virtual machines)", strays));
    }
    branches.extend(fabric::nvlink(node));
    branches.extend(host(node));
    branches.extend(findings(&parts.findings));
    format!("{}\n{}", heading(node), draw(&branches))
}

fn heading(node: &NodeTopology) -> String {
    let parts = node.parts();
    let mut facts = vec![strong(&parts.node), products(&parts.gpus)];
    let sick = parts.gpus.iter().filter(|g| !g.health.is_usable()).count();
    if sick > 0 {
        facts.push(bad(format!("{sick} of {} not healthy", parts.gpus.len())));
    }
    facts.push(match &parts.driver {
        Driver::Loaded(versions) if versions.driver.is_empty() => "driver of unknown version".to_owned(),
        Driver::Loaded(versions) => format!("driver {}", versions.driver),
        Driver::Absent(reason) if reason.is_empty() => warn("no NVIDIA driver"),
        Driver::Absent(reason) => warn(reason),
    });
    if parts.gpus.len() > 1 {
        facts.push(format!("links {}", node.link_class()));
    }
    facts.join("  ")
}

/// `8 x NVIDIA H100 80GB HBM3`, or each product with its count where they differ.
fn products(gpus: &[Gpu]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in gpus {
        *counts.entry(&gpu.product).or_default() += 1;
    }
    if counts.is_empty() {
        return "no GPU".to_owned();
    }
    counts.iter().map(|(product, count)| format!("{count} x {product}")).collect::<Vec<_>>().join(" + ")
}

fn zone_text(zone: &Zone) -> String {
    let cpus = match zone.cpus.cpu_count() {
        0 => "no CPUs".to_owned(),
        count => format!("CPUs {} ({count})", zone.cpus),
    };
    let memory = zone.memory.map_or_else(|| "memory not known".to_owned(), |m| format!("memory {}", gib(m)));
    let pages =
        huge_pages(zone.huge_pages.as_deref()).map_or_else(String::new, |pages| format!("  huge pages {pages}"));
    format!("{}  {cpus}  {memory}{pages}", strong(format!("zone {}", zone.id)))
}

/// The host around the GPUs, a line for each kind of fact that is known.
fn host(node: &NodeTopology) -> Option<Branch> {
    let lines = host_lines(node);
    let leaf = |line: &HostLine| Branch::leaf(format!("{}  {}", line.label, line.facts.join(", ")));
    (!lines.is_empty()).then(|| Branch::with(strong("host"), lines.iter().map(leaf).collect()))
}

/// Frames and devices as branches.
fn below(node: &NodeTopology, items: &[Item]) -> Vec<Branch> {
    let branch = |item: &Item| match item {
        Item::Device(position) => device(node, *position),
        Item::Frame { label, items } => Branch::with(faint(label), below(node, items)),
    };
    items.iter().map(branch).collect()
}

fn device(node: &NodeTopology, position: usize) -> Branch {
    let parts = node.parts();
    if let Some(gpu) = parts.gpus.get(position) {
        let lines = slots(gpu).map(|slots| slots.lines()).unwrap_or_default();
        return Branch::with(gpu_text(gpu), lines.into_iter().map(Branch::leaf).collect());
    }
    let number = position - parts.gpus.len();
    Branch::leaf(parts.nics.get(number).map_or_else(String::new, |nic| nic_text(number, nic)))
}

fn gpu_text(gpu: &Gpu) -> String {
    let memory = gpu.memory.map_or_else(|| "memory not known".to_owned(), gib);
    let health = match &gpu.health {
        Health::Healthy => good("healthy"),
        Health::Unhealthy(reason) => bad(format!("unhealthy: {reason}")),
        Health::Unknown(reason) => warn(format!("health unknown: {reason}")),
    };
    let shown = |mark: Mark| format!("  {}", if mark.is_doubtful { warn(mark.text) } else { mark.text });
    let marks: String = marks(gpu).into_iter().map(shown).collect();
    format!("{}  {}  {}  {memory}{marks}  {health}", strong(gpu.index), gpu.pci, gpu.product)
}

fn nic_text(number: usize, nic: &Nic) -> String {
    let layer = match nic.link_layer {
        LinkLayer::InfiniBand => "InfiniBand",
        LinkLayer::Ethernet => "Ethernet",
        LinkLayer::Unknown => "link layer not known",
    };
    let rate = nic.rate_gbps.map_or_else(String::new, |r| format!(" {r} Gbit/s"));
    let state = match nic.state {
        PortState::Active => good("active"),
        PortState::Down => bad("down"),
        PortState::Unknown => warn("state not known"),
    };
    let place = nic.pci.map_or_else(|| "no PCI address".to_owned(), |p| p.to_string());
    let rest: String = function(&nic.function, number).iter().map(|fact| format!("  {fact}")).collect();
    format!("{}  {place}  {}  {layer}{rate}  {state}{rest}", strong(format!("NIC{number}")), nic.name)
}

fn findings(findings: &[Finding]) -> Option<Branch> {
    if findings.is_empty() {
        return None;
    }
    let lines = findings.iter().map(|f| Branch::leaf(format!("{}: {} ({})", f.device, f.text, f.code)));
    Some(Branch::with(warn("findings"), lines.collect()))
}

#[cfg(test)]
mod tests;
