//! Compares what an agent would report of the imported machine with the capture. Nothing differs without being said.

use std::collections::BTreeMap;

use berth_model::{Link, LinkClass, NodeTopology, PcieLevel};

use super::capture::{Capture, Word};
use super::levels::Levels;
use super::{ImportError, refuse};
use crate::contradiction::{Contradiction, by_zones};
use crate::{Machine, Salt, topology};

/// Adds to `assumptions` what comes back otherwise, and refuses what may not.
pub(super) fn compare(
    capture: &Capture,
    levels: &Levels,
    machine: &Machine,
    assumptions: &mut Vec<String>,
) -> Result<Vec<Contradiction>, ImportError> {
    let report = match topology(machine, &machine.name, &Salt::default()) {
        Ok(report) => report,
        Err(error) => return refuse(capture.header, format!("the machine gives no report: {error}")),
    };
    let Some(positions) = positions(capture, &report, assumptions) else {
        return refuse(capture.header, "the report of the machine lacks devices of the capture");
    };
    let link = |a: usize, b: usize| {
        let (a, b) = (*positions.get(a)?, *positions.get(b)?);
        report.parts().links.link(a, b)
    };
    let mut differing: BTreeMap<(Option<String>, String), Vec<String>> = BTreeMap::new();
    let mut contradicted: BTreeMap<PcieLevel, Vec<String>> = BTreeMap::new();
    let mut implied = 0_usize;
    let mut open = 0_usize;
    for a in 0..capture.labels.len() {
        for b in a.saturating_add(1)..capture.labels.len() {
            let Some(link) = link(a, b) else { continue };
            let back = link.class();
            let pair = || format!("{}-{}", label(capture, a), label(capture, b));
            match capture.cells.get(&(a, b)) {
                Some(given) => {
                    let captured = class(given.value);
                    if captured == back {
                        continue;
                    }
                    let beyond = |c: LinkClass| {
                        matches!(c, LinkClass::Unknown | LinkClass::Pcie(PcieLevel::Node | PcieLevel::Sys))
                    };
                    if !beyond(captured) || !beyond(back) {
                        return refuse(
                            given.at,
                            format!(
                                "{captured} for {} would come back as {back}: the other cells contradict it",
                                pair()
                            ),
                        );
                    }
                    if let Some(level) = by_zones(captured, back) {
                        contradicted.entry(level).or_default().push(pair());
                    }
                    differing.entry((Some(captured.to_string()), back.to_string())).or_default().push(pair());
                }
                None if back == LinkClass::Unknown => open = open.saturating_add(1),
                None if follows(levels, (a, b), link) => implied = implied.saturating_add(1),
                None => differing.entry((None, back.to_string())).or_default().push(pair()),
            }
        }
    }
    if open > 0 || implied > 0 {
        assumptions.push(format!("cells not captured: {open} stay unknown, {implied} follow from those that are"));
    }
    tell(differing, assumptions);
    compare_affinity(capture, &report, assumptions);
    Ok(contradicted.into_iter().map(|(captured, pairs)| Contradiction { captured, pairs }).collect())
}

/// A sentence for each kind of difference: captured word, if any, and the word that comes back.
fn tell(differing: BTreeMap<(Option<String>, String), Vec<String>>, assumptions: &mut Vec<String>) {
    for ((captured, back), pairs) in differing {
        let pairs = pairs.join(", ");
        assumptions.push(match captured {
            Some(captured) => format!("captured {captured}, comes back as {back}: {pairs}"),
            None => format!("not captured, comes back as {back}, where one switch joins all or the nearest other levels meet: {pairs}"),
        });
    }
}

/// Whether a cell that was not captured could only be this.
fn follows(levels: &Levels, (a, b): (usize, usize), link: Link) -> bool {
    link.nvlinks == 0 && link.pcie.is_some() && levels.get(a, b) == link.pcie
}

fn class(word: Word) -> LinkClass {
    match word {
        Word::NvLink(count) => LinkClass::NvLink(count),
        Word::Pcie(level) => LinkClass::Pcie(level),
    }
}

fn label(capture: &Capture, device: usize) -> &str {
    capture.labels.get(device).map(String::as_str).unwrap_or_default()
}

/// Positions of the capture's devices in the report: reports list NICs in the order of their names.
fn positions(capture: &Capture, report: &NodeTopology, assumptions: &mut Vec<String>) -> Option<Vec<usize>> {
    let parts = report.parts();
    if parts.gpus.len() != capture.gpu_count || parts.nics.len() != capture.nic_names.len() {
        return None;
    }
    let nics = capture.nic_names.iter().map(|name| parts.nics.iter().position(|nic| nic.name.as_str() == name));
    let nics: Vec<usize> = nics.collect::<Option<_>>()?;
    if !nics.is_sorted() {
        assumptions
            .push("NICs come back in the order of their names, which is not the order of the capture".to_owned());
    }
    Some((0..capture.gpu_count).chain(nics.into_iter().map(|n| n.saturating_add(capture.gpu_count))).collect())
}

fn compare_affinity(capture: &Capture, report: &NodeTopology, assumptions: &mut Vec<String>) {
    for (i, (given, gpu)) in capture.affinity.iter().zip(&report.parts().gpus).enumerate() {
        let mut say = |what: &str, captured: &str, back: &str| {
            if captured != back {
                assumptions.push(format!("{what} of GPU{i}: captured {captured:?}, comes back as {back:?}"));
            }
        };
        if let Some(cpus) = &given.cpus {
            say("CPU Affinity", &cpus.value.to_string(), &gpu.cpus.to_string());
        }
        if let Some(zones) = &given.zones {
            let back = gpu.nearest_zones.clone().unwrap_or_else(|| gpu.zone.into_iter().collect());
            let back: Vec<u16> = back.into_iter().map(|z| z.0).collect();
            say("NUMA Affinity", &format!("{:?}", zones.value), &format!("{back:?}"));
        }
        if let Some(memory) = &given.memory_zone {
            say("GPU NUMA ID", &format!("{:?}", memory.value), &format!("{:?}", gpu.memory_zone.map(|z| z.0)));
        }
    }
}
