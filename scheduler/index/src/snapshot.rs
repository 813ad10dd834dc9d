//! What readers see: an immutable picture of the cluster.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::NodeView;
use berth_core::value::rooms::Rooms;
use berth_model::NodeName;
use berth_model::gpu::detail::FabricClique;

use crate::ledger::Holder;
use crate::pages::Pages;
use crate::roll::{Roll, Standing};

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
    /// The NVLink clique that all its GPUs are in.
    pub clique: Option<FabricClique>,
    /// Who holds what.
    pub holders: Vec<Holder>,
}

/// The cluster at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) pages: Pages,
    pub(crate) roll: Arc<Roll>,
    pub(crate) hold_count: usize,
    pub(crate) rooms: Arc<Rooms>,
}

impl Snapshot {
    /// A node's position; stable as long as the node exists.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.roll.position(name)
    }

    /// The positions of the names of one call, in their order.
    #[must_use]
    pub fn positions<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<Option<usize>> {
        self.roll.positions(names)
    }

    /// The node at a position.
    #[must_use]
    pub fn slot(&self, position: usize) -> Option<&Arc<NodeSlot>> {
        self.pages.slot(position)
    }

    /// What orders the node at a position.
    #[must_use]
    pub fn standing(&self, position: usize) -> Option<Standing> {
        self.roll.standing(position)
    }

    /// The clique that has most of these nodes, of equal ones the lowest; each counts as often as it stands there.
    #[must_use]
    pub fn usual_clique(&self, nodes: &[NodeName]) -> Option<u32> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        let standings = nodes.iter().filter_map(|node| self.standing(self.position(node.as_str())?));
        for clique in standings.filter_map(|standing| standing.clique) {
            let count = counts.entry(clique).or_default();
            *count = count.saturating_add(1);
        }
        counts.into_iter().max_by_key(|(clique, count)| (*count, Reverse(*clique))).map(|(clique, _)| clique)
    }

    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeSlot>> {
        self.position(name).and_then(|p| self.slot(p))
    }

    /// All nodes, in no promised order.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeSlot>> {
        self.pages.slots()
    }

    /// How much room there is for the pods of several GPUs that are expected ([`crate::Event::Expected`]).
    #[must_use]
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// How many holds there are.
    #[must_use]
    pub fn hold_count(&self) -> usize {
        self.hold_count
    }
}
