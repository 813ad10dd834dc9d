//! The way from configuration to a report: open NVML, read, assemble.
//!
//! Owns nothing of the reading or judging itself.

use berth_model::{NodeName, NodeTopology, TopologyError};

use crate::assemble::assemble;
use crate::facts::{NvmlFacts, RawFacts};
use crate::sysfs;
use crate::tree::Tree;

/// Why there is no report. Hardware that does not answer is no reason: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The root holds no kernel tree.
    #[error("{root} holds no sys directory: the root must be / or a mount of the host's /")]
    NoTree {
        /// The root as configured.
        root: String,
    },
    /// What was read contradicts itself even after all that could be left out was left out.
    #[error("what was read is no topology")]
    Topology(#[source] TopologyError),
}

/// Makes the report from NVML's answers and a kernel tree. `previous` is the node's last report, of this boot or not.
///
/// # Errors
/// [`ProbeError::Topology`] when the parts contradict each other.
pub fn probe_facts(
    nvml: NvmlFacts,
    tree: &dyn Tree,
    previous: Option<&NodeTopology>,
    node: NodeName,
) -> Result<NodeTopology, ProbeError> {
    let facts = RawFacts { nvml, sysfs: sysfs::read(tree) };
    assemble(&facts, previous, node).map_err(ProbeError::Topology)
}

#[cfg(feature = "nvml")]
pub use session::{ProbeConfig, Prober, probe};

#[cfg(feature = "nvml")]
mod session {
    use std::path::PathBuf;

    use super::{NodeName, NodeTopology, ProbeError, probe_facts};
    use crate::nvml::NvmlSource;
    use crate::tree::SysRoot;

    /// Where to read and for whom.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ProbeConfig {
        /// The driver library; `None` for `libnvidia-ml.so.1` on the loader's search path.
        pub nvml_library: Option<PathBuf>,
        /// Directory that holds `sys` and `proc`.
        pub root: PathBuf,
        /// Whose report it is.
        pub node: NodeName,
    }

    /// A prober that keeps the driver library open between probes: opening it wakes every GPU of a machine without persistence mode.
    #[derive(Debug)]
    pub struct Prober {
        config: ProbeConfig,
        nvml: NvmlSource,
    }

    impl Prober {
        /// A prober that has read nothing yet.
        #[must_use]
        pub fn new(config: ProbeConfig) -> Self {
            let nvml = NvmlSource::new(config.nvml_library.clone());
            Self { config, nvml }
        }

        /// Reads the machine once. `previous` is the node's last report, of this boot or not. Blocks on driver calls: not for an
        /// async thread.
        ///
        /// # Errors
        /// [`ProbeError`]; hardware that does not answer is no error but part of the report.
        pub fn probe(&mut self, previous: Option<&NodeTopology>) -> Result<NodeTopology, ProbeError> {
            if !self.config.root.join("sys").is_dir() {
                return Err(ProbeError::NoTree { root: self.config.root.display().to_string() });
            }
            let tree = SysRoot::new(self.config.root.clone());
            probe_facts(self.nvml.read(), &tree, previous, self.config.node.clone())
        }
    }

    /// Reads the machine once, with a driver session of its own.
    ///
    /// # Errors
    /// As [`Prober::probe`].
    pub fn probe(config: &ProbeConfig, previous: Option<&NodeTopology>) -> Result<NodeTopology, ProbeError> {
        Prober::new(config.clone()).probe(previous)
    }
}
