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
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::{NodeName, NodeTopology, ProbeError, assemble};
    use crate::facts::{GpuEvent, RawFacts, SysfsFacts};
    use crate::marks::Marks;
    use crate::nvml::{self, Links, NvmlSource, Wake};
    use crate::rhythm::{Depth, Rhythm};
    use crate::sysfs::glance::{self, Places};
    use crate::sysfs::{self, BootFacts};
    use crate::tree::SysRoot;

    /// Most events kept for the next reading. One follows soon, unless it fails time and again.
    const AHEAD_MAX: usize = 256;

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
            Self { nvml_library: None, root, node, gpu_within: nvml::GPU_WITHIN, xids_ignored }
        }
    }

    /// A prober that keeps the driver library open between probes: opening it wakes every GPU of a machine without persistence mode.
    #[derive(Debug)]
    pub struct Prober {
        config: ProbeConfig,
        nvml: NvmlSource,
        marks: Marks,
        events: Vec<GpuEvent>,
        /// Events that were looked at, and that no reading has taken in yet.
        ahead: Vec<GpuEvent>,
        rhythm: Rhythm,
        seen: Option<Seen>,
        kept: Option<Kept>,
        /// Whether the marks of the report before this process were taken up.
        has_taken_up: bool,
    }

    /// What the last look saw.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        nvml: nvml::Glance,
        sysfs: glance::Glance,
    }

    /// What the last reading leaves to the next ones.
    #[derive(Debug)]
    struct Kept {
        boot: BootFacts,
        sysfs: SysfsFacts,
        places: Places,
        /// Without marks, which pass by themselves.
        read: NodeTopology,
    }

    impl Prober {
        /// A prober that has read nothing yet.
        #[must_use]
        pub fn new(config: ProbeConfig) -> Self {
            let nvml = NvmlSource::new(config.nvml_library.clone(), config.gpu_within);
            Self {
                config,
                nvml,
                marks: Marks::default(),
                events: Vec::new(),
                ahead: Vec::new(),
                rhythm: Rhythm::default(),
                seen: None,
                kept: None,
                has_taken_up: false,
            }
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

        /// Reads all of the machine. `previous` is the node's last report, of this boot or not. Blocks on driver calls: not for an async
        /// thread.
        ///
        /// # Errors
        /// [`ProbeError`]; hardware that does not answer is no error but part of the report.
        pub fn probe(&mut self, previous: Option<&NodeTopology>) -> Result<NodeTopology, ProbeError> {
            let tree = self.tree()?;
            let now = Instant::now();
            self.note_events(now);
            let read = self.read(&tree, Depth::Whole, previous)?;
            self.marks.put_on(read, now).map_err(ProbeError::Topology)
        }

        /// As [`Prober::probe`], but reads again only what may have changed since this prober's last reading, in the rhythm of
        /// [`crate::rhythm`]. For an agent that asks all the time.
        ///
        /// # Errors
        /// As [`Prober::probe`].
        pub fn follow(&mut self, previous: Option<&NodeTopology>) -> Result<NodeTopology, ProbeError> {
            let tree = self.tree()?;
            let now = Instant::now();
            let mut has_news = self.note_events(now);
            let places = self.kept.as_ref().map_or_else(|| Places::find(&tree), |kept| kept.places.clone());
            let seen = Seen { nvml: self.nvml.glance(), sysfs: places.glance(&tree) };
            has_news |= self.kept.is_none() || self.seen.as_ref() != Some(&seen);
            self.seen = Some(seen);
            let read = match (self.rhythm.next(has_news), &self.kept) {
                (Depth::Glance, Some(kept)) => kept.read.clone(),
                (depth, _) => self.read(&tree, depth, previous)?,
            };
            self.marks.put_on(read, now).map_err(ProbeError::Topology)
        }

        /// The last reading with the health of those GPUs that the driver has named in an Xid since. `None` where it named none. Asks the
        /// driver nothing and so takes no time, where a reading of sick hardware may take seconds; that reading must follow all the same.
        #[must_use]
        pub fn told(&mut self) -> Option<NodeTopology> {
            for event in self.nvml.take_events() {
                if self.ahead.len() < AHEAD_MAX && !self.ahead.contains(&event) {
                    self.ahead.push(event);
                }
            }
            let kept = self.kept.as_ref()?;
            // A copy, because what marks forget they forget at readings.
            let mut marks = self.marks.clone();
            let (now, mut is_named) = (Instant::now(), false);
            for event in self.ahead.iter().filter(|event| matches!(event, GpuEvent::Xid { uuid: Some(_), .. })) {
                marks.note(event, &self.config.xids_ignored, now);
                is_named = true;
            }
            if is_named { marks.put_on(kept.read.clone(), now).ok() } else { None }
        }

        fn tree(&self) -> Result<SysRoot, ProbeError> {
            if !self.config.root.join("sys").is_dir() {
                return Err(ProbeError::NoTree { root: self.config.root.display().to_string() });
            }
            Ok(SysRoot::new(self.config.root.clone()))
        }

        /// Takes in what the driver told; says whether it told anything.
        fn note_events(&mut self, now: Instant) -> bool {
            self.events = std::mem::take(&mut self.ahead);
            self.events.extend(self.nvml.take_events());
            for event in &self.events {
                self.marks.note(event, &self.config.xids_ignored, now);
            }
            let is_new_session = self.marks.wants_new_session();
            if is_new_session {
                // The events may be first to tell that the driver was loaded anew, which is no reading's to find then.
                if self.nvml.glance() == nvml::Glance::Broken {
                    self.marks.forget();
                }
                self.nvml.close();
            }
            is_new_session || !self.events.is_empty()
        }

        fn read(
            &mut self,
            tree: &SysRoot,
            depth: Depth,
            previous: Option<&NodeTopology>,
        ) -> Result<NodeTopology, ProbeError> {
            // Where it fails, nothing is kept, and the next reading is a whole one.
            let kept = self.kept.take().filter(|_| depth != Depth::Whole);
            let nvml = self.nvml.read(if kept.is_some() { Links::Kept } else { Links::Asked });
            if self.nvml.was_renewed() {
                self.marks.forget();
            }
            let (boot, known) = match kept {
                Some(kept) => (kept.boot, kept.sysfs.pci),
                None => (BootFacts::read(tree), BTreeMap::new()),
            };
            let places = Places::find(tree);
            let facts = RawFacts { nvml, sysfs: sysfs::read_rest(tree, &boot, &known) };
            let read = assemble(&facts, previous, self.config.node.clone()).map_err(ProbeError::Topology)?;
            self.kept = Some(Kept { boot, sysfs: facts.sysfs, places, read: read.clone() });
            self.take_up(previous, &read);
            Ok(read)
        }

        /// At the first reading: what Xids said before this process, where that was in this boot.
        fn take_up(&mut self, previous: Option<&NodeTopology>, read: &NodeTopology) {
            let of_this_boot = previous.filter(|report| report.parts().boot_id == read.parts().boot_id);
            if let Some(report) = of_this_boot.filter(|_| !self.has_taken_up) {
                self.marks.take_up(report, &self.config.xids_ignored, Instant::now());
            }
            self.has_taken_up = true;
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
