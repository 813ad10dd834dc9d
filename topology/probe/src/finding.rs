//! The closed list of finding codes that a probe may put into a report.

/// A GPU that NVML does not read and that was not known before.
pub const GPU_UNREADABLE: &str = "gpu-unreadable";
/// A GPU on the PCI bus that the driver does not list.
pub const GPU_UNLISTED: &str = "gpu-unlisted";
/// A GPU whose identity repeats another one's, or that is one too many.
pub const GPU_REFUSED: &str = "gpu-refused";
/// NVLinks of a GPU could not be read.
pub const NVLINK_UNREADABLE: &str = "nvlink-unreadable";
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
