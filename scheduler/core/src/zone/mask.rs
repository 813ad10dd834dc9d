//! Sets of zones, as the kubelet's bit masks are: a bit per kernel id.

use berth_model::ZoneId;

/// A set of zones. Ordered by value, which is the kubelet's last tie-break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ZoneMask(u64);

impl ZoneMask {
    /// No zone.
    pub const EMPTY: Self = Self(0);

    /// Exactly one zone; `None` for an id beyond 63, which the kubelet refuses too.
    #[must_use]
    pub fn single(zone: ZoneId) -> Option<Self> {
        1_u64.checked_shl(u32::from(zone.0)).map(Self)
    }

    /// All zones of a list; ids beyond 63 are left out.
    #[must_use]
    pub fn of(zones: impl IntoIterator<Item = ZoneId>) -> Self {
        zones.into_iter().filter_map(Self::single).fold(Self::EMPTY, Self::or)
    }

    /// Zones of either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Zones of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// How many zones.
    #[must_use]
    pub fn zone_count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a zone is in the set.
    #[must_use]
    pub fn contains(self, zone: ZoneId) -> bool {
        Self::single(zone).is_some_and(|z| !z.and(self).is_empty())
    }

    /// Whether every zone of the other is in this one.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.and(other) == other
    }

    /// Fewer zones, or as many and lower ids. Source: `IsNarrowerThan` of the kubelet's `bitmask`.
    #[must_use]
    pub fn is_narrower_than(self, other: Self) -> bool {
        (self.zone_count(), self) < (other.zone_count(), other)
    }

    /// Every subset but the empty one, in the order of their values.
    pub fn subsets(self) -> impl Iterator<Item = Self> {
        let mut next = self.0 & self.0.wrapping_neg();
        std::iter::from_fn(move || {
            let now = next;
            next = self.0 & now.wrapping_sub(self.0);
            (now != 0).then_some(Self(now))
        })
    }

    /// The zones in ascending order.
    pub fn zones(self) -> impl Iterator<Item = ZoneId> {
        (0..64_u16).map(ZoneId).filter(move |z| self.contains(*z))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_all_of_them_once() {
        let mask = ZoneMask::of([ZoneId(0), ZoneId(3), ZoneId(9)]);
        let all: Vec<ZoneMask> = mask.subsets().collect();
        assert_eq!(all.len(), 7);
        assert!(all.windows(2).all(|w| w[0] < w[1]) && all.iter().all(|s| mask.covers(*s) && !s.is_empty()));
        assert_eq!(ZoneMask::EMPTY.subsets().count(), 0);
        assert_eq!(ZoneMask::of((0..16).map(ZoneId)).subsets().count(), 65_535);
    }

    #[test]
    fn a_zone_beyond_the_mask_is_in_none() {
        assert_eq!(ZoneMask::single(ZoneId(64)), None);
        assert!(!ZoneMask::of([ZoneId(64), ZoneId(1)]).contains(ZoneId(64)));
    }
}
