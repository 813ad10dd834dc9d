//! Nodes from machine files, for runs without an API server: `NAME.yaml` is the node NAME, `NAME.faults.yaml` what is broken
//! on it. What the index gets is what an agent on that machine would publish.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_core::Policy;
use berth_core::view::Compute;
use berth_index::{Event, Kind, NodeFacts};
use berth_machine::{Faults, Machine, MachineError, Salt, topology_with};
use berth_model::{Generation, MiB, NodeName, NodeTopology};
use berth_probe::ProbeError;

use crate::cluster::Cluster;

/// Most machine files of a folder: a laptop's cluster, not a data centre's.
const MACHINES_MAX: usize = 10_000;
/// Largest machine file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How often the folder is read again.
const REREAD_EVERY: Duration = Duration::from_secs(1);

/// Why a machine file gives no node.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// The folder or a file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds no machine file.
    #[error("{path} holds no machine file NAME.yaml")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// More files than are taken.
    #[error("{path} holds more than {MACHINES_MAX} files")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// A file is too large.
    #[error("{path} has {bytes} bytes, at most {FILE_BYTES_MAX} are taken")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file's name is no node name.
    #[error("{path}: the file's name is no node name")]
    Name {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: berth_model::id::IdError,
    },
    /// The file is no machine.
    #[error("{path}")]
    Machine {
        /// The file.
        path: PathBuf,
        /// What is wrong in it, with line and column.
        #[source]
        source: MachineError,
    },
    /// The machine gives no report.
    #[error("node {node}")]
    Probe {
        /// The node.
        node: NodeName,
        /// Why.
        #[source]
        source: ProbeError,
    },
}

/// A node made from a machine file.
#[derive(Debug, Clone)]
pub struct MachineNode {
    /// Its name.
    pub name: NodeName,
    /// Its hardware.
    pub machine: Machine,
    /// What is broken on it.
    pub faults: Faults,
}

impl MachineNode {
    /// The report that an agent on this node would publish.
    ///
    /// # Errors
    /// [`MachinesError::Probe`].
    pub fn topology(&self, previous: Option<&NodeTopology>) -> Result<NodeTopology, MachinesError> {
        let salt = Salt::new(self.name.as_str());
        topology_with(&self.machine, &self.name, &salt, &self.faults, previous)
            .map_err(|source| MachinesError::Probe { node: self.name.clone(), source })
    }
}

/// What a kubelet with the stock device plugin would say of the node: where there is no API server, the report is all that tells.
pub(crate) fn facts(topology: &NodeTopology, policy: &Policy) -> NodeFacts {
    let parts = topology.parts();
    let cpus: u64 = parts.zones.iter().map(|z| u64::from(z.cpus.cpu_count())).sum();
    let memory_mib = parts.zones.iter().filter_map(|z| z.memory).map(|m| m.0).sum();
    let usable = u64::from(topology.usable_gpus().gpu_count());
    let resource = policy.gpu_resources().next().filter(|_| !parts.gpus.is_empty());
    NodeFacts {
        name: parts.node.clone(),
        boot_id: Some(parts.boot_id.clone()),
        offered: resource.map(|name| (name.to_owned(), usable)).into_iter().collect(),
        allocatable: Compute { cpu_milli: cpus.saturating_mul(1000), memory: MiB(memory_mib) },
        zone: None,
        is_avoided: false,
        labels: berth_core::level::LabelSet::default(),
    }
}

/// Puts the nodes into the cluster, in place of those that are there. Reports of unchanged hardware keep their generation. A node whose
/// stream is open is its agent's: a file of its name says nothing, and it needs none.
///
/// # Errors
/// [`MachinesError`] of the first node that gives no report; the others are in.
pub fn enter(cluster: &Cluster, nodes: &[MachineNode]) -> Result<(), MachinesError> {
    let policy = cluster.policy();
    let before = cluster.index.snapshot();
    let known_of =
        |node: &NodeName| before.node(node.as_str()).and_then(|s| s.view.hardware.as_ref()).map(|h| &h.topology);
    let streaming = cluster.carriers.live();
    let mut live: Vec<NodeTopology> = streaming.iter().filter_map(known_of).map(|t| t.as_ref().clone()).collect();
    let mut first_error = None;
    for node in nodes.iter().filter(|node| !streaming.contains(&node.name)) {
        let known = known_of(&node.name);
        let topology = match (node.topology(known.map(Arc::as_ref)), known) {
            (Ok(read), Some(known)) if read.same_facts(known) => known.as_ref().clone(),
            (Ok(read), known) => {
                let generation = known.map_or(0, |k| k.parts().generation.0).saturating_add(1);
                read.with_generation(Generation(generation))
            }
            (Err(error), known) => {
                first_error.get_or_insert(error);
                // The last good report stays in force.
                let Some(known) = known else { continue };
                known.as_ref().clone()
            }
        };
        live.push(topology);
    }
    let nodes = live.iter().map(|topology| Event::Node(facts(topology, &policy))).collect();
    cluster.index.reset(Kind::Nodes, nodes);
    let reports = live.into_iter().map(|topology| Event::Report(Box::new(topology))).collect();
    cluster.index.reset(Kind::Reports, reports);
    first_error.map_or(Ok(()), Err)
}

/// Reads every machine file of a folder, in the order of their names.
///
/// # Errors
/// [`MachinesError`] names the first file that is wrong, and in it line and column.
pub fn read_dir(dir: &Path) -> Result<Vec<MachineNode>, MachinesError> {
    let texts = read_texts(dir)?;
    let mut nodes = Vec::new();
    for (file, text) in texts.iter().filter(|(file, _)| !file.ends_with(FAULTS_ENDING)) {
        let path = dir.join(file);
        let stem = file.strip_suffix(ENDING).unwrap_or(file);
        let name = NodeName::parse(stem).map_err(|source| MachinesError::Name { path: path.clone(), source })?;
        let machine = Machine::parse(text).map_err(|source| MachinesError::Machine { path: path.clone(), source })?;
        let faults_file = format!("{stem}{FAULTS_ENDING}");
        let faults = match texts.get(&faults_file) {
            Some(text) => Faults::parse(text, &machine)
                .map_err(|source| MachinesError::Machine { path: dir.join(faults_file), source })?,
            None => Faults::default(),
        };
        nodes.push(MachineNode { name, machine, faults });
    }
    if nodes.is_empty() { Err(MachinesError::Empty { path: dir.to_owned() }) } else { Ok(nodes) }
}

const ENDING: &str = ".yaml";
const FAULTS_ENDING: &str = ".faults.yaml";

fn read_texts(dir: &Path) -> Result<BTreeMap<String, String>, MachinesError> {
    let unreadable = |path: &Path, source| MachinesError::Unreadable { path: path.to_owned(), source };
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(|e| unreadable(dir, e))? {
        let path = entry.map_err(|e| unreadable(dir, e))?.path();
        let Some(file) = path.file_name().and_then(|n| n.to_str()).filter(|n| n.ends_with(ENDING)) else { continue };
        if texts.len() >= MACHINES_MAX {
            return Err(MachinesError::TooMany { path: dir.to_owned() });
        }
        let bytes = std::fs::metadata(&path).map_err(|e| unreadable(&path, e))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(MachinesError::TooLarge { path, bytes });
        }
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
        texts.insert(file.to_owned(), text);
    }
    Ok(texts)
}

/// Reads the folder again and again, so that an edit of a machine or of its faults shows at once. A folder that cannot be read
/// leaves the last good cluster in force.
pub async fn follow(cluster: Arc<Cluster>, dir: PathBuf) {
    let mut last = read_texts(&dir).ok();
    let mut timer = tokio::time::interval(REREAD_EVERY);
    loop {
        timer.tick().await;
        let now = read_texts(&dir).ok();
        if now == last || now.is_none() {
            continue;
        }
        last = now;
        match read_dir(&dir).and_then(|nodes| enter(&cluster, &nodes)) {
            Ok(()) => tracing::info!(dir = %dir.display(), "machine files taken"),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "machine files refused; the last good ones stay");
            }
        }
    }
}

#[cfg(test)]
mod tests;
