//! How much room all nodes have for the pods of several GPUs that are expected, kept up to date as nodes change.

use std::sync::Arc;

use berth_core::plan::{Rest, rest};
use berth_core::value::Typical;
use berth_core::value::rooms::Rooms;

use super::State;
use crate::event::Change;
use crate::snapshot::NodeSlot;

impl State {
    /// Puts a slot into its place and counts its room instead of that of the one before.
    pub(super) fn put(&mut self, position: usize, slot: Option<NodeSlot>) {
        let before = self.pages.slot(position).and_then(|slot| room(slot));
        let after = slot.as_ref().and_then(room);
        if before != after {
            let rooms = Arc::make_mut(&mut self.rooms);
            before.iter().for_each(|rest| rooms.remove(rest.remainder()));
            after.iter().for_each(|rest| rooms.add(rest.remainder()));
        }
        self.pages.put(position, slot.map(Arc::new));
    }

    pub(super) fn take_expected(&mut self, kinds: Arc<[Typical]>) -> Change {
        if !self.rooms.is_for(&kinds) {
            let mut rooms = Rooms::of(kinds);
            self.pages.slots().filter_map(|slot| room(slot)).for_each(|rest| rooms.add(rest.remainder()));
            self.rooms = Arc::new(rooms);
        }
        Change::default()
    }
}

/// What of a node is room for others; `None` where pods cannot go or devices are not known.
fn room(slot: &NodeSlot) -> Option<Rest> {
    let hardware = slot.view.hardware.as_ref().filter(|_| slot.exists)?;
    Some(rest(&slot.view, hardware))
}
