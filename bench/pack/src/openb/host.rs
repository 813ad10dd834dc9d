//! A host while a replay runs: what is free on it, who is on it, and whether a pod fits.

use super::trace::{Capacity, PodClass};
use super::{GPU_MILLI, GPUS_MAX};

/// One bit per GPU of a host.
pub type Cards = u8;

/// A host with its free amounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What is installed.
    pub capacity: Capacity,
    /// Free CPU.
    pub cpu_milli: i64,
    /// Free memory.
    pub memory_mib: i64,
    /// Free milli of every GPU; those beyond the last are 0.
    pub free: [i64; GPUS_MAX],
    /// Pods on every GPU.
    pub pods_on: [u32; GPUS_MAX],
    /// Pods on it by GPU count; those with a share stand at 0, and those without any GPU are not counted.
    pub pods_by_size: [u32; GPUS_MAX + 1],
}

impl Host {
    /// An idle host.
    #[must_use]
    pub fn idle(capacity: Capacity) -> Self {
        let mut free = [0; GPUS_MAX];
        free.iter_mut().take(capacity.gpu_count).for_each(|f| *f = GPU_MILLI);
        let Capacity { cpu_milli, memory_mib, .. } = capacity;
        Self { capacity, cpu_milli, memory_mib, free, pods_on: [0; GPUS_MAX], pods_by_size: [0; GPUS_MAX + 1] }
    }

    /// Free milli of every GPU that it has.
    #[must_use]
    pub fn gpus(&self) -> &[i64] {
        &self.free[..self.capacity.gpu_count]
    }

    /// Free milli of all GPUs.
    #[must_use]
    pub fn free_milli(&self) -> i64 {
        self.free.iter().sum()
    }

    /// GPUs that nobody uses.
    #[must_use]
    pub fn idle_gpu_count(&self) -> usize {
        self.gpus().iter().filter(|f| **f == GPU_MILLI).count()
    }

    /// Whether a pod fits.
    #[must_use]
    pub fn fits(&self, class: &PodClass) -> bool {
        if self.cpu_milli < class.cpu_milli || self.memory_mib < class.memory_mib {
            return false;
        }
        let enough = || self.gpus().iter().filter(|f| **f >= class.gpu_milli).count() >= class.gpu_count;
        class.gpu_count == 0 || (class.takes_model(self.capacity.model) && enough())
    }

    /// The fullest GPU that a share fits on.
    #[must_use]
    pub fn fullest(&self, milli: i64) -> Option<usize> {
        let fitting = self.gpus().iter().enumerate().filter(|(_, f)| **f >= milli);
        fitting.min_by_key(|(_, f)| **f).map(|(at, _)| at)
    }

    /// The first GPUs that the pod fits on, as peers take them that do not choose sets; the fullest one for a share.
    #[must_use]
    pub fn usual_cards(&self, class: &PodClass) -> Cards {
        if class.gpu_count == 1 {
            return self.fullest(class.gpu_milli).map_or(0, |at| 1 << at);
        }
        let fitting = self.gpus().iter().enumerate().filter(|(_, f)| **f >= class.gpu_milli);
        fitting.take(class.gpu_count).fold(0, |cards, (at, _)| cards | 1 << at)
    }

    /// Puts a pod on these GPUs.
    pub fn place(&mut self, class: &PodClass, cards: Cards) {
        self.change(class, cards, -1);
        each(cards).for_each(|at| self.pods_on[at] += 1);
        if let Some(count) = size_slot(class) {
            self.pods_by_size[count] += 1;
        }
    }

    /// Takes the pod away again.
    pub fn remove(&mut self, class: &PodClass, cards: Cards) {
        self.change(class, cards, 1);
        each(cards).for_each(|at| self.pods_on[at] -= 1);
        if let Some(count) = size_slot(class) {
            self.pods_by_size[count] -= 1;
        }
    }

    fn change(&mut self, class: &PodClass, cards: Cards, sign: i64) {
        self.cpu_milli += sign * class.cpu_milli;
        self.memory_mib += sign * class.memory_mib;
        for at in each(cards) {
            self.free[at] += sign * class.gpu_milli;
            debug_assert!((0..=GPU_MILLI).contains(&self.free[at]), "GPU {at} has {} milli free", self.free[at]);
        }
    }
}

/// The positions of some cards.
pub fn each(cards: Cards) -> impl Iterator<Item = usize> {
    (0..GPUS_MAX).filter(move |at| cards >> at & 1 == 1)
}

/// Where a pod is counted in [`Host::pods_by_size`].
#[must_use]
pub fn size_slot(class: &PodClass) -> Option<usize> {
    (class.gpu_count > 0).then_some(if class.is_share() { 0 } else { class.gpu_count })
}
