//! Tells pods whose devices are not in order: an Event on the pod, once for what is wrong with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_index::{Holder, NodeSlot, PodUid, Snapshot};
use berth_model::{Gpu, Health};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::events::{Events, Told, about_pod};

/// How often the ledger is looked through. A look at 5000 nodes reads one set per holder.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The pod holds other devices than planned.
const DRIFT: &str = "DeviceDrift";
/// The pod runs though the kubelet gave it no device.
const WITHOUT: &str = "NoDevice";
/// The pod holds a GPU that is not healthy any more.
const SICK: &str = "GpuUnhealthy";

/// The pod has a GPU that is another pod's too: two schedulers bound at once, or somebody wrote plans by hand.
const CONFLICT: &str = "DeviceConflict";

/// What was told of each pod that is still not in order.
#[derive(Debug, Default)]
struct Audit {
    told: BTreeMap<(PodUid, &'static str), String>,
}

/// Looks and tells until `stop`.
pub(crate) async fn run(cluster: Arc<Cluster>, events: Events, stop: CancellationToken) {
    let mut audit = Audit::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for told in audit.news(&cluster.index.snapshot()) {
            tracing::warn!(
                namespace = told.about.namespace,
                pod = told.about.name,
                reason = told.reason,
                note = told.note,
                "a pod's devices are not in order"
            );
            events.tell(told);
        }
    }
}

impl Audit {
    /// What is new: pods that were in order when last looked at, or where something else is wrong now.
    fn news(&mut self, snapshot: &Snapshot) -> Vec<Told> {
        let mut now = BTreeMap::new();
        let mut news = Vec::new();
        for slot in snapshot.nodes() {
            for holder in slot.holders.iter().filter(|holder| !holder.namespace.is_empty()) {
                for (reason, text) in findings(slot, holder) {
                    let key = (holder.uid.clone(), reason);
                    if self.told.get(&key) != Some(&text) {
                        news.push(told(slot, holder, reason, &text));
                    }
                    now.insert(key, text);
                }
            }
        }
        self.told = now;
        news
    }
}

/// What is wrong with one pod, each with the reason of its Event.
fn findings(slot: &NodeSlot, holder: &Holder) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if holder.is_without_devices {
        found.push((WITHOUT, format!("{}. Delete it once a device plugin is registered there.", holder.problem)));
    } else if holder.drifted_from.is_some() {
        found.push((DRIFT, format!("{}. The ledger follows the kubelet.", holder.problem)));
    }
    if !holder.twice.is_empty() {
        let text = format!(
            "GPUs {} are another pod's too: two schedulers bound at once. Delete one of the two pods.",
            holder.twice
        );
        found.push((CONFLICT, text));
    }
    let sick: Vec<String> =
        unhealthy(slot, holder).map(|gpu| format!("{} ({})", gpu.index, gpu.health.reason())).collect();
    if !sick.is_empty() {
        let text = format!(
            "it holds GPUs that are not healthy: {}. No new pod gets them; `berth doctor` says what to do.",
            sick.join("; ")
        );
        found.push((SICK, text));
    }
    found
}

/// The GPUs of the pod that must not get pods any more. One that could not be judged is not among them: it may be well.
pub(crate) fn unhealthy<'s>(slot: &'s NodeSlot, holder: &Holder) -> impl Iterator<Item = &'s Gpu> {
    let gpus = slot.view.hardware.as_ref().map_or(&[][..], |hardware| &hardware.topology.parts().gpus);
    let set = holder.set;
    gpus.iter().filter(move |gpu| set.contains(gpu.index) && matches!(gpu.health, Health::Unhealthy(_)))
}

fn told(slot: &NodeSlot, holder: &Holder, reason: &'static str, text: &str) -> Told {
    Told {
        about: about_pod(&holder.namespace, &holder.name, &holder.uid.to_string()),
        is_warning: true,
        reason,
        action: "Audit",
        note: format!("On node {}: {text}", slot.view.name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_core::demand::Totals;
    use berth_core::device::HeldDevice;
    use berth_index::{Event, Index, PlanNote, PodFacts, Rank};
    use berth_model::{GpuUuid, NodeTopology};

    use super::*;
    use crate::fixture::{name, topology};

    fn pod(given: &[usize]) -> Event {
        let uuid = |i: usize| format!("GPU-n-{i}");
        let planned = [0, 1].map(|i| HeldDevice::whole(GpuUuid::parse(&uuid(i)).unwrap()));
        let gpu = "nvidia.com/gpu".to_owned();
        let mut totals = Totals::default();
        totals.extended.insert(gpu.clone(), 2);
        let given: Vec<String> = given.iter().map(|i| uuid(*i)).collect();
        Event::Pod(Box::new(PodFacts {
            uid: PodUid::new("u"),
            namespace: "team".to_owned(),
            name: "train".to_owned(),
            node: Some(name("n")),
            is_ended: false,
            expects_devices: false,
            is_enforced: false,
            totals,
            rank: Rank::default(),
            note: PlanNote::Devices(planned.into_iter().collect()),
            truth: if given.is_empty() { BTreeMap::new() } else { [(gpu, given)].into() },
        }))
    }

    #[test]
    fn a_drift_is_told_once_and_again_when_the_pod_holds_something_else() {
        let index = Index::default();
        index.apply(Event::Report(Box::new(topology("n", 1, 0))));
        let mut audit = Audit::default();
        let mut told = |given: &[usize]| {
            index.apply(pod(given));
            audit.news(&index.snapshot())
        };
        assert_eq!(told(&[]).len() + told(&[1, 0]).len(), 0, "as planned");
        let news = told(&[2, 3]);
        let about = news.iter().map(|t| (t.about.namespace.as_deref(), t.about.name.as_deref(), t.note.as_str()));
        let note = "On node n: drift: planned GPUs 0,1, the kubelet gave GPUs 2,3. The ledger follows the kubelet.";
        assert_eq!(about.collect::<Vec<_>>(), [(Some("team"), Some("train"), note)]);
        assert_eq!(told(&[2, 3]).len(), 0);
        assert_eq!(told(&[1, 2]).len(), 1);
    }

    #[test]
    fn the_pods_of_a_gpu_that_failed_are_named_with_what_the_driver_says_and_once() {
        let index = Index::default();
        index.apply(Event::Report(Box::new(topology("n", 1, 0))));
        index.apply(pod(&[]));
        let mut audit = Audit::default();
        assert_eq!(audit.news(&index.snapshot()).len(), 0);
        let sick = |generation: u64, index: usize| {
            let mut parts = topology("n", generation, 0).into_parts();
            parts.gpus[index].health = Health::Unhealthy("Xid 79: the GPU fell off the bus".to_owned());
            Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
        };
        index.apply(sick(2, 3));
        assert_eq!(audit.news(&index.snapshot()).len(), 0, "nobody holds GPU 3");
        index.apply(sick(3, 1));
        let news = audit.news(&index.snapshot());
        assert_eq!(news.iter().map(|t| t.reason).collect::<Vec<_>>(), ["GpuUnhealthy"]);
        assert!(news[0].note.contains("not healthy: GPU1 (Xid 79: the GPU fell off the bus)"), "{}", news[0].note);
        index.apply(sick(4, 1));
        assert_eq!(audit.news(&index.snapshot()).len(), 0, "the same again is no news");
        index.apply(Event::Report(Box::new(topology("n", 5, 0))));
        assert_eq!(audit.news(&index.snapshot()).len(), 0);
        index.apply(sick(6, 1));
        assert_eq!(audit.news(&index.snapshot()).len(), 1, "it failed again");
    }
}
