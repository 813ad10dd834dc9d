//! The best-effort policy of NVIDIA's go-gpuallocator, which device plugins use inside a node.
//!
//! Source: github.com/NVIDIA/go-gpuallocator `gpuallocator/besteffort_policy.go`: every partition of the free GPUs into sets of the size (the
//! last padded when it does not divide) is rated by the sum over the pairs of its sets; of the best partition the best set is given.
//! A padded set counts for nothing here, since a smaller set cannot be given.

use berth_model::{GpuIndex, GpuSet, NodeTopology, PcieLevel};

/// Ratings of all pairs of one machine.
#[derive(Debug)]
pub struct Allocator {
    pairs: Vec<Vec<u32>>,
}

/// The best partition found so far.
#[derive(Debug, Default)]
struct Best {
    total: u32,
    sets: Vec<GpuSet>,
    partition_count: u64,
}

impl Allocator {
    /// Rates the pairs: 100 a NVLink, and 10 to 50 by how near PCIe brings them.
    #[must_use]
    pub fn of(machine: &NodeTopology) -> Self {
        let count = machine.parts().gpus.len();
        let rate = |a: usize, b: usize| {
            let link = machine.parts().links.link(a, b).unwrap_or_default();
            let near = match link.pcie {
                None => 0,
                Some(PcieLevel::Sys) => 10,
                Some(PcieLevel::Node) => 20,
                Some(PcieLevel::Phb) => 30,
                Some(PcieLevel::Pxb) => 40,
                Some(PcieLevel::Pix) => 50,
            };
            100 * u32::from(link.nvlinks) + near
        };
        Self { pairs: (0..count).map(|a| (0..count).map(|b| rate(a, b)).collect()).collect() }
    }

    fn rate(&self, set: GpuSet) -> u32 {
        let pair = |a: GpuIndex, b: GpuIndex| self.pairs[usize::from(a.0)][usize::from(b.0)];
        set.iter().flat_map(|a| set.iter().filter(move |b| *b > a).map(move |b| pair(a, b))).sum()
    }

    /// The set that the policy gives, and how many partitions it looked at. `None` for fewer free GPUs than asked.
    #[must_use]
    pub fn choose(&self, free: GpuSet, size: u32) -> Option<(GpuSet, u64)> {
        if size == 0 || free.gpu_count() < size {
            return None;
        }
        let mut best = Best::default();
        self.partition(free, size, free.gpu_count() % size, 0, &mut Vec::new(), &mut best);
        let set = best.sets.iter().copied().max_by_key(|set| (self.rate(*set), std::cmp::Reverse(set.bits())))?;
        Some((set, best.partition_count))
    }

    /// Puts the lowest GPU left into every set it can be in, or into the rest that is too small.
    fn partition(&self, left: GpuSet, size: u32, spare: u32, total: u32, sets: &mut Vec<GpuSet>, best: &mut Best) {
        let Some(first) = left.iter().next() else {
            best.partition_count += 1;
            if best.sets.is_empty() || total > best.total {
                (best.total, best.sets) = (total, sets.clone());
            }
            return;
        };
        let rest = left.minus(GpuSet::EMPTY.with(first));
        for others in rest.subsets(size - 1) {
            let set = others.with(first);
            sets.push(set);
            self.partition(left.minus(set), size, spare, total + self.rate(set), sets, best);
            sets.pop();
        }
        if spare > 0 {
            self.partition(rest, size, spare - 1, total, sets, best);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::machine::{Kind, report};

    #[test]
    fn eight_free_gpus_have_as_many_partitions_as_the_formula_says() {
        let allocator = Allocator::of(&report(Kind::Dgx1v).unwrap());
        let partitions = |size| allocator.choose(GpuSet::first(8), size).unwrap().1;
        // 8! / (2!^4 4!), 8! / (4!^2 2!), and for 3: 8! / (3!^2 2! 2!).
        assert_eq!((partitions(1), partitions(2), partitions(3), partitions(4), partitions(8)), (1, 105, 280, 35, 1));
    }

    #[test]
    fn a_pair_of_a_hybrid_mesh_is_a_double_link() {
        let allocator = Allocator::of(&report(Kind::Dgx1v).unwrap());
        let (set, _) = allocator.choose(GpuSet::first(8), 2).unwrap();
        assert_eq!(allocator.rate(set) / 100, 2, "{set}");
        assert!(allocator.choose(GpuSet::first(1), 2).is_none());
    }
}
