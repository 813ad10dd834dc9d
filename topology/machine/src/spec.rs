//! The YAML form of a machine file and of its faults, as written. What it means and what is refused is in [`crate::check`].

pub(crate) mod gpu;

use std::fmt;
use std::marker::PhantomData;

pub(crate) use gpu::GpuSpec;

use berth_model::{
    CpuGroups, CpuSet, Governor, LinkLayer, PciAddress, PortState, SamepageMerging, TransparentHugePages,
};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use crate::contradiction::ContradictionSpec;
use crate::scalar::function::{BondName, Functions, Guid, Netdevs};
use crate::scalar::{Distances, Document, Fact, Flags, Pools, Value};

/// Largest file taken. The machines of the test suite stay below 8 KiB.
pub(crate) const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting taken: three cascaded switches are six levels of `below`, each two of YAML.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MachineSpec {
    pub(crate) api_version: String,
    pub(crate) name: String,
    pub(crate) source: Value<String>,
    pub(crate) synthetic: bool,
    pub(crate) boot_id: Option<Fact<String>>,
    /// A version, `absent` or `unknown`.
    pub(crate) driver: Fact<String>,
    /// Version of NVML.
    pub(crate) nvml: Option<Fact<String>>,
    /// Newest CUDA of the driver, as NVML counts: 13010 for 13.1.
    pub(crate) cuda: Option<Fact<u32>>,
    pub(crate) zones: Listed<ZoneSpec>,
    pub(crate) host: Option<HostFactsSpec>,
    pub(crate) gpu_facts: Option<GpuSpec>,
    pub(crate) nic_facts: Option<NicSpec>,
    pub(crate) pcie: Listed<HostSpec>,
    /// Those that tie devices together; others are not told.
    #[serde(default)]
    pub(crate) iommu_groups: Vec<GroupSpec>,
    pub(crate) nvlink: Option<NvLinkSpec>,
    /// Cells of the capture that its own zones contradict.
    #[serde(default)]
    pub(crate) contradicted: Vec<ContradictionSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ZoneSpec {
    pub(crate) id: Value<u16>,
    pub(crate) cpus: Fact<CpuSet>,
    pub(crate) memory_mib: Fact<u64>,
    pub(crate) huge_pages: Option<Fact<Pools>>,
    pub(crate) distances: Option<Fact<Distances>>,
}

/// What the kernel shows of the host; what is left out is unknown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct HostFactsSpec {
    pub(crate) cpu_vendor: Option<Fact<String>>,
    pub(crate) cpu_model: Option<Fact<String>>,
    pub(crate) cpu_flags: Option<Fact<Flags>>,
    pub(crate) cores: Option<Fact<CpuGroups>>,
    pub(crate) sockets: Option<Fact<CpuGroups>>,
    pub(crate) l3_caches: Option<Fact<CpuGroups>>,
    pub(crate) isolated: Option<Fact<CpuSet>>,
    pub(crate) nohz_full: Option<Fact<CpuSet>>,
    pub(crate) governor: Option<Fact<Governor>>,
    pub(crate) transparent_huge_pages: Option<Fact<TransparentHugePages>>,
    pub(crate) samepage_merging: Option<Fact<SamepageMerging>>,
    /// The kubelet's configuration file, word for word.
    pub(crate) kubelet_config: Option<Fact<Document>>,
}

/// Facts of a NIC. At the top of the file they hold for all NICs, at a leaf for one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NicSpec {
    pub(crate) state: Option<Fact<PortState>>,
    pub(crate) link_layer: Option<Fact<LinkLayer>>,
    pub(crate) rate_gbps: Option<Fact<u32>>,
    /// `numa_node` of sysfs, where it differs from the host bridge's.
    pub(crate) zone: Option<Fact<u16>>,
    /// What follows is right at a leaf only.
    pub(crate) netdevs: Option<Fact<Netdevs>>,
    /// The bond that its network devices are in.
    pub(crate) bond: Option<Fact<BondName>>,
    /// The GUID of its card.
    pub(crate) card: Option<Fact<Guid>>,
    /// Virtual functions at most.
    pub(crate) vfs_max: Option<Fact<u16>>,
    pub(crate) virtual_functions: Option<Fact<Functions>>,
}

/// Devices that the IOMMU cannot tell apart.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GroupSpec {
    pub(crate) id: Value<u32>,
    pub(crate) devices: Vec<Value<PciAddress>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct HostSpec {
    /// `unknown` for devices that the driver names and the kernel does not show.
    pub(crate) host: Fact<String>,
    pub(crate) zone: Fact<u16>,
    pub(crate) below: Vec<BranchSpec>,
}

/// Bridges one below the other (`via`), and then either more branches or one device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BranchSpec {
    #[serde(default)]
    pub(crate) via: Vec<Value<PciAddress>>,
    pub(crate) below: Option<Vec<BranchSpec>>,
    pub(crate) gpu: Option<Value<u8>>,
    pub(crate) nic: Option<String>,
    pub(crate) nvswitch: Option<Value<u8>>,
    /// A GPU that a vfio driver has, by the driver's name: NVML does not see it.
    pub(crate) vfio: Option<Value<String>>,
    pub(crate) at: Option<Fact<PciAddress>>,
    pub(crate) gpu_facts: Option<GpuSpec>,
    pub(crate) nic_facts: Option<NicSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", tag = "fabric")]
pub(crate) enum NvLinkSpec {
    /// Every GPU has this many links into the switches.
    #[serde(rename = "nvswitch")]
    Switch {
        links: u8,
        /// GPUs with fewer links, or none.
        #[serde(default)]
        except: Vec<SwitchedSpec>,
    },
    /// Links from GPU to GPU.
    #[serde(rename = "direct")]
    Direct { pairs: Vec<PairSpec> },
    /// NVML answers with an error when asked.
    #[serde(rename = "unknown")]
    Unknown {},
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SwitchedSpec {
    pub(crate) gpu: u8,
    pub(crate) links: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PairSpec {
    pub(crate) gpus: [u8; 2],
    pub(crate) links: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FaultsSpec {
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) lost: Vec<u8>,
    #[serde(default)]
    pub(crate) reset_required: Vec<u8>,
    #[serde(default)]
    pub(crate) unreadable: Vec<u8>,
    #[serde(default)]
    pub(crate) hangs: Vec<u8>,
    #[serde(default)]
    pub(crate) unlisted: Vec<u8>,
    #[serde(default)]
    pub(crate) changed: Vec<ChangedSpec>,
    #[serde(default)]
    pub(crate) events: Vec<EventSpec>,
    #[serde(default)]
    pub(crate) nvlinks_down: Vec<LinksDownSpec>,
    #[serde(default)]
    pub(crate) ports_down: Vec<String>,
    #[serde(default)]
    pub(crate) symbols_absent: Vec<String>,
    #[serde(default)]
    pub(crate) calls_failing: Vec<String>,
    #[serde(default)]
    pub(crate) reloads: u64,
    pub(crate) driver: Option<DriverFaultSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EventSpec {
    pub(crate) id: u64,
    /// No GPU is named unless said.
    pub(crate) gpu: Option<u8>,
    pub(crate) xid: Option<u64>,
    #[serde(default)]
    pub(crate) mig_config: bool,
}

/// What the driver says of a GPU now, where it is not what the machine file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ChangedSpec {
    pub(crate) gpu: u8,
    pub(crate) facts: GpuSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LinksDownSpec {
    pub(crate) gpu: u8,
    /// All links of the GPU unless said.
    pub(crate) links: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DriverFaultSpec {
    NotLoaded,
    LibraryNotFound,
    VersionMismatch,
    Hangs,
}

/// A list or the word `unknown`.
#[derive(Debug)]
pub(crate) struct Listed<T>(pub(crate) Option<Vec<T>>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListedVisitor(PhantomData))
    }
}

struct ListedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListedVisitor<T> {
    type Value = Listed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or the word unknown")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == "unknown" { Ok(Listed(None)) } else { Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Listed(Some(list)))
    }
}

/// Reads YAML. The error text starts with line and column where the parser knows them.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("{} bytes, at most {TEXT_BYTES_MAX} are taken", text.len()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_documents: 1, max_aliases: 0 },
        with_snippet: false,
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}
