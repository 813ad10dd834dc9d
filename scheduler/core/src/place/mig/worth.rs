//! What every layout of a card is worth at given prices, and the best place for each profile beside it.

use std::sync::Arc;

use berth_model::Placement;

use super::occupied::Occupied;
use super::prices::Prices;
use super::table::{LayoutKey, MigTable, ProfileIndex};

/// Worth of an empty card. All worths and scores of MIG are in millionths of it.
pub const EMPTY_CARD: u32 = 1_000_000;

/// What a card that is taken up for a pod must be better by for each slot of it that is free: fill one card before the next.
/// Source: `bench/README.md`, mig, "tried".
const FREE_SLOT: i64 = 15_000;

/// What a card is preferred by for each instance on it: a card of many instances is the last to become empty, whoever stays there.
/// Source: `bench/README.md`, mig, "tried".
const INSTANCE: i64 = 6_000;

/// The best place for one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Best {
    /// Where.
    pub placement: Placement,
    /// How good that is: the higher, the less is lost.
    pub score: i64,
}

/// Worth of all layouts of one kind of card at one set of prices.
#[derive(Debug, PartialEq, Eq)]
pub struct Worth {
    table: Arc<MigTable>,
    /// By position of the layout.
    worth: Vec<u32>,
    /// Row per layout, column per profile.
    best: Vec<Option<Best>>,
}

impl Worth {
    /// The worth of every layout.
    #[must_use]
    pub fn of(table: Arc<MigTable>, prices: &Prices) -> Self {
        let sum = |position: usize| {
            let parts = table.room(position).iter().zip(prices.as_slice());
            parts.fold(0_u64, |sum, (room, price)| {
                sum.saturating_add(u64::from(*room).saturating_mul(u64::from(*price)))
            })
        };
        let sums: Vec<u64> = (0..table.layouts().len()).map(sum).collect();
        // The first layout is the empty one, and nothing is worth more than an empty card.
        let whole = sums.first().copied().unwrap_or(0);
        let share = |sum: &u64| {
            let part = u128::from(*sum).saturating_mul(u128::from(EMPTY_CARD)).checked_div(u128::from(whole));
            u32::try_from(part.unwrap_or(0)).unwrap_or(EMPTY_CARD)
        };
        let mut all = Self { worth: sums.iter().map(share).collect(), best: Vec::new(), table };
        let keys = all.table.layouts().iter();
        all.best =
            keys.flat_map(|key| all.table.profiles().map(|(profile, _)| all.best_beside(*key, profile))).collect();
        all
    }

    /// The kind of card.
    #[must_use]
    pub fn table(&self) -> &Arc<MigTable> {
        &self.table
    }

    /// What a card with these instances is worth, in millionths of an empty one.
    #[must_use]
    pub fn left(&self, occupied: &Occupied) -> u32 {
        self.at(LayoutKey::of(occupied)).unwrap_or(0)
    }

    /// The best place for one more instance of a profile, caps and media engines apart.
    #[must_use]
    pub fn best(&self, occupied: &Occupied, profile: ProfileIndex) -> Option<Best> {
        let row = self.table.position(LayoutKey::of(occupied))?.checked_mul(self.table.profiles().count())?;
        self.best.get(row.checked_add(profile.at())?).copied().flatten()
    }

    /// How good it is to bring a card from one state to the next; `None` for what the card cannot be.
    #[must_use]
    pub fn gain(&self, before: &Occupied, after: &Occupied) -> Option<i64> {
        self.score(LayoutKey::of(before), LayoutKey::of(after))
    }

    /// How good it is to take a card from one state to the next: worth lost, fuller cards first. The one rule for one instance and many.
    pub(super) fn score(&self, before: LayoutKey, after: LayoutKey) -> Option<i64> {
        let free = i64::from(before.free(self.table.slots()));
        let gained = i64::from(self.at(after)?).saturating_sub(i64::from(self.at(before)?));
        let fuller =
            i64::from(before.instances()).saturating_mul(INSTANCE).saturating_sub(free.saturating_mul(FREE_SLOT));
        Some(gained.saturating_add(fuller))
    }

    fn at(&self, key: LayoutKey) -> Option<u32> {
        self.table.position(key).and_then(|position| self.worth.get(position)).copied()
    }

    /// Among equals the highest start: on all boards known the upper half is the one with fewer ways to use it.
    fn best_beside(&self, key: LayoutKey, profile: ProfileIndex) -> Option<Best> {
        let placements = self.table.kind(profile)?.placements().iter();
        let scored = placements.filter_map(|p| Some(Best { placement: *p, score: self.score(key, key.with(*p)?)? }));
        scored.max_by_key(|best| (best.score, best.placement.start()))
    }
}
