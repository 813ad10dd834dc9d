//! The NVLinks of a capture: from GPU to GPU, or into switches.

use std::collections::BTreeMap;

use berth_model::Link;

use super::capture::{Capture, Given, Word};
use super::{ImportError, refuse};

/// How the GPUs are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fabric {
    None,
    /// The capture leaves NVLinks out.
    Unknown,
    Direct(Vec<(usize, usize, u8)>),
    Switch {
        links: u8,
        except: BTreeMap<usize, u8>,
    },
}

impl Fabric {
    pub(super) fn of(capture: &Capture, assumptions: &mut Vec<String>) -> Result<Self, ImportError> {
        let mut pairs = Vec::new();
        let mut totals: BTreeMap<usize, u32> = BTreeMap::new();
        for ((a, b), given) in &capture.cells {
            let Word::NvLink(count) = given.value else { continue };
            pairs.push((*a, *b, count));
            for gpu in [a, b] {
                *totals.entry(*gpu).or_default() += u32::from(count);
            }
        }
        if capture.pcie_only {
            assumptions.push("the capture is one of PCIe alone: NVLinks are not known".to_owned());
            return Ok(Self::Unknown);
        }
        let Some(most) = totals.values().max() else { return Ok(Self::None) };
        assumptions.push(
            "PCIe levels below NVLinks are not in the capture: taken from shared NICs, else from the zones".to_owned(),
        );
        if *most <= u32::from(Link::NVLINKS_MAX) {
            assumptions.push(format!("NVLinks run from GPU to GPU: no GPU needs more than {most} for it"));
            return Ok(Self::Direct(pairs));
        }
        switch(capture, *most, assumptions)
    }
}

/// A switch reaches every GPU that has links into it, with the links of the one that has fewer.
fn switch(capture: &Capture, most: u32, assumptions: &mut Vec<String>) -> Result<Fabric, ImportError> {
    let mut own: BTreeMap<usize, u8> = BTreeMap::new();
    let gpu_pairs = || capture.cells.iter().filter(|((_, b), _)| *b < capture.gpu_count);
    for ((a, b), given) in gpu_pairs() {
        for gpu in [a, b] {
            let count = own.entry(*gpu).or_default();
            *count = (*count).max(links(given));
        }
    }
    let count = |gpu: &usize| own.get(gpu).copied().unwrap_or_default();
    for ((a, b), given) in gpu_pairs() {
        let switched = count(a).min(count(b));
        if links(given) != switched {
            let problem = format!(
                "NVLinks of this pair fit neither switches, which would give NV{switched}, nor links from GPU to GPU, of which some GPU would need {most} (at most {} exist)",
                Link::NVLINKS_MAX
            );
            return refuse(given.at, problem);
        }
    }
    let all = own.values().copied().max().unwrap_or_default();
    assumptions.push(format!(
        "NVLinks run through switches: a GPU has at most {}, from GPU to GPU it would need {most}",
        Link::NVLINKS_MAX
    ));
    Ok(Fabric::Switch { links: all, except: own.into_iter().filter(|(_, count)| *count < all).collect() })
}

fn links(given: &Given<Word>) -> u8 {
    match given.value {
        Word::NvLink(count) => count,
        Word::Pcie(_) => 0,
    }
}
