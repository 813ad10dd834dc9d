//! Jobs that come and go, the same for every policy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use berth_model::GpuSet;
use rand::Rng;

use super::ideal::Ideal;
use super::machine::GPUS;
use super::policy::Policy;
use crate::draw::draws;

/// Sizes of jobs and how often in percent.
pub const SIZES: [(u32, u32); 4] = [(1, 45), (2, 25), (4, 20), (8, 10)];

/// How much comes.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// Nodes of 8 GPUs.
    pub nodes: usize,
    /// Jobs, of which the first fifth is not counted.
    pub jobs: usize,
    /// GPUs asked for at any moment, against those installed.
    pub load: f64,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { nodes: 64, jobs: 20_000, load: 0.9 }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Share of all jobs that got GPUs.
    pub accepted: f64,
    /// Share of the multi-GPU jobs that got GPUs which got an ideal set.
    pub at_ideal: f64,
    /// Mean ring of the multi-GPU jobs that got GPUs, against the best of their size.
    pub ring_quality: f64,
}

struct Job {
    size: u32,
    at: f64,
    life: f64,
}

fn jobs(protocol: Protocol, seed: u64) -> Vec<Job> {
    let mut draws = draws(seed);
    let mean: f64 = SIZES.iter().map(|(size, share)| f64::from(size * share) / 100.0).sum();
    let rate = protocol.load * (GPUS * protocol.nodes) as f64 / mean;
    let mut now = 0.0;
    let mut one = || {
        let mut ticket = draws.random_range(0..100);
        let size = SIZES.iter().find(|(_, share)| {
            let is_here = ticket < *share;
            ticket = ticket.saturating_sub(*share);
            is_here
        });
        let mut exponential = || -(1.0 - draws.random::<f64>()).ln();
        now += exponential() / rate;
        Job { size: size.map_or(1, |(size, _)| *size), at: now, life: exponential() }
    };
    (0..protocol.jobs).map(|_| one()).collect()
}

/// Replays one seed under a policy.
pub fn replay(protocol: Protocol, seed: u64, ideal: &Ideal, policy: &mut dyn Policy) -> Outcome {
    let mut free = vec![GpuSet::first(GPUS); protocol.nodes];
    // Times are ordered by their bits, which is right for positive ones.
    let mut ends: BinaryHeap<Reverse<(u64, usize, GpuSet)>> = BinaryHeap::new();
    let (mut accepted, mut counted, mut multi, mut at_ideal, mut ring) = (0_u32, 0_u32, 0_u32, 0_u32, 0.0);
    for (number, job) in jobs(protocol, seed).iter().enumerate() {
        while let Some(Reverse((end, node, set))) = ends.peek().copied().filter(|e| e.0.0 <= job.at.to_bits()) {
            let _ = end;
            free[node] = free[node].or(set);
            ends.pop();
        }
        let is_counted = number >= protocol.jobs / 5;
        counted += u32::from(is_counted);
        let Some((node, set)) = policy.place(&free, job.size) else { continue };
        assert!(set.is_subset(free[node]) && set.gpu_count() == job.size, "a policy gave what is not there");
        free[node] = free[node].minus(set);
        ends.push(Reverse(((job.at + job.life).to_bits(), node, set)));
        accepted += u32::from(is_counted);
        if is_counted && job.size > 1 {
            multi += 1;
            at_ideal += u32::from(ideal.is_ideal(set));
            ring += ideal.ring_quality(set);
        }
    }
    let share = |part: f64, whole: u32| part / f64::from(whole.max(1));
    Outcome {
        accepted: share(f64::from(accepted), counted),
        at_ideal: share(f64::from(at_ideal), multi),
        ring_quality: share(ring, multi),
    }
}

#[cfg(test)]
mod tests;
