//! NUMA and sub-NUMA nodes.

use crate::cpuset::CpuSet;
use crate::id::{MiB, ZoneId};

/// One NUMA node that has CPUs or memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Kernel id.
    pub id: ZoneId,
    /// CPUs of this zone; empty for a memory-only zone (Grace GPU memory).
    pub cpus: CpuSet,
    /// Memory, where the kernel says so.
    pub memory: Option<MiB>,
    /// SLIT distance to every zone of the node, in the order of the node's zones; empty when unknown.
    pub distances: Vec<u16>,
}
