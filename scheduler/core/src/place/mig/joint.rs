//! All instances of a pod at once: which cards and slots together lose least.
//!
//! What cards lose adds up, so each card is searched alone, exactly, for every part of the pod that it could take, and the parts are then
//! shared out among the cards by dynamic programming. Equal cards are searched once.

use std::collections::BTreeMap;

use berth_model::{GpuIndex, Placement};

use super::occupied::Occupied;
use super::table::{LayoutKey, ProfileIndex};
use super::worth::Worth;

/// Instances of one profile that a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask<'a> {
    /// The profile as the resource or as NVML writes it.
    pub profile: &'a str,
    /// How many.
    pub count: u32,
}

/// What of a card may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer<'a> {
    /// Any legal placement: the agent makes the instance.
    Managed,
    /// These instances, which exist. Those in use may be among them.
    Existing(&'a [(ProfileIndex, Placement)]),
}

/// One card as the search sees it.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// Its position on the node.
    pub gpu: GpuIndex,
    /// Its kind, at the prices of the day.
    pub worth: &'a Worth,
    /// What pods hold of it.
    pub occupied: Occupied,
    /// What of it may be given.
    pub offer: Offer<'a>,
}

/// One instance given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given {
    /// Position of the ask.
    pub ask: usize,
    /// The card.
    pub gpu: GpuIndex,
    /// The profile on that card.
    pub profile: ProfileIndex,
    /// Where.
    pub placement: Placement,
}

/// All instances of a pod on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// By ask, then card, then slot.
    pub given: Vec<Given>,
    /// How good it is: worth lost, in millionths of an empty card, fuller cards first. The higher the better.
    pub score: i64,
}

/// Up to so many parts of a pod are told apart; beyond, instances are placed one by one, largest first. Sixteen instances of one
/// profile have 17 parts, eight each of three profiles 729.
pub const PARTS_MAX: usize = 4096;

/// The best instances for all asks together, or none. Among equals the lowest cards.
#[must_use]
pub fn choose(cards: &[Card<'_>], asks: &[Ask<'_>]) -> Option<Choice> {
    let total = asks.iter().fold(0_u32, |sum, ask| sum.saturating_add(ask.count));
    let slots = cards.iter().fold(0_u32, |sum, card| sum.saturating_add(card.free_slots()));
    match total {
        0 => Some(Choice { given: Vec::new(), score: 0 }),
        _ if total > slots => None,
        1 => one(cards, asks),
        _ => match Parts::of(asks) {
            Some(parts) => together(cards, asks, &parts),
            None => one_by_one(cards, asks),
        },
    }
}

impl Card<'_> {
    fn free_slots(&self) -> u32 {
        LayoutKey::of(&self.occupied).free(self.worth.table().slots())
    }

    /// Where one more instance of the profile may lie.
    fn placements(&self, profile: ProfileIndex) -> Vec<Placement> {
        match self.offer {
            Offer::Managed => self.worth.table().kind(profile).map_or_else(Vec::new, |kind| kind.placements().to_vec()),
            Offer::Existing(instances) => {
                instances.iter().filter(|(p, _)| *p == profile).map(|(_, placement)| *placement).collect()
            }
        }
    }

    fn with(&self, occupied: &Occupied, profile: ProfileIndex, placement: Placement) -> Option<Occupied> {
        match self.offer {
            Offer::Managed => occupied.with(self.worth.table(), profile, placement),
            Offer::Existing(_) => occupied.with_existing(profile, placement),
        }
    }

    /// The best place for one instance.
    fn best(&self, profile: ProfileIndex) -> Option<(i64, Placement)> {
        if let Offer::Managed = self.offer {
            let best = self.worth.best(&self.occupied, profile)?;
            return self.occupied.admits(self.worth.table(), profile).then_some((best.score, best.placement));
        }
        let before = LayoutKey::of(&self.occupied);
        let scored = self.placements(profile).into_iter().filter_map(|placement| {
            let after = self.with(&self.occupied, profile, placement)?;
            Some((self.worth.score(before, LayoutKey::of(&after))?, placement))
        });
        scored.max_by_key(|(score, placement)| (*score, placement.start()))
    }

    fn is_like(&self, other: &Self) -> bool {
        std::ptr::eq(self.worth, other.worth) && self.occupied == other.occupied && self.offer == other.offer
    }
}

fn one(cards: &[Card<'_>], asks: &[Ask<'_>]) -> Option<Choice> {
    let (ask, wanted) = asks.iter().enumerate().find(|(_, ask)| ask.count > 0)?;
    let mut best: Option<(i64, Given)> = None;
    for card in cards {
        let Some(profile) = card.worth.table().named(wanted.profile) else { continue };
        let Some((score, placement)) = card.best(profile) else { continue };
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, Given { ask, gpu: card.gpu, profile, placement }));
        }
    }
    best.map(|(score, given)| Choice { given: vec![given], score })
}

/// For pods with more different instances than any workload known has.
fn one_by_one(cards: &[Card<'_>], asks: &[Ask<'_>]) -> Option<Choice> {
    let mut cards = cards.to_vec();
    let mut all = Choice { given: Vec::new(), score: 0 };
    let slots = |ask: &Ask<'_>| {
        let kind = |card: &Card<'_>| {
            let table = card.worth.table();
            table.named(ask.profile).and_then(|p| table.kind(p)).map(super::table::Kind::slots)
        };
        cards.iter().filter_map(kind).max()
    };
    let mut order: Vec<(Option<u8>, usize, Ask<'_>)> =
        asks.iter().enumerate().map(|(position, ask)| (slots(ask), position, *ask)).collect();
    order.sort_by_key(|(slots, position, _)| (std::cmp::Reverse(*slots), *position));
    for (_, position, ask) in order {
        for _ in 0..ask.count {
            let step = one(&cards, &[Ask { count: 1, ..ask }])?;
            let given = Given { ask: position, ..*step.given.first()? };
            let card = cards.iter_mut().find(|card| card.gpu == given.gpu)?;
            card.occupied = card.with(&card.occupied, given.profile, given.placement)?;
            all.given.push(given);
            all.score = all.score.saturating_add(step.score);
        }
    }
    all.given.sort_unstable();
    Some(all)
}

/// Numbers for the parts of a pod: how many instances of each ask are placed, as digits. Adding parts adds their numbers.
struct Parts {
    /// Worth of one instance of each ask in the number.
    digit: Vec<usize>,
    counts: Vec<usize>,
    /// One more than the number of the whole pod.
    total: usize,
}

impl Parts {
    fn of(asks: &[Ask<'_>]) -> Option<Self> {
        let mut parts = Self { digit: Vec::new(), counts: Vec::new(), total: 1 };
        for ask in asks {
            let count = usize::try_from(ask.count).ok()?;
            parts.digit.push(parts.total);
            parts.counts.push(count);
            parts.total = parts.total.checked_mul(count.checked_add(1)?).filter(|total| *total <= PARTS_MAX)?;
        }
        Some(parts)
    }

    /// How many instances of an ask are in a part.
    fn count(&self, part: usize, ask: usize) -> usize {
        let (Some(digit), Some(count)) = (self.digit.get(ask), self.counts.get(ask)) else { return 0 };
        part.checked_div(*digit).unwrap_or(0).checked_rem(count.saturating_add(1)).unwrap_or(0)
    }

    /// Whether both parts together are still a part of the pod.
    fn fit(&self, a: usize, b: usize) -> bool {
        let fits = |(ask, most): (usize, &usize)| self.count(a, ask).saturating_add(self.count(b, ask)) <= *most;
        self.counts.iter().enumerate().all(fits)
    }
}

/// The best way of one card to take one part of the pod.
#[derive(Debug, Clone)]
struct Way {
    score: i64,
    given: Vec<Given>,
}

/// Every part that the card can take, each in its best way. The empty part is not among them.
fn ways(card: &Card<'_>, asks: &[Ask<'_>], parts: &Parts) -> BTreeMap<usize, Way> {
    let mut search =
        Search { card, parts, profiles: Vec::new(), before: LayoutKey::of(&card.occupied), best: BTreeMap::new() };
    for (ask, wanted) in asks.iter().enumerate() {
        if let Some(profile) = card.worth.table().named(wanted.profile) {
            search.profiles.push((ask, profile, card.placements(profile)));
        }
    }
    let profiles = std::mem::take(&mut search.profiles);
    search.grow(&profiles, 0, card.occupied, 0, &mut Vec::new());
    search.best
}

/// Profiles that a card is asked for: the ask, the profile there, and where it may lie.
type Wanted = (usize, ProfileIndex, Vec<Placement>);

struct Search<'a> {
    card: &'a Card<'a>,
    parts: &'a Parts,
    profiles: Vec<Wanted>,
    before: LayoutKey,
    best: BTreeMap<usize, Way>,
}

impl Search<'_> {
    /// Adds instances in ascending order of ask and placement, so that every set is met once. At most eight are on a card.
    fn grow(&mut self, profiles: &[Wanted], from: usize, occupied: Occupied, part: usize, given: &mut Vec<Given>) {
        let Some(((ask, profile, placements), later)) = profiles.split_first() else { return };
        self.grow(later, 0, occupied, part, given);
        let placed = self.parts.count(part, *ask);
        let Some((digit, most)) = self.parts.digit.get(*ask).zip(self.parts.counts.get(*ask)) else { return };
        if placed >= *most {
            return;
        }
        for (position, placement) in placements.iter().enumerate().skip(from) {
            let Some(next) = self.card.with(&occupied, *profile, *placement) else { continue };
            let larger = part.saturating_add(*digit);
            given.push(Given { ask: *ask, gpu: self.card.gpu, profile: *profile, placement: *placement });
            self.note(larger, &next, given);
            self.grow(profiles, position.saturating_add(1), next, larger, given);
            given.pop();
        }
    }

    fn note(&mut self, part: usize, occupied: &Occupied, given: &[Given]) {
        let Some(score) = self.card.worth.score(self.before, LayoutKey::of(occupied)) else { return };
        // Among equals the last one met: the highest starts, as for one instance.
        if self.best.get(&part).is_none_or(|way| score >= way.score) {
            self.best.insert(part, Way { score, given: given.to_vec() });
        }
    }
}

/// How a part of the pod came about: the part before, and what the last card took.
#[derive(Debug, Clone, Copy)]
struct Step {
    score: i64,
    card: usize,
    took: usize,
    before: usize,
}

fn together(cards: &[Card<'_>], asks: &[Ask<'_>], parts: &Parts) -> Option<Choice> {
    let mut searched: Vec<(usize, BTreeMap<usize, Way>)> = Vec::new();
    let mut way_of: Vec<usize> = Vec::new();
    for (position, card) in cards.iter().enumerate() {
        let like = |(other, _): &(usize, _)| cards.get(*other).is_some_and(|o| o.is_like(card));
        let found = searched.iter().position(like).unwrap_or_else(|| {
            searched.push((position, ways(card, asks, parts)));
            searched.len().saturating_sub(1)
        });
        way_of.push(found);
    }
    // After every card, the best way to have placed each part on the cards so far.
    let mut reached: Vec<Vec<Option<Step>>> = vec![vec![None; parts.total]];
    for (card, found) in way_of.iter().enumerate() {
        let before = reached.last()?;
        let mut after = before.clone();
        let (_, ways) = searched.get(*found)?;
        for (part, score) in scores(before) {
            for (took, way) in ways.iter().filter(|(took, _)| parts.fit(part, **took)) {
                let score = score.saturating_add(way.score);
                let slot = after.get_mut(part.saturating_add(*took))?;
                if slot.is_none_or(|step| score > step.score) {
                    *slot = Some(Step { score, card, took: *took, before: part });
                }
            }
        }
        reached.push(after);
    }
    let whole = parts.total.saturating_sub(1);
    let score = reached.last()?.get(whole).copied().flatten()?.score;
    let mut given = Vec::new();
    let (mut part, mut level) = (whole, reached.len().saturating_sub(1));
    while part > 0 {
        let step = reached.get(level)?.get(part).copied().flatten()?;
        let (_, ways) = searched.get(*way_of.get(step.card)?)?;
        let gpu = cards.get(step.card)?.gpu;
        given.extend(ways.get(&step.took)?.given.iter().map(|one| Given { gpu, ..*one }));
        // Before this card the rest of the pod was on lower ones.
        (part, level) = (step.before, step.card);
    }
    given.sort_unstable();
    Some(Choice { given, score })
}

/// The parts that are placed so far, with their scores. Nothing placed is one of them.
fn scores(reached: &[Option<Step>]) -> Vec<(usize, i64)> {
    let placed = reached.iter().enumerate().filter_map(|(part, step)| step.map(|s| (part, s.score)));
    std::iter::once((0, 0)).chain(placed).collect()
}
