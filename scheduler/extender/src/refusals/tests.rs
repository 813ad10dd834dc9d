//! What refused pods are told and when they are evicted.

use berth_core::demand::Totals;
use berth_core::device::HeldDevice;
use berth_index::{Event, Index, PlanNote, PodFacts, PodUid, Rank};
use berth_model::{DevicePlugin, GpuUuid, RefusalReason};

use super::*;
use crate::fixture::{name, topology};

const WAIT: Duration = Duration::from_secs(60);

fn refusal(uid: &str, reason: RefusalReason, text: &str) -> Refusal {
    let (pod, pod_uid, container) = (format!("team/{uid}"), uid.to_owned(), "main".to_owned());
    Refusal { pod, pod_uid, container, reason, text: text.to_owned() }
}

struct Scene {
    index: Index,
    generation: u64,
    refusals: Refusals,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { index: Index::default(), generation: 0, refusals: Refusals::default(), start: Instant::now() }
    }

    /// What is told and who is evicted at a second, when the node's agent reports this.
    fn at(&mut self, second: u64, wait: Option<Duration>, reported: &[Refusal]) -> (Vec<String>, Vec<String>) {
        self.generation += 1;
        let report = topology("n", self.generation, 0).with_refusals(reported.to_vec());
        self.index.apply(Event::Report(Box::new(report)));
        let now = self.start + Duration::from_secs(second);
        let (news, evictions) = self.refusals.look(&self.index.snapshot(), now, |_| wait);
        let pod = |told: &Told| format!("{} {}", told.about.name.as_deref().unwrap(), told.note);
        (news.iter().map(pod).collect(), evictions.into_iter().map(|eviction| eviction.refusal.pod_uid).collect())
    }
}

#[test]
fn a_refusal_is_told_once_with_cause_and_advice_and_again_when_it_changes() {
    let mut scene = Scene::new();
    let leased = refusal("p", RefusalReason::DeviceLeased, "GPU-1 is leased to pod team/q");
    let (told, evicted) = scene.at(0, Some(WAIT), std::slice::from_ref(&leased));
    assert_eq!(
        told,
        [
            "p Container main gets no devices on node n: device-leased: GPU-1 is leased to pod team/q. It starts by itself when the \
          other pod ends; else delete this pod. If it lasts, the pod is evicted after 60 s."
        ]
    );
    assert!(evicted.is_empty());
    assert_eq!(scene.refusals.pod_count(), 1);
    assert!(scene.at(1, Some(WAIT), std::slice::from_ref(&leased)).0.is_empty());
    let sick = refusal("p", RefusalReason::SickDevice, "GPU-1: Xid 79");
    assert_eq!(scene.at(2, Some(WAIT), &[sick]).0.len(), 1);
    assert!(scene.at(3, Some(WAIT), &[]).0.is_empty());
    assert_eq!(scene.refusals.pod_count(), 0);
    assert_eq!(scene.at(4, None, &[leased]).0.len(), 1, "a new one");
}

#[test]
fn a_pod_is_evicted_when_its_refusal_has_lasted_and_never_where_policy_does_not_say_so() {
    let mut scene = Scene::new();
    let refused = [refusal("p", RefusalReason::NoPlan, "the pod has no plan")];
    assert!(scene.at(0, Some(WAIT), &refused).1.is_empty());
    assert!(scene.at(59, Some(WAIT), &refused).1.is_empty());
    assert_eq!(scene.at(60, Some(WAIT), &refused).1, ["p"]);
    assert!(scene.at(61, Some(WAIT), &refused).1.is_empty(), "it was asked for");
    assert_eq!(scene.at(91, Some(WAIT), &refused).1, ["p"], "a budget may have held it");
    assert!(scene.at(92, Some(WAIT), &[]).1.is_empty());
    assert!(scene.at(93, Some(WAIT), &refused).1.is_empty(), "it healed in between, so its time begins anew");
    assert!(scene.at(9000, None, &refused).1.is_empty());
}

#[test]
fn a_look_evicts_few_and_a_node_without_its_agent_says_nothing() {
    let mut scene = Scene::new();
    let many: Vec<Refusal> = (0..20).map(|i| refusal(&format!("p{i:02}"), RefusalReason::NoPlan, "x")).collect();
    scene.at(0, Some(WAIT), &many);
    assert_eq!(scene.at(60, Some(WAIT), &many).1.len(), EVICTIONS_MAX);
    let next = scene.at(61, Some(WAIT), &many).1;
    assert!(next.len() == EVICTIONS_MAX && !next.contains(&"p00".to_owned()), "{next:?}");
}

#[test]
fn nobody_attends_to_leases_where_the_agent_is_away_or_the_node_went_back_to_advice_under_them() {
    let pod = |is_enforced| {
        let mut totals = Totals::default();
        totals.extended.insert("nvidia.com/gpu".to_owned(), 1);
        PodFacts {
            uid: PodUid::new("u"),
            namespace: "team".to_owned(),
            name: "train".to_owned(),
            node: Some(name("n")),
            is_ended: false,
            expects_devices: false,
            is_enforced,
            totals,
            rank: Rank::default(),
            note: PlanNote::Devices([HeldDevice::whole(GpuUuid::parse("GPU-n-0").unwrap())].into_iter().collect()),
            truth: BTreeMap::new(),
        }
    };
    let found = |level: Option<Level>, is_there, is_enforced| {
        let index = Index::default();
        let plugin = level.map(|level| DevicePlugin { level, is_accepting: true });
        index.apply(Event::Report(Box::new(topology("n", 1, 0).with_device_plugin(plugin))));
        index.apply(Event::Agent { node: name("n"), is_there });
        index.apply(Event::Pod(Box::new(pod(is_enforced))));
        unattended(&index.snapshot()).pop().map(|(_, why)| why)
    };
    assert_eq!(found(None, true, true), Some(Unattended::Left));
    assert_eq!(found(None, true, false), None);
    assert_eq!(found(Some(Level::Preferred), true, true), None, "its agent looks after them");
    assert_eq!(found(Some(Level::Enforced), true, true), None);
    assert_eq!(found(Some(Level::Enforced), false, true), Some(Unattended::Away));
}
