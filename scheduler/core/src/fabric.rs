//! A node's topology as set choice sees it: how near its GPUs are, which have a rail, which zone they are in.
//!
//! Nodes of one kind have equal fabrics, whatever their UUIDs and names; the index interns them so that equal states are
//! computed once.

use std::cmp::Ordering;
use std::sync::OnceLock;

use berth_model::{GpuSet, Link, LinkClass, NodeTopology, PcieLevel, PortState, ZoneId};

/// How near the GPUs of a node are.
#[derive(Debug, Clone)]
pub struct Fabric {
    pairs: Pairs,
    /// By set size: the best value inside any set of the idle node. Filled at first use, since most nodes of a kind share one
    /// fabric and 16 GPUs have 65,536 sets.
    best_inside: OnceLock<Vec<u64>>,
}

/// What makes two fabrics equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pairs {
    gpu_count: usize,
    /// Row-major `gpu_count` x `gpu_count`; the diagonal is not used.
    links: Vec<LinkClass>,
    values: Vec<u32>,
    zones: Vec<Option<ZoneId>>,
    railed: GpuSet,
}

impl PartialEq for Fabric {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Fabric {}

impl PartialOrd for Fabric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fabric {
    fn cmp(&self, other: &Self) -> Ordering {
        self.pairs.cmp(&other.pairs)
    }
}

/// Worth of one NVLink in a set, against the PCIe levels below. The unit has no meaning beyond this order: one NVLink
/// carries more than any PCIe path, and the PCIe level breaks ties among NVLink-equal pairs.
const NVLINK_VALUE: u32 = 100;

fn value(link: Link) -> u32 {
    let pcie = match link.pcie {
        None => 0,
        Some(PcieLevel::Sys) => 10,
        Some(PcieLevel::Node) => 20,
        Some(PcieLevel::Phb) => 30,
        Some(PcieLevel::Pxb) => 40,
        Some(PcieLevel::Pix) => 50,
    };
    u32::from(link.nvlinks).saturating_mul(NVLINK_VALUE).saturating_add(pcie)
}

/// Up to this many choices are compared one by one; above it the search is greedy. 16 GPUs need at most 12,870.
pub(crate) const EXACT_CHOICES_MAX: u64 = 20_000;

impl Fabric {
    /// The fabric of a node.
    #[must_use]
    pub fn of(topology: &NodeTopology) -> Self {
        let parts = topology.parts();
        let gpu_count = parts.gpus.len();
        let mut links = Vec::with_capacity(gpu_count.saturating_mul(gpu_count));
        let mut values = Vec::with_capacity(links.capacity());
        for a in 0..gpu_count {
            for b in 0..gpu_count {
                let link = parts.links.link(a, b).unwrap_or_default();
                links.push(link.class());
                values.push(value(link));
            }
        }
        let has_rail = |gpu: usize| {
            parts.nics.iter().enumerate().any(|(n, nic)| {
                let level = parts.links.link(gpu, gpu_count.saturating_add(n)).and_then(|l| l.pcie);
                nic.state == PortState::Active && level >= Some(PcieLevel::Pxb)
            })
        };
        let railed = parts.gpus.iter().filter(|g| has_rail(usize::from(g.index.0))).map(|g| g.index).collect();
        let zones = parts.gpus.iter().map(|g| g.zone).collect();
        Self { pairs: Pairs { gpu_count, links, values, zones, railed }, best_inside: OnceLock::new() }
    }

    fn best_of_idle(&self, size: usize) -> u64 {
        let size = u32::try_from(size).unwrap_or(0);
        let all = GpuSet::first(self.pairs.gpu_count);
        if choices(all.gpu_count(), size) > EXACT_CHOICES_MAX {
            return crate::place::greedy(self, all, size).map_or(0, |set| self.inside(set));
        }
        all.subsets(size).map(|set| self.inside(set)).max().unwrap_or(0)
    }

    /// How many GPUs the node has.
    #[must_use]
    pub fn gpu_count(&self) -> usize {
        self.pairs.gpu_count
    }

    /// GPUs that have an active NIC under their own PCIe switch.
    #[must_use]
    pub fn railed(&self) -> GpuSet {
        self.pairs.railed
    }

    pub(crate) fn pair_value(&self, a: usize, b: usize) -> u32 {
        self.pairs.values.get(a.saturating_mul(self.pairs.gpu_count).saturating_add(b)).copied().unwrap_or(0)
    }

    /// The sum of the values of all pairs of a set: more is nearer.
    #[must_use]
    pub fn inside(&self, set: GpuSet) -> u64 {
        let mut sum = 0_u64;
        for a in set.iter() {
            for b in set.iter().filter(|b| *b > a) {
                sum = sum.saturating_add(u64::from(self.pair_value(usize::from(a.0), usize::from(b.0))));
            }
        }
        sum
    }

    /// The best [`Self::inside`] of any set of this size on the idle node.
    #[must_use]
    pub fn best_inside(&self, size: u32) -> u64 {
        let best = self.best_inside.get_or_init(|| (0..=self.pairs.gpu_count).map(|s| self.best_of_idle(s)).collect());
        usize::try_from(size).ok().and_then(|s| best.get(s)).copied().unwrap_or(0)
    }

    /// The weakest link between any two GPUs of a set; `None` for fewer than two.
    #[must_use]
    pub fn weakest(&self, set: GpuSet) -> Option<LinkClass> {
        let mut weakest: Option<LinkClass> = None;
        for a in set.iter() {
            for b in set.iter().filter(|b| *b > a) {
                let at = usize::from(a.0).saturating_mul(self.pairs.gpu_count).saturating_add(usize::from(b.0));
                let link = self.pairs.links.get(at).copied().unwrap_or(LinkClass::Unknown);
                weakest = Some(weakest.map_or(link, |w| w.min(link)));
            }
        }
        weakest
    }

    /// The one zone of all GPUs of a set; `None` when they differ or one is unknown.
    #[must_use]
    pub fn zone(&self, set: GpuSet) -> Option<ZoneId> {
        let mut zones = set.iter().map(|i| self.pairs.zones.get(usize::from(i.0)).copied().flatten());
        let first = zones.next()??;
        zones.all(|z| z == Some(first)).then_some(first)
    }
}

/// How many sets of `size` out of `count` there are, capped.
pub(crate) fn choices(count: u32, size: u32) -> u64 {
    let size = size.min(count.saturating_sub(size));
    let mut result = 1_u64;
    for i in 0..u64::from(size) {
        result = result.saturating_mul(u64::from(count).saturating_sub(i)) / i.saturating_add(1);
    }
    result
}
