//! What readers see: an immutable picture of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use berth_core::NodeView;

use crate::ledger::Holder;

/// One node of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeSlot {
    /// Changes whenever anything of the node changes, and never comes back.
    pub version: u64,
    /// The node as decisions see it.
    pub view: NodeView,
    /// Whether there is a Node object.
    pub exists: bool,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Whether it carries a `PreferNoSchedule` taint.
    pub is_avoided: bool,
    /// Who holds what.
    pub holders: Vec<Holder>,
}

/// The cluster at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) slots: Vec<Option<Arc<NodeSlot>>>,
    pub(crate) positions: Arc<HashMap<Arc<str>, usize>>,
    pub(crate) hold_count: usize,
}

impl Snapshot {
    /// A node's position; stable as long as the node exists.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// The node at a position.
    #[must_use]
    pub fn slot(&self, position: usize) -> Option<&Arc<NodeSlot>> {
        self.slots.get(position).and_then(Option::as_ref)
    }

    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeSlot>> {
        self.position(name).and_then(|p| self.slot(p))
    }

    /// All nodes, in no promised order.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeSlot>> {
        self.slots.iter().flatten()
    }

    /// How many holds there are.
    #[must_use]
    pub fn hold_count(&self) -> usize {
        self.hold_count
    }
}
