//! What is left behind: one number for how useful a node's remainder is to the pods that are expected.
//!
//! A placement is judged by the worth of the node after it, less the worth before. So the choice of node and the choice of
//! cards on it are one decision. All integers; the expectation is built once and then only read.

pub mod learned;
pub mod prices;
pub mod rooms;

use std::sync::Arc;

use rooms::Rooms;

/// Milli-GPU of one GPU.
pub const GPU_MILLI: u32 = 1000;

/// Most that scarce room for a pod counts, in millionths of the pod's size: an eighth of it. Where large pods come often their price
/// would drown everything else.
const SCARCE_MOST: i64 = 125_000;

/// A kind of pod that is expected, as far as it matters to what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Typical {
    /// GPUs; 0 for a pod that takes only CPU and memory.
    pub gpu_count: u32,
    /// Of each of its GPUs; 1000 is all of it.
    pub gpu_milli: u32,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
}

impl Typical {
    /// Milli-GPU of all its GPUs.
    fn size_milli(&self) -> u64 {
        u64::from(self.gpu_milli).saturating_mul(u64::from(self.gpu_count))
    }

    /// How many such pods find room where `slots` GPUs, or parts of GPUs, of its size are free; none for a pod without GPUs.
    fn room(&self, slots: u64, cpu_milli: u64) -> u64 {
        let by_gpu = slots.checked_div(u64::from(self.gpu_count)).unwrap_or(0);
        by_gpu.min(cpu_milli.checked_div(self.cpu_milli).unwrap_or(by_gpu))
    }
}

/// A kind of pod and its part of all that are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weighed {
    kind: Typical,
    /// Parts per million of all pods.
    chance: i64,
    /// What one more such pod counts in the room that is kept.
    keep: i64,
    /// The same for pods of several GPUs, however rare.
    keep_multi: i64,
    /// What one more counts beyond that while its room is scarce.
    keep_scarce: i64,
    /// How often it comes, in the units of [`Expected::asked_milli`].
    count: u64,
    /// Whether the cluster has little room left for it.
    is_scarce: bool,
}

/// How useful a remainder is. Only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// To all kinds, in millionths of a milli-GPU.
    all: i64,
    /// To kinds of several GPUs, before its weight.
    multi: i64,
    /// To those of them that are short of room.
    scarce: i64,
}

/// Who takes from a remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// A pod of whole GPUs, or of none.
    Whole,
    /// A pod of shares.
    Share,
}

/// How much each part of the worth counts. What each does, and what was tried, stands in the policy's document and in bench/README.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Of the most frequent kinds: how many of a thousand pods they must cover.
    pub covered_permille: u32,
    /// Idle GPU that an expected pod could not use counts against the node.
    pub unusable_permille: u32,
    /// Room for further expected pods counts for it.
    pub room_permille: u32,
    /// How much more the room of pods of several GPUs counts, per further GPU.
    pub multi_permille: u32,
    /// The same where a share asks: it finds another card more easily than a pod of whole GPUs does.
    pub multi_share_permille: u32,
    /// How much more the room of such pods counts while the cluster has little of it; shares do not ask for more than above.
    pub scarce_permille: u32,
    /// It has little when it has room for at most so many times the root of the pods that a cluster full of this mix has at once.
    pub scarce_roots: u32,
    /// Pieces of GPUs that no mix of expected shares fills.
    pub waste_permille: u32,
    /// Differences below so many milli-GPU do not count: then the fixed order of nodes decides, which keeps the last ones free.
    pub step_milli: u32,
}

/// What is expected. Equal expectations value everything alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    kinds: Vec<Weighed>,
    waste: Vec<i64>,
    tuning: Tuning,
    /// The kinds of several GPUs, in the order of `kinds`.
    large: Arc<[Typical]>,
    /// What all kinds ask for together, each as often as it comes.
    asked_milli: u128,
}

/// What is free on a node.
#[derive(Debug, Clone, Copy)]
pub struct Remainder<'a> {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Free milli of every usable GPU.
    pub gpus: &'a [u32],
}

impl Expected {
    /// From kinds of pods and how often each is expected. Memory is no part of it: it seldom binds first.
    #[must_use]
    pub fn of(counts: &[(Typical, u64)], tuning: Tuning) -> Self {
        let mut sorted: Vec<(Typical, u64)> = counts.to_vec();
        sorted.sort_by_key(|(kind, count)| std::cmp::Reverse((*count, *kind)));
        let all: u64 = sorted.iter().map(|(_, count)| *count).sum();
        let goal = all.saturating_mul(u64::from(tuning.covered_permille));
        let mut before = 0_u64;
        let mut is_covered = Vec::new();
        for (_, count) in &sorted {
            is_covered.push(before.saturating_mul(1000) < goal);
            before = before.saturating_add(*count);
        }
        let covered: u64 = sorted.iter().zip(&is_covered).filter(|(_, is)| **is).map(|((_, count), _)| count).sum();
        let ppm = |count: u64, of: u64| {
            i64::try_from(count.saturating_mul(1_000_000).checked_div(of).unwrap_or(0)).unwrap_or(0)
        };
        let weigh = |((kind, count), is_covered): (&(Typical, u64), &bool)| {
            let chance = if *is_covered { ppm(*count, covered) } else { 0 };
            let size = i64::try_from(kind.size_milli()).unwrap_or(i64::MAX);
            let further = i64::from(kind.gpu_count.saturating_sub(1));
            let keep = i64::from(tuning.room_permille) * chance * size / 1000;
            let keep_multi = ppm(*count, all) * size * further;
            let keep_scarce = (i64::from(tuning.scarce_permille) * keep_multi / 1000).min(size * SCARCE_MOST);
            let weighed =
                Weighed { kind: *kind, chance, keep, keep_multi, keep_scarce, count: *count, is_scarce: false };
            (chance > 0 || keep_multi > 0).then_some(weighed)
        };
        let shares: Vec<(u32, u64)> = counts
            .iter()
            .filter(|(kind, _)| kind.gpu_count == 1 && kind.gpu_milli < GPU_MILLI)
            .fold(std::collections::BTreeMap::new(), |mut sums: std::collections::BTreeMap<u32, u64>, (kind, count)| {
                *sums.entry(kind.gpu_milli).or_default() += count;
                sums
            })
            .into_iter()
            .collect();
        let kinds: Vec<Weighed> = sorted.iter().zip(&is_covered).filter_map(weigh).collect();
        let large = kinds.iter().map(|weighed| weighed.kind).filter(|kind| kind.gpu_count > 1).collect();
        let asked = counts.iter().map(|(kind, count)| u128::from(*count) * u128::from(kind.size_milli()));
        Self { kinds, waste: prices::waste(&shares), tuning, large, asked_milli: asked.sum() }
    }

    /// The kinds of several GPUs that are expected: those whose room is counted.
    #[must_use]
    pub fn large(&self) -> &Arc<[Typical]> {
        &self.large
    }

    /// The kinds that the cluster had little room for when it was last looked at.
    pub fn scarce(&self) -> impl Iterator<Item = Typical> {
        self.kinds.iter().filter(|weighed| weighed.is_scarce).map(|weighed| weighed.kind)
    }

    /// The same expectation as the cluster's room is now; `None` where that makes no difference, or the room was counted for others.
    #[must_use]
    pub fn seeing(&self, rooms: &Rooms) -> Option<Self> {
        if !rooms.is_for(&self.large) {
            return None;
        }
        let mut other = None;
        let mut counts = rooms.counts();
        for (at, weighed) in self.kinds.iter().enumerate().filter(|(_, weighed)| weighed.kind.gpu_count > 1) {
            let is_scarce = counts.next().is_some_and(|room| self.is_short_of(weighed, room, rooms.gpu_count()));
            if is_scarce != weighed.is_scarce
                && let Some(cell) = other.get_or_insert_with(|| self.clone()).kinds.get_mut(at)
            {
                cell.is_scarce = is_scarce;
            }
        }
        other
    }

    /// Whether there is little room for a kind. Of pods that come and go by chance, as many more or fewer are there as the root of their
    /// number: room beyond a few times that is hardly ever missed. What is scarce stays so until there is twice as much as made it
    /// scarce: every change costs a judgement of all nodes.
    fn is_short_of(&self, weighed: &Weighed, room: u64, gpu_count: u64) -> bool {
        let asked = u128::from(weighed.count).saturating_mul(u128::from(gpu_count)).saturating_mul(GPU_MILLI.into());
        let at_once = asked.checked_div(self.asked_milli).unwrap_or(0).max(1);
        let limit = at_once.isqrt().saturating_mul(self.tuning.scarce_roots.into());
        let limit = if weighed.is_scarce { limit.saturating_mul(2) } else { limit };
        u128::from(room) <= limit && self.tuning.scarce_permille > 0
    }

    /// How useful the remainder is.
    #[must_use]
    pub fn worth(&self, left: Remainder<'_>) -> Worth {
        let all: i64 = left.gpus.iter().map(|f| i64::from(*f)).sum();
        let mut unusable = 0_i64;
        let (mut room, mut multi, mut scarce) = (0_i64, 0_i64, 0_i64);
        for Weighed { kind, chance, keep, keep_multi, keep_scarce, is_scarce, .. } in &self.kinds {
            if kind.gpu_count == 0 || kind.gpu_milli == 0 {
                unusable += chance * all;
                continue;
            }
            let (mut small, mut fitting, mut slots) = (0_i64, 0_u32, 0_u64);
            for free in left.gpus {
                if *free < kind.gpu_milli {
                    small += i64::from(*free);
                } else {
                    fitting += 1;
                    slots += u64::from(free.checked_div(kind.gpu_milli).unwrap_or(0));
                }
            }
            let is_met = fitting >= kind.gpu_count && left.cpu_milli >= kind.cpu_milli;
            unusable += chance * if is_met { small } else { all };
            let count = i64::try_from(kind.room(slots, left.cpu_milli)).unwrap_or(0);
            room += keep * count;
            multi += keep_multi * count;
            scarce += if *is_scarce { keep_scarce * count } else { 0 };
        }
        let waste: i64 = left.gpus.iter().map(|f| self.waste_of(*f)).sum();
        let Tuning { unusable_permille, waste_permille, .. } = self.tuning;
        // The waste is in millionths of a GPU, which is a thousand millionths of a milli-GPU.
        let all = room - i64::from(unusable_permille) * unusable / 1000 - i64::from(waste_permille) * waste;
        Worth { all, multi, scarce }
    }

    /// What a placement does to the worth, in whole steps.
    #[must_use]
    pub fn steps(&self, taker: Taker, before: Worth, after: Worth) -> i64 {
        let (permille, scarce) = match taker {
            Taker::Whole => (self.tuning.multi_permille, after.scarce.saturating_sub(before.scarce)),
            Taker::Share => (self.tuning.multi_share_permille, 0),
        };
        let multi = after.multi.saturating_sub(before.multi).saturating_mul(i64::from(permille)) / 1000;
        let multi = multi.saturating_add(scarce);
        let step = i64::from(self.tuning.step_milli.max(1)).saturating_mul(1_000_000);
        after.all.saturating_sub(before.all).saturating_add(multi).div_euclid(step)
    }

    fn waste_of(&self, free: u32) -> i64 {
        usize::try_from(free).ok().and_then(|at| self.waste.get(at)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
