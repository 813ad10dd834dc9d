//! Cards for shares: which card takes which share, so that no card holds more than it has.
//!
//! Cores and memory both bind. Two rules follow HAMi, whose users write the same requests: a share without a claim on cores does not go
//! where all cores are claimed, and a share of all cores wants the card for itself.
//! Source: github.com/Project-HAMi/HAMi `pkg/scheduler/score.go`, `fitInDevices`. Checked: 2026-11-21.

use std::cmp::Reverse;

use berth_model::{GpuIndex, GpuSet, MiB};

use crate::demand::{Share, ShareMemory, ShareSlot};
use crate::device::Portion;
use crate::place::Judge;

/// A card that shares may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Which.
    pub index: GpuIndex,
    /// Its memory, where the report says.
    pub memory: Option<MiB>,
    /// What its shares may add up to, with the policy's over-commit; memory is 0 where it is not known.
    pub limit: Portion,
    /// What is taken.
    pub taken: Portion,
    /// By how many shares.
    pub share_count: u32,
}

impl Card {
    /// What the share takes here; `None` where that cannot be known.
    #[must_use]
    pub fn portion(&self, share: Share) -> Option<Portion> {
        let memory = match share.memory {
            ShareMemory::Nothing => MiB(0),
            ShareMemory::Exactly(memory) => memory,
            ShareMemory::All => self.memory?,
        };
        Some(Portion { cores_percent: share.cores_percent, memory })
    }

    /// Whether the cores do, apart from the memory.
    #[must_use]
    pub fn has_cores(&self, portion: Portion) -> bool {
        let free = self.limit.minus(self.taken).cores_percent;
        let wants_all = portion.cores_percent >= self.limit.cores_percent;
        portion.cores_percent <= free && free > 0 && (!wants_all || self.share_count == 0)
    }

    /// Whether the memory does, apart from the cores.
    #[must_use]
    pub fn has_memory(&self, portion: Portion) -> bool {
        portion.memory <= self.limit.minus(self.taken).memory
    }

    fn with(self, portion: Portion) -> Self {
        Self { taken: self.taken.plus(portion), share_count: self.share_count.saturating_add(1), ..self }
    }

    /// What is taken of it at most of cores and memory, in parts per million: how full it is.
    #[must_use]
    pub fn fullness_ppm(&self) -> u64 {
        let of = |part: u64, whole: u64| part.saturating_mul(1_000_000).checked_div(whole).unwrap_or(0);
        let cores = of(u64::from(self.taken.cores_percent), u64::from(self.limit.cores_percent));
        cores.max(of(self.taken.memory.0, self.limit.memory.0))
    }
}

/// One way to place one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The card as it is.
    pub before: Card,
    /// The card with the share.
    pub after: Card,
}

/// The greatest is taken; equal ones go to the lowest position. Until there is a value of what is left: the fullest card that fits,
/// a shared one before a free one.
#[must_use]
pub fn worth(offer: &Offer) -> i64 {
    let fullness = i64::try_from(offer.after.fullness_ppm()).unwrap_or(i64::MAX);
    let is_shared = i64::from(offer.before.share_count > 0);
    is_shared.saturating_mul(10_000_000).saturating_add(fullness)
}

/// Steps of the search: the first way down is greedy, and more than a few turns are needed by contrived pods only.
const STEPS_MAX: u32 = 20_000;

/// What bounds one search.
#[derive(Debug)]
pub struct Search<'a> {
    /// What the set of all the pod's cards must be.
    pub judge: Judge<'a>,
    /// Cards that the pod has whole: they belong to its set.
    pub whole: GpuSet,
    /// How many free cards may be opened: pods whose devices nobody knows count against them.
    pub free_count_max: u32,
}

impl Search<'_> {
    /// A card for every slot, in their order; `None` where there is no way, or none was found in the bounded search.
    #[must_use]
    pub fn place(
        &self,
        cards: &mut [Card],
        slots: &[ShareSlot],
        worth: &dyn Fn(&Offer) -> i64,
    ) -> Option<Vec<GpuIndex>> {
        let mut placed = Vec::with_capacity(slots.len());
        let mut steps = 0;
        self.down(cards, slots, worth, &mut placed, &mut steps).then_some(placed)
    }

    fn down(
        &self,
        cards: &mut [Card],
        slots: &[ShareSlot],
        worth: &dyn Fn(&Offer) -> i64,
        placed: &mut Vec<GpuIndex>,
        steps: &mut u32,
    ) -> bool {
        let Some(slot) = slots.get(placed.len()) else { return true };
        for (at, after) in self.offers(cards, slot, placed, worth) {
            *steps = steps.saturating_add(1);
            if *steps > STEPS_MAX {
                return false;
            }
            let Some(card) = cards.get_mut(at) else { continue };
            let before = std::mem::replace(card, after);
            placed.push(before.index);
            if self.down(cards, slots, worth, placed, steps) {
                return true;
            }
            placed.pop();
            if let Some(card) = cards.get_mut(at) {
                *card = before;
            }
        }
        false
    }

    /// Where the next share may go, best first.
    fn offers(
        &self,
        cards: &[Card],
        slot: &ShareSlot,
        placed: &[GpuIndex],
        worth: &dyn Fn(&Offer) -> i64,
    ) -> Vec<(usize, Card)> {
        let apart = usize::try_from(slot.apart_from).unwrap_or(usize::MAX);
        let own = placed.iter().copied().fold(self.whole, GpuSet::with);
        let opened = cards.iter().filter(|c| c.share_count > 0 && placed.contains(&c.index)).filter(|c| {
            // Every share on it is of this pod.
            placed.iter().filter(|p| **p == c.index).count() == usize::try_from(c.share_count).unwrap_or(usize::MAX)
        });
        let may_open = u32::try_from(opened.count()).unwrap_or(u32::MAX) < self.free_count_max;
        let mut offers: Vec<(i64, usize, Card)> = Vec::new();
        for (at, card) in cards.iter().enumerate() {
            let is_apart = placed.iter().rev().take(apart).all(|p| *p != card.index);
            let Some(portion) = card.portion(slot.share) else { continue };
            let fits = is_apart
                && (card.share_count > 0 || may_open)
                && card.has_cores(portion)
                && card.has_memory(portion)
                && self.judge.satisfies(own.with(card.index));
            if fits {
                let after = card.with(portion);
                offers.push((worth(&Offer { before: *card, after }), at, after));
            }
        }
        offers.sort_by_key(|(worth, at, _)| (Reverse(*worth), *at));
        offers.into_iter().map(|(_, at, after)| (at, after)).collect()
    }
}
