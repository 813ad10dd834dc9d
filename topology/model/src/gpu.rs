//! GPUs: identity, place, size and health. What else is known of a GPU is in [`detail`].

pub mod detail;

use crate::cpuset::CpuSet;
pub use crate::gpu::detail::GpuDetail;
use crate::id::{GpuIndex, GpuUuid, MiB, ZoneId};
use crate::pcie::PciAddress;

/// Whether a GPU may get new pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Answers, with nothing against it.
    Healthy,
    /// Must not get pods; the text says why.
    Unhealthy(String),
    /// Could not be judged; the text says why. Policy decides, never a guess.
    Unknown(String),
}

impl Health {
    /// Whether new pods may be placed on the GPU.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// The closed word of the wire form.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy(_) => "unhealthy",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why the GPU is not healthy; empty when it is.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Healthy => "",
            Self::Unhealthy(reason) | Self::Unknown(reason) => reason,
        }
    }
}

/// One GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML index; also its position in the report.
    pub index: GpuIndex,
    /// Identity.
    pub uuid: GpuUuid,
    /// Place on the PCIe tree.
    pub pci: PciAddress,
    /// Product name as NVML says it, e.g. `NVIDIA H100 80GB HBM3`.
    pub product: String,
    /// Frame buffer in total.
    pub memory: Option<MiB>,
    /// Nearest zone, one with CPUs where there is a choice.
    pub zone: Option<ZoneId>,
    /// Zones that the driver calls nearest, where they are not just `zone`: on Grace the GPU memory zones too, on a kernel without NUMA
    /// none at all.
    pub nearest_zones: Option<Vec<ZoneId>>,
    /// CPUs near the GPU, as `nvidia-smi topo -m` prints them.
    pub cpus: CpuSet,
    /// The zone that the GPU's own memory is, on coherent platforms (Grace).
    pub memory_zone: Option<ZoneId>,
    /// Whether MIG is on; `None` where the GPU or driver does not say.
    pub mig_enabled: Option<bool>,
    /// Whether it may get new pods.
    pub health: Health,
    /// What else the driver says of it.
    pub detail: GpuDetail,
}
