//! The cluster that is asked: nodes of one captured machine in a real index, and pods that hold a share of their GPUs, spread
//! as churn spreads them. The same every time.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use berth_core::demand::Totals;
use berth_core::device::HeldDevice;
use berth_core::view::Compute;
use berth_extender::cluster::Cluster;
use berth_extender::metrics::Metrics;
use berth_index::{Event, NodeFacts, PlanNote, PodFacts, PodUid, Rank};
use berth_model::{GpuUuid, MiB, NodeName, NodeTopology};

use crate::nodes;

/// The extended resource of all pods here.
pub(super) const GPU: &str = "nvidia.com/gpu";
/// What a pod takes beside each GPU.
const CPU_MILLI_PER_GPU: u64 = 8_000;
const MEMORY_PER_GPU: u64 = 64 * 1024;

/// A filled index.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) cluster: Arc<Cluster>,
    pub(super) gpus: usize,
    pub(super) held_gpus: usize,
}

/// An index of so many nodes of whose GPUs pods hold about the given share.
///
/// # Errors
/// The machine file is wrong: a defect.
pub(super) fn fill(node_count: usize, full_percent: u64) -> Result<Filled> {
    let cluster = Arc::new(Cluster::new(Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")))));
    let mut random = Random(0x5eed);
    let (mut gpus, mut held_gpus) = (0, 0);
    for topology in nodes::topologies(node_count)? {
        let topology = topology?;
        let node = topology.parts().node.clone();
        let uuids: Vec<GpuUuid> = topology.parts().gpus.iter().map(|g| g.uuid.clone()).collect();
        cluster.index.apply(Event::Node(facts(&topology)));
        cluster.index.apply(Event::Report(Box::new(topology)));
        gpus += uuids.len();
        let mut held: Vec<GpuUuid> = uuids.into_iter().filter(|_| random.below(100) < full_percent).collect();
        held_gpus += held.len();
        while !held.is_empty() {
            let size = [1, 2, 4].into_iter().filter(|size| *size <= held.len()).nth(random.index(3)).unwrap_or(1);
            let taken = held.split_off(held.len() - size);
            let uid = PodUid::new(&format!("{node}-{}", held.len()));
            cluster.index.apply(Event::Pod(Box::new(pod(uid, &node, taken))));
        }
    }
    Ok(Filled { cluster, gpus, held_gpus })
}

/// A bound pod that holds the given GPUs of a node.
pub(super) fn pod(uid: PodUid, node: &NodeName, uuids: Vec<GpuUuid>) -> PodFacts {
    let count = u64::try_from(uuids.len()).unwrap_or(u64::MAX);
    PodFacts {
        namespace: "research".to_owned(),
        name: format!("pod-{uid}"),
        uid,
        node: Some(node.clone()),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals: Totals {
            extended: BTreeMap::from([(GPU.to_owned(), count)]),
            cpu_milli: CPU_MILLI_PER_GPU.saturating_mul(count),
            memory: MiB(MEMORY_PER_GPU.saturating_mul(count)),
            ..Totals::default()
        },
        rank: Rank::default(),
        note: PlanNote::Devices(uuids.into_iter().map(HeldDevice::whole).collect()),
        truth: BTreeMap::new(),
    }
}

/// What a kubelet with the stock device plugin says of the node.
fn facts(topology: &NodeTopology) -> NodeFacts {
    let parts = topology.parts();
    let cpus: u64 = parts.zones.iter().map(|z| u64::from(z.cpus.cpu_count())).sum();
    NodeFacts {
        name: parts.node.clone(),
        boot_id: Some(parts.boot_id.clone()),
        offered: BTreeMap::from([(GPU.to_owned(), u64::from(topology.usable_gpus().gpu_count()))]),
        allocatable: Compute {
            cpu_milli: cpus.saturating_mul(1000),
            memory: MiB(parts.zones.iter().filter_map(|z| z.memory).map(|m| m.0).sum()),
        },
        // Three zones, as clouds have them: the short list keeps some of each.
        zone: parts.node.as_str().bytes().rev().find(u8::is_ascii_digit).map(|digit| format!("zone-{}", digit % 3)),
        is_avoided: false,
        labels: berth_core::level::LabelSet::default(),
    }
}

/// splitmix64: a sequence that looks random and is the same in every run.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is above zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A position below `bound`.
    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap_or(u64::MAX))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_gpus_are_held_as_was_told_and_none_twice() {
        let filled = fill(60, 60).unwrap();
        assert_eq!(filled.gpus, 480);
        assert!((240..340).contains(&filled.held_gpus), "{}", filled.held_gpus);
        let snapshot = filled.cluster.index.snapshot();
        let held: u32 = snapshot.nodes().map(|slot| slot.view.taken_gpu_count()).sum();
        assert_eq!(usize::try_from(held).unwrap(), filled.held_gpus);
        assert!(snapshot.nodes().all(|slot| !slot.view.is_imprecise));
    }

    #[test]
    fn an_empty_and_a_full_cluster_can_be_had() {
        assert_eq!(fill(3, 0).unwrap().held_gpus, 0);
        assert_eq!(fill(3, 100).unwrap().held_gpus, 24);
    }
}
