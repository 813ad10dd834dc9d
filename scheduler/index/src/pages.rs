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

/// Slots by position. Clones share what did not change since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pages {
    pages: Vec<Arc<Vec<Place>>>,
}

impl Pages {
    /// How many positions there are, free ones among them.
    pub(crate) fn len(&self) -> usize {
        self.pages.len() * PAGE_SLOTS
    }

    fn place(&self, position: usize) -> Option<&Place> {
        self.pages.get(position / PAGE_SLOTS)?.get(position % PAGE_SLOTS)
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
        self.pages.iter().flat_map(|page| page.iter()).filter_map(|place| place.slot.as_ref())
    }

    /// The lowest position without a slot.
    pub(crate) fn free_position(&self) -> usize {
        let mut free = self.pages.iter().flat_map(|page| page.iter()).enumerate().filter(|(_, p)| p.slot.is_none());
        free.next().map_or(self.len(), |(position, _)| position)
    }

    /// Puts a slot at a position, or takes it away.
    pub(crate) fn put(&mut self, position: usize, slot: Option<Arc<NodeSlot>>) {
        while self.len() <= position {
            self.pages.push(Arc::new(vec![Place::default(); PAGE_SLOTS]));
        }
        let Some(page) = self.pages.get_mut(position / PAGE_SLOTS) else { return };
        if let Some(place) = Arc::make_mut(page).get_mut(position % PAGE_SLOTS) {
            let live_version = slot.as_ref().filter(|s| s.exists).map_or(0, |s| s.version);
            *place = Place { live_version, slot };
        }
    }
}
