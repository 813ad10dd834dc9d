//! Memory slots of a GPU under MIG and sets of them.

use std::fmt;

/// A set of a GPU's memory slots. No operator joins two sets without saying that they are disjoint: no slot is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SlotMask(u8);

impl SlotMask {
    /// Most memory slots of a GPU. Source: every board of NVIDIA's MIG user guide has 8 or fewer. Checked: 2026-11-21.
    pub const SLOTS_MAX: u8 = 8;
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// The slots `start .. start + size`; `None` for no slot, or for one that no GPU has.
    #[must_use]
    pub fn span(start: u8, size: u8) -> Option<Self> {
        let end = start.checked_add(size).filter(|end| size > 0 && *end <= Self::SLOTS_MAX)?;
        let below = |slots: u8| u8::MAX.checked_shr(u32::from(Self::SLOTS_MAX.saturating_sub(slots))).unwrap_or(0);
        Some(Self(below(end) & !below(start)))
    }

    /// Whether no slot is in both.
    #[must_use]
    pub fn is_disjoint(self, other: Self) -> bool {
        self.0 & other.0 == 0
    }

    /// Both together; `None` where they share a slot.
    #[must_use]
    pub fn join_disjoint(self, other: Self) -> Option<Self> {
        self.is_disjoint(other).then_some(Self(self.0 | other.0))
    }

    /// How many slots.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The set as a number below 256, an index for tables: slot 0 is the lowest bit.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for SlotMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotMask({:08b})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_its_slots_and_none_beyond_the_gpu() {
        assert_eq!(SlotMask::span(0, 8).unwrap().bits(), 0xff);
        assert_eq!(SlotMask::span(4, 4).unwrap().bits(), 0xf0);
        assert_eq!(SlotMask::span(6, 2).unwrap().bits(), 0xc0);
        assert_eq!(SlotMask::span(0, 1).unwrap().bits(), 0x01);
        for (start, size) in [(0, 0), (0, 9), (7, 2), (8, 1), (255, 255)] {
            assert_eq!(SlotMask::span(start, size), None, "{start} {size}");
        }
    }

    #[test]
    fn spans_that_share_a_slot_do_not_join() {
        let (left, right) = (SlotMask::span(0, 4).unwrap(), SlotMask::span(4, 4).unwrap());
        assert_eq!(left.join_disjoint(right).unwrap().count(), 8);
        assert_eq!(left.join_disjoint(SlotMask::span(3, 1).unwrap()), None);
        assert_eq!(SlotMask::EMPTY.join_disjoint(left), Some(left));
    }
}
