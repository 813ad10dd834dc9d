//! What happens between two calls of a busy cluster: a pod is bound, a pod is gone. Each dirties one node.

use std::sync::Arc;

use anyhow::{Context, Result};
use berth_extender::cluster::Cluster;
use berth_index::{Event, PodUid};
use berth_model::GpuUuid;

use super::cluster::pod;

/// GPUs of a pod that comes and goes.
const GPUS: u32 = 2;
/// From one node to the next: a prime, so that every node has its turn and neighbours do not follow each other.
const STRIDE: usize = 7919;

/// Binds a pod and takes it away again, in turns, on one node after the other.
#[derive(Debug)]
pub(super) struct Churn {
    cluster: Arc<Cluster>,
    at: usize,
    count: u64,
    bound: Option<PodUid>,
}

impl Churn {
    /// Churn in a cluster. Names of its pods begin with `tag`: a UID never comes again.
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, at: 0, count: 0, bound: None }
    }

    /// Applies the next event. One node is then dirty.
    ///
    /// # Errors
    /// No node has GPUs left.
    pub(super) fn step(&mut self) -> Result<()> {
        let event = self.event()?;
        self.cluster.index.apply(event);
        Ok(())
    }

    /// The next event, not applied yet.
    ///
    /// # Errors
    /// No node has GPUs left.
    pub(super) fn event(&mut self) -> Result<Event> {
        if let Some(uid) = self.bound.take() {
            return Ok(Event::PodGone(uid));
        }
        let snapshot = self.cluster.index.snapshot();
        let nodes: Vec<_> = snapshot.nodes().collect();
        let turns = (0..nodes.len()).map(|turn| (self.at + STRIDE * turn) % nodes.len());
        let free = |at: usize| {
            let slot = nodes.get(at)?;
            let topology = &slot.view.hardware.as_ref()?.topology;
            let set = slot.view.unheld(topology.usable_gpus()).lowest(GPUS)?;
            let uuids = topology.parts().gpus.iter().filter(|g| set.contains(g.index)).map(|g| g.uuid.clone());
            Some((at, slot.view.name.clone(), uuids.collect::<Vec<GpuUuid>>()))
        };
        let (at, node, uuids) = turns.into_iter().find_map(free).context("no node has two free GPUs")?;
        self.at = at + STRIDE;
        self.count += 1;
        let uid = PodUid::new(&format!("churn-{}", self.count));
        self.bound = Some(uid.clone());
        Ok(Event::Pod(Box::new(pod(uid, &node, uuids))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::fill;
    use super::*;

    #[test]
    fn a_pod_comes_and_goes_and_leaves_the_cluster_as_it_was() {
        let cluster = fill(5, 60).unwrap().cluster;
        let held = |cluster: &Cluster| -> Vec<_> { cluster.index.snapshot().nodes().map(|s| s.view.held).collect() };
        let before = held(&cluster);
        let mut churn = Churn::new(Arc::clone(&cluster));
        for _ in 0..20 {
            churn.step().unwrap();
            let during = held(&cluster);
            assert_eq!(before.iter().zip(&during).filter(|(b, d)| b != d).count(), 1);
            churn.step().unwrap();
            assert_eq!(held(&cluster), before);
        }
    }

    #[test]
    fn a_full_cluster_has_no_churn() {
        let error = Churn::new(fill(2, 100).unwrap().cluster).step().unwrap_err().to_string();
        assert!(error.contains("no node"), "{error}");
    }
}
