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
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::{NodeName, NodeTopology, ProbeError, probe_facts};
    use crate::facts::GpuEvent;
    use crate::marks::Marks;
    use crate::nvml::{NvmlSource, Wake};
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
        /// How long a GPU may take to answer before it counts as hung; [`crate::nvml::GPU_WITHIN`] unless there is a reason.
        pub gpu_within: Duration,
        /// Xids that say nothing about their GPU; [`crate::xid::APPLICATION_XIDS`] unless there is a reason.
        pub xids_ignored: BTreeSet<u64>,
    }

    impl ProbeConfig {
        /// The driver library of the loader's path and the usual rules, over a root.
        #[must_use]
        pub fn new(root: PathBuf, node: NodeName) -> Self {
            let xids_ignored = BTreeSet::from(crate::xid::APPLICATION_XIDS);
            Self { nvml_library: None, root, node, gpu_within: crate::nvml::GPU_WITHIN, xids_ignored }
        }
    }

    /// A prober that keeps the driver library open between probes: opening it wakes every GPU of a machine without persistence mode.
    #[derive(Debug)]
    pub struct Prober {
        config: ProbeConfig,
        nvml: NvmlSource,
        marks: Marks,
        events: Vec<GpuEvent>,
    }

    impl Prober {
        /// A prober that has read nothing yet.
        #[must_use]
        pub fn new(config: ProbeConfig) -> Self {
            let nvml = NvmlSource::new(config.nvml_library.clone(), config.gpu_within);
            Self { config, nvml, marks: Marks::default(), events: Vec::new() }
        }

        /// As [`Prober::new`], of a prober that also waits for the driver's events, in a thread that calls `wake` at each. What they say
        /// is in the next reading.
        #[must_use]
        pub fn with_events(config: ProbeConfig, wake: Wake) -> Self {
            let mut prober = Self::new(config);
            prober.nvml = prober.nvml.with_events(wake);
            prober
        }

        /// The events that the last reading took in.
        #[must_use]
        pub fn events(&self) -> &[GpuEvent] {
            &self.events
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
            self.events = self.nvml.take_events();
            let now = Instant::now();
            for event in &self.events {
                self.marks.note(event, &self.config.xids_ignored, now);
            }
            if self.marks.wants_new_session() {
                self.nvml.close();
            }
            let facts = self.nvml.read();
            if self.nvml.was_renewed() {
                self.marks.forget();
            }
            let read = probe_facts(facts, &tree, previous, self.config.node.clone())?;
            self.marks.put_on(read, now).map_err(ProbeError::Topology)
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
