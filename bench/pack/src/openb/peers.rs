//! What others do, re-implemented from their sources as scores over the same hosts and pods. All but FGD and HAMi put a share
//! on the fullest GPU that it fits on, and whole GPUs on the first free ones.
//!
//! Source of the first six: the FGD artefact's `pkg/simulator/plugin`; HAMi: `pkg/scheduler/policy` and its chart's defaults.

use std::str::FromStr;

use anyhow::{Error, bail};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use super::fgd::Fgd;
use super::host::{Cards, Host, size_slot};
use super::judge::{Change, Judge, Offer, floor};
use super::trace::{PodClass, Trace};
use super::{GPU_MILLI, GPUS_MAX};
use crate::draw::draws;

/// A policy of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Fragmentation gradient descent.
    Fgd,
    /// The least CPU and GPU left, half and half.
    BestFit,
    /// The first host in order.
    FirstFit,
    /// A shared GPU before a free GPU of a used host before an idle host.
    GpuPacking,
    /// Hosts that already have pods of the same GPU count.
    GpuClustering,
    /// The least dot product of what is free and what is asked.
    DotProduct,
    /// In-tree `MostAllocated` with gpu 3, cpu 1, memory 1.
    MostAllocated,
    /// In-tree `LeastAllocated` of cpu and memory: what a cluster has that configures nothing.
    LeastAllocated,
    /// The fullest host by slots, cores and memory of its GPUs, and on it the emptiest GPU: its chart's defaults.
    Hami,
    /// The same with the fullest GPU.
    HamiBinpack,
    /// Any host.
    Random,
}

/// Names on the command line.
pub const NAMES: [(&str, Peer); 11] = [
    ("fgd", Peer::Fgd),
    ("bestfit", Peer::BestFit),
    ("firstfit", Peer::FirstFit),
    ("gpupacking", Peer::GpuPacking),
    ("clustering", Peer::GpuClustering),
    ("dotprod", Peer::DotProduct),
    ("mostallocated", Peer::MostAllocated),
    ("leastallocated", Peer::LeastAllocated),
    ("hami", Peer::Hami),
    ("hami-binpack", Peer::HamiBinpack),
    ("random", Peer::Random),
];

impl FromStr for Peer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, peer)) => Ok(*peer),
            None => bail!("{name:?} is none of {}", NAMES.map(|(known, _)| known).join(", ")),
        }
    }
}

/// The judge of a peer. `seed` matters to [`Peer::Random`] only.
#[must_use]
pub fn judge(peer: Peer, trace: &Trace, seed: u64) -> Box<dyn Judge> {
    match peer {
        Peer::Fgd => Box::new(Fgd::of(trace)),
        Peer::Random => Box::new(AtRandom(draws(seed ^ 0xa5a5))),
        _ => Box::new(Plain(peer)),
    }
}

struct Plain(Peer);

/// Largest host of the cluster that the artefact normalises by: 128 cores and 8 GPUs.
const CPU_MAX: f64 = 128_000.0;
const GPU_MAX: f64 = 8000.0;

impl Judge for Plain {
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer> {
        let usual = host.usual_cards(class);
        let cards = if self.0 == Peer::Hami { emptiest(host, class) } else { usual };
        let free = host.free_milli() as f64;
        let asked = class.demand_milli() as f64;
        let score = match self.0 {
            Peer::BestFit => {
                let cpu_left = (host.cpu_milli - class.cpu_milli) as f64 / CPU_MAX;
                floor((1.0 - (cpu_left + (free - asked) / GPU_MAX) * 0.5) * 100.0)
            }
            Peer::DotProduct => {
                let cpu = host.cpu_milli as f64 / CPU_MAX * (class.cpu_milli as f64 / CPU_MAX);
                floor(100.0 * (1.0 - (cpu + free / GPU_MAX * (asked / GPU_MAX)) / 2.0))
            }
            Peer::GpuPacking => packing(host, class),
            Peer::GpuClustering => clustering(host, class),
            Peer::MostAllocated => most_allocated(host, class),
            Peer::LeastAllocated => least_allocated(host, class),
            Peer::Hami | Peer::HamiBinpack => hami(host),
            Peer::FirstFit | Peer::Fgd | Peer::Random => 0,
        };
        Some(Offer { score, cards })
    }
}

struct AtRandom(ChaCha8Rng);

impl Judge for AtRandom {
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer> {
        let mut cards: Vec<usize> = (0..host.gpus().len()).filter(|at| host.free[*at] >= class.gpu_milli).collect();
        rand::seq::SliceRandom::shuffle(cards.as_mut_slice(), &mut self.0);
        let cards = cards.into_iter().take(class.gpu_count).fold(0, |all, at| all | 1 << at);
        Some(Offer { score: i64::from(self.0.next_u32()), cards })
    }

    fn arrived(&mut self, _hosts: &[Host], _class: &PodClass) -> Change {
        // Every pod draws afresh.
        Change::All
    }
}

fn packing(host: &Host, class: &PodClass) -> i64 {
    if class.gpu_count == 0 {
        return 0;
    }
    let idle = i64::try_from(host.idle_gpu_count()).unwrap_or(0);
    if host.idle_gpu_count() == host.capacity.gpu_count {
        return (33 - idle).max(idle);
    }
    let mut free = host.free;
    let (mut opened, mut percent) = (0, 0);
    for _ in 0..class.gpu_count {
        let fitting = free.iter_mut().filter(|f| **f >= class.gpu_milli);
        let Some(fullest) = fitting.min_by_key(|f| **f) else { break };
        opened += i64::from(*fullest == GPU_MILLI);
        percent += *fullest * 100 / GPU_MILLI;
        *fullest = -1;
    }
    if opened > 0 { (50 - opened).max(33) } else { (100 - percent / 10).max(50) }
}

fn clustering(host: &Host, class: &PodClass) -> i64 {
    let Some(slot) = size_slot(class) else { return 0 };
    let kinds = host.pods_by_size.iter().filter(|count| **count > 0).count();
    let full = 25 * (8000 - host.free_milli()) / 8000;
    full + match (host.pods_by_size[slot] > 0, kinds) {
        (true, 1) => 75,
        (true, _) => 50,
        (false, 0) => 25,
        (false, _) => 0,
    }
}

fn percent(part: i64, whole: i64) -> i64 {
    (part * 100).checked_div(whole).unwrap_or(0)
}

fn most_allocated(host: &Host, class: &PodClass) -> i64 {
    let installed = GPU_MILLI * i64::try_from(host.capacity.gpu_count).unwrap_or(0);
    let cpu = percent(host.capacity.cpu_milli - host.cpu_milli + class.cpu_milli, host.capacity.cpu_milli);
    let memory = percent(host.capacity.memory_mib - host.memory_mib + class.memory_mib, host.capacity.memory_mib);
    (cpu + memory + 3 * percent(installed - host.free_milli() + class.demand_milli(), installed)) / 5
}

fn least_allocated(host: &Host, class: &PodClass) -> i64 {
    let cpu = percent(host.cpu_milli - class.cpu_milli, host.capacity.cpu_milli);
    (cpu + percent(host.memory_mib - class.memory_mib, host.capacity.memory_mib)) / 2
}

/// Pods that HAMi lets on one GPU by default (`deviceSplitCount`).
const SPLIT: f64 = 10.0;

/// Ten times the sum of three ratios in use. GPU memory is no column of the trace; it stands as the cores do.
fn hami(host: &Host) -> i64 {
    let gpus = host.capacity.gpu_count as f64;
    let slots = f64::from(host.pods_on.iter().sum::<u32>()) / (gpus * SPLIT).max(1.0);
    let cores = 1.0 - host.free_milli() as f64 / (gpus * GPU_MILLI as f64).max(1.0);
    floor(10.0 * (slots + 2.0 * cores))
}

fn emptiest(host: &Host, class: &PodClass) -> Cards {
    let mut fitting: Vec<usize> = (0..GPUS_MAX.min(host.gpus().len())).collect();
    fitting.retain(|at| host.free[*at] >= class.gpu_milli);
    fitting.sort_by_key(|at| (std::cmp::Reverse(host.free[*at]), *at));
    fitting.into_iter().take(class.gpu_count).fold(0, |cards, at| cards | 1 << at)
}
