//! What an ideal set is: the judge of the bench, which shares nothing with the tables of `berth-core`.

use berth_model::{GpuIndex, GpuSet, NodeTopology, PcieLevel};

/// Which sets of a machine are as good as the best of their size on the idle machine.
#[derive(Debug)]
pub struct Ideal {
    is_ideal: Vec<bool>,
    /// By set: slowest hop of its best ring, GB/s.
    rings: Vec<u32>,
    best_ring: Vec<u32>,
}

impl Ideal {
    /// Judges by the best ring, and where no ring is better than another (NVSwitch) by zones: a set in one zone, if the size fits there.
    #[must_use]
    pub fn of(machine: &NodeTopology) -> Self {
        let count = machine.parts().gpus.len();
        let sets = (0..1_u32 << count).map(GpuSet::from_bits);
        let rings: Vec<u32> = sets.clone().map(|set| ring(machine, set)).collect();
        let at = |set: GpuSet| rings[set.bits() as usize];
        let of_size = |size: u32| sets.clone().filter(move |set| set.gpu_count() == size);
        let best_ring: Vec<u32> =
            (0..=machine.all_gpus().gpu_count()).map(|size| of_size(size).map(at).max().unwrap_or(0)).collect();
        let is_ideal = |set: GpuSet| {
            let peers = || of_size(set.gpu_count());
            let is_best_ring = at(set) == best_ring[set.gpu_count() as usize];
            let are_rings_equal = peers().all(|peer| at(peer) == at(set));
            let fewest_zones = peers().map(|peer| zones(machine, peer)).min().unwrap_or(0);
            is_best_ring && (!are_rings_equal || zones(machine, set) == fewest_zones)
        };
        Self { is_ideal: sets.clone().map(is_ideal).collect(), rings, best_ring }
    }

    /// Whether the set is as good as any of its size.
    #[must_use]
    pub fn is_ideal(&self, set: GpuSet) -> bool {
        self.is_ideal[set.bits() as usize]
    }

    /// The set's ring against the best of its size.
    #[must_use]
    pub fn ring_quality(&self, set: GpuSet) -> f64 {
        let best = self.best_ring[set.gpu_count() as usize];
        if best == 0 { 1.0 } else { f64::from(self.rings[set.bits() as usize]) / f64::from(best) }
    }
}

fn zones(machine: &NodeTopology, set: GpuSet) -> usize {
    let mut zones: Vec<_> = set.iter().map(|gpu| machine.parts().gpus[usize::from(gpu.0)].zone).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len()
}

/// GB/s of one direction: 25 a link of NVLink 2 and later; the PCIe figures only order the levels.
fn speed(machine: &NodeTopology, a: GpuIndex, b: GpuIndex) -> u32 {
    let link = machine.parts().links.link(usize::from(a.0), usize::from(b.0)).unwrap_or_default();
    match (link.nvlinks, link.pcie) {
        (0, Some(PcieLevel::Pix)) => 22,
        (0, Some(PcieLevel::Pxb)) => 20,
        (0, Some(PcieLevel::Phb)) => 16,
        (0, Some(PcieLevel::Node)) => 13,
        (0, Some(PcieLevel::Sys) | None) => 10,
        (links, _) => 25 * u32::from(links),
    }
}

fn ring(machine: &NodeTopology, set: GpuSet) -> u32 {
    let gpus: Vec<GpuIndex> = set.iter().collect();
    let Some((first, rest)) = gpus.split_first() else { return 0 };
    if rest.is_empty() { 0 } else { walk(machine, *first, *first, rest, u32::MAX, 0) }
}

/// The best way through all of `left` and back to `first`; ways that cannot beat `known` are left.
fn walk(machine: &NodeTopology, first: GpuIndex, last: GpuIndex, left: &[GpuIndex], slowest: u32, known: u32) -> u32 {
    if left.is_empty() {
        return known.max(slowest.min(speed(machine, last, first)));
    }
    let mut best = known;
    for next in left {
        let slowest = slowest.min(speed(machine, last, *next));
        if slowest > best {
            let rest: Vec<GpuIndex> = left.iter().copied().filter(|gpu| gpu != next).collect();
            best = walk(machine, first, *next, &rest, slowest, best);
        }
    }
    best
}
