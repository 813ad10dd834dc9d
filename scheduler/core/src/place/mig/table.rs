//! What is known of one kind of card once and for all: its profiles, every layout of instances it can have, and what still fits beside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::{MigCapability, MigProfile, Placement};

use super::name::{self, Media};
use super::occupied::Occupied;

/// Position of a profile in the card's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileIndex(u8);

impl ProfileIndex {
    /// The position as an index.
    #[must_use]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// A profile as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    profile: MigProfile,
    media: Media,
    /// The first profile with the same placements: only that one has a price of its own accord.
    is_first_of_geometry: bool,
    slots: u8,
}

impl Kind {
    /// Name as NVML writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.profile.name()
    }

    /// Where an instance may lie.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        self.profile.placements()
    }

    /// Most instances of it on one card.
    #[must_use]
    pub fn instances_max(&self) -> u8 {
        self.profile.instances_max()
    }

    /// What it takes of the media engines.
    #[must_use]
    pub fn media(&self) -> Media {
        self.media
    }

    /// Slots of an instance: the fewest, should the card offer several sizes.
    #[must_use]
    pub fn slots(&self) -> u8 {
        self.slots
    }

    /// Whether no profile before it has the same placements. `1g.10gb+me` lies where `1g.10gb` does: room for the one is room for the other.
    #[must_use]
    pub fn is_first_of_geometry(&self) -> bool {
        self.is_first_of_geometry
    }
}

/// Slots in use and first slots of the instances there: all that room on a card depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LayoutKey(u8, u8);

impl LayoutKey {
    pub(super) fn of(occupied: &Occupied) -> Self {
        Self(occupied.slots().bits(), occupied.starts())
    }

    /// With one instance more.
    pub(super) fn with(self, placement: Placement) -> Option<Self> {
        let start = 1_u8.checked_shl(u32::from(placement.start()))?;
        (self.0 & placement.mask().bits() == 0).then_some(Self(self.0 | placement.mask().bits(), self.1 | start))
    }

    /// Instances on the card.
    pub(super) fn instances(self) -> u32 {
        self.1.count_ones()
    }

    /// Slots that nothing uses, of a card with so many.
    pub(super) fn free(self, slots: u32) -> u32 {
        slots.saturating_sub(self.0.count_ones())
    }
}

/// One kind of card. Nodes with cards of the kind share it.
#[derive(Debug, PartialEq, Eq)]
pub struct MigTable {
    kinds: Vec<Kind>,
    slots: u32,
    layouts: Vec<LayoutKey>,
    /// Row per layout, column per profile, in [`ROOM_ONE`]ths of an instance.
    room: Vec<u32>,
}

/// One instance in [`MigTable::room`].
pub const ROOM_ONE: u32 = 1024;

/// Of this many instances, one ends before the room beside it counts again. Source: `bench/README.md`, mig, "tried".
const LIVES: u64 = 7;

impl MigTable {
    /// The table of a kind of card; `None` for one that offers no placement at all.
    #[must_use]
    pub fn of(capability: &MigCapability) -> Option<Arc<Self>> {
        let mut kinds: Vec<Kind> = Vec::new();
        for profile in capability.profiles() {
            let slots = profile.placements().iter().map(|p| p.size()).min().unwrap_or(0);
            let is_first_of_geometry = !kinds.iter().any(|k| k.placements() == profile.placements());
            kinds.push(Kind {
                profile: profile.clone(),
                media: Media::of(profile.name()),
                is_first_of_geometry,
                slots,
            });
        }
        let placements: BTreeSet<Placement> = kinds.iter().flat_map(|k| k.placements()).copied().collect();
        let slots = placements.iter().fold(0_u8, |all, p| all | p.mask().bits()).count_ones();
        if slots == 0 {
            return None;
        }
        let counts = Counts::of(&kinds);
        let layouts = layouts(&placements);
        let room = layouts.values().flat_map(|instances| counts.room(instances)).collect();
        Some(Arc::new(Self { kinds, slots, layouts: layouts.into_keys().collect(), room }))
    }

    /// Memory slots of a card.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Profiles in the order in which NVML lists them.
    pub fn profiles(&self) -> impl Iterator<Item = (ProfileIndex, &Kind)> {
        self.kinds.iter().zip(0_u8..).map(|(kind, at)| (ProfileIndex(at), kind))
    }

    /// One profile.
    #[must_use]
    pub fn kind(&self, profile: ProfileIndex) -> Option<&Kind> {
        self.kinds.get(profile.at())
    }

    /// The profile that a resource names after its prefix, `1g.10gb.me` or as NVML writes it, `1g.10gb+me`.
    #[must_use]
    pub fn named(&self, asked: &str) -> Option<ProfileIndex> {
        self.profiles().find(|(_, kind)| name::means(asked, kind.name())).map(|(index, _)| index)
    }

    /// The placement of a profile with this start and size.
    #[must_use]
    pub fn placement(&self, profile: ProfileIndex, start: u8, size: u8) -> Option<Placement> {
        self.kind(profile)?.profile.placement(start, size)
    }

    /// Every layout, ascending.
    pub(super) fn layouts(&self) -> &[LayoutKey] {
        &self.layouts
    }

    /// Position of a layout; `None` for one that placements of this card cannot make.
    pub(super) fn position(&self, key: LayoutKey) -> Option<usize> {
        self.layouts.binary_search(&key).ok()
    }

    /// Room for each profile beside a layout.
    pub(super) fn room(&self, position: usize) -> &[u32] {
        let from = position.saturating_mul(self.kinds.len());
        self.room.get(from..from.saturating_add(self.kinds.len())).unwrap_or_default()
    }
}

/// Every set of disjoint placements as a layout, with its instances. Eight slots have at most 1597 of them.
fn layouts(placements: &BTreeSet<Placement>) -> BTreeMap<LayoutKey, Vec<Placement>> {
    let mut found = BTreeMap::from([(LayoutKey(0, 0), Vec::new())]);
    let mut open = vec![LayoutKey(0, 0)];
    while let Some(key) = open.pop() {
        let instances: Vec<Placement> = found.get(&key).cloned().unwrap_or_default();
        for placement in placements {
            let Some(next) = key.with(*placement).filter(|next| !found.contains_key(next)) else { continue };
            found.insert(next, instances.iter().copied().chain([*placement]).collect());
            open.push(next);
        }
    }
    found
}

/// How many more instances of each profile alone fit beside each set of slots.
struct Counts {
    profile_count: usize,
    /// Row per set of slots.
    by_slots: Vec<u32>,
}

impl Counts {
    fn of(kinds: &[Kind]) -> Self {
        let alone = |taken: u8, kind: &Kind| {
            let mut by_end: Vec<&Placement> = kind.placements().iter().collect();
            by_end.sort_unstable_by_key(|p| (p.start().saturating_add(p.size()), p.start()));
            let fitted = by_end.into_iter().fold((taken, 0_u32), |(taken, count), p| {
                if taken & p.mask().bits() == 0 {
                    (taken | p.mask().bits(), count.saturating_add(1))
                } else {
                    (taken, count)
                }
            });
            fitted.1.min(u32::from(kind.instances_max()))
        };
        let by_slots = (0..=u8::MAX).flat_map(|taken| kinds.iter().map(move |kind| alone(taken, kind))).collect();
        Self { profile_count: kinds.len(), by_slots }
    }

    fn row(&self, taken: u8) -> &[u32] {
        let from = usize::from(taken).saturating_mul(self.profile_count);
        self.by_slots.get(from..from.saturating_add(self.profile_count)).unwrap_or_default()
    }

    /// Room beside the instances: the mean of what fits now, and of what is to be expected to fit once one in [`LIVES`] has ended.
    fn room(&self, instances: &[Placement]) -> Vec<u32> {
        let mut later = vec![0_u64; self.profile_count];
        self.expect(instances, 0, 1, &mut later);
        let ways = instances.iter().fold(1_u64, |ways, _| ways.saturating_mul(LIVES));
        let taken = instances.iter().fold(0_u8, |taken, p| taken | p.mask().bits());
        let half = u64::from(ROOM_ONE / 2);
        let mean = |(now, later): (&u32, &u64)| {
            let later = later.saturating_mul(half).checked_div(ways).unwrap_or(0);
            u32::try_from(u64::from(*now).saturating_mul(half).saturating_add(later)).unwrap_or(u32::MAX)
        };
        self.row(taken).iter().zip(&later).map(mean).collect()
    }

    /// Adds what fits beside every subset that may live on, weighted by in how many of [`LIVES`]^n cases it does.
    fn expect(&self, instances: &[Placement], taken: u8, cases: u64, sum: &mut [u64]) {
        let Some((first, rest)) = instances.split_first() else {
            for (sum, count) in sum.iter_mut().zip(self.row(taken)) {
                *sum = sum.saturating_add(cases.saturating_mul(u64::from(*count)));
            }
            return;
        };
        self.expect(rest, taken | first.mask().bits(), cases.saturating_mul(LIVES.saturating_sub(1)), sum);
        self.expect(rest, taken, cases, sum);
    }
}
