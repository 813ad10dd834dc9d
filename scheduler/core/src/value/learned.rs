//! What is expected, learned from the pods that came: the newest count most, and those of long ago not at all.
//!
//! A value of the pods alone. Replicas that know the same pods expect the same, in whatever order they heard of them.

use std::collections::BTreeMap;

use berth_model::MiB;

use super::{GPU_MILLI, Typical};
use crate::demand::{Shape, ShareMemory};

/// Fewer pods than these say nothing: nodes are then filled as if nothing were expected. So few say more than nothing: with 50 a real
/// trace fills a cluster to half a point less.
const PODS_MIN: usize = 8;
/// How much a pod counts in each quarter of the window, newest first.
const WEIGHTS: [u64; 4] = [8, 4, 2, 1];
/// Units of one weight, so that the parts of a seed are not lost to rounding.
const UNIT: u64 = 1000;
/// Most kinds of pods; each costs every judgement some nanoseconds a GPU. Real traces show 150, of which 35 are 95 %.
const KINDS_MAX: usize = 128;
/// Pods whose cores differ by less are of one kind.
const CPU_MILLI_STEP: u64 = 1000;
/// A mix that differs by less is not worth judging all nodes anew: of a thousand pods, so many are of another kind. The mix of 1600 pods
/// drawn from one source differs by half of it from draw to draw; with steps of 50 or 100 a real trace packs no better.
const STEP_PERMILLE: u64 = 200;

/// What of a pod matters to those that expect more of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// GPUs, whole or of each a share.
    pub gpu_count: u32,
    /// Of each the percent of its compute: 100 of a whole one, 0 for no claim.
    pub cores_percent: u32,
    /// Of each the memory; `None` for no claim.
    pub memory: Option<MiB>,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
}

impl Ask {
    /// Of a pod with GPUs; `None` for MIG devices, for which their cards' own tables say what is left, and for pods without devices.
    #[must_use]
    pub fn of(shape: &Shape) -> Option<Self> {
        let cpu_milli = shape.cpu_milli.div_ceil(CPU_MILLI_STEP).saturating_mul(CPU_MILLI_STEP);
        if shape.gpu_count > 0 {
            return Some(Self { gpu_count: shape.gpu_count, cores_percent: 100, memory: None, cpu_milli });
        }
        let cores_percent = shape.shares.iter().map(|slot| slot.share.cores_percent).max()?;
        let memory = shape.shares.iter().map(|slot| slot.share.memory).max()?;
        let (cores_percent, memory) = match memory {
            ShareMemory::Nothing => (cores_percent, None),
            ShareMemory::Exactly(memory) => (cores_percent, Some(memory)),
            ShareMemory::All => (100, None),
        };
        Some(Self { gpu_count: u32::try_from(shape.shares.len()).ok()?, cores_percent, memory, cpu_milli })
    }

    /// Its kind, where a card has `card` of memory; `None` where a share is told by memory alone and no card is known.
    #[must_use]
    pub fn kind(&self, card: Option<MiB>) -> Option<Typical> {
        let by_memory = |(memory, card): (MiB, MiB)| memory.0.saturating_mul(1000).div_ceil(card.0);
        let of_memory = self.memory.zip(card.filter(|card| card.0 > 0)).map_or(0, by_memory);
        let milli = u64::from(self.cores_percent).saturating_mul(10).max(of_memory).min(u64::from(GPU_MILLI));
        let gpu_milli = u32::try_from(milli).ok().filter(|milli| *milli > 0)?;
        Some(Typical { gpu_count: self.gpu_count, gpu_milli, cpu_milli: self.cpu_milli })
    }
}

/// After so many pods it is worth looking whether the mix is another.
pub const LOOK_PODS: u32 = 8;

/// Kinds of pods and how much each counts. Equal mixes are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mix {
    /// In order of kind.
    counts: Vec<(Typical, u64)>,
}

impl Mix {
    /// The mix of the newest pods: those of the last quarter of `window` count eight times those of the first. What is missing to a
    /// full window counts as pods of the seed, which came before all others.
    ///
    /// Without a seed a few pods are no mix.
    #[must_use]
    pub fn of(newest_first: impl Iterator<Item = Typical>, window: usize, seed: &[(Typical, u64)]) -> Self {
        let mut counts: BTreeMap<Typical, u64> = BTreeMap::new();
        let mut pods = 0_usize;
        for kind in newest_first.take(window) {
            let count = counts.entry(kind).or_default();
            *count = count.saturating_add(weight(pods, window).saturating_mul(UNIT));
            pods = pods.saturating_add(1);
        }
        if seed.is_empty() && pods < PODS_MIN {
            return Self::default();
        }
        let before: u64 = (pods..window).map(|rank| weight(rank, window)).sum();
        let all: u64 = seed.iter().map(|(_, count)| *count).sum();
        for (kind, count) in seed {
            let part = before.saturating_mul(UNIT).saturating_mul(*count).checked_div(all).unwrap_or(0);
            let known = counts.entry(*kind).or_default();
            *known = known.saturating_add(part);
        }
        let mut counts: Vec<(Typical, u64)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        counts.sort_unstable_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
        counts.truncate(KINDS_MAX);
        counts.sort_unstable();
        Self { counts }
    }

    /// Kinds and what each counts, in order of kind.
    #[must_use]
    pub fn counts(&self) -> &[(Typical, u64)] {
        &self.counts
    }

    /// Every kind's part of the whole in parts per million, the greatest first.
    #[must_use]
    pub fn parts(&self) -> Vec<(Typical, u64)> {
        let mut parts: Vec<(Typical, u64)> = self.ppm().into_iter().collect();
        parts.sort_unstable_by_key(|(kind, part)| (std::cmp::Reverse(*part), *kind));
        parts
    }

    /// Whether the other is different enough to be worth a change.
    #[must_use]
    pub fn is_far_from(&self, other: &Self) -> bool {
        let (own, others) = (self.ppm(), other.ppm());
        let of = |parts: &BTreeMap<Typical, u64>, kind: &Typical| parts.get(kind).copied().unwrap_or(0);
        let kinds: std::collections::BTreeSet<&Typical> = own.keys().chain(others.keys()).collect();
        let apart: u64 = kinds.into_iter().map(|kind| of(&own, kind).abs_diff(of(&others, kind))).sum();
        // Who left one kind came to another: every change is seen twice.
        self.counts.is_empty() != other.counts.is_empty() || apart / 2 >= STEP_PERMILLE.saturating_mul(1000)
    }

    /// A number that is the same for equal mixes and hardly ever for others, below 2^52 so that a float holds it. Zero for none.
    ///
    /// Source: FNV-1a, draft-eastlake-fnv.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        if self.counts.is_empty() {
            return 0;
        }
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for (kind, count) in &self.counts {
            let words = [u64::from(kind.gpu_count), u64::from(kind.gpu_milli), kind.cpu_milli, *count];
            for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        hash >> 12
    }

    fn ppm(&self) -> BTreeMap<Typical, u64> {
        let all: u64 = self.counts.iter().map(|(_, count)| *count).sum();
        let part = |count: u64| count.saturating_mul(1_000_000).checked_div(all).unwrap_or(0);
        self.counts.iter().map(|(kind, count)| (*kind, part(*count))).collect()
    }
}

/// What the pod of this rank counts; rank 0 is the newest.
fn weight(rank: usize, window: usize) -> u64 {
    let quarter = rank.saturating_mul(WEIGHTS.len()).checked_div(window).unwrap_or(0);
    WEIGHTS.get(quarter).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
