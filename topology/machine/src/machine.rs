//! A machine as checked values: what the file says, with its defaults applied and its tree flattened to one way per device.

use std::collections::BTreeMap;

use berth_model::gpu::detail::PcieLink;
use berth_model::{
    Cpu, CpuSet, HugePages, LinkLayer, MiB, NicName, NodeName, PciAddress, PciPath, PortState, SamepageMerging,
    TransparentHugePages, VgpuCarrier, ZoneId,
};
use berth_probe::facts::DeviceDetail;

use crate::spec::GpuSpec;
use crate::{check, contradiction::Contradiction, spec};

/// A machine, made by [`Machine::parse`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Name of the machine, also a valid node name.
    pub name: NodeName,
    /// Where the description comes from.
    pub source: String,
    /// Whether it was made up, not captured.
    pub synthetic: bool,
    /// `None` when the kernel shows none.
    pub boot_id: Option<BootIdSource>,
    /// Driver state.
    pub driver: MachineDriver,
    /// Version of NVML.
    pub nvml_version: Option<String>,
    /// Newest CUDA of the driver, as NVML counts.
    pub cuda_version: Option<i32>,
    /// Zones in ascending order; empty when the kernel shows none.
    pub zones: Vec<MachineZone>,
    /// The host; what is unknown the kernel does not show.
    pub host: MachineHost,
    /// GPUs in the order of their NVML index.
    pub gpus: Vec<MachineGpu>,
    /// NICs in the order of the file.
    pub nics: Vec<MachineNic>,
    /// NVSwitches in the order of the file.
    pub nvswitches: Vec<PciPath>,
    /// GPUs that vfio has, in the order of the file.
    pub vfio_gpus: Vec<MachineVfioGpu>,
    /// IOMMU groups that the file tells.
    pub iommu_groups: Vec<(u32, Vec<PciAddress>)>,
    /// NVLinks.
    pub nvlinks: NvLinks,
    /// What the capture prints and the zones contradict; the driver and the kernel know nothing of it.
    pub contradicted: Vec<Contradiction>,
}

/// Where a machine's boot id comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootIdSource {
    /// The file gives it; still changed by a salt.
    Given(String),
    /// Made from the machine's name.
    Derived,
}

/// The driver of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineDriver {
    /// Not loaded.
    Absent,
    /// Loaded; `None` when it does not say its version.
    Loaded(Option<String>),
}

/// A zone of a machine. `None` is unknown: the kernel shows no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineZone {
    /// Kernel id.
    pub id: ZoneId,
    /// CPUs.
    pub cpus: Option<CpuSet>,
    /// Memory.
    pub memory: Option<MiB>,
    /// Huge pages; a size that is not listed has none.
    pub huge_pages: Option<Vec<HugePages>>,
    /// Distances to all zones.
    pub distances: Option<Vec<u16>>,
}

/// The host of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineHost {
    /// CPUs.
    pub cpu: Cpu,
    /// Transparent huge pages.
    pub transparent_huge_pages: Option<TransparentHugePages>,
    /// Samepage merging.
    pub samepage_merging: Option<SamepageMerging>,
    /// The kubelet's configuration file, word for word.
    pub kubelet_config: Option<String>,
}

/// A GPU of a machine. `None` is unknown: the driver answers "not supported".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineGpu {
    /// The way to it.
    pub path: PciPath,
    /// Whether the kernel shows it; if not, of its way only the address counts, which the driver says.
    pub shown: bool,
    /// Identity as the file gives it.
    pub uuid: UuidSource,
    /// `numa_node` of sysfs; `None` shows as -1.
    pub zone: Option<ZoneId>,
    /// Product name.
    pub product: Option<String>,
    /// Frame buffer.
    pub memory: Option<MiB>,
    /// Whether MIG is on.
    pub mig_enabled: Option<bool>,
    /// Zones that NVML calls nearest.
    pub memory_affinity: Option<Vec<ZoneId>>,
    /// The zone that the GPU's own memory is.
    pub memory_zone: Option<ZoneId>,
    /// Further answers of the driver; UUIDs of MIG devices come with the salt.
    pub detail: DeviceDetail,
    /// The best PCIe link that the bridge above it allows, in sysfs.
    pub slot: Option<PcieLink>,
    /// NVLink generation.
    pub nvlink_version: Option<u32>,
    /// Errors by NVLink; links that are not named have none.
    pub nvlink_errors: Option<Vec<(u8, u64)>>,
    /// Types of vGPU, where it can be cut into such.
    pub vgpu: Option<MachineVgpu>,
    /// As written, for the faults that change it.
    pub(crate) spec: GpuSpec,
}

/// Where a GPU's UUID comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UuidSource {
    /// The file gives it; still changed by a salt.
    Given(String),
    /// Made from the machine's name and the GPU's index.
    Derived,
    /// The driver does not say.
    Unknown,
}

/// A NIC of a machine. `None` is unknown: the kernel shows no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineNic {
    /// Kernel name.
    pub name: NicName,
    /// The way to it; `None` for a device that is not on PCI.
    pub path: Option<PciPath>,
    /// `numa_node` of sysfs.
    pub zone: Option<ZoneId>,
    /// State of its port.
    pub state: Option<PortState>,
    /// What its port speaks.
    pub link_layer: Option<LinkLayer>,
    /// Rate of its port.
    pub rate_gbps: Option<u32>,
    /// What the kernel shows beside its ports.
    pub function: MachineFunction,
}

/// The function of a NIC and what stands over it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineFunction {
    /// Network devices.
    pub netdevs: Vec<String>,
    /// The bond that they are in.
    pub bond: Option<String>,
    /// GUID of the card.
    pub card: Option<String>,
    /// Virtual functions at most.
    pub function_count_max: Option<u16>,
    /// Virtual functions that are there, with the RDMA device where it is one.
    pub virtual_functions: Vec<(PciAddress, Option<NicName>)>,
}

/// Types of vGPU of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineVgpu {
    /// How the kernel offers them.
    pub carrier: VgpuCarrier,
    /// By name.
    pub types: Vec<String>,
    /// Virtual functions that offer them; without, the GPU does.
    pub functions: Vec<PciAddress>,
}

/// A GPU that a vfio driver has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineVfioGpu {
    /// The way to it.
    pub path: PciPath,
    /// `numa_node` of sysfs.
    pub zone: Option<ZoneId>,
    /// The driver.
    pub driver: String,
}

/// The NVLinks of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvLinks {
    /// GPUs have none.
    None,
    /// The driver answers with an error when asked.
    Unknown,
    /// Links into the switches.
    Switch {
        /// How many a GPU has unless said otherwise.
        links: u8,
        /// How many those have that differ, by position.
        except: BTreeMap<u8, u8>,
    },
    /// Links from GPU to GPU: two positions and a count.
    Direct(Vec<(u8, u8, u8)>),
}

/// Why a text is no machine file or no faults file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Not YAML of the right form: an unknown key, a missing one, a scalar that is none. The text has line and column.
    #[error("{0}")]
    Form(String),
    /// A value that contradicts another one or is absurd.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field, e.g. `pcie[2].below[0].at`.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Machine {
    /// The `apiVersion` of machine files.
    pub const API_VERSION: &'static str = "berth.dev/machine/v1";

    /// Reads a machine file. Unknown keys are refused.
    ///
    /// # Errors
    /// [`MachineError`] names line and column, or the field.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        check::machine(spec::parse(text).map_err(MachineError::Form)?)
    }
}
