//! What a node can hand to virtual machines: GPUs that are vfio's, vGPU types of the others, and which devices go together.
//!
//! How many vGPUs are still free is in no report: it changes with every machine that starts.

use crate::host::words;
use crate::pcie::PciAddress;

/// A GPU that the NVIDIA driver does not have because a vfio driver has it. It is no GPU of the report: NVML cannot see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VfioGpu {
    /// Place on the PCIe tree.
    pub pci: PciAddress,
    /// The driver, e.g. `vfio-pci`.
    pub driver: String,
}

words! {
    /// How the kernel offers vGPUs.
    VgpuCarrier {
        /// Mediated devices (`mdev`): kernels before 6.8.
        Mdev = "mdev",
        /// Virtual functions of the vendor's own vfio driver.
        Vfio = "vfio",
    }
}

/// GPUs that can be cut into the same types of vGPU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VgpuHosts {
    /// The GPUs themselves, sorted, also where their virtual functions carry the types.
    pub gpus: Vec<PciAddress>,
    /// How.
    pub carrier: VgpuCarrier,
    /// Types by name, sorted, e.g. `NVIDIA H200X-141C`. Types are only added while a node is up: one that is not to be had now because
    /// the GPU is full still is one of its types.
    pub types: Vec<String>,
}

/// Devices that the IOMMU cannot tell apart: they go to one virtual machine together or not at all. Told only where a GPU or NIC shares
/// its group with another device, or belongs to vfio.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IommuGroup {
    /// The kernel's number.
    pub id: u32,
    /// Its devices, sorted.
    pub devices: Vec<PciAddress>,
}

/// Most vGPU types of one GPU; the largest boards have about 60.
pub const VGPU_TYPES_MAX: usize = 128;
/// Longest name of a vGPU type or driver in bytes; NVML gives type names 64.
pub const NAME_BYTES_MAX: usize = 64;
/// Most IOMMU groups told of one node, and most GPUs of either kind above.
pub const GROUPS_MAX: usize = 128;
/// Most devices told of one group. A machine without ACS has whole sockets in one.
pub const GROUP_DEVICES_MAX: usize = 256;
