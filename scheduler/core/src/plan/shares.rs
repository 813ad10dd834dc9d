//! Which cards the shares of a pod go to, or why there are none.

use berth_model::{Gpu, GpuSet, MiB};

use super::{Chosen, set_of};
use crate::demand::Shape;
use crate::device::Portion;
use crate::place::share::{Card, Offer, Search};
use crate::place::{Chooser, Judge, Rule};
use crate::policy::{Policy, SharePolicy};
use crate::unfit::Reason;
use crate::view::{Hardware, NodeView};

/// Chooses cards for the shares, and whole GPUs beside them where the pod wants both.
pub(super) fn choose(
    view: &NodeView,
    hardware: &Hardware,
    candidates: GpuSet,
    shape: &Shape,
    (policy, worth): (&Policy, &dyn Fn(&Offer) -> i64),
    chooser: &mut dyn Chooser,
) -> Result<Chosen, Reason> {
    let site = Site { view, hardware, candidates, shape, policy, worth };
    let rule = Rule::of(shape);
    if shape.gpu_count == 0 {
        return site.place(rule, GpuSet::EMPTY).ok_or_else(|| site.refusal(rule, GpuSet::EMPTY));
    }
    // Shares first: they fill cards that are shared already, and the set has the choice among the others.
    if let Some(shares) = site.place(rule, GpuSet::EMPTY)
        && let Ok(whole) = set_of(view, hardware, candidates.minus(shares.set()), rule, chooser)
        && Judge::of(&hardware.fabric, rule, view.nics_free()).satisfies(whole.or(shares.set()))
    {
        return Ok(Chosen { whole, ..shares });
    }
    let whole = set_of(view, hardware, candidates, rule, chooser)?;
    site.place(rule, whole).ok_or_else(|| site.refusal(rule, whole))
}

/// Where shares are to be placed.
struct Site<'a> {
    view: &'a NodeView,
    hardware: &'a Hardware,
    candidates: GpuSet,
    shape: &'a Shape,
    policy: &'a Policy,
    /// The greatest is taken; equal ones go to the lowest position.
    worth: &'a dyn Fn(&Offer) -> i64,
}

/// What the shares of a card may add up to.
fn limit(memory: Option<MiB>, shares: SharePolicy) -> Portion {
    let percent = u64::from(shares.memory_overcommit_percent);
    let memory = memory.map_or(0, |m| m.0.saturating_mul(percent) / 100);
    Portion { cores_percent: shares.cores_overcommit_percent, memory: MiB(memory) }
}

impl Site<'_> {
    fn cards(&self, among: GpuSet, is_idle: bool) -> Vec<Card> {
        let card = |gpu: &Gpu| {
            let shared = self.view.shared_on(gpu.index).filter(|_| !is_idle);
            Card {
                index: gpu.index,
                memory: gpu.memory,
                limit: limit(gpu.memory, self.policy.shares()),
                taken: shared.map_or_else(Portion::default, |s| s.taken),
                share_count: shared.map_or(0, |s| s.share_count),
            }
        };
        let gpus = &self.hardware.topology.parts().gpus;
        gpus.iter().filter(|g| among.contains(g.index)).map(card).collect()
    }

    /// Cards that have room for shares at all: nobody has them whole, or cut by MIG.
    fn open(&self, whole: GpuSet) -> GpuSet {
        let cut: GpuSet = self.view.instances.iter().map(|i| i.index).collect();
        self.candidates.minus(self.view.held).minus(cut).minus(whole)
    }

    fn search(&self, rule: Rule, whole: GpuSet) -> Search<'_> {
        let free = self.view.unheld(self.hardware.topology.usable_gpus()).minus(whole).gpu_count();
        let free_count_max = free.saturating_sub(self.view.unplanned_gpu_count);
        let judge = Judge::of(&self.hardware.fabric, rule, self.view.nics_free());
        Search { judge, whole, free_count_max }
    }

    fn place(&self, rule: Rule, whole: GpuSet) -> Option<Chosen> {
        let mut cards = self.cards(self.open(whole), false);
        let slots = &self.shape.shares;
        let placed = self.search(rule, whole).place(&mut cards, slots, self.worth)?;
        let portion = |index| cards.iter().find(|c| c.index == index);
        let shares = placed.into_iter().zip(slots);
        let shares = shares.filter_map(|(index, slot)| Some((index, portion(index)?.portion(slot.share)?)));
        Some(Chosen { whole, shares: shares.collect(), ..Chosen::default() })
    }

    fn is_possible_when_idle(&self, rule: Rule) -> bool {
        let mut cards = self.cards(self.candidates, true);
        let fabric = &self.hardware.fabric;
        let judge = Judge::of(fabric, rule, fabric.all_nics());
        let search = Search { judge, whole: GpuSet::EMPTY, free_count_max: u32::MAX };
        search.place(&mut cards, &self.shape.shares, &crate::place::share::worth).is_some()
    }

    /// Why there is no way, from lasting to passing reasons.
    fn refusal(&self, rule: Rule, whole: GpuSet) -> Reason {
        let unlinked = Rule { link: None, ..rule.link_only() };
        let steps = [
            (unlinked, Reason::ShareTooLarge, Reason::SharesBusy),
            (rule.link_only(), Reason::LinkUnmet, Reason::LinkBusy),
            (rule.without_zone(), Reason::RailUnmet, Reason::RailBusy),
            (rule, Reason::ZoneUnmet, Reason::ZoneBusy),
        ];
        for (rule, lasting, _) in steps {
            if !self.is_possible_when_idle(rule) {
                return lasting;
            }
        }
        if self.place(unlinked, whole).is_none() {
            return self.bottleneck(whole);
        }
        let passing = steps.into_iter().find(|(rule, _, _)| self.place(*rule, whole).is_none());
        passing.map_or(Reason::SharesBusy, |(_, _, passing)| passing)
    }

    /// What is short where wishes are not to blame.
    fn bottleneck(&self, whole: GpuSet) -> Reason {
        let may_open = self.search(Rule::of(self.shape), whole).free_count_max > 0;
        let mut cards = self.cards(self.open(whole), false);
        cards.retain(|card| may_open || card.share_count > 0);
        if cards.is_empty() {
            return Reason::GpusBusy;
        }
        for slot in &self.shape.shares {
            let any = |has: &dyn Fn(&Card, Portion) -> bool| {
                cards.iter().any(|card| card.portion(slot.share).is_some_and(|portion| has(card, portion)))
            };
            if !any(&|card, portion| card.has_cores(portion)) {
                return Reason::CoresBusy;
            }
            if !any(&|card, portion| card.has_memory(portion)) {
                return Reason::GpuMemoryBusy;
            }
        }
        Reason::SharesBusy
    }
}
