//! A pod group stays in one NVLink clique: the worked example of the policy's `groups.label`.

use super::*;

const LABEL: &str = "jobset.sigs.k8s.io/jobset-name";

pub(super) fn policy(more: &str) -> Policy {
    let head = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n";
    berth_core::policy::parse(&format!("{head}groups: {{label: {LABEL}}}\n{more}")).unwrap()
}

pub(super) fn member(uid: &str, gpus: u32, group: &str) -> Pod {
    let mut pod = pod(uid, gpus);
    pod.metadata.labels.insert(LABEL.to_owned(), group.to_owned());
    pod
}

/// Two racks of three nodes with four GPUs: n000 to n002, n003 to n005.
fn two_racks() -> Rig {
    let rig = rig(6);
    for (at, node) in rig.names.iter().enumerate() {
        let rack = u32::try_from(at / 3).unwrap();
        rig.cluster.index.apply(Event::Report(Box::new(racked(node, 2, rack))));
    }
    rig.cluster.set_policy(policy(""));
    rig
}

/// Filter's first node, to which the pod is bound; prioritize agrees with it.
async fn placed(rig: &Rig, pod: &Pod) -> String {
    let first = rig.filter(pod).fits[0];
    let scores = rig.decider.prioritize(pod, &rig.names(), Instant::now()).unwrap().scores;
    assert_eq!(scores.iter().max_by_key(|(_, score)| *score).map(|(at, _)| *at), Some(first), "{scores:?}");
    let node = rig.names[first].clone();
    rig.bind(pod, &node).await.unwrap();
    node
}

/// A pod of the group that is on the node and holds nothing there.
pub(super) fn join(cluster: &Cluster, uid: &str, node: &str, group: &str) {
    cluster.index.apply(Event::Pod(Box::new(PodFacts {
        uid: PodUid::new(uid),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        node: Some(name(node)),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals: Totals {
            group: berth_core::Group::of("ns", &member(uid, 0, group).metadata.labels, &policy("")),
            ..Totals::default()
        },
        rank: Rank::default(),
        note: PlanNote::Absent,
        truth: std::collections::BTreeMap::new(),
    })));
}

#[tokio::test]
async fn pods_of_a_group_fill_one_rack_before_they_go_to_another() {
    let rig = two_racks();
    // Another tenant has made the other rack the fuller one, which would win by score.
    hold(&rig.cluster, "held", "n003", &[0, 1]);
    join(&rig.cluster, "train-0", "n000", "train");
    let mut nodes = Vec::new();
    for at in 1..7 {
        nodes.push(placed(&rig, &member(&format!("train-{at}"), 2, "train")).await);
    }
    assert_eq!(nodes, ["n000", "n000", "n001", "n001", "n002", "n002"], "the rack of the group");
    assert_eq!(placed(&rig, &member("train-7", 2, "train")).await, "n003", "the rack is full");
    assert_eq!(placed(&rig, &member("other", 1, "other")).await, "n004", "a group of its own goes by score");
}

#[tokio::test]
async fn explain_tells_who_is_outside_and_a_group_whose_pods_left_is_nowhere() {
    let rig = two_racks();
    hold(&rig.cluster, "held", "n003", &[0, 1]);
    join(&rig.cluster, "train-0", "n001", "train");
    let pod = member("train-1", 2, "train");
    let told = |rig: &Rig| rig.explain(&ExplainRequest::Given { pod: &pod, names: None });
    let options = told(&rig)["options"].clone();
    assert_eq!((options[0]["node"].as_str(), options[0]["isOutsideClique"].as_bool()), (Some("n000"), Some(false)));
    assert_eq!((options[3]["node"].as_str(), options[3]["isOutsideClique"].as_bool()), (Some("n003"), Some(true)));
    rig.cluster.index.apply(Event::PodGone(PodUid::new("train-0")));
    assert_eq!(told(&rig)["options"][0]["node"], "n003");
}
