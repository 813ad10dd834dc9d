//! The words of hardware: what a node is, as values without IO.
//!
//! Everything here is plain data with its rules held by types: ids that cannot be mixed up, a link matrix that is square and
//! symmetric by construction, GPU sets that fit one machine word. Reading hardware belongs to `berth-probe`, wire forms to
//! `berth-proto`, decisions to `berth-core`. Nothing here knows time, files, networks or Kubernetes.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::float_arithmetic,
        clippy::as_conversions,
        clippy::disallowed_types
    )
)]

pub mod cpuset;
pub mod drift;
pub mod gpu;
pub mod groups;
pub mod host;
pub mod id;
pub mod kubelet;
pub mod level;
pub mod link;
pub mod mig;
pub mod nic;
pub mod nic_set;
pub mod node;
pub mod pcie;
pub mod refusal;
pub mod set;
pub mod virt;
pub mod zone;

pub use cpuset::CpuSet;
pub use drift::Drift;
pub use gpu::{Gpu, GpuDetail, Health};
pub use groups::CpuGroups;
pub use host::{Cpu, CpuFlag, Governor, Host, SamepageMerging, TransparentHugePages};
pub use id::{BootId, Generation, GpuIndex, GpuUuid, MiB, NicName, NodeName, ZoneId};
pub use kubelet::Kubelet;
pub use level::{DevicePlugin, Level};
pub use link::{Link, LinkClass, LinkMatrix, PcieLevel};
pub use mig::{MigCapability, MigInstance, MigProfile, Placement, SlotMask};
pub use nic::{Bond, LinkLayer, Nic, NicFunction, PortState, Sriov, VirtualFunction};
pub use nic_set::NicSet;
pub use node::{Driver, DriverVersions, Finding, NodeTopology, Parts, TopologyError};
pub use pcie::{PciAddress, PciPath};
pub use refusal::{Refusal, RefusalReason};
pub use set::GpuSet;
pub use virt::{IommuGroup, VfioGpu, VgpuCarrier, VgpuHosts};
pub use zone::{HugePages, Zone};
