//! Slots by position, in pages that snapshots share: a snapshot is a list of pages, and one event copies one page.
//!
//! Copying all slots for every snapshot would touch the counter of each node, on a core that has not seen it since.

use std::sync::Arc;

use crate::snapshot::NodeSlot;

/// Slots of a page: the square root of a few thousand, so that the list of pages is as short as a page.
const PAGE_SLOTS: usize = 64;

/// One position.
#[derive(Debug, Clone, Default)]
struct Place {
    /// The slot's version where the node has a Node object, else 0, which is no version. Read in every call; the slot is not.
    live_version: u64,
    slot: Option<Arc<NodeSlot>>,
}

/// Places that change together.
#[derive(Debug, Clone)]
struct Page {
    /// Which change of any page was its last.
    stamp: u64,
    places: Vec<Place>,
}

/// Slots by position. Clones share what did not change since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pages {
    pages: Vec<Arc<Page>>,
    /// How many changes there were.
    changes: u64,
}

impl Pages {
    /// How many positions there are, free ones among them.
    pub(crate) fn len(&self) -> usize {
        self.pages.len() * PAGE_SLOTS
    }

    fn place(&self, position: usize) -> Option<&Place> {
        self.pages.get(position / PAGE_SLOTS)?.places.get(position % PAGE_SLOTS)
    }

    /// Of every page its first position and its stamp: of one index, equal stamps are equal pages. No stamp is zero.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = (usize, u64)> {
        self.pages.iter().enumerate().map(|(page, p)| (page.saturating_mul(PAGE_SLOTS), p.stamp))
    }

    /// The versions of the nodes of the page that begins at a position, zero where there is none with a Node object.
    pub(crate) fn live_versions(&self, start: usize) -> impl Iterator<Item = u64> {
        let places = self.pages.get(start / PAGE_SLOTS).map_or(&[][..], |page| page.places.as_slice());
        places.iter().map(|place| place.live_version)
    }

    /// The version of a node that has a Node object.
    pub(crate) fn live_version(&self, position: usize) -> Option<u64> {
        self.place(position).map(|place| place.live_version).filter(|version| *version != 0)
    }

    /// The slot at a position.
    pub(crate) fn slot(&self, position: usize) -> Option<&Arc<NodeSlot>> {
        self.place(position)?.slot.as_ref()
    }

    /// All slots.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Arc<NodeSlot>> {
        self.pages.iter().flat_map(|page| page.places.iter()).filter_map(|place| place.slot.as_ref())
    }

    /// The lowest position without a slot.
    pub(crate) fn free_position(&self) -> usize {
        let mut free =
            self.pages.iter().flat_map(|page| page.places.iter()).enumerate().filter(|(_, p)| p.slot.is_none());
        free.next().map_or(self.len(), |(position, _)| position)
    }

    /// Puts a slot at a position, or takes it away.
    pub(crate) fn put(&mut self, position: usize, slot: Option<Arc<NodeSlot>>) {
        while self.len() <= position {
            self.changes = self.changes.saturating_add(1);
            self.pages.push(Arc::new(Page { stamp: self.changes, places: vec![Place::default(); PAGE_SLOTS] }));
        }
        self.changes = self.changes.saturating_add(1);
        let Some(page) = self.pages.get_mut(position / PAGE_SLOTS).map(Arc::make_mut) else { return };
        page.stamp = self.changes;
        if let Some(place) = page.places.get_mut(position % PAGE_SLOTS) {
            let live_version = slot.as_ref().filter(|s| s.exists).map_or(0, |s| s.version);
            *place = Place { live_version, slot };
        }
    }
}
