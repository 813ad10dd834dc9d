//! Sets of CPU numbers in the kernel's list form (`0-13,28-41`).

use std::fmt;

/// Highest CPU number taken, exclusive. The kernel's own limit (`NR_CPUS`) is 8192 on x86-64.
pub const CPUS_MAX: u32 = 8192;

/// A set of CPUs, kept as sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CpuSet {
    ranges: Vec<(u32, u32)>,
}

/// Why a text is no CPU list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CPU list part {part:?} is not a number or a range like 0-13 below {CPUS_MAX}")]
pub struct CpuSetError {
    part: String,
}

impl CpuSet {
    /// Parses the kernel's list form. An empty or blank text is the empty set.
    ///
    /// # Errors
    /// [`CpuSetError`] names the first part that is no number and no ascending range.
    pub fn parse(text: &str) -> Result<Self, CpuSetError> {
        let mut ranges = Vec::new();
        for part in text.trim().split(',').filter(|p| !p.is_empty()) {
            let range = parse_range(part).ok_or_else(|| CpuSetError { part: part.chars().take(32).collect() })?;
            ranges.push(range);
        }
        Ok(Self::from_ranges(ranges))
    }

    fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self { ranges: merged }
    }

    /// The set of the given CPU numbers.
    #[must_use]
    pub fn from_cpus(cpus: impl IntoIterator<Item = u32>) -> Self {
        Self::from_ranges(cpus.into_iter().map(|c| (c, c)).collect())
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn cpu_count(&self) -> u32 {
        self.ranges.iter().map(|(low, high)| high.saturating_sub(*low).saturating_add(1)).sum()
    }

    /// Whether the set holds no CPU.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The same set, every CPU `by` further; `None` where that leaves the numbers that are taken.
    #[must_use]
    pub fn shifted(&self, by: u32) -> Option<Self> {
        let shift = |cpu: u32| cpu.checked_add(by).filter(|c| *c < CPUS_MAX);
        let ranges: Option<Vec<_>> =
            self.ranges.iter().map(|(low, high)| Some((shift(*low)?, shift(*high)?))).collect();
        ranges.map(|ranges| Self { ranges })
    }

    /// The lowest CPU number.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|(low, _)| *low)
    }

    /// The CPU numbers in ascending order.
    pub fn cpus(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(low, high)| *low..=*high)
    }
}

fn parse_range(part: &str) -> Option<(u32, u32)> {
    let part = part.trim();
    let (low, high) = part.split_once('-').unwrap_or((part, part));
    let low: u32 = low.trim().parse().ok()?;
    let high: u32 = high.trim().parse().ok()?;
    (low <= high && high < CPUS_MAX).then_some((low, high))
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (low, high) in &self.ranges {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&low.to_string());
            if high > low {
                text.push('-');
                text.push_str(&high.to_string());
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_in_the_kernels_form() {
        for (given, printed) in [
            ("0-55,112-167", "0-55,112-167"),
            ("", ""),
            ("\n", ""),
            ("3,1,2,7", "1-3,7"),
            ("0,2,4", "0,2,4"),
            ("0-3,2-5", "0-5"),
        ] {
            assert_eq!(CpuSet::parse(given).unwrap().to_string(), printed);
        }
        assert_eq!(CpuSet::parse("0-55,112-167").unwrap().cpu_count(), 112);
    }

    #[test]
    fn a_list_that_is_none_is_refused_with_the_part() {
        for bad in ["x", "5-2", "0-", "0-8192", "1,-3"] {
            assert!(CpuSet::parse(bad).is_err(), "{bad:?} was taken");
        }
        let error = CpuSet::parse("0-3,9-x").unwrap_err().to_string();
        assert!(error.contains("\"9-x\""), "{error}");
    }
}
