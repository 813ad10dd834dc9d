//! The one table of what makes a GPU unfit for new pods, and of what is only said.
//!
//! Sources: NVIDIA "GPU Memory Error Management" (row remapping, page retirement), NVIDIA device plugin `internal/rm/health.go`, `nvml.h`
//! (compute and virtualization modes), NVIDIA Fabric Manager user guide (CUDA error 802 until registration is done). Checked: 2026-11-21.

use berth_model::gpu::detail::{ComputeMode, FabricHealth, FabricState, Virtualization};
use berth_model::{Gpu, GpuDetail, Health};

use super::{Findings, clean};
use crate::facts::{NvmlDevice, NvmlFailure};
use crate::finding;

/// A rule: its word, what it asks, and what it says then. `drain` means that a reset or reboot heals the GPU once its pods are gone.
#[derive(Debug)]
pub struct Rule {
    /// Its word in REFERENCE.md.
    pub code: &'static str,
    broken: fn(&GpuDetail) -> bool,
    /// The reason that the report gives.
    pub text: &'static str,
}

/// In the order in which they are asked: the first that holds is the reason.
pub const RULES: &[Rule] = &[
    Rule {
        code: "row-remap-failed",
        broken: |d| d.wear.remap.is_some_and(|r| r.failed),
        text: "drain and replace: a bad row of its memory could not be remapped",
    },
    Rule {
        code: "row-remap-pending",
        broken: |d| d.wear.remap.is_some_and(|r| r.pending),
        text: "drain and reset: a bad row of its memory waits to be remapped",
    },
    Rule {
        code: "page-retirement-pending",
        broken: |d| d.wear.retirement_pending == Some(true),
        text: "drain and reset: bad pages of its memory wait to be retired",
    },
    Rule {
        code: "ecc-uncorrected",
        broken: |d| d.wear.ecc_volatile.is_some_and(|count| count > 0),
        text: "drain and reset: uncorrectable memory errors since the driver was loaded",
    },
    Rule {
        code: "fabric-down",
        broken: |d| d.board.fabric.as_ref().is_some_and(|f| f.state != FabricState::Completed),
        text: "not registered with its NVSwitch fabric: CUDA does not start (error 802)",
    },
    Rule {
        code: "fabric-failed",
        broken: |d| d.board.fabric.as_ref().is_some_and(|f| f.failed),
        text: "registration with its NVSwitch fabric failed",
    },
    Rule {
        code: "fabric-unhealthy",
        broken: |d| d.board.fabric.as_ref().is_some_and(|f| f.health == Some(FabricHealth::Unhealthy)),
        text: "its NVSwitch fabric is unhealthy",
    },
    Rule {
        code: "compute-prohibited",
        broken: |d| d.board.compute_mode == Some(ComputeMode::Prohibited),
        text: "compute mode is prohibited: no process gets a CUDA context",
    },
    Rule {
        code: "vgpu-host",
        broken: |d| matches!(d.board.virtualization, Some(Virtualization::HostVgpu | Virtualization::HostVsga)),
        text: "it serves virtual GPUs to guests and runs no CUDA itself",
    },
];

/// A GPU that answers is healthy unless an answer, or a refused one, speaks against it.
pub(super) fn judge(device: &NvmlDevice, detail: &GpuDetail) -> Health {
    let link = device.nvlinks.as_ref().err();
    let asked = [
        ("product", device.product.as_ref().err()),
        ("memory", device.memory_bytes.as_ref().err()),
        ("MIG mode", device.mig_enabled.as_ref().err()),
        ("NVLink", link),
    ];
    let failures: Vec<(&str, &NvmlFailure)> = asked.into_iter().filter_map(|(what, why)| Some((what, why?))).collect();
    let fatal = failures.iter().find(|(_, why)| matches!(why, NvmlFailure::Lost | NvmlFailure::ResetRequired));
    if let Some((_, why)) = fatal {
        return Health::Unhealthy(clean(&format!("NVML: {why}")));
    }
    if let Some(rule) = RULES.iter().find(|rule| (rule.broken)(detail)) {
        return Health::Unhealthy(rule.text.to_owned());
    }
    // A GPU whose links cannot be read computes all the same: that is a finding, not a doubt about its health.
    let doubt = failures.iter().find(|(what, why)| why.blames_device() && *what != "NVLink");
    doubt.map_or(Health::Healthy, |(what, why)| Health::Unknown(clean(&format!("NVML: {what}: {why}"))))
}

/// What is said of a GPU that may get pods all the same.
pub(super) fn note(gpu: &Gpu, device: &NvmlDevice, findings: &mut Findings) {
    let name = gpu.pci.to_string();
    let detail = &gpu.detail;
    if let (Some(now), Some(max)) = (detail.pcie, detail.board.pcie_max)
        && (now.generation < max.generation || now.width < max.width)
    {
        let text = format!("PCIe link is generation {now}, {max} is what GPU and slot allow");
        findings.add(finding::PCIE_DOWNGRADED, &name, text);
    }
    if let Some(pending) = detail.mig_pending {
        let word = if pending { "on" } else { "off" };
        findings.add(finding::MODE_PENDING, &name, format!("MIG is {word} after the next reset, and not now"));
    }
    if let Some(ecc) = device.detail.modes.ecc.as_ref().ok().filter(|ecc| ecc.now != ecc.pending) {
        let word = if ecc.pending { "on" } else { "off" };
        findings.add(finding::MODE_PENDING, &name, format!("ECC is {word} after the next reset, and not now"));
    }
    let fabric = detail.board.fabric.as_ref();
    let limited = |f: &berth_model::gpu::detail::Fabric| {
        f.degraded == Some(true) || f.health == Some(FabricHealth::LimitedCapacity)
    };
    if fabric.is_some_and(limited) {
        findings.add(finding::FABRIC_DEGRADED, &name, "its NVSwitch fabric has less than its full bandwidth");
    }
}
