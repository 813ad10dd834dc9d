//! PCIe levels as a tree: what the given cells imply, and which devices hang together at which level.
//!
//! Levels of a machine are ultrametric (of any three pairs among three devices the two farthest are equal), because they are heights in one
//! tree of bridges. So single linkage gives the tree back, and a capture that is not ultrametric is none of one machine.

use berth_model::PcieLevel;

use super::capture::{Capture, Word};
use super::{ImportError, refuse};

/// Levels of all pairs, given or implied.
#[derive(Debug)]
pub(super) struct Levels {
    device_count: usize,
    cells: Vec<Option<PcieLevel>>,
}

impl Levels {
    /// Takes the given levels, checks them and adds what they imply.
    pub(super) fn of(capture: &Capture) -> Result<Self, ImportError> {
        let device_count = capture.labels.len();
        let mut levels = Self { device_count, cells: vec![None; device_count.saturating_mul(device_count)] };
        for (pair, given) in &capture.cells {
            if let Word::Pcie(level) = given.value {
                levels.put(*pair, level);
            }
        }
        levels.check(capture)?;
        // Each round settles at least one pair or is the last.
        while levels.imply() {}
        Ok(levels)
    }

    pub(super) fn get(&self, a: usize, b: usize) -> Option<PcieLevel> {
        self.cells.get(a.saturating_mul(self.device_count).saturating_add(b)).copied().flatten()
    }

    fn put(&mut self, (a, b): (usize, usize), level: PcieLevel) {
        for (row, column) in [(a, b), (b, a)] {
            if let Some(cell) = self.cells.get_mut(row.saturating_mul(self.device_count).saturating_add(column)) {
                *cell = Some(level);
            }
        }
    }

    /// Refuses three devices that no tree of bridges can join so. NODE and SYS count as one: drivers mix them up, and zones decide there.
    fn check(&self, capture: &Capture) -> Result<(), ImportError> {
        for (&(a, b), given) in &capture.cells {
            let Word::Pcie(far) = given.value else { continue };
            for c in 0..self.device_count {
                let (Some(one), Some(other)) = (self.get(a, c), self.get(c, b)) else { continue };
                if bridged(far) < bridged(one) && bridged(far) < bridged(other) {
                    let name = |i: usize| capture.labels.get(i).map(String::as_str).unwrap_or_default();
                    let problem = format!(
                        "{} between {} and {}, though {} is {} to {} and {} to {}: no tree of PCIe bridges gives this",
                        far.word(),
                        name(a),
                        name(b),
                        name(c),
                        one.word(),
                        name(a),
                        other.word(),
                        name(b)
                    );
                    return refuse(given.at, problem);
                }
            }
        }
        Ok(())
    }

    fn imply(&mut self) -> bool {
        let mut found = Vec::new();
        for a in 0..self.device_count {
            for b in a.saturating_add(1)..self.device_count {
                if self.get(a, b).is_none() {
                    let level = (0..self.device_count).find_map(|c| self.implied_by(a, c, b));
                    found.extend(level.map(|level| ((a, b), level)));
                }
            }
        }
        for (pair, level) in &found {
            self.put(*pair, *level);
        }
        !found.is_empty()
    }

    fn implied_by(&self, a: usize, c: usize, b: usize) -> Option<PcieLevel> {
        let (one, other) = (self.get(a, c)?, self.get(c, b)?);
        // Of two equal levels the third side may be nearer, unless nothing is.
        (one != other || one == PcieLevel::Pix).then_some(one.min(other))
    }

    /// The devices that hang together at a level or nearer, in groups by their lowest position.
    pub(super) fn groups(&self, members: &[usize], level: PcieLevel) -> Vec<Vec<usize>> {
        let mut left: Vec<usize> = members.to_vec();
        let mut groups = Vec::new();
        while let Some(first) = left.first().copied() {
            let mut group = vec![first];
            let mut next = 0;
            while let Some(at) = group.get(next).copied() {
                let near = left.iter().filter(|d| !group.contains(d) && self.get(at, **d) >= Some(level));
                let near: Vec<usize> = near.copied().collect();
                group.extend(near);
                next += 1;
            }
            group.sort_unstable();
            left.retain(|d| !group.contains(d));
            groups.push(group);
        }
        groups
    }
}

/// The level, with all beyond the host bridge as one.
fn bridged(level: PcieLevel) -> PcieLevel {
    if level == PcieLevel::Node { PcieLevel::Sys } else { level }
}
