//! Claims about who goes: what kube-scheduler names is the start, devices decide, and what it cannot ask is answered too.

use berth_index::Event;
use serde_json::{Value, json};

use super::*;
use crate::budgets::Budget;
use crate::convert::pod_facts;
use crate::fixture::{cluster, node_facts, pod_object, topology};
use crate::wire::Pod;

/// Nodes of four GPUs in two NVLink pairs: (0,1) and (2,3).
fn rig(nodes: &[&str]) -> std::sync::Arc<Cluster> {
    let cluster = cluster();
    for node in nodes {
        cluster.index.apply(Event::Node(node_facts(node)));
        cluster.index.apply(Event::Report(Box::new(topology(node, 1, 0))));
    }
    cluster
}

fn read(object: Value) -> Pod {
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// A pod that holds these GPUs of a node by its plan.
fn holds(cluster: &Cluster, pod: &str, node: &str, gpus: &[u8], more: Value) {
    let mut object = pod_object(pod, u32::try_from(gpus.len()).unwrap());
    let devices: Vec<Value> = gpus.iter().map(|i| json!({"uuid": format!("GPU-{node}-{i}")})).collect();
    let containers = json!([{"name": "main", "resource": "nvidia.com/gpu", "devices": devices}]);
    let plan =
        json!({"v": 1, "podUID": format!("uid-{pod}"), "node": node, "level": "advice", "containers": containers});
    object["spec"]["nodeName"] = json!(node);
    object["metadata"]["annotations"] = json!({"topology.berth.dev/plan": plan.to_string()});
    merge(&mut object, more);
    cluster.index.apply(Event::Pod(Box::new(pod_facts(&read(object)).unwrap())));
}

/// Pods a to d, one on each GPU of n1.
fn four_ones(cluster: &Cluster) {
    for (gpu, pod) in (0_u8..).zip(["a", "b", "c", "d"]) {
        holds(cluster, pod, "n1", &[gpu], json!({}));
    }
}

fn candidate(node: &str, victims: &[&str], violations: i64) -> Candidate {
    let victims = victims.iter().map(|pod| format!("uid-{pod}")).collect();
    Candidate { node: node.to_owned(), victims, violations }
}

/// A pod of priority 10 that wants two GPUs of one pair.
fn pair(more: Value) -> Pod {
    let mut object = pod_object("need", 2);
    object["spec"]["priority"] = json!(10);
    object["metadata"]["annotations"] = json!({"berth.dev/link": "nvlink"});
    merge(&mut object, more);
    read(object)
}

fn asked(cluster: &Cluster, pod: Pod, candidates: &[Candidate]) -> Vec<Evicted> {
    preempt(cluster, &PreemptArgs { pod: Box::new(pod), candidates: candidates.to_vec() }, &|| true)
}

/// Names of the victims on the one node that is kept, and the budgets they break; `None` where no node is kept.
fn victims(cluster: &Cluster, pod: Pod, named: &[&str], violations: i64) -> Option<(Vec<String>, i64)> {
    let mut kept = asked(cluster, pod, &[candidate("n1", named, violations)]);
    assert!(kept.len() <= 1);
    let Evicted { victims, violations, .. } = kept.pop()?;
    let mut names: Vec<String> = victims.iter().map(|uid| uid.trim_start_matches("uid-").to_owned()).collect();
    names.sort_unstable();
    Some((names, violations))
}

fn some(names: &[&str], violations: i64) -> Option<(Vec<String>, i64)> {
    Some((names.iter().map(|name| (*name).to_owned()).collect(), violations))
}

#[test]
fn two_pods_of_one_pair_go_where_counts_would_send_two_halves() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let chosen = victims(&cluster, pair(json!({})), &["a", "c"], 0);
    assert!(chosen == some(&["a", "b"], 0) || chosen == some(&["c", "d"], 0), "{chosen:?}");
    assert_eq!(victims(&cluster, pair(json!({})), &["c", "d"], 0), some(&["c", "d"], 0), "a good choice stays");
}

#[test]
fn a_node_where_no_eviction_helps_is_left_out_and_others_stay() {
    let cluster = rig(&["n1", "n2"]);
    let important = || json!({"spec": {"priority": 10}});
    holds(&cluster, "a", "n1", &[0], important());
    holds(&cluster, "b", "n1", &[1], json!({}));
    holds(&cluster, "c", "n1", &[2], important());
    holds(&cluster, "d", "n1", &[3], json!({}));
    holds(&cluster, "e", "n2", &[0, 1, 2, 3], json!({}));
    let named = [candidate("n1", &["b", "d"], 0), candidate("n2", &["e"], 0), candidate("nowhere", &["x"], 0)];
    let kept = asked(&cluster, pair(json!({})), &named);
    assert_eq!(kept.iter().map(|e| e.node.as_str()).collect::<Vec<_>>(), ["n2"]);
    let any = pair(json!({"metadata": {"annotations": {"berth.dev/link": "any"}}}));
    assert_eq!(asked(&cluster, any, &named).len(), 2, "without the wish counts are right");
}

#[test]
fn budgets_count_as_kube_scheduler_counts_them_for_pods_that_it_did_not_name_too() {
    let cluster = rig(&["n1"]);
    for (gpu, pod) in (0_u8..).zip(["a", "b", "c", "d"]) {
        holds(&cluster, pod, "n1", &[gpu], json!({"metadata": {"labels": {"app": pod}}}));
    }
    let budget = |pods: &[&str]| {
        let terms = json!([{"key": "app", "operator": "In", "values": pods}]);
        let object = json!({"metadata": {"namespace": "ns", "name": "b"}, "spec": {"selector": {"matchExpressions": terms}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
        Budget::of(serde_json::from_value(object).unwrap()).unwrap()
    };
    cluster.budgets.take(budget(&["b"]));
    assert_eq!(victims(&cluster, pair(json!({})), &["a", "c"], 0), some(&["c", "d"], 0));
    cluster.budgets.take(budget(&["a", "b", "c"]));
    assert_eq!(victims(&cluster, pair(json!({})), &["a", "d"], 1), some(&["c", "d"], 1));
    assert_eq!(victims(&cluster, pair(json!({})), &["c", "d"], 1), some(&["c", "d"], 1));
}

#[test]
fn what_kube_scheduler_named_stays_where_more_than_amounts_decides() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let containers =
        json!([{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}, "ports": [{"hostPort": 80}]}]);
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]);
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k"}]}});
    for more in [
        json!({"spec": {"containers": containers}}),
        json!({"spec": {"volumes": volumes}}),
        json!({"spec": {"affinity": apart}}),
        json!({"spec": {"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]}}),
    ] {
        let (names, _) = victims(&cluster, pair(more.clone()), &["a", "c"], 0).unwrap();
        assert!(
            names.len() == 3 && names.contains(&"a".to_owned()) && names.contains(&"c".to_owned()),
            "{more}: {names:?}"
        );
    }
    // One that keeps others away goes where kube-scheduler named it, and only there.
    holds(&cluster, "a", "n1", &[0], json!({"spec": {"affinity": apart}}));
    assert_eq!(victims(&cluster, pair(json!({})), &["a", "c"], 0), some(&["a", "b"], 0));
    assert_eq!(victims(&cluster, pair(json!({})), &["c", "d"], 0), some(&["c", "d"], 0));
}

#[test]
fn a_pod_that_holds_the_cpus_goes_too() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let wide = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "40"}}}]}});
    holds(&cluster, "wide", "n1", &[], wide);
    let containers = json!([{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "30"}}}]);
    let need = pair(json!({"spec": {"containers": containers}}));
    let (names, _) = victims(&cluster, need, &["a", "c", "wide"], 0).unwrap();
    assert!(names == ["a", "b", "wide"] || names == ["c", "d", "wide"], "{names:?}");
    assert_eq!(
        victims(&cluster, pair(json!({})), &["a", "c", "wide"], 0).unwrap().0.len(),
        2,
        "nobody asked for its CPUs"
    );
}

#[test]
fn a_pod_that_is_not_known_here_goes_as_it_was_named() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let (names, _) = victims(&cluster, pair(json!({})), &["a", "c", "unseen"], 0).unwrap();
    assert!(names == ["a", "b", "unseen"] || names == ["c", "d", "unseen"], "{names:?}");
    let kept = asked(&cluster, pair(json!({})), &[candidate("n1", &["unseen", "a"], 0)]);
    assert_eq!(kept[0].victims.last().unwrap(), "uid-unseen", "the first is taken for the most important");
}

/// kube-scheduler 1.36 never asks of a node that fits by count and not by set; 1.38 names it with nobody to evict.
#[test]
fn a_node_that_is_fragmented_and_fits_by_count_is_answered_with_whom_its_set_needs() {
    let cluster = rig(&["n1"]);
    holds(&cluster, "a", "n1", &[0], json!({}));
    holds(&cluster, "c", "n1", &[2], json!({"spec": {"priority": 5}}));
    assert_eq!(victims(&cluster, pair(json!({})), &[], 0), some(&["a"], 0));
    let any = pair(json!({"metadata": {"annotations": {"berth.dev/link": "any"}}}));
    assert_eq!(victims(&cluster, any, &[], 0), some(&[], 0), "a plan stands: passed on with nobody");
    let small = pair(json!({"spec": {"priority": 0}}));
    assert_eq!(victims(&cluster, small, &[], 0), None, "nobody is less important");
}

#[test]
fn who_is_leaving_already_makes_the_room() {
    let cluster = rig(&["n1"]);
    let leaving = || json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    holds(&cluster, "a", "n1", &[0], json!({}));
    holds(&cluster, "b", "n1", &[1], json!({}));
    holds(&cluster, "c", "n1", &[2], leaving());
    holds(&cluster, "d", "n1", &[3], leaving());
    assert_eq!(victims(&cluster, pair(json!({})), &["a", "b"], 0), some(&["c", "d"], 0));
}

#[test]
fn room_for_a_pod_that_goes_before_is_not_given_away() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let mut first = pod_object("first", 2);
    first["spec"]["priority"] = json!(20);
    first["metadata"]["annotations"] = json!({"berth.dev/link": "nvlink"});
    first["status"]["nominatedNodeName"] = json!("n1");
    holds(&cluster, "a", "n1", &[0], json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    holds(&cluster, "b", "n1", &[1], json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    cluster.nominations.note(&pod_request(&read(first.clone())));
    assert_eq!(
        victims(&cluster, pair(json!({})), &["c", "d"], 0),
        some(&["c", "d"], 0),
        "a and b make room for the first"
    );
    cluster.nominations.forget(&PodUid::new("uid-first"));
    assert_eq!(victims(&cluster, pair(json!({})), &["c", "d"], 0), some(&["a", "b"], 0));
    first["spec"]["priority"] = json!(9);
    cluster.nominations.note(&pod_request(&read(first)));
    assert_eq!(
        victims(&cluster, pair(json!({})), &["c", "d"], 0),
        some(&["a", "b"], 0),
        "the less important one waits"
    );
}

#[test]
fn pods_that_cannot_be_read_evict_nobody_and_pods_without_gpus_are_not_ours() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let bad = pair(json!({"metadata": {"annotations": {"berth.dev/link": "nvlnk"}}}));
    assert_eq!(victims(&cluster, bad, &["a", "b"], 0), None);
    let mut plain = pod_object("plain", 0);
    plain["spec"]["priority"] = json!(10);
    assert_eq!(victims(&cluster, read(plain), &["a"], 1), some(&["a"], 1));
}

#[test]
fn no_node_is_looked_at_when_time_is_over() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let args = PreemptArgs { pod: Box::new(pair(json!({}))), candidates: vec![candidate("n1", &["a", "b"], 0)] };
    assert_eq!(preempt(&cluster, &args, &|| false), []);
}

#[test]
fn where_the_work_has_come_to_its_limit_only_good_choices_of_kube_scheduler_stand() {
    let cluster = rig(&["n1"]);
    four_ones(&cluster);
    let policy = cluster.policy();
    let pod = pair(json!({}));
    let request = pod_request(&pod);
    let need = Need {
        cluster: &cluster,
        policy: &policy,
        totals: Totals::of(&request),
        is_countable: true,
        demand: Demand::parse(&request, &policy).unwrap(),
        request,
    };
    let with = |named: &[&str]| need.on(&candidate("n1", named, 0), &mut 3);
    assert_eq!(with(&["a", "b"]).unwrap().victims, ["uid-a", "uid-b"]);
    assert_eq!(with(&["a", "c"]), None);
}
