//! Who is in the cluster: names, their positions, and what orders nodes apart from what they hold.
//!
//! Every call looks up thousands of names, and nodes come and go rarely. So this is made anew each time they do, and laid out for
//! looking up: names in one piece, and behind each name the one that was asked for next the last time.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

/// What orders a node among others, apart from what it holds. Changes only when a node comes, goes, or is labelled anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Place of its name among all names.
    pub name_rank: u32,
    /// Number of its zone, for this snapshot; zones have numbers from 0.
    pub zone: Option<u32>,
    /// Whether it carries a `PreferNoSchedule` taint.
    pub is_avoided: bool,
    /// Number of the NVLink clique that all its GPUs are in, for this snapshot.
    pub clique: Option<u32>,
}

/// One position.
#[derive(Debug, Default)]
struct Entry {
    /// Where its name stands in the text.
    start: usize,
    end: usize,
    standing: Standing,
    /// The position of the name that followed the last time. A guess: it is taken only where the name agrees.
    next: AtomicU32,
}

/// All names of a moment.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    hasher: foldhash::fast::RandomState,
    by_name: HashTable<u32>,
    text: String,
    entries: Vec<Entry>,
    zone_count: u32,
    /// Which roll of its index it is; the empty one is the first.
    serial: u64,
}

impl Roll {
    /// The roll of the given nodes.
    pub(crate) fn of<'a>(serial: u64, nodes: impl Iterator<Item = (&'a str, usize, Standing)>) -> Self {
        let mut roll = Self { serial, ..Self::default() };
        for (name, position, standing) in nodes {
            let Ok(key) = u32::try_from(position) else { continue };
            if roll.entries.len() <= position {
                roll.entries.resize_with(position.saturating_add(1), Entry::default);
            }
            roll.zone_count = roll.zone_count.max(standing.zone.map_or(0, |zone| zone.saturating_add(1)));
            let Some(entry) = roll.entries.get_mut(position) else { continue };
            let start = roll.text.len();
            roll.text.push_str(name);
            *entry = Entry { start, end: roll.text.len(), standing, next: AtomicU32::new(u32::MAX) };
            let Self { hasher, by_name, text, entries, .. } = &mut roll;
            let hash_again = |key: &u32| hasher.hash_one(name_at(text, entries, *key).unwrap_or_default());
            by_name.insert_unique(hasher.hash_one(name), key, hash_again);
        }
        roll
    }

    /// Which roll of its index it is: what was made with one serial is of no use with another.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// How many positions there are, free ones among them.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many zones there are.
    pub(crate) fn zone_count(&self) -> usize {
        usize::try_from(self.zone_count).unwrap_or(usize::MAX)
    }

    /// The position of a name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        let is_it = |key: &u32| name_at(&self.text, &self.entries, *key) == Some(name);
        self.by_name.find(self.hasher.hash_one(name), is_it).and_then(|key| usize::try_from(*key).ok())
    }

    /// All positions that have a name, and their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let names = self.entries.iter().map(|entry| self.text.get(entry.start..entry.end).unwrap_or_default());
        names.enumerate().filter(|(_, name)| !name.is_empty())
    }

    /// The positions of many names. Cheaper than one by one where they come in the order of the last time.
    pub(crate) fn positions<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<Option<usize>> {
        let mut last: Option<&AtomicU32> = None;
        let one = |name: &str| {
            let guess = last.map(|next| next.load(Ordering::Relaxed));
            let guessed = guess.filter(|key| name_at(&self.text, &self.entries, *key) == Some(name));
            let position = match guessed {
                Some(key) => usize::try_from(key).ok(),
                None => self.position(name),
            };
            if guessed.is_none()
                && let (Some(next), Some(key)) = (last, position.and_then(|p| u32::try_from(p).ok()))
            {
                next.store(key, Ordering::Relaxed);
            }
            last = position.and_then(|p| self.entries.get(p)).map(|entry| &entry.next);
            position
        };
        names.map(one).collect()
    }

    /// What orders the node at a position.
    pub(crate) fn standing(&self, position: usize) -> Option<Standing> {
        self.entries.get(position).map(|entry| entry.standing)
    }
}

fn name_at<'a>(text: &'a str, entries: &[Entry], key: u32) -> Option<&'a str> {
    let entry = entries.get(usize::try_from(key).ok()?)?;
    text.get(entry.start..entry.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll(nodes: &[(&str, usize)]) -> Roll {
        Roll::of(1, nodes.iter().map(|(name, position)| (*name, *position, Standing::default())))
    }

    #[test]
    fn names_are_found_in_any_order_and_strangers_are_not() {
        let names: Vec<String> = (0..300).map(|i| format!("node-{i}")).collect();
        let nodes: Vec<(&str, usize)> =
            names.iter().enumerate().map(|(i, name)| (name.as_str(), i * 7 % 300)).collect();
        let roll = roll(&nodes);
        let mut asked = nodes.clone();
        for turn in 0..5 {
            // Twice in one order, so that guesses are right; then in another, so that they are wrong.
            if turn % 2 == 0 {
                asked.rotate_left(37);
                asked.reverse();
            }
            let mut asked_names: Vec<&str> = asked.iter().map(|(name, _)| *name).collect();
            asked_names.insert(5, "nobody");
            asked_names.insert(9, "");
            let mut found = roll.positions(asked_names.into_iter());
            assert_eq!((found.remove(9), found.remove(5)), (None, None));
            assert_eq!(found, asked.iter().map(|(_, position)| Some(*position)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_free_position_has_no_name() {
        let roll = roll(&[("a", 3)]);
        assert_eq!((roll.position("a"), roll.position("")), (Some(3), None));
        assert_eq!(roll.positions(["a", "", "a"].into_iter()), [Some(3), None, Some(3)]);
    }
}
