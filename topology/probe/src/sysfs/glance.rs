//! A look at the few files that tell whether something changed: which devices there are, which CPUs are online, how the ports of NICs stand.
//! What the change means is for a reading to find out.

use super::{Reader, infiniband, pci};
use crate::tree::Tree;

const CPUS_ONLINE: &str = "sys/devices/system/cpu/online";

/// Files to look at, as a reading found them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    port_states: Vec<String>,
}

/// What a look saw. Equal glances mean that nothing that they look at changed; a file that was missing both times did not change either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    pci_devices: Vec<String>,
    rdma_devices: Vec<String>,
    cpus_online: Option<String>,
    port_states: Vec<Option<String>>,
}

impl Places {
    /// Finds the files.
    #[must_use]
    pub fn find(tree: &dyn Tree) -> Self {
        let mut reader = Reader { tree, faults: Vec::new() };
        Self { port_states: infiniband::state_files(&mut reader) }
    }

    /// Looks.
    #[must_use]
    pub fn glance(&self, tree: &dyn Tree) -> Glance {
        let mut reader = Reader { tree, faults: Vec::new() };
        Glance {
            pci_devices: pci::names(&mut reader),
            rdma_devices: infiniband::names(&mut reader),
            cpus_online: reader.quiet(CPUS_ONLINE),
            port_states: self.port_states.iter().map(|file| reader.quiet(file)).collect(),
        }
    }
}
