//! What was read of a node, unjudged: every answer beside the failure that took its place.
//!
//! No rule lives here. What an answer means for the report is decided in [`crate::assemble`].

pub mod gpu;

use std::collections::BTreeMap;
use std::fmt;

pub use gpu::DeviceDetail;

use berth_model::gpu::detail::PcieLink;
use berth_model::{
    Bond, Cpu, CpuSet, HugePages, Kubelet, LinkLayer, MiB, PciAddress, PciPath, PortState, SamepageMerging, Sriov,
    TransparentHugePages, VgpuCarrier, ZoneId,
};

/// Why there is no driver: the kernel module is not loaded.
pub const DRIVER_NOT_LOADED: &str = "the NVIDIA driver is not loaded";
/// Why there is no driver: NVML itself misses a library.
pub const LIBRARY_INCOMPLETE: &str = "NVML does not find a library that it needs";
/// Why there is no driver: an update without a reboot.
pub const VERSION_MISMATCH: &str = "driver and library are of different versions: a reload or reboot is due";
/// Why there is no driver: it was asked and did not return, before it ever counted its GPUs.
pub const DRIVER_HUNG: &str = "the NVIDIA driver hangs";
/// NVML's error without a cause.
pub const UNKNOWN_ERROR: &str = "unknown error";

/// All that was read of one node at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFacts {
    /// Answers of the driver library.
    pub nvml: NvmlFacts,
    /// What the kernel shows.
    pub sysfs: SysfsFacts,
}

/// Answers of NVML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvmlFacts {
    /// No usable driver or library; the text says which.
    NoDriver(String),
    /// The library answered.
    Read(NvmlNode),
}

/// A node as NVML shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmlNode {
    /// Driver version.
    pub driver_version: Answer<String>,
    /// Version of NVML itself.
    pub nvml_version: Answer<String>,
    /// Newest CUDA that the driver serves, as NVML counts: 13000 for 13.0.
    pub cuda_version: Answer<i32>,
    /// One entry per NVML index, in its order. A failure stands for a device without a handle.
    pub devices: Vec<Answer<NvmlDevice>>,
}

/// An answer of one NVML call, or why there is none.
pub type Answer<T> = Result<T, NvmlFailure>;

/// Why an NVML call gave no answer. Texts are ours, so that the report does not change with the library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NvmlFailure {
    /// The device or driver does not offer it.
    NotSupported,
    /// The library is older than the call.
    NoSymbol,
    /// The GPU fell off the bus.
    Lost,
    /// The GPU must be reset before it answers again.
    ResetRequired,
    /// The caller may not ask.
    NoPermission,
    /// The call did not return.
    Hung,
    /// Anything else, as text.
    Other(String),
}

impl NvmlFailure {
    /// Whether the failure says something against the device, not against the question.
    #[must_use]
    pub fn blames_device(&self) -> bool {
        match self {
            Self::Lost | Self::ResetRequired | Self::Hung | Self::Other(_) => true,
            Self::NotSupported | Self::NoSymbol | Self::NoPermission => false,
        }
    }
}

impl fmt::Display for NvmlFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.pad("not supported"),
            Self::NoSymbol => f.pad("the driver library lacks the call"),
            Self::Lost => f.pad("the GPU is lost"),
            Self::ResetRequired => f.pad("the GPU needs a reset"),
            Self::NoPermission => f.pad("no permission"),
            Self::Hung => f.pad("the driver does not return from a call about it"),
            Self::Other(text) => f.pad(text),
        }
    }
}

/// Something that the driver told unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuEvent {
    /// The driver reported an error of this number.
    Xid {
        /// The GPU; `None` when the driver names none.
        uuid: Option<String>,
        /// The error's number.
        xid: u64,
    },
    /// Anything else: a reason to read again.
    Other {
        /// The GPU; `None` when the driver names none.
        uuid: Option<String>,
    },
    /// Events are no longer told.
    WaitFailed(NvmlFailure),
}

/// A GPU as NVML shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmlDevice {
    /// Identity.
    pub uuid: Answer<String>,
    /// Place on the PCI bus.
    pub pci: Answer<PciAddress>,
    /// Product name.
    pub product: Answer<String>,
    /// Frame buffer in total, in bytes.
    pub memory_bytes: Answer<u64>,
    /// Whether MIG is on now.
    pub mig_enabled: Answer<bool>,
    /// Nearest zones, as NVML's memory affinity names them.
    pub memory_affinity: Answer<Vec<ZoneId>>,
    /// The zone that the GPU's own memory is.
    pub memory_zone: Answer<ZoneId>,
    /// The links that the GPU has, up or not; empty for a GPU without NVLink.
    pub nvlinks: Answer<Vec<NvLinkFacts>>,
    /// Everything else.
    pub detail: DeviceDetail,
}

/// One NVLink of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvLinkFacts {
    /// Its number.
    pub number: u8,
    /// Whether the link is up.
    pub active: Answer<bool>,
    /// What is at the other end.
    pub remote: Answer<RemoteDevice>,
    /// Where the other end is.
    pub remote_pci: Answer<PciAddress>,
    /// NVLink generation.
    pub version: Answer<u32>,
    /// Replays, recoveries and CRC errors together, since the driver was loaded.
    pub errors: Answer<u64>,
}

/// The kind of device at the far end of an NVLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteDevice {
    /// A GPU.
    Gpu,
    /// An NVSwitch.
    Switch,
    /// Something else (POWER9) or not said.
    Other,
}

/// What the kernel shows of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SysfsFacts {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// Zones in ascending order; empty where the kernel shows neither nodes nor CPUs.
    pub zones: Vec<ZoneFacts>,
    /// PCI devices by address.
    pub pci: BTreeMap<PciAddress, PciFacts>,
    /// RDMA devices in the order of the directory.
    pub rdma: Vec<RdmaFacts>,
    /// CPUs.
    pub cpu: Cpu,
    /// `transparent_hugepage/enabled`.
    pub transparent_huge_pages: Option<TransparentHugePages>,
    /// `ksm/run`.
    pub samepage_merging: Option<SamepageMerging>,
    /// The kubelet's configuration file.
    pub kubelet: Option<Kubelet>,
    /// Devices of the IOMMU groups that GPUs and NICs are in, by the kernel's number.
    pub iommu_groups: BTreeMap<u32, Vec<PciAddress>>,
    /// Files that were there and made no sense, each with what was wrong. Bounded.
    pub faults: Vec<SysfsFault>,
}

/// A file or link whose content could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysfsFault {
    /// Path below the root.
    pub path: String,
    /// What was wrong.
    pub problem: String,
}

/// One NUMA node of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFacts {
    /// Kernel id.
    pub id: ZoneId,
    /// `cpulist`.
    pub cpus: Option<CpuSet>,
    /// `MemTotal` of `meminfo`.
    pub memory: Option<MiB>,
    /// `hugepages/*/nr_hugepages`.
    pub huge_pages: Option<Vec<HugePages>>,
    /// `distance`.
    pub distances: Option<Vec<u16>>,
}

/// One PCI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciFacts {
    /// The way to it.
    pub path: PciPath,
    /// `vendor`.
    pub vendor: Option<u32>,
    /// `class`, 24 bits.
    pub class: Option<u32>,
    /// `numa_node`; `None` for -1 too, which is the kernel's word for unknown.
    pub zone: Option<ZoneId>,
    /// Whether it is a virtual function of another device.
    pub is_virtual: bool,
    /// The device that it is a virtual function of (`physfn`).
    pub physical: Option<PciAddress>,
    /// `sriov_totalvfs` and `sriov_numvfs`.
    pub sriov: Option<Sriov>,
    /// The driver that has it, of GPUs only.
    pub driver: Option<String>,
    /// `iommu_group`, of GPUs and NICs.
    pub iommu_group: Option<u32>,
    /// Types of vGPU that it offers now, of GPUs and their virtual functions.
    pub vgpu: Option<(VgpuCarrier, Vec<String>)>,
    /// The best link that the bridge above a GPU allows; not read for other devices.
    pub slot: Option<PcieLink>,
}

impl PciFacts {
    /// NVIDIA's vendor id. Source: the PCI ID database.
    pub const VENDOR_NVIDIA: u32 = 0x10de;

    /// Whether it is an NVIDIA display controller (PCI base class 03), in other words a GPU.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        self.vendor == Some(Self::VENDOR_NVIDIA) && self.class.is_some_and(|c| c >> 16 == 0x03) && !self.is_virtual
    }

    /// Whether a vfio driver has it, so that NVML cannot.
    #[must_use]
    pub fn is_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| driver.contains("vfio"))
    }

    /// Whether it is an NVSwitch: NVIDIA's bridges of class 0680 ("other bridge").
    #[must_use]
    pub fn is_nvswitch(&self) -> bool {
        self.vendor == Some(Self::VENDOR_NVIDIA) && self.class.is_some_and(|c| c >> 8 == 0x0680)
    }
}

/// One RDMA device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RdmaFacts {
    /// Name of its directory.
    pub name: String,
    /// The way to its PCI device, where it has one.
    pub path: Option<PciPath>,
    /// `numa_node` of its device, where that is not on PCI (RDMA engines of some Arm chips); such a device without a zone is software.
    pub zone: Option<ZoneId>,
    /// Its ports in ascending order of number.
    pub ports: Vec<PortFacts>,
    /// `sys_image_guid`; `None` for the zero that the kernel shows where there is none.
    pub card_guid: Option<String>,
    /// Network devices over it.
    pub netdevs: Vec<String>,
    /// The bond that one of them is in.
    pub bond: Option<Bond>,
}

/// One port of an RDMA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortFacts {
    /// `state`.
    pub state: PortState,
    /// `rate` in Gbit/s.
    pub rate_gbps: Option<u32>,
    /// `link_layer`.
    pub link_layer: LinkLayer,
}
