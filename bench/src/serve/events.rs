//! Events of the API in a full index: from the event to a snapshot that readers see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_extender::cluster::Cluster;
use berth_index::{Event, Index};
use berth_model::Generation;
use serde::{Deserialize, Serialize};

use super::churn::Churn;
use crate::sample::{Latency, Sample};

/// Times of one event each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventFigures {
    /// Events of each kind.
    pub(crate) count: usize,
    /// A pod is bound or gone: `apply`, without the snapshot.
    pub(crate) pod_apply: Latency,
    /// The same with the snapshot that follows.
    pub(crate) pod: Latency,
    /// A report of a new generation: `apply`, without the snapshot.
    pub(crate) report_apply: Latency,
    /// The same with the snapshot that follows.
    pub(crate) report: Latency,
}

/// Applies events of each kind, one at a time.
///
/// # Errors
/// The cluster has no node, or none with free GPUs.
pub(super) fn measure(cluster: &Arc<Cluster>, count: usize) -> Result<EventFigures> {
    let mut churn = Churn::new(Arc::clone(cluster));
    let (pod_apply, pod) = timed(&cluster.index, count, |_| churn.event())?;
    let node_count = cluster.index.snapshot().nodes().count();
    let (report_apply, report) = timed(&cluster.index, count, |at| {
        let snapshot = cluster.index.snapshot();
        let slot = snapshot.nodes().nth(at % node_count.max(1)).context("no node")?;
        let known = &slot.view.hardware.as_ref().context("a node without a report")?.topology;
        let generation = Generation(known.parts().generation.0 + 1);
        Ok(Event::Report(Box::new(known.as_ref().clone().with_generation(generation))))
    })?;
    Ok(EventFigures { count, pod_apply, pod, report_apply, report })
}

fn timed(index: &Index, count: usize, mut event: impl FnMut(usize) -> Result<Event>) -> Result<(Latency, Latency)> {
    let (mut applied, mut seen): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    for at in 0..count {
        let event = event(at)?;
        // Whoever made the event may have held a snapshot: the next one must not be free of charge, nor be paid for twice.
        let _ = index.snapshot();
        let started = Instant::now();
        let _change = index.apply(event);
        applied.push(started.elapsed());
        drop(index.snapshot());
        seen.push(started.elapsed());
    }
    Ok((Sample::new(applied).latency(), Sample::new(seen).latency()))
}
