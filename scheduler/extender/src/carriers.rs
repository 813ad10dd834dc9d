//! Which carrier speaks for a node: its NodeTopology object, its stream, or both. Holds no report; the index does.
//!
//! The highest generation wins in the index whichever carrier brought it. What the index cannot know is kept here: that an object
//! which is gone, or behind, says nothing while the node's stream is open.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_model::NodeName;
use tokio_util::sync::CancellationToken;

/// Most nodes that ever had a stream: far above any cluster, so that names made up by a peer on loopback end somewhere.
const NODES_MAX: usize = 50_000;

/// The carriers of all nodes that have or had a stream.
#[derive(Debug, Default)]
pub struct Carriers {
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    by_name: BTreeMap<NodeName, Carried>,
    opened: u64,
}

#[derive(Debug, Default)]
struct Carried {
    stream: Option<(u64, CancellationToken)>,
    /// The object went while the stream was open.
    is_object_gone: bool,
    /// Highest generation that a stream brought.
    generation: u64,
}

/// A node's one live stream. Dropping it does nothing: [`Carriers::close`] ends it.
#[derive(Debug, Clone)]
pub struct Stream {
    node: NodeName,
    id: u64,
    /// Cancelled when a newer stream of the node takes over.
    pub replaced: CancellationToken,
}

impl Stream {
    /// The node that it speaks for.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }
}

impl Carriers {
    /// Opens a stream of the node in place of the one that is open; `None` where too many nodes are known.
    pub fn open(&self, node: &NodeName) -> Option<Stream> {
        let mut nodes = self.lock();
        if nodes.by_name.len() >= NODES_MAX && !nodes.by_name.contains_key(node) {
            return None;
        }
        nodes.opened = nodes.opened.saturating_add(1);
        let stream = Stream { node: node.clone(), id: nodes.opened, replaced: CancellationToken::new() };
        let carried = nodes.by_name.entry(node.clone()).or_default();
        if let Some((_, older)) = carried.stream.replace((stream.id, stream.replaced.clone())) {
            older.cancel();
        }
        Some(stream)
    }

    /// Ends a stream; `gone` is called where nothing speaks for the node any more. A node that never had an object keeps its report.
    pub fn close(&self, stream: &Stream, gone: impl FnOnce()) {
        let mut nodes = self.lock();
        let Some(carried) = nodes.by_name.get_mut(&stream.node) else { return };
        if carried.stream.as_ref().is_some_and(|(id, _)| *id == stream.id) {
            carried.stream = None;
            if carried.is_object_gone {
                nodes.by_name.remove(&stream.node);
                gone();
            }
        }
    }

    /// Lets a stream bring a report of that generation by `apply`, which says whether it was taken; `None` where a newer stream has
    /// taken over.
    pub fn bring<T>(&self, stream: &Stream, generation: u64, apply: impl FnOnce() -> (bool, T)) -> Option<T> {
        let mut nodes = self.lock();
        let carried = nodes.by_name.get_mut(&stream.node)?;
        if carried.stream.as_ref().is_none_or(|(id, _)| *id != stream.id) {
            return None;
        }
        let (is_taken, answer) = apply();
        if is_taken {
            carried.generation = carried.generation.max(generation);
        }
        Some(answer)
    }

    /// The node's object is there. Says whether a report of that generation in it is merely behind what the stream brought.
    pub fn object_seen(&self, node: &NodeName, generation: Option<u64>) -> bool {
        let mut nodes = self.lock();
        let Some(carried) = nodes.by_name.get_mut(node) else { return false };
        carried.is_object_gone = false;
        generation.is_some_and(|g| g < carried.generation)
    }

    /// The node's object is gone, or is another one: calls `gone` unless the node's stream is open.
    pub fn object_gone(&self, node: &NodeName, gone: impl FnOnce()) {
        let mut nodes = self.lock();
        match nodes.by_name.get_mut(node) {
            Some(carried) if carried.stream.is_some() => carried.is_object_gone = true,
            _ => {
                nodes.by_name.remove(node);
                gone();
            }
        }
    }

    /// Nodes whose stream is open.
    #[must_use]
    pub fn live(&self) -> Vec<NodeName> {
        let nodes = self.lock();
        nodes.by_name.iter().filter(|(_, c)| c.stream.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// After a list of all objects: forgets every node that is not listed and has no stream.
    pub fn listed(&self, is_listed: impl Fn(&NodeName) -> bool) {
        let mut nodes = self.lock();
        nodes.by_name.retain(|name, carried| {
            let listed = is_listed(name);
            carried.is_object_gone = !listed && carried.stream.is_some();
            listed || carried.stream.is_some()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    #[test]
    fn the_newest_stream_of_a_node_takes_over() {
        let carriers = Carriers::default();
        let (older, newer) = (carriers.open(&name("a")).unwrap(), carriers.open(&name("a")).unwrap());
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        assert_eq!(carriers.bring(&older, 1, || (true, ())), None);
        carriers.close(&older, || panic!("the newer one is open"));
        assert_eq!(carriers.bring(&newer, 1, || (true, ())), Some(()));
        assert_eq!(carriers.live(), [name("a")]);
    }

    #[test]
    fn a_report_goes_when_both_carriers_have_gone_and_not_before() {
        let carriers = Carriers::default();
        let stream = carriers.open(&name("a")).unwrap();
        carriers.object_gone(&name("a"), || panic!("the stream is open"));
        let mut is_gone = false;
        carriers.close(&stream, || is_gone = true);
        assert!(is_gone);

        let stream = carriers.open(&name("b")).unwrap();
        carriers.close(&stream, || panic!("an object may follow, and without an API server none ever does"));
        let mut is_gone = false;
        carriers.object_gone(&name("b"), || is_gone = true);
        assert!(is_gone);
    }

    #[test]
    fn an_object_is_behind_only_where_a_stream_brought_more() {
        let carriers = Carriers::default();
        assert!(!carriers.object_seen(&name("a"), Some(1)));
        let stream = carriers.open(&name("a")).unwrap();
        carriers.bring(&stream, 5, || (true, ())).unwrap();
        carriers.bring(&stream, 9, || (false, ())).unwrap();
        assert!(carriers.object_seen(&name("a"), Some(4)));
        assert!(!carriers.object_seen(&name("a"), Some(5)));
    }
}
