//! Claims about room that kube-scheduler keeps for a pod: who comes after it is filtered and bound beside it.

use super::*;

fn nominated(uid: &str, gpus: u32, priority: i32, node: &str) -> Pod {
    let mut pod = pod(uid, gpus);
    pod.spec.priority = Some(priority);
    pod.status.nominated_node_name = node.to_owned();
    pod
}

#[test]
fn a_pod_that_comes_after_is_refused_where_room_is_kept_and_only_there() {
    let rig = rig(2);
    hold(&rig.cluster, "half", "n000", &[0]);
    rig.cluster.nominations.note(&pod_request(&nominated("first", 2, 5, "n000")));
    let names = rig.names();
    let list = br#""n000","n001""#;
    assert_eq!(
        rig.decider.filter_list(&pod_request(&pod("small", 1)), list).map(|w| w.named_count),
        None,
        "the slow way knows"
    );
    let answer = rig.decider.filter(&pod("pair", 2), &names, Instant::now()).unwrap();
    assert_eq!(answer.fits, [1], "three GPUs are free on n000 and two are kept");
    let answer = rig.decider.filter(&pod("one", 1), &names, Instant::now()).unwrap();
    assert_eq!(answer.fits.len(), 2, "one is left beside them");
    let own = rig.decider.filter(&nominated("first", 2, 5, "n000"), &names[..1], Instant::now()).unwrap();
    assert_eq!(own.fits, [0], "the room is its own");
    let above = rig.decider.filter(&nominated("above", 3, 6, ""), &names[..1], Instant::now()).unwrap();
    assert_eq!(above.fits, [0], "who is more important needs not care");
    rig.cluster.nominations.forget(&PodUid::new("first"));
    assert_eq!(rig.decider.filter_list(&pod_request(&pod("small", 1)), list).map(|w| w.named_count), Some(2));
}

#[tokio::test]
async fn a_bind_beside_a_nominated_pod_takes_none_of_its_devices() {
    let rig = rig(1);
    let mut pair = nominated("first", 2, 5, "n000");
    pair.metadata.annotations.insert("berth.dev/gpus".to_owned(), "0,1".to_owned());
    rig.cluster.nominations.note(&pod_request(&pair));
    rig.filter(&pod("p", 2));
    rig.bind(&pod("p", 2), "n000").await.unwrap();
    let devices = rig.binder.last().unwrap().note.devices().unwrap();
    assert_eq!(devices.iter().map(|d| d.uuid.as_str()).collect::<Vec<_>>(), ["GPU-n000-2", "GPU-n000-3"]);
    let refused = rig.bind(&pod("p2", 1), "n000").await;
    assert!(refused.is_err(), "never filtered");
    rig.filter(&pod("q", 1));
    assert_eq!(rig.bind(&pod("q", 1), "n000").await.unwrap_err().code, "gpus-busy");
}

#[test]
fn a_pod_without_room_says_so_on_the_list_that_eviction_helps() {
    let rig = rig(1);
    rig.cluster.nominations.note(&pod_request(&nominated("first", 4, 5, "n000")));
    let answer = rig.filter(&pod("late", 1));
    assert_eq!((answer.fits.len(), answer.rejected[0].reason.code), (0, "gpus-busy"));
    assert!(answer.rejected[0].reason.helped_by_preemption);
}
