//! The closed list of finding codes that a report may carry: a probe's, and the one that an agent knows.

/// A GPU that NVML does not read and that was not known before.
pub const GPU_UNREADABLE: &str = "gpu-unreadable";
/// A GPU on the PCI bus that the driver does not list.
pub const GPU_UNLISTED: &str = "gpu-unlisted";
/// A GPU whose identity repeats another one's, or that is one too many.
pub const GPU_REFUSED: &str = "gpu-refused";
/// NVLinks of a GPU could not be read.
pub const NVLINK_UNREADABLE: &str = "nvlink-unreadable";
/// NVLinks of a GPU are down that its like on the node have, or that it had before.
pub const NVLINK_DOWN: &str = "nvlink-down";
/// A GPU's PCIe link is slower or narrower than GPU and slot allow.
pub const PCIE_DOWNGRADED: &str = "pcie-downgraded";
/// A GPU's NVSwitch fabric has less than its full bandwidth.
pub const FABRIC_DEGRADED: &str = "fabric-degraded";
/// MIG profiles or instances of a GPU that could not be taken.
pub const MIG_UNREADABLE: &str = "mig-unreadable";
/// A mode of a GPU (MIG, ECC) changes with the next reset.
pub const MODE_PENDING: &str = "mode-pending";
/// No GPU is reported because there is no driver, though GPUs are on the PCI bus.
pub const DRIVER_ABSENT: &str = "driver-absent";
/// A device names a zone that the node does not have.
pub const ZONE_UNKNOWN: &str = "zone-unknown";
/// Zones that were left out: too many, or with distances that do not fit.
pub const ZONE_REFUSED: &str = "zone-refused";
/// A NIC that was left out: one too many, or a name that is none.
pub const NIC_REFUSED: &str = "nic-refused";
/// The kernel shows no boot id.
pub const BOOT_ID_UNKNOWN: &str = "boot-id-unknown";
/// A kernel file made no sense.
pub const SYSFS_UNREADABLE: &str = "sysfs-unreadable";

/// Plans are to be enforced and the container runtime gives containers no CDI devices. Found by who gives leases, not by a probe.
pub const RUNTIME_WITHOUT_CDI: &str = "runtime-without-cdi";

/// All of them.
pub const ALL: [&str; 16] = [
    GPU_UNREADABLE,
    GPU_UNLISTED,
    GPU_REFUSED,
    NVLINK_UNREADABLE,
    NVLINK_DOWN,
    PCIE_DOWNGRADED,
    FABRIC_DEGRADED,
    MIG_UNREADABLE,
    MODE_PENDING,
    DRIVER_ABSENT,
    ZONE_UNKNOWN,
    ZONE_REFUSED,
    NIC_REFUSED,
    BOOT_ID_UNKNOWN,
    SYSFS_UNREADABLE,
    RUNTIME_WITHOUT_CDI,
];
