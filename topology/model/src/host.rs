//! The host around the GPUs: its CPUs, what its kernel was told, and devices that are not the driver's.
//!
//! Only what stays: counters, frequencies and free amounts change by themselves and are in no report. `None` is not known.

use std::collections::BTreeSet;

use crate::cpuset::CpuSet;
use crate::groups::CpuGroups;
use crate::kubelet::Kubelet;
use crate::virt::{IommuGroup, VfioGpu, VgpuHosts};

/// A closed list of words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word, in the kernel's or kubelet's own spelling where there is one.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Reads the word; `None` for any other.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|w| w.word() == text)
            }
        }
    };
}
pub(crate) use words;

/// What is known of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Its CPUs.
    pub cpu: Cpu,
    /// Transparent huge pages.
    pub transparent_huge_pages: Option<TransparentHugePages>,
    /// Kernel samepage merging.
    pub samepage_merging: Option<SamepageMerging>,
    /// How its kubelet hands out CPUs, memory and zones.
    pub kubelet: Option<Kubelet>,
    /// GPUs that vfio has, by address.
    pub vfio_gpus: Vec<VfioGpu>,
    /// GPUs that can be cut into vGPUs, those with the same types together.
    pub vgpu_hosts: Vec<VgpuHosts>,
    /// IOMMU groups worth telling, by number.
    pub iommu_groups: Vec<IommuGroup>,
}

/// The CPUs of a host. One product is assumed: vendor, model and flags are those of the first CPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpu {
    /// Vendor, e.g. `GenuineIntel`; the implementer's number on arm64.
    pub vendor: Option<String>,
    /// Model, e.g. `AMD EPYC 9654 96-Core Processor`; the part's number on arm64.
    pub model: Option<String>,
    /// Those of the closed list that the CPU has. It says what the CPU can, not what a program uses.
    pub flags: Option<BTreeSet<CpuFlag>>,
    /// Cores, each with its threads.
    pub cores: Option<CpuGroups>,
    /// Sockets. Two zones in one socket are sub-NUMA clusters.
    pub sockets: Option<CpuGroups>,
    /// CPUs by the L3 cache that they share.
    pub l3_caches: Option<CpuGroups>,
    /// CPUs that the kernel schedules nothing on by itself.
    pub isolated: Option<CpuSet>,
    /// CPUs without a periodic tick.
    pub nohz_full: Option<CpuSet>,
    /// Frequency governor.
    pub governor: Option<Governor>,
}

impl Cpu {
    /// Threads of each core, where all cores have as many.
    #[must_use]
    pub fn threads_per_core(&self) -> Option<u32> {
        self.cores.as_ref().and_then(CpuGroups::cpus_each)
    }
}

words! {
    /// A CPU feature that decides how fast inference runs on it, or how much its topology can be trusted. Words of `/proc/cpuinfo`.
    CpuFlag {
        /// 256-bit vectors.
        Avx2 = "avx2",
        /// 256-bit dot products.
        AvxVnni = "avx_vnni",
        /// 512-bit vectors.
        Avx512F = "avx512f",
        /// 512-bit dot products.
        Avx512Vnni = "avx512_vnni",
        /// 512-bit brain floats.
        Avx512Bf16 = "avx512_bf16",
        /// 512-bit half floats.
        Avx512Fp16 = "avx512_fp16",
        /// Matrix tiles.
        AmxTile = "amx_tile",
        /// Matrix tiles of brain floats.
        AmxBf16 = "amx_bf16",
        /// Matrix tiles of bytes.
        AmxInt8 = "amx_int8",
        /// Scalable vectors (arm64).
        Sve = "sve",
        /// Scalable vectors, second version (arm64).
        Sve2 = "sve2",
        /// Byte matrices (arm64).
        I8mm = "i8mm",
        /// Brain floats (arm64).
        Bf16 = "bf16",
        /// A virtual machine: cores, caches and distances may be made up.
        Hypervisor = "hypervisor",
    }
}

words! {
    /// A frequency governor. It changes by an administrator's hand only; the frequency itself is in no report.
    Governor {
        /// Always the highest frequency.
        Performance = "performance",
        /// Always the lowest, or the hardware's choice.
        Powersave = "powersave",
        /// By the scheduler's load.
        Schedutil = "schedutil",
        /// By sampled load.
        Ondemand = "ondemand",
        /// By sampled load, slowly.
        Conservative = "conservative",
        /// By a program.
        Userspace = "userspace",
        /// Sockets differ.
        Mixed = "mixed",
        /// One that this list does not have.
        Other = "other",
    }
}

words! {
    /// Who gets transparent huge pages.
    TransparentHugePages {
        /// Everyone.
        Always = "always",
        /// Who asks for them.
        Madvise = "madvise",
        /// Nobody.
        Never = "never",
    }
}

words! {
    /// Whether equal pages are merged, which costs latency where huge pages are used. How many are merged is in no report.
    SamepageMerging {
        /// Not.
        Off = "off",
        /// New ones are.
        On = "on",
        /// Not, and merged ones are parted.
        Unmerge = "unmerge",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_no_other_is_taken() {
        assert!(CpuFlag::ALL.iter().all(|f| CpuFlag::parse(f.word()) == Some(*f)));
        assert!(Governor::ALL.iter().all(|g| Governor::parse(g.word()) == Some(*g)));
        assert_eq!(CpuFlag::parse("avx"), None);
        assert_eq!(TransparentHugePages::parse("[always]"), None);
        assert_eq!(SamepageMerging::parse("on"), Some(SamepageMerging::On));
    }

    #[test]
    fn threads_per_core_are_said_only_where_all_cores_agree() {
        let cpu = |text| Cpu { cores: CpuGroups::parse(text).ok(), ..Cpu::default() };
        assert_eq!(cpu("0,8x8+1").threads_per_core(), Some(2));
        assert_eq!(cpu("0,8;1").threads_per_core(), None);
        assert_eq!(Cpu::default().threads_per_core(), None);
    }
}
