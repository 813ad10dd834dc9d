//! Tells pods that hold other GPUs than planned: an Event on the pod, once for what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_index::{PodUid, Snapshot};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::events::{Events, Told};

/// How often the ledger is looked through. A look at 5000 nodes reads one set per holder.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was told of each pod that still drifts.
#[derive(Debug, Default)]
struct Drifts {
    told: BTreeMap<PodUid, String>,
}

/// Looks and tells until `stop`.
pub(crate) async fn run(cluster: Arc<Cluster>, events: Events, stop: CancellationToken) {
    let mut drifts = Drifts::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for told in drifts.news(&cluster.index.snapshot()) {
            tracing::warn!(
                namespace = told.about.namespace,
                pod = told.about.name,
                note = told.note,
                "a pod holds other GPUs than planned"
            );
            events.tell(told);
        }
    }
}

impl Drifts {
    /// What is new: pods that did not drift when last looked at, or held something else.
    fn news(&mut self, snapshot: &Snapshot) -> Vec<Told> {
        let mut now = BTreeMap::new();
        let mut news = Vec::new();
        for slot in snapshot.nodes() {
            for holder in &slot.holders {
                if holder.drifted_from.is_none() {
                    continue;
                }
                if self.told.get(&holder.uid) != Some(&holder.problem) {
                    let note =
                        format!("On node {}: {}. The ledger follows the kubelet.", slot.view.name, holder.problem);
                    news.push(Told {
                        about: ObjectReference {
                            api_version: Some("v1".to_owned()),
                            kind: Some("Pod".to_owned()),
                            namespace: Some(holder.namespace.clone()),
                            name: Some(holder.name.clone()),
                            uid: Some(holder.uid.to_string()),
                            ..ObjectReference::default()
                        },
                        is_warning: true,
                        reason: "DeviceDrift",
                        action: "Audit",
                        note,
                    });
                }
                now.insert(holder.uid.clone(), holder.problem.clone());
            }
        }
        self.told = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_core::demand::Totals;
    use berth_core::device::HeldDevice;
    use berth_index::{Event, Index, PlanNote, PodFacts};
    use berth_model::GpuUuid;

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
            totals,
            note: PlanNote::Devices(planned.into_iter().collect()),
            truth: if given.is_empty() { BTreeMap::new() } else { [(gpu, given)].into() },
        }))
    }

    #[test]
    fn a_drift_is_told_once_and_again_when_the_pod_holds_something_else() {
        let index = Index::default();
        index.apply(Event::Report(Box::new(topology("n", 1, 0))));
        let mut drifts = Drifts::default();
        let mut told = |given: &[usize]| {
            index.apply(pod(given));
            drifts.news(&index.snapshot())
        };
        assert_eq!(told(&[]).len() + told(&[1, 0]).len(), 0, "as planned");
        let news = told(&[2, 3]);
        let about = news.iter().map(|t| (t.about.namespace.as_deref(), t.about.name.as_deref(), t.note.as_str()));
        let note = "On node n: drift: planned GPUs 0,1, the kubelet gave GPUs 2,3. The ledger follows the kubelet.";
        assert_eq!(about.collect::<Vec<_>>(), [(Some("team"), Some("train"), note)]);
        assert_eq!(told(&[2, 3]).len(), 0);
        assert_eq!(told(&[1, 2]).len(), 1);
    }
}
