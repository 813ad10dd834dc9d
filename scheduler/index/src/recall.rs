//! Reading the names of a call by what an earlier call looked like.
//!
//! kube-scheduler asks with the same thousands of names again and again, in nearly the same order: its workers put pieces of one list
//! behind each other in any order, or name by name where they run at the same time, and nodes that other filters refused are missing.
//! So the bytes of a list are compared with those of a list that is remembered. What is equal needs no cutting, no hash and no look-up;
//! a name that breaks the run is looked up, and the run goes on behind it.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashTable;

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

/// Names of a run that are compared one by one before the rest of it is compared as a whole.
const COMPARED_ALONE: usize = 4;

/// Reads lists, and remembers the names of all nodes as they were listed last.
#[derive(Debug, Default)]
pub struct Reader {
    known: ArcSwap<Known>,
}

/// The names of all nodes, and what they are.
#[derive(Debug, Default)]
struct Known {
    /// Whose positions these are.
    roll: Arc<Roll>,
    /// The names with quotes, each with a comma behind it.
    text: Vec<u8>,
    /// The positions of the names.
    positions: Vec<u32>,
    /// Where every name begins, and the end.
    bounds: Vec<u32>,
    /// Places in the text by name.
    by_name: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// How many of the names, at the beginning, were listed in this order.
    ordered: usize,
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
        let mut walk = Walk::new(list, &known);
        walk.all(&snapshot.roll)?;
        let Walk { listed, unordered, .. } = walk;
        // Names come in an order of their own in every call; new is only where nodes are that were not listed yet.
        if unordered > listed.len() / 4 && listed.len() >= LEARNT_NAMES_MIN {
            self.known.store(Arc::new(Known::of(&snapshot.roll, list, &listed, &known)));
        }
        Some(listed)
    }
}

impl Known {
    /// The names of a list, then those that were known before, then all others.
    fn of(roll: &Arc<Roll>, list: &[u8], listed: &Listed, before: &Self) -> Self {
        let mut known = Self { roll: Arc::clone(roll), bounds: vec![0], ..Self::default() };
        let mut is_known = vec![false; roll.len()];
        let mut put = |position: u32, quoted: &[u8]| {
            let Some(is_known) = usize::try_from(position).ok().and_then(|p| is_known.get_mut(p)) else { return };
            if !std::mem::replace(is_known, true) {
                known.put(position, quoted);
            }
        };
        for (place, position) in listed.positions.iter().enumerate() {
            put(*position, listed.quoted(list, place).unwrap_or_default());
        }
        for (place, position) in (0_u32..).zip(before.positions.iter().take(before.ordered)) {
            put(*position, before.quoted(place).unwrap_or_default());
        }
        known.ordered = known.positions.len();
        for (position, name) in roll.names() {
            let is_new = is_known.get_mut(position).is_some_and(|is_known| !std::mem::replace(is_known, true));
            if is_new && let Ok(position) = u32::try_from(position) {
                known.put(position, format!("\"{name}\"").as_bytes());
            }
        }
        known
    }

    fn put(&mut self, position: u32, quoted: &[u8]) {
        let Ok(place) = u32::try_from(self.positions.len()) else { return };
        self.text.extend_from_slice(quoted);
        self.text.push(b',');
        self.positions.push(position);
        self.bounds.push(u32::try_from(self.text.len()).unwrap_or(NONE));
        let Self { text, bounds, by_name, hasher, .. } = self;
        let hash = |name: &[u8]| hasher.hash_one(name);
        by_name.insert_unique(hash(quoted), place, |place| hash(quoted_at(text, bounds, *place).unwrap_or_default()));
    }

    /// A name with its quotes.
    fn quoted(&self, place: u32) -> Option<&[u8]> {
        quoted_at(&self.text, &self.bounds, place)
    }

    /// The place of a name, which is given with its quotes.
    fn find(&self, quoted: &[u8]) -> Option<usize> {
        let place =
            self.by_name.find(self.hasher.hash_one(quoted), |place| self.quoted(*place) == Some(quoted)).copied();
        place.and_then(|place| usize::try_from(place).ok())
    }
}

fn quoted_at<'a>(text: &'a [u8], bounds: &[u32], place: u32) -> Option<&'a [u8]> {
    let [start, end] = bounds.get(usize::try_from(place).ok()?..)?.first_chunk::<2>()?;
    text.get(usize::try_from(*start).ok()?..usize::try_from(*end).ok()?.checked_sub(1)?)
}

/// A list while it is read.
struct Walk<'a> {
    list: &'a [u8],
    known: &'a Known,
    /// How much of the list is read.
    at: usize,
    /// The place in the known list that is likely to come next.
    next: usize,
    /// Names that were looked up.
    lookups: usize,
    /// Names that no list had in an order yet.
    unordered: usize,
    listed: Listed,
}

impl<'a> Walk<'a> {
    fn new(list: &'a [u8], known: &'a Known) -> Self {
        let mut listed = Listed::default();
        listed.positions.reserve(known.positions.len());
        listed.starts.reserve(known.positions.len());
        Self { list, known, at: 0, next: 0, lookups: 0, unordered: 0, listed }
    }

    fn all(&mut self, roll: &Roll) -> Option<()> {
        while self.at < self.list.len() {
            // Where names come one by one, the next but one is no better a guess.
            let is_in_order = self.run() > 1;
            if self.at < self.list.len() && !(is_in_order && self.skip()) {
                self.one(roll)?;
            }
        }
        // A comma at the end is one too many.
        (self.list.last() != Some(&b',')).then_some(())
    }

    /// Takes the names that stand in both lists, from here on, and says how many there are. Most runs are short where names come one by
    /// one: the first few are compared alone.
    fn run(&mut self) -> usize {
        let before = self.next;
        for _ in 0..COMPARED_ALONE {
            let rest = self.list.get(self.at..).unwrap_or_default();
            if !self.known.follows(self.next, rest) || self.take(self.next.saturating_add(1)).is_none() {
                return self.next.saturating_sub(before);
            }
        }
        self.long_run();
        self.next.saturating_sub(before)
    }

    fn long_run(&mut self) -> Option<()> {
        let rest = self.list.get(self.at..)?;
        let (first, later) = self.known.bounds.get(self.next..)?.split_first()?;
        let common = common_length(rest, text_from(&self.known.text, *first));
        let common_u32 = u32::try_from(common).ok()?;
        // How many names all is common of, up to the next one's quote.
        let mut count = gallop(later, |bound| bound.saturating_sub(*first) <= common_u32);
        // The list that is read has no comma behind its last name.
        let whole = |bound: &u32| bound.saturating_sub(*first) == common_u32.saturating_add(1);
        if common == rest.len() && later.get(count).is_some_and(whole) {
            count = count.saturating_add(1);
        }
        self.take(self.next.checked_add(count)?)
    }

    /// Takes the names of the known list up to a place.
    fn take(&mut self, end: usize) -> Option<()> {
        let places = self.next..end;
        let (positions, starts) = (self.known.positions.get(places.clone())?, self.known.bounds.get(places)?);
        let (first, behind) = (self.known.bounds.get(self.next)?, self.known.bounds.get(end)?);
        let at = u32::try_from(self.at).ok()?;
        self.listed.starts.extend(starts.iter().map(|start| start.saturating_sub(*first).saturating_add(at)));
        self.listed.positions.extend_from_slice(positions);
        let taken = usize::try_from(behind.saturating_sub(*first)).ok()?;
        self.at = self.at.saturating_add(taken).min(self.list.len());
        self.unordered = self.unordered.saturating_add(end.saturating_sub(self.next.max(self.known.ordered)));
        self.next = end;
        Some(())
    }

    /// Goes on behind a few names of the known list that are missing in this one; says whether the run goes on there.
    fn skip(&mut self) -> bool {
        let rest = self.list.get(self.at..).unwrap_or_default();
        let found = (self.next.saturating_add(1)..).take(SKIPPED_MAX).find(|place| self.known.follows(*place, rest));
        self.next = found.unwrap_or(self.next);
        found.is_some()
    }

    /// Takes one name by looking it up.
    fn one(&mut self, roll: &Roll) -> Option<()> {
        let rest = self.list.get(self.at..)?;
        let end = memchr::memchr(b'"', rest.strip_prefix(b"\"")?)?;
        let (quoted, after) = rest.split_at_checked(end.checked_add(2)?)?;
        match after.first() {
            None | Some(b',') => {}
            Some(_) => return None,
        }
        let place = self.known.find(quoted);
        let position = match place.and_then(|place| self.known.positions.get(place)) {
            Some(position) => *position,
            None => position_of(roll, rest.get(1..)?.get(..end)?)?,
        };
        let is_ordered = place.is_some_and(|place| place < self.known.ordered);
        self.unordered = self.unordered.saturating_add(usize::from(!is_ordered && position != NONE));
        self.listed.positions.push(position);
        self.listed.starts.push(u32::try_from(self.at).ok()?);
        self.at = self.at.checked_add(end)?.checked_add(3)?.min(self.list.len());
        self.lookups = self.lookups.saturating_add(1);
        self.next = place.map_or(self.next, |place| place.saturating_add(1));
        Some(())
    }
}

impl Known {
    /// Whether a text goes on with the name at a place.
    fn follows(&self, place: usize, rest: &[u8]) -> bool {
        let bounds = self.bounds.get(place..).unwrap_or_default();
        let [start, end, ..] = bounds else { return false };
        let name = text_from(&self.text, *start);
        let name = usize::try_from(end.saturating_sub(*start)).ok().and_then(|length| name.get(..length));
        // A list has no comma behind its last name.
        name.is_some_and(|name| rest.starts_with(name) || name.strip_suffix(b",") == Some(rest))
    }
}

/// The position of a name that is not known, [`NONE`] for a stranger. `None` where it is written with an escape: it is another one then.
fn position_of(roll: &Roll, name: &[u8]) -> Option<u32> {
    if name.iter().any(|byte| *byte < b' ' || *byte == b'\\') {
        return None;
    }
    let position = roll.position(std::str::from_utf8(name).ok()?);
    Some(position.and_then(|position| u32::try_from(position).ok()).unwrap_or(NONE))
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
