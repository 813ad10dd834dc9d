//! Levels: what the pools of a policy demand of their nodes, and whether a node gives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::{DevicePlugin, Level};

use crate::policy::Policy;
use crate::unfit::Reason;
use crate::view::NodeView;

/// The labels of a node, for asking whether it has one. Kept as 64-bit marks: a GPU node has hundreds of labels, of which a policy names
/// a few, and five thousand nodes are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSet(Arc<[u64]>);

impl LabelSet {
    /// The labels of a node.
    #[must_use]
    pub fn of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut marks: Vec<u64> = labels.into_iter().map(|(key, value)| mark(key, value)).collect();
        marks.sort_unstable();
        marks.dedup();
        Self(marks.into())
    }

    /// Whether the node has this label with this value.
    #[must_use]
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.0.binary_search(&mark(key, value)).is_ok()
    }
}

/// FNV-1a of key, zero byte and value; a label holds no zero byte.
fn mark(key: &str, value: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = key.bytes().chain([0]).chain(value.bytes());
    // Multiplication modulo 2^64 is the definition of the hash.
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// What a pool of nodes must promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The labels that a node of the pool has, all of them.
    pub selector: BTreeMap<String, String>,
    /// What its nodes must promise at least.
    pub level: Level,
    /// At level enforced: how long a pod may wait for devices that it cannot get before it is evicted; `None` for ever.
    pub evict_after_seconds: Option<u64>,
}

impl Pool {
    /// Whether a node is of the pool.
    #[must_use]
    pub fn holds(&self, labels: &LabelSet) -> bool {
        self.selector.iter().all(|(key, value)| labels.has(key, value))
    }
}

/// What the node promises: what its report says, and advice without one.
#[must_use]
pub fn promised(view: &NodeView) -> Level {
    plugin(view).map_or(Level::Advice, |plugin| plugin.level)
}

/// What the node's pool demands.
#[must_use]
pub fn demanded(view: &NodeView, policy: &Policy) -> Level {
    policy.pool_of(&view.labels).map_or(Level::Advice, |pool| pool.level)
}

/// Whether the node's device plugin is Berth's and accepts nothing now.
#[must_use]
pub fn is_away(view: &NodeView) -> bool {
    plugin(view).is_some_and(|plugin| !plugin.is_accepting)
}

/// Why the node's device plugin cannot take a pod now, if it cannot.
pub(crate) fn refusal(view: &NodeView, policy: &Policy) -> Option<Reason> {
    if demanded(view, policy) > promised(view) {
        return Some(Reason::LevelUnmet);
    }
    if is_away(view) {
        return Some(Reason::PluginAway);
    }
    is_closed_by_lease(view).then_some(Reason::LeaseStray)
}

/// Whether the kubelet chooses among devices of which it counts some as free that a lease gave away.
#[must_use]
pub fn is_closed_by_lease(view: &NodeView) -> bool {
    view.has_stray_lease && promised(view) < Level::Enforced
}

fn plugin(view: &NodeView) -> Option<DevicePlugin> {
    view.hardware.as_ref().and_then(|hardware| hardware.topology.parts().device_plugin)
}

#[cfg(test)]
mod tests;
