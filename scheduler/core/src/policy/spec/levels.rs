//! The pools of nodes and what they demand.

use std::collections::BTreeMap;

use berth_model::Level;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{PolicyError, bounded, one_of, wrong};
use crate::level::Pool;

/// Most pools: each node is held against them in order.
const POOLS_MAX: usize = 64;
/// Most labels of a pool.
const LABELS_MAX: usize = 16;
/// Longest wait before an eviction: a day.
const EVICT_AFTER_SECONDS_MAX: u64 = 86_400;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PoolSpec {
    node_selector: Spanned<BTreeMap<String, String>>,
    level: Spanned<String>,
    evict_after_seconds: Option<Spanned<u64>>,
}

/// Label of a node by which its pool is told: it is what the DaemonSets of agents go by, so it demands what they are to give.
const LABEL: &str = "berth.dev/level";

/// What a label demands where a policy names no pools.
pub(super) fn built_in() -> Vec<Pool> {
    let pool = |level: Level| {
        let selector = BTreeMap::from([(LABEL.to_owned(), level.word().to_owned())]);
        Pool { selector, level, evict_after_seconds: None }
    };
    [Level::Enforced, Level::Preferred].map(pool).into()
}

/// Takes the pools in their order.
pub(super) fn take(given: &[Spanned<PoolSpec>]) -> Result<Vec<Pool>, PolicyError> {
    if let Some(more) = given.get(POOLS_MAX) {
        return wrong(more.referenced, format!("levels: at most {POOLS_MAX} entries are taken"));
    }
    given.iter().map(|spec| pool(&spec.value)).collect()
}

fn pool(spec: &PoolSpec) -> Result<Pool, PolicyError> {
    let selector = &spec.node_selector;
    if selector.value.len() > LABELS_MAX {
        return wrong(selector.referenced, format!("levels.nodeSelector: at most {LABELS_MAX} labels are taken"));
    }
    if selector.value.contains_key("") {
        return wrong(selector.referenced, "levels.nodeSelector: a label has a name");
    }
    let level = one_of(&spec.level, "levels.level", &Level::ALL.map(|level| (level.word(), level)))?;
    let evict_after_seconds = match &spec.evict_after_seconds {
        None => None,
        Some(seconds) if level != Level::Enforced => {
            return wrong(seconds.referenced, "levels.evictAfterSeconds: only pods at level enforced wait for devices");
        }
        Some(seconds) => Some(bounded(seconds, "levels.evictAfterSeconds", 1, EVICT_AFTER_SECONDS_MAX)?),
    };
    Ok(Pool { selector: selector.value.clone(), level, evict_after_seconds })
}
