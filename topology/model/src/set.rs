//! A set of GPUs of one node, as positions in one machine word.

use std::fmt;

use crate::id::GpuIndex;

/// Positions of GPUs in a node's report. At most [`GpuSet::GPUS_MAX`], so that a set is one word and every search is bounded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GpuSet(u32);

impl GpuSet {
    /// Most GPUs a node may have. The largest machines known hold 16; 32 leaves room.
    pub const GPUS_MAX: usize = 32;

    /// The set without GPUs.
    pub const EMPTY: Self = Self(0);

    /// The set of the first `count` positions; counts above [`Self::GPUS_MAX`] give the full word.
    #[must_use]
    pub fn first(count: usize) -> Self {
        u32::try_from(count)
            .ok()
            .and_then(|c| 1_u32.checked_shl(c))
            .map_or(Self(u32::MAX), |bit| Self(bit.wrapping_sub(1)))
    }

    /// The set with the given bits; bit n is position n.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits; bit n is position n.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// This set and the GPU at `index`. Positions above the limit leave the set as it is.
    #[must_use]
    pub fn with(self, index: GpuIndex) -> Self {
        Self(self.0 | 1_u32.checked_shl(u32::from(index.0)).unwrap_or(0))
    }

    /// Whether the GPU at `index` is in the set.
    #[must_use]
    pub fn contains(self, index: GpuIndex) -> bool {
        self.0 & 1_u32.checked_shl(u32::from(index.0)).unwrap_or(0) != 0
    }

    /// Whether the sets share no GPU.
    #[must_use]
    pub fn is_disjoint(self, other: Self) -> bool {
        self.0 & other.0 == 0
    }

    /// Whether every GPU of this set is in `other`.
    #[must_use]
    pub fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// GPUs in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// GPUs in either set.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// GPUs of this set that are not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many GPUs the set holds.
    #[must_use]
    pub fn gpu_count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set holds no GPU.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Positions in ascending order.
    pub fn iter(self) -> impl Iterator<Item = GpuIndex> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let index = u8::try_from(left.trailing_zeros()).ok().filter(|i| *i < 32)?;
            left &= left.wrapping_sub(1);
            Some(GpuIndex(index))
        })
    }

    /// The highest position; `None` for the empty set.
    #[must_use]
    pub fn highest(self) -> Option<GpuIndex> {
        let above = u8::try_from(self.0.leading_zeros()).ok()?;
        31_u8.checked_sub(above).map(GpuIndex)
    }

    /// The `size` lowest positions of the set; `None` when it holds fewer.
    #[must_use]
    pub fn lowest(self, size: u32) -> Option<Self> {
        if self.gpu_count() < size {
            return None;
        }
        let mut chosen = Self::EMPTY;
        for index in self.iter() {
            if chosen.gpu_count() == size {
                break;
            }
            chosen = chosen.with(index);
        }
        Some(chosen)
    }

    /// Every subset of exactly `size` GPUs, in ascending order of its bits. There are C(n, size) of them: 12,870 at worst for 16 GPUs.
    pub fn subsets(self, size: u32) -> impl Iterator<Item = Self> {
        let positions: Vec<GpuIndex> = self.iter().collect();
        let mut next = Self::first(positions.len()).lowest(size);
        std::iter::from_fn(move || {
            let current = next?;
            next = following(current, positions.len());
            Some(spread(current, &positions))
        })
    }
}

/// The next larger word with as many bits (Gosper), as long as it fits into `width` positions.
fn following(current: GpuSet, width: usize) -> Option<GpuSet> {
    let bits = u64::from(current.0);
    if bits == 0 {
        return None;
    }
    let lowest = bits & bits.wrapping_neg();
    let ripple = bits.saturating_add(lowest);
    let ones = (bits ^ ripple).checked_shr(2)?.checked_div(lowest)?;
    let next = u32::try_from(ripple | ones).ok().map(GpuSet)?;
    next.is_subset(GpuSet::first(width)).then_some(next)
}

/// Maps bits over 0.. to bits over the given positions.
fn spread(compact: GpuSet, positions: &[GpuIndex]) -> GpuSet {
    compact.iter().fold(GpuSet::EMPTY, |set, bit| positions.get(usize::from(bit.0)).map_or(set, |p| set.with(*p)))
}

impl FromIterator<GpuIndex> for GpuSet {
    fn from_iter<T: IntoIterator<Item = GpuIndex>>(indexes: T) -> Self {
        indexes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for GpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.iter().map(|i| i.0.to_string()).collect();
        f.pad(&text.join(","))
    }
}

impl fmt::Debug for GpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_all_choices_and_each_once() {
        let of = GpuSet::from_bits(0b1011_0110);
        for size in 0..=6 {
            let listed: Vec<GpuSet> = of.subsets(size).collect();
            let expected: Vec<GpuSet> = (0..=u32::from(u8::MAX))
                .map(GpuSet::from_bits)
                .filter(|s| s.is_subset(of) && s.gpu_count() == size)
                .collect();
            assert_eq!(listed, expected, "size {size}");
        }
    }

    #[test]
    fn the_largest_machines_have_as_many_subsets_as_the_binomial_says() {
        assert_eq!(GpuSet::first(16).subsets(8).count(), 12_870);
        assert_eq!(GpuSet::first(32).subsets(32).count(), 1);
        assert_eq!(GpuSet::first(32).subsets(31).count(), 32);
    }

    #[test]
    fn the_lowest_of_too_few_is_none() {
        assert_eq!(GpuSet::from_bits(0b101).lowest(3), None);
        assert_eq!(GpuSet::from_bits(0b1110).lowest(2), Some(GpuSet::from_bits(0b110)));
    }
}
