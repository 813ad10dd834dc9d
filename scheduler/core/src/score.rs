//! How good a node is for a demand: weighted parts, all integers.

use std::fmt;

/// A part or a whole of a score, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ppm(pub u32);

impl Ppm {
    /// All of it.
    pub const ONE: Self = Self(1_000_000);

    /// `part / whole`, rounded down, at most one. A whole of zero gives zero: nothing can be taken of nothing.
    #[must_use]
    pub fn ratio(part: u64, whole: u64) -> Self {
        let ppm = u128::from(part).saturating_mul(1_000_000).checked_div(u128::from(whole)).unwrap_or(0);
        Self(u32::try_from(ppm).unwrap_or(u32::MAX).min(Self::ONE.0))
    }

    /// What is left to one.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(Self::ONE.0.saturating_sub(self.0))
    }
}

impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}%", self.0 / 10_000, self.0 % 10_000 / 100)
    }
}

/// What one criterion gave and how much it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Name of the criterion, as in the policy.
    pub name: &'static str,
    /// What it gave.
    pub value: Ppm,
    /// Its weight.
    pub weight: u32,
}

/// A node's score for a demand. Nodes with a current report stand before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score {
    /// False for a node that policy puts last (stale or missing report).
    pub is_trusted: bool,
    /// The weighted mean of the parts.
    pub value: Ppm,
}

/// The weighted mean of the parts, rounded down; zero when no part counts.
#[must_use]
pub fn weighted(parts: &[Part]) -> Ppm {
    let mut sum = 0_u64;
    let mut weights = 0_u64;
    for part in parts {
        sum = sum.saturating_add(u64::from(part.value.0).saturating_mul(u64::from(part.weight)));
        weights = weights.saturating_add(u64::from(part.weight));
    }
    let mean = sum.checked_div(weights).unwrap_or(0);
    Ppm(u32::try_from(mean).unwrap_or(u32::MAX).min(Ppm::ONE.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_weighted_and_rounded_down() {
        let part = |value, weight| Part { name: "x", value: Ppm(value), weight };
        assert_eq!(weighted(&[part(1_000_000, 3), part(0, 1), part(500_000, 1)]), Ppm(700_000));
        assert_eq!(weighted(&[part(1_000_000, 0)]), Ppm(0));
        assert_eq!(weighted(&[]), Ppm(0));
    }

    #[test]
    fn a_ratio_is_at_most_one_and_of_nothing_zero() {
        assert_eq!(Ppm::ratio(3, 2), Ppm::ONE);
        assert_eq!(Ppm::ratio(1, 0), Ppm(0));
        assert_eq!(Ppm::ratio(u64::MAX, u64::MAX), Ppm::ONE);
        assert_eq!(Ppm(734_567).to_string(), "73.45%");
    }

    #[test]
    fn a_trusted_node_stands_before_any_other() {
        let low = Score { is_trusted: true, value: Ppm(0) };
        let high = Score { is_trusted: false, value: Ppm::ONE };
        assert!(low > high);
    }
}
