//! CPUs in groups that share something: the threads of a core, the cores of a socket, the CPUs above one L3 cache.
//!
//! Machines are regular, so the groups are kept and written as runs: `0,112x112+1` is the group of CPUs 0 and 112, then 111 more like
//! it, each one CPU further. A report then names 112 cores in 11 bytes, and a scheduler holds 5000 nodes of them.

use std::fmt;

use crate::cpuset::{CPUS_MAX, CpuSet};

/// Groups of CPUs, none of them empty and no CPU in two. As written: two texts of the same groups may differ, those made by
/// [`CpuGroups::from_groups`] do not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CpuGroups {
    runs: Vec<Run>,
}

/// A group, and how often it stands again at what distance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Run {
    first: CpuSet,
    count: u32,
    step: u32,
}

/// Why a text or a list is no groups of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CPU groups: {part:?} is no group like 0,112x112+1 of CPUs below {CPUS_MAX} that stand in no other group")]
pub struct CpuGroupsError {
    part: String,
}

impl CpuGroups {
    /// Groups as they were read, in any order, each at least once: the same group twice is one group.
    ///
    /// # Errors
    /// [`CpuGroupsError`] names a group that is empty or overlaps another one.
    pub fn from_groups(groups: impl IntoIterator<Item = CpuSet>) -> Result<Self, CpuGroupsError> {
        let mut groups: Vec<CpuSet> = groups.into_iter().collect();
        groups.sort_by_cached_key(|g| (g.first(), g.clone()));
        groups.dedup();
        let mut runs: Vec<Run> = Vec::new();
        for group in groups {
            let extended = runs.last_mut().is_some_and(|run| run.extend(&group));
            if !extended {
                runs.push(Run { first: group, count: 1, step: 0 });
            }
        }
        Self { runs }.checked()
    }

    /// Parses runs joined by `;`. A blank text is no groups.
    ///
    /// # Errors
    /// [`CpuGroupsError`] names the first run that is none.
    pub fn parse(text: &str) -> Result<Self, CpuGroupsError> {
        let parts = text.trim().split(';').filter(|p| !p.is_empty());
        let runs: Result<Vec<Run>, _> = parts.map(|part| Run::parse(part).ok_or_else(|| error(part))).collect();
        Self { runs: runs? }.checked()
    }

    fn checked(self) -> Result<Self, CpuGroupsError> {
        let mut seen = Seen::default();
        for run in &self.runs {
            let distinct = !run.first.is_empty() && run.groups().all(|g| g.is_some_and(|g| seen.add(&g)));
            if !distinct {
                return Err(error(&run.to_string()));
            }
        }
        Ok(self)
    }

    /// The groups.
    pub fn groups(&self) -> impl Iterator<Item = CpuSet> + '_ {
        self.runs.iter().flat_map(Run::groups).flatten()
    }

    /// How many groups there are.
    #[must_use]
    pub fn group_count(&self) -> u32 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.count))
    }

    /// How many CPUs each group has; `None` where they differ or there are none.
    #[must_use]
    pub fn cpus_each(&self) -> Option<u32> {
        let mut sizes = self.runs.iter().map(|run| run.first.cpu_count());
        let size = sizes.next()?;
        sizes.all(|s| s == size).then_some(size)
    }
}

/// CPUs that stand in a group already, one bit each.
#[derive(Default)]
struct Seen {
    words: Vec<u64>,
}

impl Seen {
    /// Adds the CPUs; false where one was there.
    fn add(&mut self, cpus: &CpuSet) -> bool {
        cpus.cpus().all(|cpu| {
            let Ok(word) = usize::try_from(cpu / u64::BITS) else { return false };
            if self.words.len() <= word {
                self.words.resize(word.saturating_add(1), 0);
            }
            let bit = 1_u64.checked_shl(cpu % u64::BITS).unwrap_or_default();
            let Some(word) = self.words.get_mut(word) else { return false };
            let fresh = *word & bit == 0;
            *word |= bit;
            fresh
        })
    }
}

fn error(part: &str) -> CpuGroupsError {
    CpuGroupsError { part: part.chars().take(40).collect() }
}

impl Run {
    fn parse(text: &str) -> Option<Self> {
        let Some((group, repeat)) = text.split_once('x') else {
            return Some(Self { first: CpuSet::parse(text).ok()?, count: 1, step: 0 });
        };
        let (count, step) = repeat.split_once('+')?;
        let run = Self { first: CpuSet::parse(group).ok()?, count: count.parse().ok()?, step: step.parse().ok()? };
        // A count above the number of CPUs would only make the check that follows long.
        ((2..=CPUS_MAX).contains(&run.count) && (1..CPUS_MAX).contains(&run.step)).then_some(run)
    }

    /// The groups of the run; `None` for one whose CPUs are out of bounds.
    fn groups(&self) -> impl Iterator<Item = Option<CpuSet>> + '_ {
        (0..self.count).map(|n| self.first.shifted(n.checked_mul(self.step)?))
    }

    /// Takes a group as the next one of the run, where it is that.
    fn extend(&mut self, group: &CpuSet) -> bool {
        let distance = group.first().zip(self.first.first()).and_then(|(next, first)| next.checked_sub(first));
        let Some(distance) = distance.filter(|d| *d > 0) else { return false };
        let step = if self.count == 1 { distance } else { self.step };
        let fits =
            step.checked_mul(self.count) == Some(distance) && self.first.shifted(distance).as_ref() == Some(group);
        if fits {
            (self.count, self.step) = (self.count.saturating_add(1), step);
        }
        fits
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            count => write!(f, "{}x{count}+{}", self.first, self.step),
        }
    }
}

impl fmt::Display for CpuGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: Vec<String> = self.runs.iter().map(Run::to_string).collect();
        f.pad(&runs.join(";"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(texts: &[&str]) -> Vec<CpuSet> {
        texts.iter().map(|t| CpuSet::parse(t).unwrap()).collect()
    }

    #[test]
    fn regular_machines_are_one_run() {
        let cores = CpuGroups::from_groups((0..112).map(|c| CpuSet::from_cpus([c, c + 112]))).unwrap();
        assert_eq!((cores.to_string().as_str(), cores.group_count(), cores.cpus_each()), ("0,112x112+1", 112, Some(2)));
        let neighbours = CpuGroups::from_groups((0..8).map(|c| CpuSet::from_cpus([2 * c, 2 * c + 1]))).unwrap();
        assert_eq!(neighbours.to_string(), "0-1x8+2");
        let caches = CpuGroups::from_groups(sets(&["8-15,72-79", "0-7,64-71", "0-7,64-71"])).unwrap();
        assert_eq!(caches.to_string(), "0-7,64-71x2+8");
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_groups() {
        for texts in [&["0-3", "4-7", "16-19"][..], &["0", "1", "2-3"], &["0,2", "1,3"], &["5"], &[]] {
            let groups = CpuGroups::from_groups(sets(texts)).unwrap();
            let read = CpuGroups::parse(&groups.to_string()).unwrap();
            assert_eq!((read.groups().collect::<Vec<_>>(), &read), (sets(texts), &groups));
        }
        let uneven = CpuGroups::parse("0-1;2").unwrap();
        assert_eq!((uneven.group_count(), uneven.cpus_each()), (2, None));
    }

    #[test]
    fn overlaps_and_nonsense_are_refused_with_the_run() {
        for bad in ["x", "0x0+1", "0x1+1", "0x2+0", "0-1x2+1", "0;0", "0x9000+1", "8191x2+1", "0x2", "0x2+", "0x-2+1"] {
            assert!(CpuGroups::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(CpuGroups::parse("0;1x3+x").unwrap_err().to_string().contains("1x3+x"));
        assert!(CpuGroups::from_groups(sets(&["0-2", "2-3"])).is_err());
        assert!(CpuGroups::from_groups([CpuSet::default()]).is_err());
    }
}
