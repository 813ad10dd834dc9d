//! What one report shows of its devices: health, zones, products, and the findings it carries itself.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{CpuSet, Gpu, GpuIndex, Health, NodeTopology, PortState, ZoneId};

use super::{Remarks, code, majority};
use crate::render::size::{gib, gpus};

/// Looks at everything but links.
pub(super) fn look(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    let parts = node.parts();
    findings(node, remarks);
    for gpu in &parts.gpus {
        match &gpu.health {
            Health::Healthy => {}
            Health::Unhealthy(why) => remarks.add(code::GPU_UNHEALTHY, gpu.index.to_string(), why),
            Health::Unknown(why) => remarks.add(code::GPU_HEALTH_UNKNOWN, gpu.index.to_string(), why),
        }
    }
    for (i, nic) in parts.nics.iter().enumerate().filter(|(_, n)| n.state == PortState::Down) {
        remarks.add(code::NIC_DOWN, format!("NIC{i}"), format!("{} has no active port", nic.name));
    }
    places(node, remarks);
    products(&parts.gpus, remarks);
    mig(&parts.gpus, remarks);
}

/// The report's own findings. What is said alike of several GPUs by their addresses is said once.
fn findings(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    let parts = node.parts();
    let gpu = |device: &str| parts.gpus.iter().find(|g| g.pci.to_string() == device).map(|g| g.index);
    let mut of_gpus: BTreeMap<(&str, &str), Vec<GpuIndex>> = BTreeMap::new();
    for finding in &parts.findings {
        match gpu(&finding.device) {
            Some(index) => of_gpus.entry((&finding.code, &finding.text)).or_default().push(index),
            None => remarks.add(&finding.code, &finding.device, &finding.text),
        }
    }
    for ((code, text), indexes) in of_gpus {
        remarks.add(code, gpus(indexes), text);
    }
}

/// Zones and CPUs that are not known, and GPUs that could be spread evenly.
fn places(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    let parts = node.parts();
    if parts.zones.len() > 1 {
        let lost: Vec<_> = parts.gpus.iter().filter(|g| g.zone.is_none()).map(|g| g.index).collect();
        if !lost.is_empty() {
            remarks.add(code::ZONE_NOT_KNOWN, gpus(lost), "which zone is nearest is not known");
        }
        for (i, nic) in parts.nics.iter().enumerate().filter(|(_, n)| n.zone.is_none() && n.pci.is_some()) {
            remarks.add(code::ZONE_NOT_KNOWN, format!("NIC{i}"), format!("the zone of {} is not known", nic.name));
        }
    }
    // Where the zone is not known the CPUs are not either, and that has been said.
    let is_said = |gpu: &&Gpu| gpu.zone.is_none() && parts.zones.len() > 1;
    let lost = parts.gpus.iter().filter(|g| g.cpus == CpuSet::default() && !is_said(g));
    let lost: Vec<_> = lost.map(|g| g.index).collect();
    if !lost.is_empty() {
        remarks.add(code::AFFINITY_NOT_KNOWN, gpus(lost), "no CPUs are known to be near");
    }
    uneven(&parts.gpus, remarks);
}

fn uneven(all: &[Gpu], remarks: &mut Remarks<'_>) {
    let products: BTreeSet<&str> = all.iter().map(|g| g.product.as_str()).collect();
    for product in products {
        let mut counts: BTreeMap<ZoneId, usize> = BTreeMap::new();
        let peers: Vec<&Gpu> = all.iter().filter(|g| g.product == product).collect();
        let total = peers.len();
        for zone in peers.iter().filter_map(|g| g.zone) {
            *counts.entry(zone).or_default() += 1;
        }
        // A GPU whose zone is not known may be the one that makes it even.
        if peers.iter().any(|g| g.zone.is_none()) {
            continue;
        }
        let is_level = counts.values().collect::<BTreeSet<_>>().len() <= 1;
        if !is_level && total.is_multiple_of(counts.len()) {
            let shown: Vec<String> = counts.iter().map(|(zone, count)| format!("{count} in zone {zone}")).collect();
            remarks.add(code::ZONE_UNEVEN, "", format!("{total} x {product}: {}", shown.join(", ")));
        }
    }
}

fn products(all: &[Gpu], remarks: &mut Remarks<'_>) {
    let names: BTreeSet<&str> = all.iter().map(|g| g.product.as_str()).collect();
    if names.len() > 1 {
        remarks.add(code::PRODUCT_MIXED, "", names.iter().copied().collect::<Vec<_>>().join(", "));
    }
    for product in names {
        let peers: Vec<&Gpu> = all.iter().filter(|g| g.product == product).collect();
        let sizes: BTreeSet<_> = peers.iter().filter_map(|g| g.memory).collect();
        if sizes.len() < 2 {
            continue;
        }
        let usual = majority(peers.iter().filter_map(|g| g.memory));
        let odd = peers.iter().filter(|g| g.memory.is_some() && g.memory != usual.map(|(size, _)| size));
        let odd: Vec<String> = odd.map(|g| format!("{} {}", g.index, g.memory.map_or_else(String::new, gib))).collect();
        let rest = usual.map_or_else(String::new, |(size, _)| format!(", the others {}", gib(size)));
        remarks.add(code::MEMORY_MIXED, "", format!("{product}: {}{rest}", odd.join(", ")));
    }
}

fn mig(all: &[Gpu], remarks: &mut Remarks<'_>) {
    let with = |on: bool| all.iter().filter(move |g| g.mig_enabled == Some(on)).map(|g| g.index);
    if with(true).next().is_some() && with(false).next().is_some() {
        remarks.add(
            code::MIG_MIXED,
            "",
            format!("MIG is on for {} and off for {}", gpus(with(true)), gpus(with(false))),
        );
    }
}
