//! What a device says beside identity and place, as it may stand in a report: bounded, and unknown where it makes no sense.

use std::sync::Arc;

use berth_model::gpu::detail::{Board, Fabric, FabricClique, NvLinkErrors, PcieLink, Wear};
use berth_model::mig::{MigInstance, MigProfile};
use berth_model::{GpuDetail, Link, MiB, MigCapability};

use super::{Findings, clean};
use crate::facts::gpu::{DeviceDetail, FabricFacts, MigInstanceFacts, MigProfileFacts, PcieFacts};
use crate::facts::{Answer, NvLinkFacts, NvmlDevice};
use crate::finding;

const BYTES_PER_MIB: u64 = 1024 * 1024;

/// The detail of one GPU. `slot` is the best link that the bridge above it allows.
pub(super) fn take(device: &NvmlDevice, slot: Option<PcieLink>, name: &str, findings: &mut Findings) -> GpuDetail {
    let DeviceDetail { identity, modes, wear, pcie, parts } = &device.detail;
    let pcie_max = pcie_max(pcie, slot);
    let mig = capability(parts.mig_profiles.as_deref().unwrap_or_default(), name, findings);
    let instances = instances(parts.mig_instances.as_deref().unwrap_or_default(), &mig, name, findings);
    let links = device.nvlinks.as_deref();
    let board = Board {
        part_number: text(&identity.part_number),
        architecture: known(&identity.architecture),
        memory_reserved: known(&identity.memory_reserved_bytes).filter(|b| *b > 0).map(|b| MiB(b / BYTES_PER_MIB)),
        nvlink_count: links.ok().and_then(|links| u8::try_from(links.len()).ok()).filter(|c| *c <= Link::NVLINKS_MAX),
        nvlink_version: links.unwrap_or_default().iter().find_map(version),
        pcie_max,
        ecc: known(&modes.ecc).map(|ecc| ecc.now),
        persistence: known(&modes.persistence),
        compute_mode: known(&modes.compute),
        virtualization: known(&modes.virtualization),
        host_vgpu: known(&modes.host_vgpu),
        fabric: parts.fabric.as_ref().ok().map(fabric),
        mig,
    };
    GpuDetail {
        board: Arc::new(board),
        // The wire keeps serial numbers as words of one list.
        serial: text(&identity.serial).filter(|s| s != "-" && s.bytes().all(|b| b.is_ascii_graphic())),
        minor: known(&identity.minor),
        wear: Wear {
            ecc_volatile: known(&wear.ecc_volatile),
            ecc_aggregate: known(&wear.ecc_aggregate),
            retired_pages: known(&wear.retired_pages),
            retirement_pending: known(&wear.retirement_pending),
            remap: known(&wear.remap),
        },
        nvlinks_down: links.unwrap_or_default().iter().filter(|l| l.active == Ok(false)).map(|l| l.number).collect(),
        nvlink_errors: links.ok().and_then(errors),
        pcie: pcie_max.and_then(|max| pcie_now(pcie, known(&modes.fastest), max)),
        mig_pending: known(&parts.mig_pending).filter(|pending| Ok(pending) != device.mig_enabled.as_ref()),
        mig_instances: instances,
    }
}

fn known<T: Copy>(answer: &Answer<T>) -> Option<T> {
    answer.as_ref().ok().copied()
}

/// Text of the driver. Boards without a serial number answer with blanks, zeros or `N/A` here and there; only blanks are sure to be none.
fn text(answer: &Answer<String>) -> Option<String> {
    answer.as_ref().ok().map(|t| clean(t)).filter(|t| !t.is_empty())
}

fn version(link: &NvLinkFacts) -> Option<u8> {
    link.version.as_ref().ok().and_then(|v| u8::try_from(*v).ok()).filter(|v| *v > 0)
}

/// Links with errors; `None` where no link counts them, which is also so when all are down.
fn errors(links: &[NvLinkFacts]) -> Option<Vec<NvLinkErrors>> {
    let mut counted = links.iter().filter_map(|l| Some((l.number, *l.errors.as_ref().ok()?))).peekable();
    counted.peek()?;
    Some(counted.filter_map(|(number, count)| NvLinkErrors::of(number, count)).collect())
}

/// What GPU and slot allow together: the lesser of both ends, each where known.
/// Source: NCCL `src/graph/xml.cc` takes the maximum speed of the device and of its parent, and of these the lesser. Checked: 2026-11-20.
fn pcie_max(pcie: &PcieFacts, slot: Option<PcieLink>) -> Option<PcieLink> {
    let own = link(&pcie.generation_max, &pcie.width_max)?;
    let slot = slot.unwrap_or(own);
    PcieLink::new(own.generation.min(slot.generation), own.width.min(slot.width))
}

/// The link under load. Width is never lowered to save power, so the width of now counts. Speed is, so a lower one counts only in the
/// fastest performance state; an idle GPU is taken at its word for what it reaches.
fn pcie_now(pcie: &PcieFacts, fastest: Option<bool>, max: PcieLink) -> Option<PcieLink> {
    let now = link(&pcie.generation, &pcie.width)?;
    let generation = if fastest == Some(true) { now.generation.min(max.generation) } else { max.generation };
    PcieLink::new(generation, now.width)
}

fn link(generation: &Answer<u32>, width: &Answer<u32>) -> Option<PcieLink> {
    PcieLink::new(u8::try_from(known(generation)?).ok()?, u8::try_from(known(width)?).ok()?)
}

/// A cluster UUID of zeros is a fabric inside one machine: no clique.
/// Source: NVIDIA/k8s-dra-driver-gpu `cmd/compute-domain-kubelet-plugin/nvlib.go`. Checked: 2026-11-20.
fn fabric(facts: &FabricFacts) -> Fabric {
    let spans_nodes = facts.cluster != [0; 16];
    Fabric {
        state: facts.state,
        failed: facts.failed,
        clique: spans_nodes.then(|| FabricClique { cluster: uuid(&facts.cluster), clique: facts.clique }),
        health: facts.health,
        degraded: facts.degraded,
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The profiles that make sense; one that does not is a finding and costs itself only.
fn capability(facts: &[MigProfileFacts], device: &str, findings: &mut Findings) -> MigCapability {
    let mut profiles: Vec<MigProfile> = Vec::new();
    for facts in facts {
        let fresh = |p: &MigProfile| !profiles.iter().any(|q| q.id() == p.id() || q.name() == p.name());
        match profile(facts) {
            Ok(profile) if fresh(&profile) => profiles.push(profile),
            Ok(profile) => findings.add(
                finding::MIG_UNREADABLE,
                device,
                format!("MIG profile {} stands twice: the first is taken", profile.name()),
            ),
            Err(why) => findings.add(finding::MIG_UNREADABLE, device, why),
        }
    }
    profiles.truncate(MigCapability::PROFILES_MAX);
    MigCapability::try_new(profiles).unwrap_or_default()
}

fn profile(facts: &MigProfileFacts) -> Result<MigProfile, String> {
    // A library without the second form of the call gives no name: the board's number is one that does not guess.
    let name = facts.name.as_deref().map_or_else(|| format!("{}g.profile{}", facts.slices, facts.id), clean);
    let placements = facts.placements.as_ref().map_err(|why| format!("placements of MIG profile {name}: {why}"))?;
    let small = |value: u32| u8::try_from(value).map_err(|_| format!("MIG profile {name}: {value} is absurd"));
    let placements: Result<Vec<(u8, u8)>, String> =
        placements.iter().map(|(start, size)| Ok((small(*start)?, small(*size)?))).collect();
    MigProfile::try_new(
        facts.id,
        &name,
        small(facts.slices)?,
        facts.memory_mib,
        small(facts.instances_max)?,
        placements?,
    )
    .map_err(|error| error.to_string())
}

/// The instances that lie where the GPU says that they may; another one is a finding.
fn instances(
    facts: &[MigInstanceFacts],
    capability: &MigCapability,
    device: &str,
    findings: &mut Findings,
) -> Vec<MigInstance> {
    let mut taken: Vec<MigInstance> = Vec::new();
    for facts in facts {
        let found = capability.by_id(facts.profile_id).and_then(|profile| {
            let placement = profile.placement(u8::try_from(facts.start).ok()?, u8::try_from(facts.size).ok()?)?;
            Some((profile.name().to_owned(), placement))
        });
        let overlaps = |mask| taken.iter().any(|t: &MigInstance| !t.placement.mask().is_disjoint(mask));
        match found {
            Some((profile, placement)) if !overlaps(placement.mask()) => {
                let mut uuids: Vec<String> = facts.uuids.iter().map(|u| clean(u)).collect();
                uuids.retain(|u| berth_model::GpuUuid::parse(u).is_ok());
                uuids.truncate(MigInstance::DEVICES_MAX);
                taken.push(MigInstance { placement, profile, uuids });
            }
            _ => {
                let (start, size) = (facts.start, facts.size);
                let text =
                    format!("GPU instance {} at {start}+{size} is at no placement that the GPU offers", facts.id);
                findings.add(finding::MIG_UNREADABLE, device, text);
            }
        }
    }
    taken
}
