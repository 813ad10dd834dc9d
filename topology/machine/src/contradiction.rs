//! Cells of a capture that its own zones contradict. The machine goes by the zones; what the capture printed is kept for lint to tell.

use std::collections::BTreeMap;

use berth_model::{GpuSet, LinkClass, NodeTopology, PcieLevel};
use serde::Deserialize;

use crate::check::refuse;
use crate::machine::MachineError;
use crate::scalar::Value;

/// Most devices of a machine.
const DEVICES_MAX: usize = GpuSet::GPUS_MAX + NodeTopology::NICS_MAX;
/// Most pairs told of: all of these devices.
const PAIRS_MAX: usize = DEVICES_MAX * (DEVICES_MAX - 1) / 2;

/// Cells of one word, of which the zones say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// What the capture prints: NODE though the zones differ, or SYS though they are one.
    pub captured: PcieLevel,
    /// The pairs in the capture's own words, e.g. `GPU0-NIC3`.
    pub pairs: Vec<String>,
}

/// As written: `{captured: SYS, pairs: "GPU0-GPU1 GPU0-GPU2"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ContradictionSpec {
    captured: Value<PcieLevel>,
    pairs: String,
}

pub(crate) fn check(specs: Vec<ContradictionSpec>) -> Result<Vec<Contradiction>, MachineError> {
    let mut checked: BTreeMap<PcieLevel, Contradiction> = BTreeMap::new();
    for (i, ContradictionSpec { captured: Value(captured), pairs }) in specs.into_iter().enumerate() {
        let field = |name: &str| format!("contradicted[{i}].{name}");
        if !matches!(captured, PcieLevel::Node | PcieLevel::Sys) {
            return refuse(field("captured"), "zones say nothing of what is nearer than NODE: NODE or SYS is right");
        }
        let pairs: Vec<String> = pairs.split(' ').map(str::to_owned).collect();
        if pairs.len() > PAIRS_MAX || !pairs.iter().all(|pair| is_pair(pair)) {
            return refuse(
                field("pairs"),
                format!("1 to {PAIRS_MAX} pairs like GPU0-NIC3 with a blank between them are right"),
            );
        }
        if checked.insert(captured, Contradiction { captured, pairs }).is_some() {
            return refuse(field("captured"), format!("{} stands twice", captured.word()));
        }
    }
    Ok(checked.into_values().collect())
}

/// Two names of devices as captures have them; NICs may have kernel names with a `-`.
fn is_pair(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let parted = text.split_once('-').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    parted && text.len() <= 136 && text.chars().all(is_name)
}

/// The lines of a machine file, or nothing.
pub(crate) fn written(list: &[Contradiction]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let line = |c: &Contradiction| format!("- {{captured: {}, pairs: \"{}\"}}\n", c.captured.word(), c.pairs.join(" "));
    format!("contradicted:\n{}", list.iter().map(line).collect::<String>())
}

/// The level of a cell that comes back otherwise because of the zones: they alone part NODE from SYS.
pub(crate) fn by_zones(captured: LinkClass, back: LinkClass) -> Option<PcieLevel> {
    match (captured, back) {
        (LinkClass::Pcie(PcieLevel::Node), LinkClass::Pcie(PcieLevel::Sys)) => Some(PcieLevel::Node),
        (LinkClass::Pcie(PcieLevel::Sys), LinkClass::Pcie(PcieLevel::Node)) => Some(PcieLevel::Sys),
        _ => None,
    }
}
