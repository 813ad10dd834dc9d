//! Claims about the kubelet's word on who holds what.

use berth_model::{Drift, GpuSet};

use super::{bound, held, node, pod, report, told, topology, with};
use crate::{Event, Index, PodFacts};

fn holder(index: &Index, node: &str) -> crate::Holder {
    index.snapshot().node(node).unwrap().holders[0].clone()
}

#[test]
fn what_the_kubelet_gave_is_held_and_not_what_was_planned() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 2, Some(&[0, 1]))]);
    index.apply(told(pod("p", "a", 2, Some(&[0, 1])), &[2, 3]));
    assert_eq!(held(&index, "a"), (0b1100, 0, false));
    let holder = holder(&index, "a");
    assert_eq!(holder.drifted_from, Some(GpuSet::from_bits(0b11)));
    assert_eq!(holder.problem, "drift: planned GPUs 0,1, the kubelet gave GPUs 2,3");
    index.apply(told(pod("q", "a", 2, Some(&[0, 1])), &[1, 0]));
    let agreed = index.snapshot().node("a").unwrap().holders[1].clone();
    assert_eq!((agreed.drifted_from, agreed.problem.as_str()), (None, ""), "the order of ids is no drift");
}

#[test]
fn where_the_plan_is_enforced_the_kubelets_ids_are_only_its_count() {
    let enforced = |pod: PodFacts| Event::Pod(Box::new(PodFacts { is_enforced: true, ..pod }));
    let given = |ids: &[&str]| [("nvidia.com/gpu".to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())].into();
    let index = with([node("a"), report("a", 1, None)]);
    let planned = pod("p", "a", 2, Some(&[0, 1]));
    index.apply(enforced(PodFacts { truth: given(&["GPU-a-2", "GPU-a-3"]), ..planned.clone() }));
    assert_eq!(held(&index, "a"), (0b11, 0, false));
    assert_eq!((holder(&index, "a").drifted_from, holder(&index, "a").problem.as_str()), (None, ""));
    index.apply(Event::Pod(Box::new(PodFacts { note: crate::PlanNote::Absent, ..planned })));
    assert_eq!(held(&index, "a").0, 0b11, "a plan that vanishes was enforced all the same");
}

#[test]
fn a_lease_strays_where_the_kubelet_counts_other_devices_or_has_not_said_which() {
    let stray = |pods: &[PodFacts]| {
        let index = with([node("a"), report("a", 1, None)]);
        pods.iter().for_each(|pod| drop(index.apply(Event::Pod(Box::new(pod.clone())))));
        let snapshot = index.snapshot();
        snapshot.node("a").unwrap().view.has_stray_lease
    };
    let ids = |ids: &[u8]| ids.iter().map(|i| format!("GPU-a-{i}")).collect::<Vec<_>>();
    let leased = |truth: &[u8]| PodFacts {
        is_enforced: true,
        truth: [("nvidia.com/gpu".to_owned(), ids(truth))].into(),
        ..pod("p", "a", 2, Some(&[0, 1]))
    };
    assert!(stray(&[leased(&[])]) && stray(&[leased(&[0])]) && stray(&[leased(&[1, 2])]));
    assert!(!stray(&[leased(&[1, 0])]));
    assert!(!stray(&[PodFacts { is_enforced: false, ..leased(&[1, 2]) }]), "that is drift");
    assert!(!stray(&[PodFacts { is_ended: true, ..leased(&[1, 2]) }]));
    let beside = PodFacts { is_enforced: true, ..pod("q", "a", 0, None) };
    assert!(!stray(&[leased(&[0, 1]), beside]), "a pod that asks for no device has none");
}

#[test]
fn a_pod_bound_by_others_is_exact_once_the_kubelet_has_said_what_it_gave() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 1, None)]);
    assert_eq!(held(&index, "a"), (0, 1, true));
    index.apply(told(pod("p", "a", 1, None), &[3]));
    assert_eq!(held(&index, "a"), (0b1000, 0, false));
}

#[test]
fn half_a_word_of_the_kubelet_frees_nothing() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 2, Some(&[0, 1]))]);
    index.apply(told(pod("p", "a", 2, Some(&[0, 1])), &[2]));
    assert_eq!(held(&index, "a").0, 0b111, "the plan counts until all is said");
    index.apply(told(pod("p", "a", 2, Some(&[0, 1])), &[2, 3]));
    index.apply(bound("p", "a", 2, Some(&[0, 1])));
    assert_eq!(held(&index, "a").0, 0b1100, "a status that says less than before frees nothing");
}

#[test]
fn a_replica_of_a_shared_card_is_the_card_and_an_unknown_id_counts() {
    let index = with([node("a"), report("a", 1, None)]);
    let mut shared = pod("p", "a", 1, None);
    shared.truth = [("nvidia.com/gpu".to_owned(), vec!["GPU-a-2::4".to_owned()])].into();
    index.apply(Event::Pod(Box::new(shared)));
    assert_eq!(held(&index, "a"), (0b100, 0, false));
    let mut foreign = pod("q", "a", 1, None);
    foreign.truth = [("nvidia.com/gpu".to_owned(), vec!["GPU-elsewhere".to_owned()])].into();
    index.apply(Event::Pod(Box::new(foreign)));
    assert_eq!(held(&index, "a"), (0b100, 1, true));
}

/// A report that tells of the pod what its node's kubelet gave it.
fn drifted(generation: u64, uid: &str, devices: &[u8]) -> Event {
    let drift = Drift {
        pod: format!("ns/{uid}"),
        pod_uid: uid.to_owned(),
        resource: "nvidia.com/gpu".to_owned(),
        devices: devices.iter().map(|i| format!("GPU-a-{i}")).collect(),
    };
    Event::Report(Box::new(topology("a", generation, None).with_drifts(vec![drift])))
}

#[test]
fn what_the_agent_tells_of_a_pod_counts_while_no_status_says_it() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 2, Some(&[0, 1]))]);
    index.apply(drifted(2, "p", &[2, 3]));
    assert_eq!(held(&index, "a"), (0b1100, 0, false));
    assert_eq!(holder(&index, "a").problem, "drift: planned GPUs 0,1, the kubelet gave GPUs 2,3");
    index.apply(told(pod("p", "a", 2, Some(&[0, 1])), &[1, 2]));
    assert_eq!(held(&index, "a").0, 0b110, "the status is nearer to the kubelet than the report");
    index.apply(report("a", 3, None));
    assert_eq!(held(&index, "a").0, 0b110);
}

#[test]
fn a_drift_of_an_earlier_pod_of_the_name_or_one_that_ended_is_no_drift() {
    let index = with([node("a"), report("a", 1, None), bound("p", "a", 2, Some(&[0, 1])), drifted(2, "q", &[2, 3])]);
    assert_eq!(held(&index, "a"), (0b11, 0, false));
    index.apply(drifted(3, "p", &[2, 3]));
    index.apply(report("a", 4, None));
    assert_eq!(held(&index, "a"), (0b11, 0, false), "the plan counts again");
}

fn running(uid: &str, devices: Option<&[u8]>) -> PodFacts {
    PodFacts { expects_devices: true, ..pod(uid, "a", 2, devices) }
}

#[test]
fn a_pod_that_runs_where_nobody_offers_the_resource_runs_without_a_device_and_its_plan_still_counts() {
    let Event::Node(mut facts) = node("a") else { panic!("a node event") };
    facts.offered.clear();
    let index = with([Event::Node(facts.clone()), report("a", 1, None), bound("p", "a", 2, Some(&[0, 1]))]);
    assert!(!holder(&index, "a").is_without_devices, "it does not run yet");
    index.apply(Event::Pod(Box::new(running("p", Some(&[0, 1])))));
    let found = holder(&index, "a");
    assert!(found.is_without_devices);
    assert_eq!(found.problem, "runs without a device: no device plugin offers nvidia.com/gpu on the node");
    assert_eq!(held(&index, "a").0, 0b11);
    // Zero is a plugin that was there: the pod may hold what it got before the plugin or the kubelet started again.
    facts.offered.insert("nvidia.com/gpu".to_owned(), 0);
    index.apply(Event::Node(facts));
    assert!(!holder(&index, "a").is_without_devices);
}

#[test]
fn the_silence_of_a_kubelet_counts_only_where_it_tells_of_other_pods() {
    let index = with([node("a"), report("a", 1, None)]);
    index.apply(Event::Pod(Box::new(running("p", Some(&[0, 1])))));
    assert!(!holder(&index, "a").is_without_devices, "kubelets before 1.36 tell of no pod");
    index.apply(told(pod("q", "a", 2, Some(&[2, 3])), &[2, 3]));
    assert!(holder(&index, "a").is_without_devices);
    index.apply(told(running("p", Some(&[0, 1])), &[0, 1]));
    assert!(!holder(&index, "a").is_without_devices);
}
