//! The fixed table of codes: how bad, what it means, what helps. REFERENCE.md carries the same table; a test compares them.

use std::fmt;

use berth_probe::finding;
use serde::Serialize;

/// How bad a finding is, from bad to harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Capacity is lost, or the node cannot be judged.
    Error,
    /// Pods may run slower than the hardware allows, or something is about to fail.
    Warning,
    /// Unusual; often meant so. Does not change the exit status.
    Note,
}

impl Severity {
    /// The word of the output.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Closed word.
    pub(crate) code: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// What helps.
    pub(crate) advice: &'static str,
}

pub(crate) const REPORT_UNREADABLE: &str = "report-unreadable";
pub(crate) const GPU_UNHEALTHY: &str = "gpu-unhealthy";
pub(crate) const GPU_HEALTH_UNKNOWN: &str = "gpu-health-unknown";
pub(crate) const NVLINK_MISSING: &str = "nvlink-missing";
pub(crate) const NVLINK_FEWER: &str = "nvlink-fewer";
pub(crate) const LINK_UNKNOWN: &str = "link-unknown";
pub(crate) const NIC_DOWN: &str = "nic-down";
pub(crate) const NIC_FAR: &str = "nic-far";
pub(crate) const RAIL_MISSING: &str = "rail-missing";
pub(crate) const ZONE_CONTRADICTED: &str = "zone-contradicted";
pub(crate) const ZONE_UNEVEN: &str = "zone-uneven";
pub(crate) const SAME_ZONE_SYS: &str = "same-zone-sys";
pub(crate) const CELLS_CONTRADICTED: &str = "cells-contradicted";
pub(crate) const ZONE_NOT_KNOWN: &str = "zone-not-known";
pub(crate) const AFFINITY_NOT_KNOWN: &str = "affinity-not-known";
pub(crate) const PRODUCT_MIXED: &str = "product-mixed";
pub(crate) const MEMORY_MIXED: &str = "memory-mixed";
pub(crate) const MIG_MIXED: &str = "mig-mixed";
pub(crate) const DRIVER_DIFFERS: &str = "driver-differs";
pub(crate) const FABRIC_DIFFERS: &str = "fabric-differs";

const fn row(code: &'static str, severity: Severity, meaning: &'static str, advice: &'static str) -> Entry {
    Entry { code, severity, meaning, advice }
}

use Severity::{Error, Note, Warning};

/// The table, in the order of REFERENCE.md. The last group are the codes that a report itself may carry.
pub(crate) const TABLE: &[Entry] = &[
    row(
        REPORT_UNREADABLE,
        Error,
        "the node's report cannot be used",
        "see the agent's log; agent and CLI of one version understand each other",
    ),
    row(
        GPU_UNHEALTHY,
        Error,
        "a GPU gets no pods",
        "look up the Xid or text; reset the GPU or drain the node, then have it repaired",
    ),
    row(
        GPU_HEALTH_UNKNOWN,
        Warning,
        "a GPU could not be judged",
        "check nvidia-smi on the node: a driver that does not answer needs a restart of the node",
    ),
    row(
        NVLINK_MISSING,
        Error,
        "a GPU has no NVLink though its peers have",
        "check nvidia-smi nvlink -s and the fabric manager; on PCIe cards, whether the bridge is meant to be there",
    ),
    row(
        NVLINK_FEWER,
        Warning,
        "a GPU has fewer NVLinks than most of its peers",
        "check nvidia-smi nvlink -s and -e for links that are down or have errors",
    ),
    row(
        LINK_UNKNOWN,
        Note,
        "the distance of some devices is not known",
        "usual in virtual machines and of partial captures; such a pair satisfies no hard link wish",
    ),
    row(
        NIC_DOWN,
        Warning,
        "a NIC has no active port",
        "check cable, switch port and ibstat; ports left free on purpose can be ignored",
    ),
    row(
        NIC_FAR,
        Note,
        "the NIC is far from all GPUs though a GPU has no rail, and other NICs or slots are nearer",
        "GPUDirect RDMA crosses CPUs or host bridges; where the board allows it, move the card under the switch of the GPUs",
    ),
    row(
        RAIL_MISSING,
        Warning,
        "a GPU has no NIC under its PCIe switch though most of its peers have",
        "check whether a NIC is lost or stands in the wrong slot",
    ),
    row(
        ZONE_CONTRADICTED,
        Warning,
        "two devices share a host bridge or zone by their PCIe path and are in different zones",
        "check the firmware's NUMA tables (SRAT, _PXM) and its updates",
    ),
    row(
        ZONE_UNEVEN,
        Note,
        "the GPUs of one product could be spread evenly over their zones and are not",
        "check slots and the firmware's NUMA setting; harmless where the board is built so",
    ),
    row(
        SAME_ZONE_SYS,
        Note,
        "GPUs of one zone are SYS to each other",
        "seen on some boards as they are; the zone holds for CPUs, the level for traffic between GPUs",
    ),
    row(
        CELLS_CONTRADICTED,
        Note,
        "NODE and SYS cells of a capture contradict its own NUMA column",
        "some boards print SYS inside a zone, and a job's cpuset hides zones: take the capture outside of jobs; the zones are believed",
    ),
    row(
        ZONE_NOT_KNOWN,
        Note,
        "the zone of a device is not known though the node has several",
        "numa_node is -1 or was not captured: check the firmware's NUMA setting; usual in virtual machines",
    ),
    row(
        AFFINITY_NOT_KNOWN,
        Note,
        "the CPUs near a GPU are not known",
        "run agent and nvidia-smi without a cpuset; usual in virtual machines and of partial captures",
    ),
    row(
        PRODUCT_MIXED,
        Note,
        "the node has GPUs of several products",
        "name the product in the pods that care: berth.dev/gpu-product",
    ),
    row(
        MEMORY_MIXED,
        Warning,
        "GPUs of one product differ in memory",
        "check for mixed boards, ECC or reserved memory: nvidia-smi -q -d MEMORY,ECC",
    ),
    row(
        MIG_MIXED,
        Note,
        "MIG is on for some GPUs and off for others",
        "meant so where whole GPUs and slices share a node; else nvidia-smi -mig 0 or 1 on the odd one",
    ),
    row(
        DRIVER_DIFFERS,
        Warning,
        "nodes of one product run different drivers",
        "finish or roll back the upgrade: jobs over several nodes want one driver",
    ),
    row(
        FABRIC_DIFFERS,
        Warning,
        "the links of a node differ from those of the other nodes of its product",
        "compare them with berth topo diff",
    ),
    row(
        finding::DRIVER_ABSENT,
        Error,
        "GPUs are on the PCI bus and there is no driver",
        "install or load the NVIDIA driver; see dmesg",
    ),
    row(
        finding::GPU_UNREADABLE,
        Error,
        "a GPU that the driver does not read and that was not known before",
        "reset the GPU or restart the node; see dmesg for an Xid",
    ),
    row(
        finding::GPU_UNLISTED,
        Error,
        "a GPU on the PCI bus that the driver does not list",
        "see dmesg; a GPU bound to vfio-pci is meant for virtual machines",
    ),
    row(
        finding::GPU_REFUSED,
        Error,
        "a GPU whose identity repeats another one's, or one too many",
        "report it with the output of nvidia-smi -q: the driver contradicts itself",
    ),
    row(
        finding::NVLINK_UNREADABLE,
        Warning,
        "NVLinks of a GPU could not be read",
        "check nvidia-smi nvlink -s and the fabric manager",
    ),
    row(
        finding::NVLINK_DOWN,
        Warning,
        "NVLinks of a GPU are down that its like on the node have, or that it had before",
        "check nvidia-smi nvlink -s, the bridges and the fabric manager; reset the GPU once it is free",
    ),
    row(
        finding::PCIE_DOWNGRADED,
        Warning,
        "a GPU's PCIe link is slower or narrower than GPU and slot allow",
        "reseat the GPU or its riser; check the slot's settings in the BIOS",
    ),
    row(
        finding::FABRIC_DEGRADED,
        Warning,
        "a GPU's NVSwitch fabric has less than its full bandwidth",
        "check the fabric manager's log and nvidia-smi -q, section Fabric",
    ),
    row(
        finding::MIG_UNREADABLE,
        Warning,
        "MIG profiles or instances of a GPU could not be taken",
        "check nvidia-smi mig -lgip and -lgi; update the driver",
    ),
    row(
        finding::MODE_PENDING,
        Note,
        "a mode of a GPU (MIG, ECC) changes with the next reset",
        "reset the GPU once it is free, or take the change back",
    ),
    row(
        finding::ZONE_UNKNOWN,
        Warning,
        "a device names a zone that the node does not have",
        "check the firmware's NUMA tables; an agent that sees only a part of /sys shows this too",
    ),
    row(
        finding::ZONE_REFUSED,
        Warning,
        "zones were left out of the report",
        "compare /sys/devices/system/node with the finding",
    ),
    row(
        finding::NIC_REFUSED,
        Warning,
        "a NIC was left out of the report",
        "compare /sys/class/infiniband with the finding",
    ),
    row(finding::BOOT_ID_UNKNOWN, Warning, "the kernel shows no boot id", "mount /proc into the agent"),
    row(
        finding::SYSFS_UNREADABLE,
        Warning,
        "a kernel file made no sense",
        "compare the named file; a partial mount of /sys shows this",
    ),
    row(
        finding::RUNTIME_WITHOUT_CDI,
        Error,
        "the node is to enforce plans and its container runtime gives containers no CDI devices: it gets no pods with GPUs",
        "switch CDI on (containerd: enable_cdi = true), restart runtime and agent, and delete pods that run without devices",
    ),
];

/// For a code of a newer agent.
const UNTOLD: Entry = row(
    "",
    Warning,
    "a finding of the report that this version does not know",
    "see REFERENCE.md of the agent's version",
);

/// The row of a code; a code that is not in the table is a warning with general advice.
pub(crate) fn entry(code: &str) -> Entry {
    TABLE.iter().find(|e| e.code == code).copied().unwrap_or(UNTOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../../../REFERENCE.md");
    const PROBE: &str = include_str!("../../../probe/src/finding.rs");

    #[test]
    fn every_code_stands_in_reference_md_word_for_word() {
        let missing: Vec<String> = TABLE
            .iter()
            .map(|e| format!("| `{}` | {} | {} | {} |", e.code, e.severity, e.meaning, e.advice))
            .filter(|row| !REFERENCE.contains(row.as_str()))
            .collect();
        assert!(missing.is_empty(), "REFERENCE.md lacks\n{}", missing.join("\n"));
    }

    #[test]
    fn every_code_that_a_report_may_carry_has_a_row() {
        let codes = PROBE.lines().filter(|l| l.starts_with("pub const ")).filter_map(|l| l.split('"').nth(1));
        let missing: Vec<&str> = codes.filter(|code| TABLE.iter().all(|e| e.code != *code)).collect();
        assert!(missing.is_empty(), "no row for {missing:?}");
        assert!(PROBE.contains("pub const "), "the probe's codes are elsewhere now");
    }

    #[test]
    fn a_code_stands_once_and_one_of_tomorrow_is_a_warning() {
        for (i, entry) in TABLE.iter().enumerate() {
            assert!(TABLE.iter().skip(i + 1).all(|e| e.code != entry.code), "{}", entry.code);
        }
        assert_eq!(entry("gpu-on-fire").severity, Warning);
    }
}
