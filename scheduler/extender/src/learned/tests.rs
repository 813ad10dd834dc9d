//! Claims about what is expected: by replicas, through relists, and how seldom it changes.

use berth_core::demand::ContainerRequest;
use berth_core::policy;
use berth_index::{Event, Kind};

use super::*;
use crate::fixture::{cluster, node_facts, topology};

/// The `at`th pod; ten are made in a second. Most want one GPU, some more.
fn pod(at: u32) -> (String, PodRequest) {
    let gpus = [1, 1, 1, 1, 2, 1, 1, 8, 1, 2][at as usize % 10];
    asking(at, &[("nvidia.com/gpu", &gpus.to_string())])
}

fn asking(at: u32, amounts: &[(&str, &str)]) -> (String, PodRequest) {
    let requests = amounts.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect();
    let container = ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false };
    let request = PodRequest { uid: format!("uid-{at:05}"), containers: vec![container], ..PodRequest::default() };
    (format!("2026-11-21T10:{:02}:{:02}Z", at / 600, at / 10 % 60), request)
}

fn listed(cluster: &crate::cluster::Cluster, pods: &[(String, PodRequest)]) {
    cluster.pods_listed(pods.iter().map(|(created, request)| (created.as_str(), request)));
}

fn came(cluster: &crate::cluster::Cluster, pods: &[(String, PodRequest)]) {
    pods.iter().for_each(|(created, request)| cluster.pod_came(created, request));
}

fn parsed(left: &str) -> Policy {
    policy::parse(&format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n{left}")).unwrap()
}

/// Puts values in an order of their own for every seed.
fn shuffled<T: Clone>(values: &[T], seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut values = values.to_vec();
    for at in (1..values.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        values.swap(at, usize::try_from(state >> 33).unwrap() % (at + 1));
    }
    values
}

#[test]
fn replicas_agree_after_a_list_whatever_they_saw_and_in_whatever_order() {
    let pods: Vec<_> = (0..3000).map(pod).collect();
    let alive: Vec<_> = pods.iter().filter(|(_, request)| !request.uid.ends_with('3')).cloned().collect();
    let leader = cluster();
    came(&leader, &shuffled(&pods, 1));
    came(&leader, &shuffled(&pods, 2));
    listed(&leader, &shuffled(&alive, 3));
    for seed in 4..8 {
        let standby = cluster();
        let missed = usize::try_from(seed).unwrap() * 300;
        came(&standby, &shuffled(&pods[missed..], seed));
        listed(&standby, &shuffled(&alive, seed));
        assert_eq!(standby.policy(), leader.policy());
        assert_eq!(standby.expectation(), leader.expectation());
        assert_eq!(standby.metrics.expected_hash.get(), leader.metrics.expected_hash.get());
    }
    assert!(leader.metrics.expected_hash.get() > 0 && leader.policy().expected().is_some());
    assert_eq!(leader.metrics.expected_pods.get(), 1600, "the newest");
}

#[test]
fn a_pod_that_is_told_of_again_counts_once() {
    let once = cluster();
    let pods: Vec<_> = (0..100).map(pod).collect();
    came(&once, &pods);
    let again = cluster();
    for _ in 0..5 {
        came(&again, &pods[..90]);
    }
    came(&again, &pods);
    assert_eq!(once.metrics.expected_pods.get(), again.metrics.expected_pods.get());
    assert_eq!((once.expectation().pods, again.expectation().pods), (100, 100));
}

#[test]
fn a_steady_mix_changes_next_to_nothing_and_another_one_is_learned() {
    let cluster = cluster();
    let steady: Vec<_> = (0..4000).map(pod).collect();
    came(&cluster, &steady);
    let changes = cluster.metrics.expected_changes.get();
    assert!((1..=3).contains(&changes), "{changes}");
    let policy = cluster.policy();
    came(&cluster, &(4000..6000).map(pod).collect::<Vec<_>>());
    assert!(Arc::ptr_eq(&policy, &cluster.policy()), "cached verdicts stay warm");
    let others: Vec<_> = (6000..8000).map(|at| asking(at, &[("nvidia.com/gpu", "4")])).collect();
    came(&cluster, &others);
    let parts = cluster.expectation().mix.parts();
    assert!(parts[0].0.gpu_count == 4 && parts[0].1 > 900_000, "{parts:?}");
}

#[test]
fn learning_can_be_switched_off_and_the_document_alone_is_expected_then() {
    let cluster = cluster();
    let said = parsed("left: {learnedPods: 0}\nexpected: [{gpus: 2, cpuMilli: 4000, weight: 1}]\n");
    cluster.set_policy(said.clone());
    came(&cluster, &(0..500).map(pod).collect::<Vec<_>>());
    listed(&cluster, &(0..500).map(pod).collect::<Vec<_>>());
    assert_eq!(*cluster.policy(), said.seeing(cluster.index.snapshot().rooms()).unwrap_or(said));
    assert_eq!(cluster.metrics.expected_changes.get(), 0);
    assert_eq!(cluster.expectation().mix.parts().len(), 1, "explain tells what the document says");
}

#[test]
fn calls_see_what_room_is_scarce_and_the_gauge_forgets_it_with_the_mix() {
    let cluster = cluster();
    let add = |numbers: std::ops::Range<u32>| {
        for node in numbers.map(|number| format!("n{number}")) {
            cluster.index.apply(Event::Node(node_facts(&node)));
            cluster.index.apply(Event::Report(Box::new(topology(&node, 1, 0))));
        }
    };
    let expecting = |gpus: u32| {
        parsed(&format!("left: {{learnedPods: 0}}\nexpected: [{{gpus: {gpus}, cpuMilli: 0, weight: 1}}]\n"))
    };
    let scarce = || {
        let seen = cluster.policy().expected().map_or(0, |expected| expected.scarce().count());
        assert_eq!(cluster.metrics.scarce_kinds.get(), i64::try_from(seen).unwrap());
        seen
    };
    cluster.set_policy(expecting(4));
    // Ten rooms for ten pods at once: five times the root of ten is 15, and scarce stays scarce up to twice as much.
    add(0..10);
    assert_eq!((scarce(), cluster.metrics.scarce_changes.get()), (1, 1));
    assert!(Arc::ptr_eq(&cluster.policy(), &cluster.policy()), "cached verdicts stay warm");
    add(10..120);
    assert_eq!((scarce(), cluster.metrics.scarce_changes.get()), (0, 2));
    cluster.index.reset(Kind::Nodes, Vec::new());
    assert_eq!((scarce(), cluster.metrics.scarce_changes.get()), (1, 3), "no room is left at all");
    // Nobody expects several GPUs any more, so nothing is left to be scarce.
    cluster.set_policy(expecting(1));
    assert_eq!((scarce(), cluster.metrics.scarce_changes.get()), (0, 3));
}

#[test]
fn another_policy_reads_the_pods_that_came_before_it() {
    let cluster = cluster();
    let foreign: Vec<_> = (0..200).map(|at| asking(at, &[("example.com/gpu", "4")])).collect();
    listed(&cluster, &foreign);
    assert!(cluster.policy().expected().is_none(), "nobody knows that these are GPUs");
    let said = parsed("resources: {gpu: [example.com/gpu]}\n");
    cluster.set_policy(said.clone());
    assert!(cluster.policy().expected().is_some());
    assert_eq!(*cluster.policy_said(), said);
}

#[test]
fn shares_by_memory_are_learned_once_cards_are_known() {
    let cluster = cluster();
    let share = |at| asking(at, &[("nvidia.com/gpu", "1"), ("nvidia.com/gpumem", "20480")]);
    listed(&cluster, &(0..200).map(share).collect::<Vec<_>>());
    assert!(cluster.policy().expected().is_none());
    let mut parts = topology("n1", 1, 0).into_parts();
    parts.gpus.iter_mut().for_each(|gpu| gpu.memory = Some(MiB(81_920)));
    let report = berth_model::NodeTopology::try_new(parts).unwrap();
    cluster.index.apply(Event::Report(Box::new(report)));
    cluster.reports_listed();
    let parts = cluster.expectation().mix.parts();
    assert_eq!(parts.iter().map(|(kind, _)| kind.gpu_milli).collect::<Vec<_>>(), [250]);
}
