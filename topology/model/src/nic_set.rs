//! A set of NICs of one node, as positions in one machine word.

use std::fmt;

/// Positions of NICs in a node's report. A report holds at most [`crate::NodeTopology::NICS_MAX`], which fits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NicSet(u128);

impl NicSet {
    /// The set without NICs.
    pub const EMPTY: Self = Self(0);

    /// This set and the NIC at `position`. Positions above 127 leave the set as it is.
    #[must_use]
    pub fn with(self, position: usize) -> Self {
        Self(self.0 | Self::bit(position))
    }

    /// Whether the NIC at `position` is in the set.
    #[must_use]
    pub fn contains(self, position: usize) -> bool {
        self.0 & Self::bit(position) != 0
    }

    /// NICs in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// NICs in either set.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// NICs of this set that are not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every NIC of this set is in `other`.
    #[must_use]
    pub fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// How many NICs the set holds.
    #[must_use]
    pub fn nic_count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set holds no NIC.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Positions in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..128).filter(move |n| self.contains(*n))
    }

    fn bit(position: usize) -> u128 {
        u32::try_from(position).ok().and_then(|p| 1_u128.checked_shl(p)).unwrap_or(0)
    }
}

impl FromIterator<usize> for NicSet {
    fn from_iter<T: IntoIterator<Item = usize>>(positions: T) -> Self {
        positions.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for NicSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.iter().map(|n| n.to_string()).collect();
        f.pad(&text.join(","))
    }
}

impl fmt::Debug for NicSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nic_that_a_report_may_hold_has_a_place() {
        let all: NicSet = (0..crate::NodeTopology::NICS_MAX).collect();
        assert_eq!(all.iter().count(), crate::NodeTopology::NICS_MAX);
        assert_eq!(all.with(128), all, "a position outside changes nothing");
        assert!(all.minus(NicSet::EMPTY.with(3)).with(3) == all && !all.minus(all).contains(3));
    }
}
