//! A node's topology as a validated whole.

use std::collections::BTreeSet;

use crate::drift::Drift;
use crate::gpu::Gpu;
use crate::host::Host;
use crate::id::{BootId, Generation, MiB, NodeName};
use crate::level::DevicePlugin;
use crate::link::{LinkClass, LinkMatrix};
use crate::nic::Nic;
use crate::refusal::Refusal;
use crate::set::GpuSet;
use crate::zone::Zone;

/// What is known of the NVIDIA driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Loaded.
    Loaded(DriverVersions),
    /// There is none: CPU facts only.
    Absent(String),
}

/// Versions of a loaded driver and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriverVersions {
    /// The driver as NVML prints it, empty where it does not say.
    pub driver: String,
    /// NVML itself.
    pub nvml: Option<String>,
    /// The newest CUDA that the driver serves, e.g. `13.0`.
    pub cuda: Option<String>,
}

impl From<&str> for DriverVersions {
    fn from(driver: &str) -> Self {
        Self { driver: driver.to_owned(), ..Self::default() }
    }
}

/// Something an operator should know of the node that is no fact of one device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Closed word, e.g. `gpu-unreadable`.
    pub code: String,
    /// What it is about, e.g. a PCI address.
    pub device: String,
    /// One sentence.
    pub text: String,
}

/// The unjudged parts of a [`NodeTopology`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Whose topology it is.
    pub node: NodeName,
    /// Boot in which it was read.
    pub boot_id: BootId,
    /// Version of the report; 0 before it was published.
    pub generation: Generation,
    /// Driver state.
    pub driver: Driver,
    /// Zones in ascending order of id.
    pub zones: Vec<Zone>,
    /// GPUs; the position is the index.
    pub gpus: Vec<Gpu>,
    /// NICs in the order of their names.
    pub nics: Vec<Nic>,
    /// Links of all pairs: GPUs first, then NICs.
    pub links: LinkMatrix,
    /// The host around them.
    pub host: Host,
    /// Findings, sorted.
    pub findings: Vec<Finding>,
    /// Who holds what no plan of theirs names, sorted. Empty where nobody looks, as where nobody does.
    pub drifts: Vec<Drift>,
    /// Containers that wait without devices on a node that enforces plans, sorted.
    pub refusals: Vec<Refusal>,
    /// Berth's device plugin, where it gives out the node's GPUs. Without it the level is advice.
    pub device_plugin: Option<DevicePlugin>,
}

/// One node: what it is, checked to be consistent. Made by [`NodeTopology::try_new`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTopology {
    parts: Parts,
}

/// Why parts are no topology. `field` is the path in the report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct TopologyError {
    /// Path of the field, e.g. `gpus[3].uuid`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn refuse<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, TopologyError> {
    Err(TopologyError { field: field.into(), problem: problem.into() })
}

impl NodeTopology {
    /// Most zones of a node. Grace-class nodes show 34.
    pub const ZONES_MAX: usize = 1024;
    /// Most NICs of a node.
    pub const NICS_MAX: usize = 96;

    /// Checks the parts: bounds, positions, unique identities, known zones, and a matrix of the right size.
    ///
    /// # Errors
    /// [`TopologyError`] names the first field that is wrong.
    pub fn try_new(parts: Parts) -> Result<Self, TopologyError> {
        check_zones(&parts)?;
        check_gpus(&parts)?;
        check_nics(&parts)?;
        let devices = parts.gpus.len().saturating_add(parts.nics.len());
        if parts.links.device_count() != devices {
            return refuse(
                "links",
                format!("{} rows, {devices} are right (one per GPU, then one per NIC)", parts.links.device_count()),
            );
        }
        Ok(Self { parts })
    }

    /// The checked parts.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The parts, to make another topology from.
    #[must_use]
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    /// The same topology under another generation.
    #[must_use]
    pub fn with_generation(mut self, generation: Generation) -> Self {
        self.parts.generation = generation;
        self
    }

    /// The same topology with other drifts.
    #[must_use]
    pub fn with_drifts(mut self, drifts: Vec<Drift>) -> Self {
        self.parts.drifts = drifts;
        self
    }

    /// The same topology with other refusals.
    #[must_use]
    pub fn with_refusals(mut self, refusals: Vec<Refusal>) -> Self {
        self.parts.refusals = refusals;
        self
    }

    /// The same topology with one finding more.
    #[must_use]
    pub fn with_finding(mut self, finding: Finding) -> Self {
        self.parts.findings.push(finding);
        self.parts.findings.sort();
        self
    }

    /// The same topology with another state of the device plugin.
    #[must_use]
    pub fn with_device_plugin(mut self, device_plugin: Option<DevicePlugin>) -> Self {
        self.parts.device_plugin = device_plugin;
        self
    }

    /// Whether the two say the same of the hardware, whatever their generations.
    #[must_use]
    pub fn same_facts(&self, other: &Self) -> bool {
        self.clone().with_generation(Generation(0)) == other.clone().with_generation(Generation(0))
    }

    /// All GPUs of the node.
    #[must_use]
    pub fn all_gpus(&self) -> GpuSet {
        GpuSet::first(self.parts.gpus.len())
    }

    /// GPUs that may get new whole-GPU pods: healthy and not cut by MIG.
    #[must_use]
    pub fn usable_gpus(&self) -> GpuSet {
        let whole = |g: &&Gpu| g.health.is_usable() && g.mig_enabled != Some(true);
        self.parts.gpus.iter().filter(whole).map(|g| g.index).collect()
    }

    /// Whether MIG cuts every GPU, so that none could be given whole. A node without GPUs has none to cut.
    #[must_use]
    pub fn is_all_cut(&self) -> bool {
        !self.parts.gpus.is_empty() && self.parts.gpus.iter().all(|gpu| gpu.mig_enabled == Some(true))
    }

    /// The weakest link between any two of the GPUs; `None` for fewer than two.
    #[must_use]
    pub fn weakest_link(&self, set: GpuSet) -> Option<LinkClass> {
        let mut weakest: Option<LinkClass> = None;
        for a in set.iter() {
            for b in set.iter().filter(|b| *b > a) {
                let class = self
                    .parts
                    .links
                    .link(usize::from(a.0), usize::from(b.0))
                    .map_or(LinkClass::Unknown, crate::Link::class);
                weakest = Some(weakest.map_or(class, |w| w.min(class)));
            }
        }
        weakest
    }

    /// One word for the node's GPU fabric: the strongest link between any two GPUs, `none` for fewer than two.
    #[must_use]
    pub fn link_class(&self) -> String {
        let mut best: Option<LinkClass> = None;
        for pair in self.all_gpus().subsets(2) {
            best = best.max(self.weakest_link(pair));
        }
        best.map_or_else(|| "none".to_owned(), |c| c.to_string())
    }

    /// The products of the node's GPUs, each once, joined by `,`; empty without GPUs.
    #[must_use]
    pub fn products(&self) -> String {
        let products: BTreeSet<&str> = self.parts.gpus.iter().map(|g| g.product.as_str()).collect();
        products.into_iter().collect::<Vec<_>>().join(",")
    }

    /// The smallest memory of the given GPUs, where all of them say.
    #[must_use]
    pub fn memory_min(&self, set: GpuSet) -> Option<MiB> {
        let wanted = self.parts.gpus.iter().filter(|g| set.contains(g.index));
        wanted.map(|g| g.memory).min().flatten()
    }
}

fn check_zones(parts: &Parts) -> Result<(), TopologyError> {
    if parts.zones.len() > NodeTopology::ZONES_MAX {
        return refuse("zones", format!("{} zones, at most {} are taken", parts.zones.len(), NodeTopology::ZONES_MAX));
    }
    let mut before = None;
    for (i, zone) in parts.zones.iter().enumerate() {
        if before.is_some_and(|b| b >= zone.id) {
            return refuse(format!("zones[{i}].id"), "zones must be in ascending order, each id once");
        }
        if !zone.distances.is_empty() && zone.distances.len() != parts.zones.len() {
            return refuse(
                format!("zones[{i}].distances"),
                format!("{} values, one per zone is right", zone.distances.len()),
            );
        }
        before = Some(zone.id);
    }
    Ok(())
}

fn check_gpus(parts: &Parts) -> Result<(), TopologyError> {
    if parts.gpus.len() > GpuSet::GPUS_MAX {
        return refuse("gpus", format!("{} GPUs, at most {} are taken", parts.gpus.len(), GpuSet::GPUS_MAX));
    }
    let zones: BTreeSet<_> = parts.zones.iter().map(|z| z.id).collect();
    let mut uuids = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for (i, gpu) in parts.gpus.iter().enumerate() {
        if usize::from(gpu.index.0) != i {
            return refuse(format!("gpus[{i}].index"), format!("{} is not its position", gpu.index.0));
        }
        if !uuids.insert(&gpu.uuid) {
            return refuse(format!("gpus[{i}].uuid"), format!("{} stands twice", gpu.uuid));
        }
        if !addresses.insert(gpu.pci) {
            return refuse(format!("gpus[{i}].pci"), format!("{} stands twice", gpu.pci));
        }
        if let Some(zone) = gpu.zone.filter(|z| !zones.contains(z)) {
            return refuse(format!("gpus[{i}].zone"), format!("zone {zone} is not among zones"));
        }
    }
    Ok(())
}

fn check_nics(parts: &Parts) -> Result<(), TopologyError> {
    if parts.nics.len() > NodeTopology::NICS_MAX {
        return refuse("nics", format!("{} NICs, at most {} are taken", parts.nics.len(), NodeTopology::NICS_MAX));
    }
    let mut names = BTreeSet::new();
    for (i, nic) in parts.nics.iter().enumerate() {
        if !names.insert(&nic.name) {
            return refuse(format!("nics[{i}].name"), format!("{} stands twice", nic.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
