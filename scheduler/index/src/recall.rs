//! Reading the names of a call by what an earlier call looked like.
//!
//! kube-scheduler asks with the same thousands of names again and again, in nearly the same order: its workers put pieces of one list
//! behind each other in any order, and nodes that other filters refused are missing. So the bytes of a list are compared with those of a
//! list that is remembered. What is equal needs no cutting, no hash and no look-up; a name that breaks the run is looked up, and the run
//! goes on behind it.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::roll::Roll;
use crate::snapshot::Snapshot;

/// Stands for no position, and for no place.
pub(crate) const NONE: u32 = u32::MAX;

/// The names of one call, by position and by where they stand in the bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Of every name its node's position, [`NONE`] for a stranger.
    positions: Vec<u32>,
    /// Of every name where its first quote stands.
    starts: Vec<u32>,
}

impl Listed {
    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Of every name its node's position; no node has the position of a stranger.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> {
        self.positions.iter().map(|position| usize::try_from(*position).unwrap_or(usize::MAX))
    }

    /// A name with its quotes, out of the list that was read.
    #[must_use]
    pub fn quoted<'l>(&self, list: &'l [u8], at: usize) -> Option<&'l [u8]> {
        list.get(self.span(list, at)?)
    }

    /// Where a name stands, with its quotes.
    fn span(&self, list: &[u8], at: usize) -> Option<Range<usize>> {
        let start = usize::try_from(*self.starts.get(at)?).ok()?;
        let end = match self.starts.get(at.checked_add(1)?) {
            Some(next) => usize::try_from(*next).ok()?.checked_sub(1)?,
            None => list.len(),
        };
        Some(start..end)
    }

    /// Names with their quotes, out of the list that was read. Those that stand there side by side come in one piece, with their commas.
    pub fn quoted_runs<'l>(&self, list: &'l [u8], places: &[usize]) -> impl Iterator<Item = &'l [u8]> + Clone {
        let run = |places: &[usize]| {
            let (first, last) = (self.span(list, *places.first()?)?, self.span(list, *places.last()?)?);
            list.get(first.start..last.end)
        };
        places.chunk_by(|place, next| place.checked_add(1) == Some(*next)).filter_map(run)
    }
}

/// Names of the known list that a list may leave out before the next one is looked up: those that fit are asked for again.
const SKIPPED_MAX: usize = 4;

/// Reads lists, and remembers one.
#[derive(Debug, Default)]
pub struct Reader {
    known: ArcSwap<Known>,
}

/// A list and what its names are.
#[derive(Debug, Default)]
struct Known {
    /// Whose positions these are.
    roll: Arc<Roll>,
    /// The list with a comma at its end, so that every name has one.
    text: Vec<u8>,
    /// The positions of its names.
    positions: Vec<u32>,
    /// Where every name begins, and the end.
    bounds: Vec<u32>,
    /// By position: the place in the list.
    places: Vec<u32>,
}

/// A list that is shorter than this is not worth remembering.
const LEARNT_NAMES_MIN: usize = 64;

impl Reader {
    /// Reads `"a","b","c"`, as Go writes names between the brackets. `None` where the list is written otherwise: that is for a parser.
    #[must_use]
    pub fn read(&self, snapshot: &Snapshot, list: &[u8]) -> Option<Listed> {
        let known = self.known.load_full();
        let is_of_today = Arc::ptr_eq(&known.roll, &snapshot.roll);
        let known = if is_of_today { known } else { Arc::new(Known::default()) };
        let mut walk = Walk { list, known: &known, at: 0, next: 0, lookups: 0, listed: Listed::default() };
        walk.listed.positions.reserve(known.positions.len());
        walk.listed.starts.reserve(known.positions.len());
        walk.all(&snapshot.roll)?;
        let Walk { listed, lookups, .. } = walk;
        // A short list does not take the place of a long one: prioritize follows filter, and filter comes again.
        let is_strange = lookups > listed.len() / 4;
        if is_strange && listed.len() >= LEARNT_NAMES_MIN.max(known.positions.len() / 2) {
            self.known.store(Arc::new(Known::of(&snapshot.roll, list, &listed)));
        }
        Some(listed)
    }
}

impl Known {
    fn of(roll: &Arc<Roll>, list: &[u8], listed: &Listed) -> Self {
        let mut text = Vec::with_capacity(list.len().saturating_add(1));
        text.extend_from_slice(list);
        text.push(b',');
        let mut bounds = listed.starts.clone();
        bounds.push(u32::try_from(text.len()).unwrap_or(NONE));
        let mut places = vec![NONE; roll.len()];
        for (place, position) in (0_u32..).zip(listed.positions()) {
            if let Some(cell) = places.get_mut(position) {
                *cell = place;
            }
        }
        Self { roll: Arc::clone(roll), text, positions: listed.positions.clone(), bounds, places }
    }
}

/// A list while it is read.
struct Walk<'a> {
    list: &'a [u8],
    known: &'a Known,
    /// How much of the list is read.
    at: usize,
    /// The place in the known list that is likely to come next.
    next: usize,
    lookups: usize,
    listed: Listed,
}

impl Walk<'_> {
    fn all(&mut self, roll: &Roll) -> Option<()> {
        while self.at < self.list.len() {
            self.run();
            if self.at < self.list.len() && !self.skip() {
                self.one(roll)?;
            }
        }
        // A comma at the end is one too many.
        (self.list.last() != Some(&b',')).then_some(())
    }

    /// Takes the names that stand in both lists, from here on.
    fn run(&mut self) {
        let known = self.known;
        let Some((first, later)) = known.bounds.get(self.next..).and_then(<[u32]>::split_first) else { return };
        let rest = self.list.get(self.at..).unwrap_or_default();
        let common = common_length(rest, text_from(&known.text, *first));
        let Ok(common_u32) = u32::try_from(common) else { return };
        // How many names all is common of, up to the next one's quote.
        let mut count = gallop(later, |bound| bound.saturating_sub(*first) <= common_u32);
        // The list that is read has no comma behind its last name.
        let whole = |bound: &u32| bound.saturating_sub(*first) == common_u32.saturating_add(1);
        if common == rest.len() && later.get(count).is_some_and(whole) {
            count = count.saturating_add(1);
        }
        let places = self.next..self.next.saturating_add(count);
        let (Some(positions), Some(starts)) = (known.positions.get(places.clone()), known.bounds.get(places.clone()))
        else {
            return;
        };
        let (Ok(at), Some(end)) = (u32::try_from(self.at), known.bounds.get(places.end)) else { return };
        self.listed.starts.extend(starts.iter().map(|start| start.saturating_sub(*first).saturating_add(at)));
        self.listed.positions.extend_from_slice(positions);
        let taken = usize::try_from(end.saturating_sub(*first)).unwrap_or(0);
        self.at = self.at.saturating_add(taken).min(self.list.len());
        self.next = places.end;
    }

    /// Goes on behind a few names of the known list that are missing in this one; says whether the run goes on there.
    fn skip(&mut self) -> bool {
        let rest = self.list.get(self.at..).unwrap_or_default();
        let is_next = |place: &usize| {
            let bounds = self.known.bounds.get(*place..).unwrap_or_default();
            let [start, end, ..] = bounds else { return false };
            let name = text_from(&self.known.text, *start);
            let name = usize::try_from(end.saturating_sub(*start)).ok().and_then(|length| name.get(..length));
            // The list that is read has no comma behind its last name.
            name.is_some_and(|name| rest.starts_with(name) || name.strip_suffix(b",") == Some(rest))
        };
        let found = (self.next.saturating_add(1)..).take(SKIPPED_MAX).find(is_next);
        self.next = found.unwrap_or(self.next);
        found.is_some()
    }

    /// Takes one name by looking it up.
    fn one(&mut self, roll: &Roll) -> Option<()> {
        let rest = self.list.get(self.at..)?.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        let name = std::str::from_utf8(rest.get(..end)?).ok()?;
        let position = roll.position(name).and_then(|p| u32::try_from(p).ok());
        // A name that is written with an escape is another one.
        if name.bytes().any(|byte| byte < b' ' || byte == b'\\') {
            return None;
        }
        match rest.get(end.checked_add(1)?) {
            None | Some(b',') => {}
            Some(_) => return None,
        }
        self.listed.positions.push(position.unwrap_or(NONE));
        self.listed.starts.push(u32::try_from(self.at).ok()?);
        self.at = self.at.checked_add(end)?.checked_add(3)?.min(self.list.len());
        self.lookups = self.lookups.saturating_add(1);
        let place = position.and_then(|p| usize::try_from(p).ok()).and_then(|p| self.known.places.get(p));
        let place = place.filter(|place| **place != NONE).and_then(|place| usize::try_from(*place).ok());
        self.next = place.map_or(self.next, |place| place.saturating_add(1));
        Some(())
    }
}

/// How many of the first satisfy a condition that none does after the first one that does not. Short answers are found near the
/// beginning, where a search from the middle would read memory that nobody has read before.
fn gallop(bounds: &[u32], is_in: impl Fn(&u32) -> bool) -> usize {
    let mut end = 1_usize;
    while bounds.get(end.saturating_sub(1)).is_some_and(&is_in) {
        end = end.saturating_mul(4);
    }
    let near = bounds.get(..end.min(bounds.len())).unwrap_or_default();
    near.partition_point(is_in)
}

fn text_from(text: &[u8], start: u32) -> &[u8] {
    usize::try_from(start).ok().and_then(|start| text.get(start..)).unwrap_or_default()
}

/// How many bytes two texts have in common at their beginnings: long pieces by the library's compare, then ever shorter ones.
fn common_length(a: &[u8], b: &[u8]) -> usize {
    const LONG: usize = 512;
    const WIDE: usize = 32;
    let long = LONG * equal_pieces::<LONG>(a, b);
    let (a, b) = (a.get(long..).unwrap_or_default(), b.get(long..).unwrap_or_default());
    let wide = WIDE * equal_pieces::<WIDE>(a, b);
    let (a, b) = (a.get(wide..).unwrap_or_default(), b.get(wide..).unwrap_or_default());
    let rest = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    long.saturating_add(wide).saturating_add(rest)
}

/// How many pieces of this size are equal before the first that is not.
fn equal_pieces<const SIZE: usize>(a: &[u8], b: &[u8]) -> usize {
    a.as_chunks::<SIZE>().0.iter().zip(b.as_chunks::<SIZE>().0).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
