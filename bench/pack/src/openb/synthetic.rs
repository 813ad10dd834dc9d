//! A small made-up trace of the same kind, for tests: mixed hosts, a few sizes of share, whole GPUs and CPU-only pods.
//! Its numbers are our own; only their proportions follow what GPU clusters show.

use rand::Rng;

use super::GPU_MILLI;
use super::trace::{Capacity, PodClass, Trace};
use crate::draw::draws;

/// Sizes of shares and how often each comes: a few popular odd ones that do not add up to whole GPUs.
const SHARES: [(i64, u32); 8] = [(800, 30), (450, 22), (300, 14), (650, 10), (250, 8), (150, 6), (100, 6), (500, 4)];
/// GPU counts of pods and how often each comes, per thousand: 0 is CPU-only, 1 is split by [`WHOLE`].
const COUNTS: [(usize, u32); 5] = [(0, 130), (1, 850), (2, 10), (4, 4), (8, 6)];
/// Of pods with one GPU, the part per thousand that takes all of it.
const WHOLE: u32 = 560;

/// 60 hosts of four kinds, and pods for about all of their GPUs.
#[must_use]
pub fn trace(seed: u64) -> Trace {
    let host = |cores: i64, gib: i64, gpu_count, model| Capacity {
        cpu_milli: cores * 1000,
        memory_mib: gib * 1024,
        gpu_count,
        model,
    };
    let kinds =
        [(host(96, 384, 8, 0), 28), (host(104, 512, 2, 1), 16), (host(12, 96, 2, 2), 8), (host(96, 768, 8, 3), 8)];
    let hosts: Vec<Capacity> = kinds.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)).collect();
    let models = ["big", "lean", "old", "roomy"].map(str::to_owned).to_vec();
    let mut trace = Trace { hosts, models, classes: Vec::new(), pods: Vec::new() };
    let mut rng = draws(seed);
    let mut asked = 0;
    while asked < trace.installed_milli() {
        let class = pod(&mut rng);
        asked += class.demand_milli();
        let at = trace.classes.iter().position(|c| *c == class).unwrap_or_else(|| {
            trace.classes.push(class);
            trace.classes.len() - 1
        });
        trace.pods.push(at);
    }
    trace
}

fn pod(rng: &mut impl Rng) -> PodClass {
    let gpu_count = *pick(&COUNTS, rng);
    let is_whole = gpu_count > 1 || rng.random_range(0..1000) < WHOLE;
    let gpu_milli = match (gpu_count, is_whole) {
        (0, _) => 0,
        (_, true) => GPU_MILLI,
        (_, false) => *pick(&SHARES, rng),
    };
    let cores = match (gpu_count, is_whole) {
        (0, _) => *pick(&[(4, 3), (8, 2), (32, 1)], rng),
        (1, false) => *pick(&[(3, 2), (6, 2), (8, 1)], rng),
        (count, _) => i64::try_from(count).unwrap_or(1) * *pick(&[(6, 2), (8, 2), (11, 1)], rng),
    };
    PodClass { cpu_milli: cores * 1000, memory_mib: cores * 2048, gpu_count, gpu_milli, models: u64::MAX }
}

fn pick<'a, T>(weighted: &'a [(T, u32)], rng: &mut impl Rng) -> &'a T {
    let mut left = rng.random_range(0..weighted.iter().map(|(_, weight)| weight).sum());
    let chosen = weighted.iter().find(|(_, weight)| {
        let is_here = left < *weight;
        left = left.saturating_sub(*weight);
        is_here
    });
    &chosen.unwrap_or(&weighted[0]).0
}
