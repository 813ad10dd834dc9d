//! What a driver says of a GPU beside identity, place and size: its board, how it is set up, how worn it is, its links.
//!
//! Every `None` is "the GPU or its driver does not say", never zero and never "no".

use std::sync::Arc;

use crate::id::MiB;
use crate::mig::{MigCapability, MigInstance};

/// Facts of one GPU. The default is that nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuDetail {
    /// What it has in common with its like on the node.
    pub board: Arc<Board>,
    /// Serial number of the board; two GPUs of one board share it.
    pub serial: Option<String>,
    /// Number of its device file, `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// What its memory has gone through.
    pub wear: Wear,
    /// Numbers of NVLinks that are down, ascending. Whether links are known at all is in [`Board::nvlink_count`].
    pub nvlinks_down: Vec<u8>,
    /// NVLinks with errors since the driver was loaded, ascending by number.
    pub nvlink_errors: Option<Vec<NvLinkErrors>>,
    /// The PCIe link as it serves under load: an idle GPU that lowers its speed still shows what it reaches.
    pub pcie: Option<PcieLink>,
    /// Whether MIG is on after the next reset, where that differs from now.
    pub mig_pending: Option<bool>,
    /// GPU instances that exist, by start.
    pub mig_instances: Vec<MigInstance>,
}

/// What GPUs of one product on one node usually have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Board {
    /// Part number of the board.
    pub part_number: Option<String>,
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// Frame buffer that the driver keeps for itself.
    pub memory_reserved: Option<MiB>,
    /// NVLinks that the board has, up or not; 0 for a board without.
    pub nvlink_count: Option<u8>,
    /// NVLink generation, where a link says it.
    pub nvlink_version: Option<u8>,
    /// The best PCIe link that GPU and slot allow together.
    pub pcie_max: Option<PcieLink>,
    /// Whether memory is ECC protected now.
    pub ecc: Option<bool>,
    /// Whether the driver keeps the GPU initialised without clients.
    pub persistence: Option<bool>,
    /// Who may make CUDA contexts.
    pub compute_mode: Option<ComputeMode>,
    /// Whether the GPU is in a guest, or serves guests.
    pub virtualization: Option<Virtualization>,
    /// How it serves vGPUs, where it does.
    pub host_vgpu: Option<HostVgpu>,
    /// The NVSwitch fabric that it is part of.
    pub fabric: Option<Fabric>,
    /// MIG profiles with their placements; none where MIG is off.
    pub mig: MigCapability,
}

/// What a GPU's memory has gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wear {
    /// Uncorrectable ECC errors since the driver was loaded.
    pub ecc_volatile: Option<u64>,
    /// Uncorrectable ECC errors in the GPU's life.
    pub ecc_aggregate: Option<u64>,
    /// Pages taken out of use (boards before Ampere).
    pub retired_pages: Option<u32>,
    /// Whether pages wait for a reset to be taken out of use.
    pub retirement_pending: Option<bool>,
    /// Row remapping (Ampere and later).
    pub remap: Option<RowRemap>,
}

/// Rows of memory replaced by spare ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RowRemap {
    /// Rows remapped after correctable errors.
    pub correctable: u32,
    /// Rows remapped after uncorrectable errors.
    pub uncorrectable: u32,
    /// Whether a remapping waits for a reset.
    pub pending: bool,
    /// Whether a remapping found no spare row.
    pub failed: bool,
}

/// Errors of one NVLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NvLinkErrors {
    /// The link's number.
    pub link: u8,
    /// Replays, recoveries and CRC errors: at least so many, a power of ten. Counters of a flaky link move all the time, and a report
    /// is written on every change.
    pub at_least: u64,
}

impl NvLinkErrors {
    /// The errors of a link with this many; `None` for none.
    #[must_use]
    pub fn of(link: u8, count: u64) -> Option<Self> {
        count.checked_ilog10().map(|digits| Self { link, at_least: 10_u64.saturating_pow(digits) })
    }
}

/// Speed and width of a PCIe link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcieLink {
    /// Generation, 1 and up.
    pub generation: u8,
    /// Lanes.
    pub width: u8,
}

impl PcieLink {
    /// Highest generation taken; 7 is being specified.
    pub const GENERATION_MAX: u8 = 9;
    /// Widest link of the specification.
    pub const WIDTH_MAX: u8 = 32;

    /// A link within what exists; zero is no link.
    #[must_use]
    pub fn new(generation: u8, width: u8) -> Option<Self> {
        let real = (1..=Self::GENERATION_MAX).contains(&generation) && (1..=Self::WIDTH_MAX).contains(&width);
        real.then_some(Self { generation, width })
    }

    /// Reads `5x16`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (generation, width) = text.split_once('x')?;
        Self::new(generation.parse().ok()?, width.parse().ok()?)
    }
}

impl std::fmt::Display for PcieLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.generation, self.width)
    }
}

/// A GPU's place in an NVSwitch fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fabric {
    /// How far its registration is.
    pub state: FabricState,
    /// Whether registration failed; `false` before it is completed.
    pub failed: bool,
    /// The cluster and clique in it, on fabrics that span nodes (NVL72). GPUs reach each other by NVLink where both are the same.
    pub clique: Option<FabricClique>,
    /// Health in one word.
    pub health: Option<FabricHealth>,
    /// Whether bandwidth is degraded.
    pub degraded: Option<bool>,
}

/// A clique of a fabric that spans nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FabricClique {
    /// UUID of the cluster in lower-case hexadecimal with dashes.
    pub cluster: String,
    /// Number of the clique in it.
    pub clique: u32,
}

macro_rules! closed_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The closed word of wire form and machine file.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Reads the closed word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

closed_words! {
    /// A GPU architecture. Source: `NVML_DEVICE_ARCH_*` in `nvml.h` of API 13. Checked: 2026-11-21.
    Architecture {
        /// 2012.
        Kepler = "kepler",
        /// 2014.
        Maxwell = "maxwell",
        /// 2016.
        Pascal = "pascal",
        /// 2017.
        Volta = "volta",
        /// 2018.
        Turing = "turing",
        /// 2020.
        Ampere = "ampere",
        /// 2022.
        Ada = "ada",
        /// 2022, data centre.
        Hopper = "hopper",
        /// 2024.
        Blackwell = "blackwell",
    }
}

closed_words! {
    /// Who may make CUDA contexts.
    ComputeMode {
        /// Any number of processes.
        Default = "default",
        /// One thread (removed from the driver long ago).
        ExclusiveThread = "exclusive-thread",
        /// Nobody.
        Prohibited = "prohibited",
        /// One process.
        ExclusiveProcess = "exclusive-process",
    }
}

closed_words! {
    /// Whether a GPU is in a guest, or serves guests.
    Virtualization {
        /// Bare metal.
        None = "none",
        /// A whole GPU passed through to this guest.
        Passthrough = "passthrough",
        /// A vGPU of this guest.
        Vgpu = "vgpu",
        /// Serves vGPUs to guests.
        HostVgpu = "host-vgpu",
        /// Serves shared graphics to guests.
        HostVsga = "host-vsga",
    }
}

closed_words! {
    /// How a GPU serves vGPUs.
    HostVgpu {
        /// By mediated devices.
        NonSriov = "non-sriov",
        /// By virtual functions.
        Sriov = "sriov",
    }
}

closed_words! {
    /// How far a GPU's registration with its fabric is.
    FabricState {
        /// Not begun: the fabric manager does not run.
        NotStarted = "not-started",
        /// Begun.
        InProgress = "in-progress",
        /// Done.
        Completed = "completed",
    }
}

closed_words! {
    /// Health of a fabric as a GPU sees it.
    FabricHealth {
        /// Nothing is wrong.
        Healthy = "healthy",
        /// Broken.
        Unhealthy = "unhealthy",
        /// Works with less than all links.
        LimitedCapacity = "limited-capacity",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_link_changes_the_report_once_per_power_of_ten() {
        let at_least = |count| NvLinkErrors::of(3, count).map(|e| e.at_least);
        assert_eq!(at_least(0), None);
        for (count, floor) in [(1, 1), (9, 1), (10, 10), (99, 10), (12_345, 10_000), (u64::MAX, 10_u64.pow(19))] {
            assert_eq!(at_least(count), Some(floor), "{count}");
        }
    }

    #[test]
    fn a_pcie_link_is_written_and_read_and_zero_is_none() {
        assert_eq!(PcieLink::parse("5x16").unwrap().to_string(), "5x16");
        for bad in ["", "5", "0x16", "5x0", "5x64", "10x16", "ax16"] {
            assert_eq!(PcieLink::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_closed_word_reads_back() {
        assert!(Architecture::ALL.iter().all(|a| Architecture::from_word(a.word()) == Some(*a)));
        assert_eq!(FabricState::from_word("done"), None);
    }
}
