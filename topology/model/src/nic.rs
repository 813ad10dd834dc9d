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
    /// What the kernel shows beside its ports.
    pub function: NicFunction,
}

/// A NIC's PCI function and the network devices over it. Counters of traffic and errors are in no report: they never stand still.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NicFunction {
    /// Network devices over it, sorted, e.g. `ens1f0np0`; none where the kernel shows none.
    pub netdevs: Vec<String>,
    /// The bond that one of its network devices is in.
    pub bond: Option<Bond>,
    /// Position of the first NIC on the same card, that one included; `None` where it is alone on its card or its card is not known.
    pub card: Option<u16>,
    /// Virtual functions in numbers; `None` for a function that has none to give.
    pub sriov: Option<Sriov>,
    /// Its virtual functions that are there, by address.
    pub virtual_functions: Vec<VirtualFunction>,
}

/// A bond of network devices. RDMA over it is one device (`mlx5_bond_0`), at the place of one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bond {
    /// Its own network device, e.g. `bond0`.
    pub name: String,
    /// Network devices in it, sorted, also those of other NICs.
    pub members: Vec<String>,
}

/// How many virtual functions a device has; told only where the kernel tells both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sriov {
    /// At most.
    pub function_count_max: u16,
    /// Now.
    pub function_count: u16,
}

/// One virtual function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualFunction {
    /// Place on the PCIe tree.
    pub pci: PciAddress,
    /// The RDMA device that it is, where the kernel's driver has it.
    pub name: Option<NicName>,
}

impl NicFunction {
    /// Most network devices of one NIC.
    pub const NETDEVS_MAX: usize = 16;
    /// Most virtual functions of one NIC that are told one by one. Adapters offer up to 254, most installations use 8 or 16.
    pub const VIRTUAL_FUNCTIONS_MAX: usize = 128;
    /// Longest name of a network device. Source: `IFNAMSIZ` of the kernel, less its zero.
    pub const NETDEV_BYTES_MAX: usize = 15;
}
