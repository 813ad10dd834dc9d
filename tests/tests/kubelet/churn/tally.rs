//! What became of the pods of a churn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Device files by container.
type ByContainer = BTreeMap<String, BTreeSet<String>>;

/// The counts, and every difference by name.
#[derive(Debug)]
pub(super) struct Tally {
    level: &'static str,
    /// Pods that reached Running.
    pub(super) ran: usize,
    /// Of those, pods of which every container sees what was planned for it.
    pub(super) planned: usize,
    /// Of those, pods of which the kubelet says for every container what it sees.
    said: usize,
    /// Pods that failed, by reason.
    failed: BTreeMap<String, usize>,
    /// Devices that two containers saw at once.
    pub(super) doubly_held: Vec<String>,
    differences: Vec<String>,
}

impl Tally {
    pub(super) fn new(level: &'static str) -> Self {
        Self {
            level,
            ran: 0,
            planned: 0,
            said: 0,
            failed: BTreeMap::new(),
            doubly_held: Vec::new(),
            differences: Vec::new(),
        }
    }

    pub(super) fn ran(&mut self, name: &str, planned: &ByContainer, held: &ByContainer, seen: &ByContainer) {
        self.ran += 1;
        self.said += usize::from(held == seen);
        if held != seen {
            self.differences.push(format!("{name}: the kubelet names {held:?}, seen {seen:?}"));
        }
        if planned == seen {
            self.planned += 1;
        } else {
            self.differences.push(format!("{name}: planned {planned:?}, seen {seen:?}"));
        }
    }

    pub(super) fn failed(&mut self, reason: String) {
        *self.failed.entry(reason).or_default() += 1;
    }

    pub(super) fn doubly_held(&mut self, what: String) {
        self.doubly_held.push(what);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, ran, planned, said, failed, .. } = self;
        writeln!(
            f,
            "level {level}: {ran} pods ran, {planned} with what was planned; the kubelet names what {said} see; failed: {failed:?}"
        )?;
        self.differences.iter().take(8).try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}
