//! Claims about the story, as text without colour.

use anstream::adapter::strip_str;
use berth_core::annotation::{Container, Device};

use super::*;

const NOW: i64 = 1_795_248_000;

fn at(seconds_ago: i64) -> Option<Timestamp> {
    Timestamp::from_second(NOW - seconds_ago).ok()
}

fn told(given: &Story) -> String {
    strip_str(&story(given, Timestamp::from_second(NOW).unwrap())).to_string()
}

fn pending() -> Story {
    let condition = Condition {
        kind: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: "Unschedulable".to_owned(),
        message: "0/4 nodes are available: 4 berth: too few free GPUs.".to_owned(),
        since: at(300),
    };
    let event = Happening {
        last: at(30),
        count: 12,
        kind: "Warning".to_owned(),
        reason: "FailedScheduling".to_owned(),
        message: "0/4 nodes are available".to_owned(),
    };
    let pod = PodSummary {
        namespace: "team".to_owned(),
        name: "train-0".to_owned(),
        phase: "Pending".to_owned(),
        created: at(301),
        scheduler_name: "berth".to_owned(),
        asks: vec![Ask { container: "main".to_owned(), resource: "nvidia.com/gpu".to_owned(), amount: "4".to_owned() }],
        wishes: vec![("berth.dev/link".to_owned(), "nvlink:required".to_owned())],
        conditions: vec![condition],
        ..PodSummary::default()
    };
    let scheduler = Err("missing right: get and create pods/portforward in namespace berth-system".to_owned());
    Story { pod, events: Ok(vec![event]), plan: PlanState::NotBound, scheduler }
}

#[test]
fn a_pending_pod_is_explained_without_any_right_on_the_scheduler() {
    let expected = "\
pod team/train-0  Pending  on no node  5m old
  asks   4 x nvidia.com/gpu (main)
  wishes berth.dev/link: nvlink:required

Conditions
  PodScheduled False  for 5m  Unschedulable
    0/4 nodes are available: 4 berth: too few free GPUs.

Events, newest last
  30s ago  Warning  FailedScheduling x12
    0/4 nodes are available

Plan
  none: the pod is on no node yet

What the scheduler says
  missing right: get and create pods/portforward in namespace berth-system
";
    assert_eq!(told(&pending()), expected);
}

#[test]
fn a_plan_names_gpus_by_index_and_marks_one_that_the_node_does_not_have() {
    let device = |uuid: &str| Device::whole(uuid);
    let note = Note {
        v: 1,
        pod_uid: "u".to_owned(),
        node: "n".to_owned(),
        level: Level::Advice,
        containers: vec![Container {
            name: "main".to_owned(),
            resource: "nvidia.com/gpu".to_owned(),
            init: false,
            devices: vec![device("GPU-a"), device("GPU-z")],
        }],
        nics: vec!["mlx5_0".to_owned()],
        zone: Some(0),
        topology_generation: 7,
        score: 734_567,
        why: "GPUs 0,1 joined by NV18 or nearer".to_owned(),
    };
    let indexes = [(GpuUuid::parse("GPU-a").unwrap(), GpuIndex(0))].into();
    let text = strip_str(&known_plan(&note, &Ok(indexes))).to_string();
    let expected = "  \
  advice: the node's device plugin may have given others
  main  nvidia.com/gpu  GPU0 (GPU-a)  GPU-z (not in the node's report)
  NICs under the same switches: mlx5_0
  score 73.4%, zone 0, from report generation 7
  why: GPUs 0,1 joined by NV18 or nearer
";
    assert_eq!(text, expected);
    let text = strip_str(&known_plan(&note, &Err("missing right: get x".to_owned()))).to_string();
    assert!(text.contains("GPU-a  GPU-z\n  UUIDs without indexes: missing right: get x\n"), "{text}");
}

#[test]
fn a_pod_that_berth_never_sees_says_so() {
    let mut given = pending();
    given.pod.scheduler_name = "default-scheduler".to_owned();
    given.pod.asks.clear();
    given.events = Err("missing right: list events in namespace team".to_owned());
    let text = told(&given);
    assert!(text.contains("schedulerName is default-scheduler: Berth has a say only if"), "{text}");
    assert!(text.contains("Berth has no say in it"), "{text}");
    assert!(text.contains("\n  missing right: list events in namespace team\n"), "{text}");
}

#[test]
fn an_age_is_short_and_never_negative() {
    let now = Timestamp::from_second(NOW).unwrap();
    for (ago, text) in [(-5, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
        assert_eq!(age(at(ago), now), text);
    }
    assert_eq!(age(None, now), "unknown");
}
