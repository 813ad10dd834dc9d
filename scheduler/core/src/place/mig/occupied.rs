//! What instances take of one card. Never two in one slot, never beyond a cap: there is no other way to make one.

use berth_model::{Placement, SlotMask};

use super::table::{MigTable, ProfileIndex};

/// Instances on one card, by their first slot. Equal cards are equal values, whatever the order in which instances came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Occupied {
    slots: SlotMask,
    at: [Option<(ProfileIndex, Placement)>; 8],
}

impl Occupied {
    /// Slots in use.
    #[must_use]
    pub fn slots(&self) -> SlotMask {
        self.slots
    }

    /// First slots of the instances, slot 0 in the lowest bit. With [`Self::slots`] this says where each ends.
    #[must_use]
    pub fn starts(&self) -> u8 {
        let start = |(_, p): (ProfileIndex, Placement)| 1_u8.checked_shl(u32::from(p.start())).unwrap_or(0);
        self.instances().map(start).fold(0, |all, one| all | one)
    }

    /// The instances by first slot.
    pub fn instances(&self) -> impl Iterator<Item = (ProfileIndex, Placement)> {
        self.at.iter().flatten().copied()
    }

    /// With one instance more that the card itself has: the driver knew its caps. `None` where it would overlap.
    #[must_use]
    pub fn with_existing(&self, profile: ProfileIndex, placement: Placement) -> Option<Self> {
        let mut next = Self { slots: self.slots.join_disjoint(placement.mask())?, ..*self };
        *next.at.get_mut(usize::from(placement.start()))? = Some((profile, placement));
        Some(next)
    }

    /// With one instance more. `None` where the card does not offer the placement for the profile, where it would overlap, and where
    /// a cap forbids it.
    #[must_use]
    pub fn with(&self, table: &MigTable, profile: ProfileIndex, placement: Placement) -> Option<Self> {
        let is_offered = table.kind(profile)?.placements().contains(&placement);
        (is_offered && self.admits(table, profile)).then(|| self.with_existing(profile, placement)).flatten()
    }

    /// Whether caps and media engines allow one more of the profile, slots apart.
    #[must_use]
    pub fn admits(&self, table: &MigTable, profile: ProfileIndex) -> bool {
        let Some(kind) = table.kind(profile) else { return false };
        let count = self.instances().filter(|(p, _)| *p == profile).count();
        let allows = |p: ProfileIndex| table.kind(p).is_none_or(|other| kind.media().allows(other.media()));
        count < usize::from(kind.instances_max()) && self.instances().all(|(p, _)| allows(p))
    }

    /// Without the instance that begins at a slot; `None` where none does.
    #[must_use]
    pub fn without(&self, start: u8) -> Option<Self> {
        self.at.get(usize::from(start)).copied().flatten()?;
        let mut kept = self.instances().filter(|(_, placement)| placement.start() != start);
        kept.try_fold(Self::default(), |all, (profile, placement)| all.with_existing(profile, placement))
    }
}
