//! The verdicts of one shape as what orders nodes: thousands are read in every call, and next to nothing else.
//!
//! A page of the snapshot that did not change since the last call has no key that did. What a call names is taken from the front of the
//! order of all nodes: a short list looks at little more than what it lists.

use std::ops::ControlFlow;

use berth_core::order::{Key, Selection};

use super::ranking::Ranking;
use super::{Judge, Remembered, Verdict};
use crate::recall::{Listed, NONE};
use crate::snapshot::Snapshot;

/// Keys by position.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The roll that the ranks of names in the keys are of.
    serial: u64,
    /// Of every page the stamp with which its keys were looked through.
    stamps: Vec<u64>,
    ranking: Ranking,
}

/// What a filter answer names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Places in the call of the nodes that are named: best first where the list is cut, else in the order of the call.
    pub places: Vec<usize>,
    /// Whether nodes that fit are not named.
    pub leaves_out: bool,
}

/// The nodes of a call that fit, in the order of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zoned {
    /// Their places in the call.
    pub places: Vec<usize>,
    /// What orders each, and its zone.
    pub keys: Vec<(Key, Option<u32>)>,
}

/// How a filter answer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many nodes it names; `None` for all.
    pub size: Option<usize>,
    /// How many of every zone it names in any case.
    pub per_zone: usize,
    /// The clique that comes first.
    pub clique: Option<u32>,
}

/// The places of a call by position.
#[derive(Debug)]
struct Asked {
    places: Vec<u32>,
}

impl Asked {
    /// `None` where a node is named twice: one place is not all of it then.
    fn of(listed: &Listed, snapshot: &Snapshot) -> Option<Self> {
        let mut places = vec![NONE; snapshot.roll.len()];
        let mut is_twice = false;
        for (place, position) in (0_u32..).zip(listed.positions()) {
            if let Some(cell) = places.get_mut(position) {
                is_twice |= *cell != NONE;
                *cell = place;
            }
        }
        (!is_twice).then_some(Self { places })
    }

    fn place(&self, position: usize) -> Option<usize> {
        self.places.get(position).filter(|place| **place != NONE).and_then(|place| usize::try_from(*place).ok())
    }
}

/// The key of a node for a pod whose group is in a clique, where it is in one.
fn in_clique(snapshot: &Snapshot, position: usize, key: Key, clique: Option<u32>) -> Key {
    let is_in = |clique| snapshot.standing(position).is_some_and(|standing| standing.clique == Some(clique));
    if clique.is_none_or(is_in) { key } else { key.outside() }
}

impl Remembered {
    /// Knows all keys of the nodes that are asked for, of this snapshot.
    fn bring_up(&mut self, judge: &mut Judge<'_>, snapshot: &Snapshot, listed: &Listed) {
        self.catch_up(snapshot);
        let Self { verdicts, keys: Keys { ranking, .. }, .. } = self;
        for position in ranking.unknown_of(listed.positions()) {
            let verdict = verdicts.get_mut(position).and_then(|known| judge.bring_up(known, snapshot, position));
            ranking.set(position, verdict.map_or(Key::LAST, |verdict| key_of(snapshot, position, verdict)));
        }
    }

    /// Forgets the keys of nodes that changed since the last call.
    fn catch_up(&mut self, snapshot: &Snapshot) {
        let Self { verdicts, keys: Keys { serial, stamps, ranking }, .. } = self;
        ranking.grow(verdicts.len());
        stamps.resize(snapshot.pages.stamps().count(), 0);
        if *serial != snapshot.roll.serial() {
            *serial = snapshot.roll.serial();
            stamps.fill(0);
            ranking.forget_order();
        }
        for ((start, stamp), seen) in snapshot.pages.stamps().zip(stamps) {
            if *seen == stamp {
                continue;
            }
            *seen = stamp;
            let known = verdicts.iter().enumerate().skip(start);
            for ((position, known), version) in known.zip(snapshot.pages.live_versions(start)) {
                let verdict = known.verdict.filter(|_| known.version == version && version != 0);
                let key = match (version, verdict) {
                    (0, _) => Key::LAST,
                    (_, None) => Key::UNKNOWN,
                    (_, Some(verdict)) => key_of(snapshot, position, verdict),
                };
                ranking.set(position, key);
            }
        }
    }

    /// Tells the nodes of a call that fit, best first: place, position, key.
    fn walk(
        &mut self,
        snapshot: &Snapshot,
        asked: &Asked,
        clique: Option<u32>,
        mut tell: impl FnMut(usize, usize, Key) -> ControlFlow<()>,
    ) {
        let all = self.keys.ranking.best_first();
        let mut fitting = all.filter_map(|(position, key)| Some((key, asked.place(position)?, position)));
        let mut tell = |(key, place, position)| tell(place, position, key);
        // What the walk came to tell is told by then.
        let _ended = if clique.is_none() {
            fitting.try_for_each(&mut tell)
        } else {
            let inside = |(key, place, position)| (in_clique(snapshot, position, key, clique), place, position);
            let mut fitting: Vec<_> = fitting.map(inside).collect();
            fitting.sort_unstable();
            fitting.into_iter().try_for_each(&mut tell)
        };
    }
}

fn key_of(snapshot: &Snapshot, position: usize, verdict: Verdict) -> Key {
    match (verdict, snapshot.standing(position)) {
        (Verdict::Fit(score), Some(standing)) => Key::of(score, standing.name_rank),
        (Verdict::Fit(_) | Verdict::Unfit(_), _) => Key::LAST,
    }
}

/// See [`super::Evaluator::short_list`].
pub(super) fn short_list(
    remembered: &mut Remembered,
    judge: &mut Judge<'_>,
    snapshot: &Snapshot,
    listed: &Listed,
    rules: Rules,
) -> Option<Listing> {
    let asked = Asked::of(listed, snapshot)?;
    remembered.bring_up(judge, snapshot, listed);
    let Some(size) = rules.size else {
        let ranking = &remembered.keys.ranking;
        let fitting = listed.positions().enumerate().filter(|(_, position)| ranking.fits(*position));
        return Some(Listing { places: fitting.map(|(place, _)| place).collect(), leaves_out: false });
    };
    let mut selection = Selection::new(size, rules.per_zone);
    let mut leaves_out = false;
    let zone_count = snapshot.roll.zone_count();
    remembered.walk(snapshot, &asked, rules.clique, |place, position, key| {
        let Some(standing) = snapshot.standing(position) else { return ControlFlow::Continue(()) };
        if selection.offer(key, place, standing.zone, standing.is_avoided) {
            return ControlFlow::Continue(());
        }
        leaves_out = true;
        if selection.is_settled(zone_count) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut places = selection.finish();
    if !leaves_out && places.len() <= size {
        places.sort_unstable();
    }
    Some(Listing { places, leaves_out })
}

/// See [`super::Evaluator::ranks`].
pub(super) fn ranks(
    remembered: &mut Remembered,
    judge: &mut Judge<'_>,
    snapshot: &Snapshot,
    listed: &Listed,
    clique: Option<u32>,
) -> Option<Vec<u32>> {
    let asked = Asked::of(listed, snapshot)?;
    remembered.bring_up(judge, snapshot, listed);
    let mut best_first = Vec::with_capacity(listed.len());
    remembered.walk(snapshot, &asked, clique, |place, _, _| {
        best_first.push(place);
        ControlFlow::Continue(())
    });
    let mut ranks = vec![0_u32; listed.len()];
    for (rank, place) in (1_u32..).zip(best_first.into_iter().rev()) {
        if let Some(cell) = ranks.get_mut(place) {
            *cell = rank;
        }
    }
    Some(ranks)
}

/// See [`super::Evaluator::zoned_keys`].
pub(super) fn zoned(
    remembered: &mut Remembered,
    judge: &mut Judge<'_>,
    snapshot: &Snapshot,
    listed: &Listed,
    clique: Option<u32>,
) -> Option<Zoned> {
    // A node that is named twice is left to who asks for reasons, on every way.
    let _asked = Asked::of(listed, snapshot)?;
    remembered.bring_up(judge, snapshot, listed);
    let ranking = &remembered.keys.ranking;
    let fitting = listed.positions().enumerate().filter(|(_, position)| ranking.fits(*position));
    let told = fitting.filter_map(|(place, position)| {
        let zone = snapshot.standing(position).and_then(|standing| standing.zone);
        Some((place, (in_clique(snapshot, position, ranking.key(position)?, clique), zone)))
    });
    let (places, keys) = told.unzip();
    Some(Zoned { places, keys })
}
