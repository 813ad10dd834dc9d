//! What is computed once per kind of machine: how good every GPU set is, what every set of free GPUs is still worth, and which
//! set is the best of a size among the free.

use std::sync::atomic::{AtomicU16, Ordering};

use berth_model::GpuSet;

use super::pairs::Pairs;
use super::rails::Rails;
use super::ring::rings;
use crate::score::Ppm;

/// Most GPUs for which tables are made: 65,536 sets. No machine known has more in one node.
pub(super) const TABLE_GPUS_MAX: usize = 16;

/// How much of a set's quality each thing is, in this order: ring, zones, rails, links. The ring is what a collective runs at; one zone, or
/// as few as the size needs; a rail for every GPU, or for as many as the machine can give; all links inside.
///
/// A thing in which all sets of a size are equal leaves its weight to the next one, so that on machines with NVSwitch, where every ring
/// is as good as any other, zones decide.
const WEIGHTS: [u64; 4] = [80, 10, 5, 5];

/// What decides among sets: a set's own quality counts twice what it keeps for later. Measured with `berth-bench sets`: of one half, one and
/// two times, one half puts the most jobs on an ideal set at an unchanged number of accepted ones.
pub(super) fn worth(quality: Ppm, kept: Ppm) -> u32 {
    quality.0.saturating_mul(2).saturating_add(kept.0)
}

/// The sizes that pods ask for, and how often in percent, when nobody says otherwise.
/// Source: multi-GPU jobs of public traces are nearly all powers of two; the shares are those of the `sets` bench.
pub const SIZES: [(u32, u64); 4] = [(1, 45), (2, 25), (4, 20), (8, 10)];

/// The tables of one fabric.
#[derive(Debug)]
pub(super) struct Table {
    gpu_count: usize,
    /// By set: how good it is, against the best of its size on the idle machine.
    quality: Vec<u32>,
    /// By set of free GPUs: how good the best sets in it are, over the sizes that pods ask for.
    kept: Vec<u32>,
    /// By number of free GPUs: the most of `kept`.
    kept_most: Vec<u32>,
    /// By set of free GPUs and size: the best set, zero while nobody has asked.
    best: Vec<AtomicU16>,
}

impl Table {
    pub(super) fn bytes(gpu_count: usize) -> usize {
        let sets = bit(gpu_count);
        sets.saturating_mul(8).saturating_add(sets.saturating_mul(2).saturating_mul(gpu_count.saturating_add(1)))
    }

    /// Builds quality and kept quality: 65,536 sets in some ten milliseconds; best sets come when they are asked for.
    pub(super) fn of(pairs: &Pairs, rails: &Rails) -> Self {
        let count = pairs.gpu_count;
        let quality = qualities(pairs, rails, &rings(count, &pairs.speeds));
        let kept = kept(count, &quality);
        let kept_most = most_by_count(count, &kept);
        let cells = quality.len().saturating_mul(count.saturating_add(1));
        let best = (0..cells).map(|_| AtomicU16::new(0)).collect();
        Self { gpu_count: count, quality, kept, kept_most, best }
    }

    pub(super) fn quality(&self, set: GpuSet) -> Ppm {
        Ppm(at(&self.quality, set))
    }

    pub(super) fn kept(&self, free: GpuSet) -> Ppm {
        Ppm(at(&self.kept, free))
    }

    /// `kept` against the most that any set of as many free GPUs has.
    pub(super) fn wholeness(&self, free: GpuSet) -> Ppm {
        let most = usize::try_from(free.gpu_count()).ok().and_then(|count| self.kept_most.get(count));
        match most {
            Some(most) if *most > 0 => Ppm::ratio(u64::from(self.kept(free).0), u64::from(*most)),
            _ => Ppm::ONE,
        }
    }

    /// The best set of `size` GPUs in `free`: one load after the first time that anybody asked for this `free`.
    pub(super) fn best(&self, free: GpuSet, size: u32) -> Option<GpuSet> {
        let free = free.and(GpuSet::first(self.gpu_count));
        if size > free.gpu_count() || size == 0 {
            return (size == 0).then_some(GpuSet::EMPTY);
        }
        let known = self.row(free).get(usize::try_from(size).ok()?)?.load(Ordering::Relaxed);
        if known != 0 {
            return Some(GpuSet::from_bits(u32::from(known)));
        }
        self.search(free);
        let found = self.row(free).get(usize::try_from(size).ok()?)?.load(Ordering::Relaxed);
        Some(GpuSet::from_bits(u32::from(found)))
    }

    fn row(&self, free: GpuSet) -> &[AtomicU16] {
        let width = self.gpu_count.saturating_add(1);
        let start = usize::try_from(free.bits()).unwrap_or(usize::MAX).saturating_mul(width);
        self.best.get(start..start.saturating_add(width)).unwrap_or_default()
    }

    /// Finds the best set of every size in `free`, in one walk over its parts: at most 65,536 of them.
    fn search(&self, free: GpuSet) {
        let row = self.row(free);
        let mut found = [(0_u32, GpuSet::EMPTY); TABLE_GPUS_MAX + 1];
        for set in parts(free) {
            let worth = worth(self.quality(set), self.kept(free.minus(set)));
            // Parts come in ascending order: of equal ones the lowest stays.
            let best = usize::try_from(set.gpu_count()).ok().and_then(|size| found.get_mut(size));
            if let Some(best) = best.filter(|(most, known)| worth > *most || known.is_empty()) {
                *best = (worth, set);
            }
        }
        // Two that search at once write the same answers.
        for (cell, (_, set)) in row.iter().zip(found) {
            cell.store(u16::try_from(set.bits()).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Every part of a set, itself among them and the empty one not, in ascending order of bits.
pub(crate) fn parts(of: GpuSet) -> impl Iterator<Item = GpuSet> {
    let of = of.bits();
    let mut part = 0_u32;
    std::iter::from_fn(move || {
        part = part.wrapping_sub(of) & of;
        (part != 0).then(|| GpuSet::from_bits(part))
    })
}

fn bit(position: usize) -> usize {
    u32::try_from(position).ok().and_then(|p| 1_usize.checked_shl(p)).unwrap_or(0)
}

fn at(cells: &[u32], set: GpuSet) -> u32 {
    usize::try_from(set.bits()).ok().and_then(|i| cells.get(i)).copied().unwrap_or(0)
}

fn set_of(bits: usize) -> GpuSet {
    GpuSet::from_bits(u32::try_from(bits).unwrap_or(0))
}

/// How good every set is, against the best of its size.
fn qualities(pairs: &Pairs, rails: &Rails, rings: &[u32]) -> Vec<u32> {
    let facts = facts(pairs, rails, rings);
    let size_of = |bits: usize| usize::try_from(bits.count_ones()).unwrap_or(0);
    let mut spans = vec![[Span::EMPTY; 4]; pairs.gpu_count.saturating_add(1)];
    for (bits, facts) in facts.iter().enumerate() {
        for (span, fact) in spans.get_mut(size_of(bits)).into_iter().flatten().zip(facts) {
            span.take(*fact);
        }
    }
    let weights: Vec<[u64; 4]> = spans.iter().map(weights).collect();
    let mut raw = Vec::with_capacity(facts.len());
    let mut most = vec![0_u64; spans.len()];
    for (bits, facts) in facts.iter().enumerate() {
        let size = size_of(bits);
        let (Some(spans), Some(weights), Some(most)) = (spans.get(size), weights.get(size), most.get_mut(size)) else {
            continue;
        };
        let shares =
            facts.iter().zip(spans).zip(weights).map(|((fact, span), weight)| weight.saturating_mul(span.share(*fact)));
        let value = shares.fold(0, u64::saturating_add);
        *most = value.max(*most);
        raw.push(value);
    }
    // Where nothing tells the sets apart, all are as good as can be.
    let share = |(bits, value): (usize, &u64)| match most.get(size_of(bits)).copied().unwrap_or(0) {
        0 => Ppm::ONE.0,
        most => Ppm::ratio(*value, most).0,
    };
    raw.iter().enumerate().map(share).collect()
}

/// What is looked at in a set, more is better: ring, zones (as parts of [`Ppm::ONE`] per zone), rails, links.
type Facts = [u64; 4];

/// Of every set, the links from the set without its highest GPU.
fn facts(pairs: &Pairs, rails: &Rails, rings: &[u32]) -> Vec<Facts> {
    let mut all: Vec<Facts> = Vec::with_capacity(rings.len());
    for (bits, ring) in rings.iter().enumerate() {
        let set = set_of(bits);
        let inside = set.highest().map_or(0, |highest| {
            let rest = bits.checked_sub(bit(usize::from(highest.0))).and_then(|rest| all.get(rest));
            let links = set.iter().map(|gpu| if gpu == highest { 0 } else { u64::from(pairs.value(gpu, highest)) });
            links.fold(rest.map_or(0, |[_, _, _, inside]| *inside), u64::saturating_add)
        });
        // One GPU has no collective inside the node: rails do not make it better, so that it leaves them to others.
        let rails = if set.gpu_count() > 1 { rails.matched(set).gpu_count } else { 0 };
        let zones = u64::from(Ppm::ONE.0).checked_div(pairs.zone_count(set)).unwrap_or(0);
        all.push([u64::from(*ring), zones, u64::from(rails), inside]);
    }
    all
}

/// Least and most of a thing over all sets of a size.
#[derive(Debug, Clone, Copy)]
struct Span {
    least: u64,
    most: u64,
}

impl Span {
    const EMPTY: Self = Self { least: u64::MAX, most: 0 };

    fn take(&mut self, fact: u64) {
        (self.least, self.most) = (self.least.min(fact), self.most.max(fact));
    }

    /// What nobody of this size can have counts as had.
    fn share(self, fact: u64) -> u64 {
        u64::from(if self.most == 0 { Ppm::ONE } else { Ppm::ratio(fact, self.most) }.0)
    }
}

/// [`WEIGHTS`], with those of things in which all sets are equal moved on.
fn weights(spans: &[Span; 4]) -> [u64; 4] {
    let mut weights = [0; 4];
    let mut moved = 0_u64;
    for ((weight, own), span) in weights.iter_mut().zip(WEIGHTS).zip(spans) {
        moved = moved.saturating_add(own);
        if span.least != span.most {
            *weight = moved;
            moved = 0;
        }
    }
    // What is left at the end is the same for all sets.
    weights
}

/// For every set of free GPUs the quality that the next pod would find, over [`SIZES`]; a size that does not fit finds zero.
fn kept(count: usize, quality: &[u32]) -> Vec<u32> {
    let sizes = SIZES.iter().filter(|(size, _)| usize::try_from(*size).is_ok_and(|s| s <= count));
    let all = sizes.clone().fold(0_u64, |sum, (_, share)| sum.saturating_add(*share)).max(1);
    let mut sums = vec![0_u64; quality.len()];
    for (size, share) in sizes {
        let best = best_within(quality, *size);
        for (sum, best) in sums.iter_mut().zip(best) {
            *sum = sum.saturating_add(share.saturating_mul(u64::from(best)));
        }
    }
    sums.into_iter().map(|sum| u32::try_from(sum.checked_div(all).unwrap_or(0)).unwrap_or(Ppm::ONE.0)).collect()
}

/// By number of GPUs: the most that any set of so many has.
fn most_by_count(count: usize, values: &[u32]) -> Vec<u32> {
    let mut most = vec![0_u32; count.saturating_add(1)];
    for (set, value) in values.iter().enumerate() {
        let cell = usize::try_from(set.count_ones()).ok().and_then(|count| most.get_mut(count));
        if let Some(cell) = cell {
            *cell = (*cell).max(*value);
        }
    }
    most
}

/// For every set the quality of the best set of `size` in it: that of the set itself, or the best after leaving any one GPU out.
fn best_within(quality: &[u32], size: u32) -> Vec<u32> {
    let mut best = vec![0_u32; quality.len()];
    for (set, quality) in quality.iter().enumerate() {
        let mut found = 0;
        if set.count_ones() == size {
            found = *quality;
        } else if set.count_ones() > size {
            let mut rest = set;
            while rest != 0 {
                let one = rest & rest.wrapping_neg();
                rest ^= one;
                found = found.max(best.get(set ^ one).copied().unwrap_or(0));
            }
        }
        if let Some(cell) = best.get_mut(set) {
            *cell = found;
        }
    }
    best
}
