//! The verdicts of one shape as what orders nodes, kept by position: thousands are read in every call, and next to nothing else.
//!
//! A page of the snapshot that did not change since the last call has no key that did.

use berth_core::order::{Key, Selection};

use super::{Judge, Remembered, Verdict};
use crate::recall::Listed;
use crate::snapshot::Snapshot;

/// Keys by position.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The roll that the ranks of names in the keys are of.
    serial: u64,
    /// Of every page the stamp with which its keys were looked through.
    stamps: Vec<u64>,
    /// [`Key::LAST`] where the pod does not fit, [`Key::UNKNOWN`] where nobody has asked yet.
    keys: Vec<Key>,
}

/// What a filter answer names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Places in the call of the nodes that are named: best first where somebody is left out, else in the order of the call.
    pub places: Vec<usize>,
    /// How many nodes fit.
    pub fit_count: usize,
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

/// The key of a node for a pod whose group is in a clique, where it is in one.
pub(super) fn in_clique(snapshot: &Snapshot, position: usize, key: Key, clique: Option<u32>) -> Key {
    let is_in = |clique| snapshot.standing(position).is_some_and(|standing| standing.clique == Some(clique));
    if clique.is_none_or(is_in) { key } else { key.outside() }
}

impl Remembered {
    /// Forgets the keys of nodes that changed since the last call.
    fn catch_up(&mut self, snapshot: &Snapshot) {
        let Self { verdicts, keys: Keys { serial, stamps, keys }, .. } = self;
        keys.resize(verdicts.len(), Key::UNKNOWN);
        stamps.resize(snapshot.pages.stamps().count(), 0);
        if *serial != snapshot.roll.serial() {
            *serial = snapshot.roll.serial();
            stamps.fill(0);
        }
        for ((start, stamp), seen) in snapshot.pages.stamps().zip(stamps) {
            if *seen == stamp {
                continue;
            }
            *seen = stamp;
            let cells = keys.iter_mut().zip(&*verdicts).enumerate().skip(start);
            for ((position, (key, known)), version) in cells.zip(snapshot.pages.live_versions(start)) {
                let verdict = known.verdict.filter(|_| known.version == version && version != 0);
                *key = match (version, verdict) {
                    (0, _) => Key::LAST,
                    (_, None) => Key::UNKNOWN,
                    (_, Some(verdict)) => key_of(snapshot, position, verdict),
                };
            }
        }
    }
}

fn key_of(snapshot: &Snapshot, position: usize, verdict: Verdict) -> Key {
    match (verdict, snapshot.standing(position)) {
        (Verdict::Fit(score), Some(standing)) => Key::of(score, standing.name_rank),
        (Verdict::Fit(_) | Verdict::Unfit(_), _) => Key::LAST,
    }
}

/// Tells every node that fits: its place in the call, its position, and what orders it.
pub(super) fn for_each(
    remembered: &mut Remembered,
    judge: &mut Judge<'_>,
    snapshot: &Snapshot,
    listed: &Listed,
    mut tell: impl FnMut(usize, usize, Key),
) {
    remembered.catch_up(snapshot);
    for (place, position) in listed.positions().enumerate() {
        let Some(key) = remembered.keys.keys.get_mut(position) else { continue };
        if *key == Key::UNKNOWN {
            let known = remembered.verdicts.get_mut(position);
            let verdict = known.and_then(|known| judge.bring_up(known, snapshot, position));
            *key = verdict.map_or(Key::LAST, |verdict| key_of(snapshot, position, verdict));
        }
        if *key != Key::LAST {
            tell(place, position, *key);
        }
    }
}

/// See [`super::Evaluator::short_list`].
pub(super) fn short_list(
    remembered: &mut Remembered,
    judge: &mut Judge<'_>,
    snapshot: &Snapshot,
    listed: &Listed,
    rules: Rules,
) -> Listing {
    let Some(size) = rules.size else {
        let mut places = Vec::with_capacity(listed.len());
        for_each(remembered, judge, snapshot, listed, |place, _, _| places.push(place));
        return Listing { fit_count: places.len(), places };
    };
    let mut selection = Selection::new(size, rules.per_zone);
    let mut fit_count = 0_usize;
    for_each(remembered, judge, snapshot, listed, |place, position, key| {
        fit_count = fit_count.saturating_add(1);
        if let Some(standing) = snapshot.standing(position) {
            let key =
                if rules.clique.is_none_or(|clique| standing.clique == Some(clique)) { key } else { key.outside() };
            selection.offer(key, place, standing.zone, standing.is_avoided);
        }
    });
    let mut places = selection.finish();
    if fit_count <= size {
        places.sort_unstable();
    }
    Listing { places, fit_count }
}
