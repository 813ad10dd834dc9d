//! The nodes in the order of their keys, best first, for one shape of pod. A few changed keys are moved; only after many is all sorted anew.
//!
//! What a key says, and when it is old, is not known here.

use berth_core::order::Key;

/// Keys moved one by one, each by two searches, before sorting all is cheaper.
const MOVES_MAX: usize = 64;

/// Keys by position, and their order.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// [`Key::LAST`] where the pod does not fit, [`Key::UNKNOWN`] where nobody has asked yet.
    keys: Vec<Key>,
    /// Positions of the nodes that fit, best first, unless it is old.
    best_first: Vec<u32>,
    is_old: bool,
    /// Since `best_first` was last read.
    moves: usize,
    /// How many keys are unknown.
    unknown: usize,
}

fn fits(key: Key) -> bool {
    key < Key::UNKNOWN
}

impl Ranking {
    /// Makes room for positions below `len`. New ones do not fit.
    pub(super) fn grow(&mut self, len: usize) {
        if self.keys.len() < len {
            self.keys.resize(len, Key::LAST);
        }
    }

    /// Keys are about to change that may no longer be compared with the others.
    pub(super) fn forget_order(&mut self) {
        self.is_old = true;
    }

    /// The key at a position.
    pub(super) fn key(&self, position: usize) -> Option<Key> {
        self.keys.get(position).copied()
    }

    /// Whether the node at a position is known to fit.
    pub(super) fn fits(&self, position: usize) -> bool {
        self.key(position).is_some_and(fits)
    }

    /// Puts a key at a position.
    pub(super) fn set(&mut self, position: usize, key: Key) {
        let (Some(old), Ok(at)) = (self.key(position), u32::try_from(position)) else { return };
        if old == key {
            return;
        }
        self.unknown = self.unknown.saturating_sub(usize::from(old == Key::UNKNOWN));
        self.unknown = self.unknown.saturating_add(usize::from(key == Key::UNKNOWN));
        self.moves = self.moves.saturating_add(1);
        self.is_old |= self.moves > MOVES_MAX;
        if fits(old) && !self.is_old {
            let place = self.place_of(old);
            if self.best_first.get(place) == Some(&at) {
                self.best_first.remove(place);
            } else {
                self.is_old = true;
            }
        }
        if let Some(cell) = self.keys.get_mut(position) {
            *cell = key;
        }
        if fits(key) && !self.is_old {
            self.best_first.insert(self.place_of(key), at);
        }
    }

    /// How many nodes are better than a key.
    fn place_of(&self, key: Key) -> usize {
        self.best_first.partition_point(|other| usize::try_from(*other).ok().and_then(|o| self.key(o)) < Some(key))
    }

    /// Those of the positions that have an unknown key. The caller puts keys there.
    pub(super) fn unknown_of(&self, positions: impl Iterator<Item = usize>) -> Vec<usize> {
        if self.unknown == 0 {
            return Vec::new();
        }
        positions.filter(|position| self.key(*position) == Some(Key::UNKNOWN)).collect()
    }

    /// Positions and keys of the nodes that fit, best first.
    pub(super) fn best_first(&mut self) -> impl Iterator<Item = (usize, Key)> {
        self.moves = 0;
        if std::mem::take(&mut self.is_old) {
            let positions = (0_u32..).zip(&self.keys).filter(|(_, key)| fits(**key));
            let mut keyed: Vec<(Key, u32)> = positions.map(|(at, key)| (*key, at)).collect();
            keyed.sort_unstable();
            self.best_first = keyed.into_iter().map(|(_, at)| at).collect();
        }
        self.best_first.iter().filter_map(|at| {
            let position = usize::try_from(*at).ok()?;
            Some((position, self.key(position)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use berth_core::score::{Ppm, Score};

    use super::*;

    fn key(value: u64, rank: usize) -> Key {
        let value = Ppm(u32::try_from(value).unwrap());
        Key::of(Score { is_trusted: !value.0.is_multiple_of(5), value }, u32::try_from(rank).unwrap())
    }

    #[test]
    fn the_order_is_that_of_sorting_whatever_changed_before() {
        let mut seed = 11_u64;
        let mut below = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        let mut ranking = Ranking::default();
        let mut sorted = 0;
        for round in 0..600 {
            ranking.grow(usize::try_from(20 + below(300)).unwrap());
            if below(20) == 0 {
                ranking.forget_order();
            }
            for _ in 0..[1, 3, 40, 90][usize::try_from(below(4)).unwrap()] {
                let position = usize::try_from(below(330)).unwrap();
                let key = match below(6) {
                    0 => Key::LAST,
                    1 => Key::UNKNOWN,
                    // No two nodes have the same rank.
                    _ => key(below(8), position + 1000 * round),
                };
                ranking.set(position, key);
            }
            sorted += u32::from(ranking.is_old);
            let remainder = usize::try_from(below(3)).unwrap();
            let asked = (0..330).filter(|position| position % 3 == remainder);
            let unknown = |p: &usize| ranking.key(*p) == Some(Key::UNKNOWN);
            let expected: Vec<usize> = asked.clone().filter(unknown).collect();
            assert_eq!(ranking.unknown, (0..330).filter(unknown).count(), "round {round}");
            assert_eq!(ranking.unknown_of(asked), expected, "round {round}");
            expected.into_iter().for_each(|position| ranking.set(position, Key::LAST));
            let mut expected: Vec<(Key, usize)> =
                (0..330).filter_map(|p| Some((ranking.key(p)?, p))).filter(|(k, _)| fits(*k)).collect();
            expected.sort_unstable();
            let found: Vec<(Key, usize)> = ranking.best_first().map(|(p, k)| (k, p)).collect();
            assert_eq!(found, expected, "round {round}");
        }
        assert!((100..500).contains(&sorted), "{sorted} of 600 orders were made anew");
    }
}
