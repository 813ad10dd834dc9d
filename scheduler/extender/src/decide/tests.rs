//! Claims about the answers to kube-scheduler.

mod groups;
mod lists;
mod room;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use berth_core::demand::Totals;
use berth_core::device::HeldDevice;
use berth_index::{Event, NodeFacts, PlanNote, PodFacts, Rank};
use berth_model::GpuUuid;

use super::*;
use crate::bind::memory::MemoryBinder;
use crate::fixture::{cluster, name, node_facts, racked, topology};
use crate::wire::{Container, OwnerReference, Quantity};

fn add_node(cluster: &Cluster, node: &str, zone: Option<&str>) {
    cluster.index.apply(Event::Node(NodeFacts { zone: zone.map(str::to_owned), ..node_facts(node) }));
    cluster.index.apply(Event::Report(Box::new(topology(node, 1, 0))));
}

fn hold(cluster: &Cluster, uid: &str, node: &str, devices: &[u8]) {
    let uuid = |i: &u8| GpuUuid::parse(&format!("GPU-{node}-{i}")).unwrap();
    cluster.index.apply(Event::Pod(Box::new(PodFacts {
        uid: PodUid::new(uid),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        node: Some(name(node)),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals: Totals {
            extended: [("nvidia.com/gpu".to_owned(), u64::try_from(devices.len()).unwrap())].into(),
            ..Totals::default()
        },
        rank: Rank::default(),
        note: PlanNote::Devices(devices.iter().map(uuid).map(HeldDevice::whole).collect()),
        truth: std::collections::BTreeMap::new(),
    })));
}

fn pod(uid: &str, gpus: u32) -> Pod {
    let mut container = Container { name: "main".to_owned(), ..Container::default() };
    container.resources.limits.insert("nvidia.com/gpu".to_owned(), Quantity(gpus.to_string()));
    let mut pod = Pod::default();
    pod.metadata.namespace = "ns".to_owned();
    pod.metadata.name = format!("pod-{uid}");
    pod.metadata.uid = uid.to_owned();
    pod.spec.containers.push(container);
    pod
}

struct Rig {
    cluster: Arc<Cluster>,
    binder: Arc<MemoryBinder>,
    decider: Arc<Decider>,
    names: Vec<String>,
}

fn rig(nodes: usize) -> Rig {
    rig_in(nodes, Mode::Allocate)
}

fn rig_in(nodes: usize, mode: Mode) -> Rig {
    let cluster = cluster();
    let names: Vec<String> = (0..nodes).map(|i| format!("n{i:03}")).collect();
    for (i, node) in names.iter().enumerate() {
        add_node(&cluster, node, ["a", "b", "c"].get(i % 4).copied());
    }
    let binder = Arc::new(MemoryBinder::new(Arc::clone(&cluster)));
    let bind: Arc<dyn Bind> = Arc::<MemoryBinder>::clone(&binder);
    let decider = Arc::new(Decider::new(Arc::clone(&cluster), bind, mode, true));
    Rig { cluster, binder, decider, names }
}

impl Rig {
    fn names(&self) -> Vec<Cow<'_, str>> {
        self.names.iter().map(|n| Cow::Borrowed(n.as_str())).collect()
    }

    fn filter(&self, pod: &Pod) -> FilterAnswer {
        self.decider.filter(pod, &self.names(), Instant::now()).unwrap()
    }

    fn scores(&self, pod: &Pod) -> Vec<i64> {
        let answer = self.decider.prioritize(pod, &self.names(), Instant::now()).unwrap();
        answer.scores.into_iter().map(|(_, score)| score).collect()
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Failure> {
        let args = BindArgs {
            pod_name: pod.metadata.name.clone(),
            pod_namespace: pod.metadata.namespace.clone(),
            pod_uid: pod.metadata.uid.clone(),
            node: node.to_owned(),
        };
        Arc::clone(&self.decider).bind(args).await
    }

    fn explain(&self, request: &ExplainRequest<'_>) -> serde_json::Value {
        serde_json::from_slice(&self.decider.explain(request).unwrap()).unwrap()
    }
}

#[test]
fn the_short_list_is_led_by_the_fullest_node() {
    let rig = rig(100);
    hold(&rig.cluster, "held", "n077", &[0, 1]);
    let answer = rig.filter(&pod("p", 2));
    assert_eq!(answer.fits[0], 77);
    assert!(answer.fits.len() >= 32 && answer.fits.len() <= 32 + 4 * 4, "{}", answer.fits.len());
    assert!(answer.rejected.is_empty(), "no text is sent for nodes that are merely not listed");
}

#[test]
fn a_pod_that_comes_back_unbound_gets_a_longer_list_until_all_are_named() {
    let rig = rig(600);
    let lengths: Vec<usize> = (0..4).map(|_| rig.filter(&pod("p", 1)).fits.len()).collect();
    assert!(lengths[0] < 64 && lengths[1] >= 128 && lengths[2] >= 512 && lengths[3] == 600, "{lengths:?}");
    assert!(rig.filter(&pod("q", 1)).fits.len() < 64, "another pod starts short");
}

#[test]
fn when_nothing_fits_every_node_gets_its_reason_on_the_right_list() {
    let rig = rig(6);
    hold(&rig.cluster, "full", "n000", &[0, 1, 2, 3]);
    let mut names = rig.names();
    names.push(Cow::Borrowed("stranger"));
    let answer = rig.decider.filter(&pod("p", 5), &names, Instant::now()).unwrap();
    let of = |code: &str| answer.rejected.iter().find(|g| g.reason.code == code).unwrap();
    assert!(answer.fits.is_empty());
    assert_eq!(of("too-few-gpus").positions, [0, 1, 2, 3, 4, 5]);
    assert_eq!(of("unknown-node").positions, [6]);
    for node in &rig.names {
        hold(&rig.cluster, &format!("more-{node}"), node, &[0, 1]);
    }
    let busy = rig.filter(&pod("q", 3));
    assert!(busy.rejected.iter().all(|g| g.reason.code == "gpus-busy" && g.reason.helped_by_preemption));
}

#[test]
fn a_wish_that_cannot_be_read_fits_nowhere_and_preempts_nobody() {
    let rig = rig(3);
    let mut pod = pod("p", 1);
    pod.metadata.annotations.insert("berth.dev/link".to_owned(), "nvlnk".to_owned());
    let answer = rig.filter(&pod);
    assert_eq!(answer.rejected.len(), 1);
    assert_eq!((answer.rejected[0].reason.code, answer.rejected[0].positions.len()), ("bad-wish", 3));
    assert!(!answer.rejected[0].reason.helped_by_preemption);
    let told = rig.explain(&ExplainRequest::Given { pod: &pod, names: None });
    assert!(told["summary"].as_str().unwrap().contains("annotation berth.dev/link: \"nvlnk\" is not nvlink"), "{told}");
}

#[test]
fn a_pod_without_gpus_passes_everywhere_untouched() {
    let rig = rig(3);
    let answer = rig.filter(&pod("p", 0));
    assert_eq!(answer.fits, [0, 1, 2]);
    assert!(rig.scores(&pod("p", 0)).is_empty());
}

#[test]
fn scores_are_unique_for_our_pods_and_few_for_pods_that_kube_scheduler_spreads() {
    let rig = rig(40);
    hold(&rig.cluster, "held", "n007", &[0, 1, 2]);
    let own = rig.scores(&pod("p", 1));
    assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), 40);
    assert_eq!(own.iter().enumerate().max_by_key(|(_, s)| **s).unwrap().0, 7);
    let mut spread = pod("q", 1);
    spread.metadata.owner_references.push(OwnerReference { kind: "ReplicaSet".to_owned(), controller: true });
    let soft = rig.scores(&spread);
    assert!(soft.iter().collect::<BTreeSet<_>>().len() <= 4, "{soft:?}");
    assert!(soft[7] > soft[3], "of one zone, here of none");
    assert_eq!(soft[7], soft[0], "which zone is kube-scheduler's choice");
}

#[tokio::test]
async fn a_bound_pod_names_its_devices_and_takes_them_from_the_next() {
    let rig = rig(1);
    for (uid, expected) in [("p", ["GPU-n000-0", "GPU-n000-1"]), ("q", ["GPU-n000-2", "GPU-n000-3"])] {
        rig.filter(&pod(uid, 2));
        rig.bind(&pod(uid, 2), "n000").await.unwrap();
        let devices = rig.binder.last().unwrap().note.devices().unwrap();
        assert_eq!(devices.iter().map(|d| d.uuid.as_str()).collect::<Vec<_>>(), expected);
    }
    assert_eq!(rig.filter(&pod("r", 1)).rejected[0].reason.code, "gpus-busy");
    let refused = rig.bind(&pod("r", 1), "n000").await.unwrap_err();
    assert_eq!(refused.code, "gpus-busy");
    assert!(refused.text.contains("1 asked, 0 of 4 free"), "{refused}");
    let told = rig.explain(&ExplainRequest::Named { namespace: "ns", pod: "pod-q" });
    assert_eq!(told["summary"], "bound to n000, holds GPUs 2,3");
}

#[tokio::test]
async fn mode_score_binds_nothing_and_says_that_it_cannot_know_devices() {
    let rig = rig_in(2, Mode::Score);
    rig.filter(&pod("p", 1));
    assert_eq!(rig.bind(&pod("p", 1), "n000").await.unwrap_err().code, "score-mode");
    let told = rig.explain(&ExplainRequest::Named { namespace: "ns", pod: "pod-p" });
    assert_eq!(told["mode"], "score");
    assert!(told["note"].as_str().unwrap().contains("cannot know which devices"), "{told}");
}

#[test]
fn an_explanation_tells_the_best_nodes_and_why_the_others_are_out() {
    let rig = rig(8);
    hold(&rig.cluster, "some", "n003", &[0]);
    hold(&rig.cluster, "all", "n005", &[0, 1, 2, 3]);
    let told = rig.explain(&ExplainRequest::Given { pod: &pod("p", 2), names: None });
    assert_eq!((told["nodesAsked"].as_u64(), told["nodesFit"].as_u64()), (Some(8), Some(7)));
    assert_eq!(told["options"][0]["node"], "n003");
    assert_eq!(told["options"][0]["gpus"], "2,3", "the pair that is whole");
    assert_eq!(told["reasons"][0]["code"], "gpus-busy");
    assert_eq!(told["reasons"][0]["examples"][0], "n005");
    let unknown = rig.decider.explain(&ExplainRequest::Named { namespace: "ns", pod: "nobody" }).unwrap_err();
    assert!(matches!(unknown, ExplainError::NotFound(text) if text.contains("ns/nobody")));
}

#[test]
fn explain_tells_what_was_expected_and_from_how_many_pods() {
    let rig = rig(3);
    let asked = pod("p", 2);
    let told = || rig.explain(&ExplainRequest::Given { pod: &asked, names: None });
    assert_eq!(told()["expected"], serde_json::Value::Null);
    for at in 0..8 {
        let came = pod(&format!("c{at}"), if at < 6 { 1 } else { 4 });
        rig.cluster.pod_came("2026-11-21T10:00:00Z", &pod_request(&came));
    }
    let expected = told()["expected"].clone();
    assert_eq!((expected["learnedFrom"].as_u64(), expected["kindCount"].as_u64()), (Some(8), Some(2)));
    let kind = |at: usize| (expected["kinds"][at]["gpus"].as_u64(), expected["kinds"][at]["part"].as_u64());
    assert_eq!((kind(0), kind(1)), ((Some(1), Some(750_000)), (Some(4), Some(250_000))));
    let left = told()["options"][0]["parts"].as_array().unwrap().iter().find(|part| part["name"] == "left").cloned();
    assert!(left.unwrap()["weight"].as_u64().unwrap() > 0, "it counts");
}
