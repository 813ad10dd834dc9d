//! RDMA devices.

use crate::id::{NicName, ZoneId};
use crate::pcie::PciAddress;

/// What an RDMA port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// RDMA over Ethernet.
    Ethernet,
    /// Not read.
    Unknown,
}

/// State of an RDMA device: that of its best port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortState {
    /// Usable as a rail.
    Active,
    /// Present, not usable now (down, initialising, armed).
    Down,
    /// Not read.
    Unknown,
}

/// One RDMA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Kernel name, e.g. `mlx5_0`.
    pub name: NicName,
    /// Place on the PCIe tree, where it has one.
    pub pci: Option<PciAddress>,
    /// Nearest zone.
    pub zone: Option<ZoneId>,
    /// What its port speaks.
    pub link_layer: LinkLayer,
    /// State of its best port.
    pub state: PortState,
    /// Rate of its best port in Gbit/s, where known.
    pub rate_gbps: Option<u32>,
}
