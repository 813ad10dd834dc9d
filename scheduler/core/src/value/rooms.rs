//! How much room all nodes together have for pods of several GPUs.
//!
//! While such room is plenty nobody needs to keep any; when it is scarce, what one more small pod takes on a node that could still take
//! eight GPUs may cost a large one its only place. So the worth of a remainder must know the others. All that it knows of them is these
//! counts: sums over the nodes, to be kept up to date node by node.

use std::sync::Arc;

use super::{Remainder, Typical};

/// How many pods of each kind find room, every kind by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rooms {
    kinds: Arc<[Typical]>,
    /// By position in `kinds`.
    counts: Vec<u64>,
    /// Installed.
    gpu_count: u64,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::of(Arc::from([]))
    }
}

impl Rooms {
    /// Of no node yet, for these kinds: those of [`super::Expected::large`].
    #[must_use]
    pub fn of(kinds: Arc<[Typical]>) -> Self {
        Self { counts: vec![0; kinds.len()], kinds, gpu_count: 0 }
    }

    /// Whether these kinds are the ones that are counted.
    #[must_use]
    pub fn is_for(&self, kinds: &Arc<[Typical]>) -> bool {
        Arc::ptr_eq(&self.kinds, kinds) || self.kinds == *kinds
    }

    /// Counts a node.
    pub fn add(&mut self, node: Remainder<'_>) {
        self.change(node, u64::saturating_add);
    }

    /// Takes away a node that was counted as it stands here.
    pub fn remove(&mut self, node: Remainder<'_>) {
        self.change(node, u64::saturating_sub);
    }

    /// By kind, in the order in which they were given.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().copied()
    }

    /// GPUs of all nodes, used or not.
    #[must_use]
    pub fn gpu_count(&self) -> u64 {
        self.gpu_count
    }

    fn change(&mut self, node: Remainder<'_>, by: fn(u64, u64) -> u64) {
        let gpu_count = u64::try_from(node.gpus.len()).unwrap_or(u64::MAX);
        self.gpu_count = by(self.gpu_count, gpu_count);
        for (kind, count) in self.kinds.iter().zip(&mut self.counts) {
            let slots = node.gpus.iter().map(|free| u64::from(free.checked_div(kind.gpu_milli).unwrap_or(0))).sum();
            *count = by(*count, kind.room(slots, node.cpu_milli));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Arc<[Typical]> {
        [(8, 64_000), (8, 120_000), (2, 16_000)]
            .map(|(gpu_count, cpu_milli)| Typical { gpu_count, gpu_milli: 1000, cpu_milli })
            .into()
    }

    #[test]
    fn every_kind_is_counted_by_gpus_and_by_cores() {
        let mut rooms = Rooms::of(kinds());
        rooms.add(Remainder { cpu_milli: 96_000, gpus: &[1000; 8] });
        assert_eq!(rooms.counts().collect::<Vec<_>>(), [1, 0, 4], "120 cores are not there");
        rooms.add(Remainder { cpu_milli: 20_000, gpus: &[1000, 1000, 1000, 1000, 0, 530] });
        assert_eq!(rooms.counts().collect::<Vec<_>>(), [1, 0, 5], "cores for one of two");
        assert_eq!(rooms.gpu_count(), 14);
    }

    #[test]
    fn a_node_that_changes_is_counted_as_it_is_now() {
        let (idle, used) =
            (Remainder { cpu_milli: 96_000, gpus: &[1000; 8] }, Remainder { cpu_milli: 80_000, gpus: &[1000; 7] });
        let mut changed = Rooms::of(kinds());
        changed.add(idle);
        changed.remove(idle);
        changed.add(used);
        let mut afresh = Rooms::of(kinds());
        afresh.add(used);
        assert_eq!(changed, afresh);
    }
}
