//! Claims about the watchers, against an API server that forgets, refuses and cuts on request. Time is paused.

mod agents;
mod policy;
mod reports;

use berth_core::Knowledge;
use berth_index::{NodeSlot, PodUid};
use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::admin::Gates;
use crate::convert::into_request;
use crate::events;
use crate::fake_api::{FakeApi, Fault};
use crate::fixture::{
    bound_object, cluster, node_object, node_path, pod_object, pod_path, report_object, report_path, topology,
};
use crate::metrics::ByKind;
use crate::wire::SplitArgs;

struct Rig {
    api: FakeApi,
    sinks: Sinks,
    gates: Gates,
    shutdown: CancellationToken,
    tasks: JoinSet<&'static str>,
}

impl Rig {
    /// Watchers of what the API server has by now.
    fn start(api: FakeApi) -> Self {
        let (events, writer) = events::channel();
        let (requeue, order) = (Arc::new(Requeue::default()), Arc::new(PodOrder::default()));
        let sinks = Sinks { cluster: cluster(), requeue, events, order };
        let (gates, shutdown) = (Gates::new(), CancellationToken::new());
        let settings = Settings { scheduler_name: Some("berth".to_owned()), ..Settings::default() };
        let tasks = start(&api.client(), &sinks, &gates, &settings, &shutdown);
        tokio::spawn(writer.run(api.client(), shutdown.clone()));
        let cluster = Arc::clone(&sinks.cluster);
        tokio::spawn(Arc::clone(&sinks.requeue).run(api.client(), cluster, shutdown.clone()));
        Self { api, sinks, gates, shutdown, tasks }
    }

    /// The same, and they have listed everything.
    async fn synced(api: FakeApi) -> Self {
        let rig = Self::start(api);
        eventually("ready", || rig.gates.is_ready()).await;
        rig
    }

    fn node(&self, node: &str) -> Option<Arc<NodeSlot>> {
        self.sinks.cluster.index.snapshot().node(node).cloned()
    }

    fn knowledge(&self, node: &str) -> Knowledge {
        self.node(node).map_or(Knowledge::Missing, |slot| slot.view.knowledge)
    }

    fn held(&self, node: &str) -> u32 {
        self.node(node).map_or(0, |slot| slot.view.taken_gpu_count())
    }

    fn waits(&self, pod: &str) -> bool {
        self.sinks.cluster.waiting.by_uid(&PodUid::new(&format!("uid-{pod}"))).is_some()
    }

    fn relists(&self, kind: &'static str) -> u64 {
        self.sinks.cluster.metrics.watch_relists.get_or_create(&ByKind { kind }).get()
    }

    /// Events written so far, as reason, type and note.
    fn told(&self) -> Vec<(String, String, String)> {
        let text = |body: &Value, key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let posts = self.api.calls(&Method::POST, "/events").into_iter();
        posts.map(|c| (text(&c.body, "reason"), text(&c.body, "type"), text(&c.body, "note"))).collect()
    }
}

/// Waits for a condition, for ten minutes of paused time.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(600);
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "{what}: never");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets everything happen that needs no time.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// One node of four GPUs with its report.
fn one_node() -> FakeApi {
    let api = FakeApi::default();
    api.put(&node_path("n1"), node_object("n1"));
    api.put(&report_path("n1"), report_object(&topology("n1", 1, 0)));
    api
}

#[tokio::test(start_paused = true)]
async fn ready_means_that_everything_was_listed() {
    let api = one_node();
    api.put(&pod_path("running"), bound_object("running", 3, "n1"));
    api.put(&pod_path("pending"), pod_object("pending", 1));
    let rig = Rig::start(api);
    let mut gates = rig.gates.missing();
    gates.sort_unstable();
    assert_eq!(
        gates,
        [
            "agents listed",
            "disruption budgets listed",
            "nodes listed",
            "pods listed",
            "policy loaded",
            "topologies listed"
        ]
    );
    eventually("ready", || rig.gates.is_ready()).await;
    assert_eq!((rig.held("n1"), rig.knowledge("n1")), (3, Knowledge::Current));
    assert!(rig.waits("pending") && !rig.waits("running"));
}

#[tokio::test(start_paused = true)]
async fn a_missing_definition_or_right_is_not_ready_until_it_is_there() {
    for code in [404, 403] {
        let api = one_node();
        api.fail(Method::GET, "/nodetopologies", Fault::Refuse(code), 3);
        let rig = Rig::start(api);
        eventually("the others", || rig.gates.missing() == ["topologies listed"]).await;
        let (_, why) = rig.gates.states().into_iter().find(|(name, _)| *name == "topologies listed").unwrap();
        assert!(why.as_ref().unwrap().contains("nodetopologies.topology.berth.dev"), "{why:?}");
        eventually("ready", || rig.gates.is_ready()).await;
        assert_eq!(rig.knowledge("n1"), Knowledge::Current);
    }
}

#[tokio::test(start_paused = true)]
async fn only_pods_that_wait_for_gpus_from_us_wait() {
    let api = one_node();
    let with = |pod: &str, key: &str, value: Value| {
        let mut object = pod_object(pod, 1);
        *object.pointer_mut(key.rsplit_once('/').unwrap().0).unwrap() = {
            let mut parent = object.pointer(key.rsplit_once('/').unwrap().0).unwrap().clone();
            parent[key.rsplit_once('/').unwrap().1] = value;
            parent
        };
        object
    };
    api.put(&pod_path("ours"), pod_object("ours", 1));
    api.put(&pod_path("plain"), pod_object("plain", 0));
    api.put(&pod_path("gated"), with("gated", "/spec/schedulingGates", json!([{"name": "g"}])));
    api.put(&pod_path("foreign"), with("foreign", "/spec/schedulerName", json!("default-scheduler")));
    api.put(&pod_path("leaving"), with("leaving", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")));
    let rig = Rig::synced(api).await;
    assert!(rig.waits("ours"));
    for pod in ["plain", "gated", "foreign", "leaving"] {
        assert!(!rig.waits(pod), "{pod}");
    }
    rig.api.put(&pod_path("gated"), pod_object("gated", 1));
    eventually("its gate is gone", || rig.waits("gated")).await;
    rig.api.delete(&pod_path("gated"));
    eventually("it is deleted", || !rig.waits("gated")).await;
    rig.api.put(&pod_path("ours"), bound_object("ours", 1, "n1"));
    eventually("it is bound", || !rig.waits("ours") && rig.held("n1") == 1).await;
}

/// A pod with something in every field that decisions look at.
fn rich_object(pod: &str) -> Value {
    let mut object = pod_object(pod, 2);
    object["metadata"]["labels"] = json!({"app": "train"});
    object["metadata"]["annotations"] = json!({"berth.dev/link": "nvlink:preferred", "other": "x"});
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "x", "controller": true}]);
    object["metadata"]["creationTimestamp"] = json!("2026-11-21T08:00:00Z");
    object["spec"]["initContainers"] =
        json!([{"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "250m"}}}]);
    object["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": 2, "memory": "16Gi"});
    object["spec"]["overhead"] = json!({"memory": "64Mi"});
    object["spec"]["priority"] = json!(7);
    object["status"] = json!({"phase": "Pending", "qosClass": "Guaranteed", "nominatedNodeName": "n1",
        "startTime": "2026-11-21T08:00:00Z"});
    object
}

/// The body of a call for a stored pod, in Go's order.
fn body_of(stored: &Value) -> String {
    let metadata = &stored["metadata"];
    let first = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels", "annotations"];
    let members: Vec<String> = first.iter().map(|key| format!("{key:?}:{}", metadata[*key])).collect();
    let (members, owners) = (members.join(","), &metadata["ownerReferences"]);
    let pod = format!(
        r#"{{"metadata":{{{members},"ownerReferences":{owners}}},"spec":{},"status":{}}}"#,
        stored["spec"], stored["status"]
    );
    format!(r#"{{"Pod":{pod},"Nodes":null,"NodeNames":["n1"]}}"#)
}

#[tokio::test(start_paused = true)]
async fn a_call_for_a_pod_of_which_the_watch_told_finds_what_reading_it_would_say() {
    let api = one_node();
    api.put(&pod_path("listed"), rich_object("listed"));
    let rig = Rig::synced(api).await;
    rig.api.put(&pod_path("watched"), rich_object("watched"));
    eventually("it waits", || rig.waits("watched")).await;
    let known = |body: &str| {
        let version = SplitArgs::of(body.as_bytes()).unwrap().version().unwrap();
        rig.sinks.cluster.waiting.of_version(version.uid, version.resource_version)
    };
    for pod in ["listed", "watched"] {
        let body = body_of(&rig.api.get(&pod_path(pod)).unwrap());
        let read = into_request(SplitArgs::of(body.as_bytes()).unwrap().read_pod().unwrap());
        assert_eq!(known(&body).as_deref(), Some(&read), "{pod}");
        assert!(read.has_soft_wishes && read.is_guaranteed && read.annotations.len() == 2 && read.priority == 7);
    }
    let before = body_of(&rig.api.get(&pod_path("watched")).unwrap());
    let mut edited = rich_object("watched");
    edited["metadata"]["annotations"]["berth.dev/link"] = json!("nvlink");
    rig.api.put(&pod_path("watched"), edited);
    eventually("the edit is seen", || known(&before).is_none()).await;
    let now = known(&body_of(&rig.api.get(&pod_path("watched")).unwrap())).unwrap();
    assert_eq!(now.annotations["berth.dev/link"], "nvlink");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_or_is_deleted_gives_its_gpus_back() {
    let api = one_node();
    for pod in ["a", "b"] {
        api.put(&pod_path(pod), bound_object(pod, 2, "n1"));
    }
    let rig = Rig::synced(api).await;
    assert_eq!(rig.held("n1"), 4);
    let mut ended = bound_object("a", 2, "n1");
    ended["status"]["phase"] = json!("Succeeded");
    rig.api.put(&pod_path("a"), ended);
    eventually("ended", || rig.held("n1") == 2).await;
    rig.api.delete(&pod_path("b"));
    eventually("deleted", || rig.held("n1") == 0).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_a_list_brings_what_was_missed_and_is_counted() {
    let api = one_node();
    api.put(&pod_path("a"), bound_object("a", 2, "n1"));
    let rig = Rig::synced(api).await;
    assert_eq!((rig.relists("Pod"), rig.relists("Node")), (0, 0), "the first list is none");
    rig.api.blink(|api| {
        api.delete(&pod_path("a"));
        api.put(&pod_path("b"), bound_object("b", 1, "n1"));
        api.put(&node_path("n2"), node_object("n2"));
    });
    eventually("listed again", || rig.held("n1") == 1).await;
    eventually("nodes too", || rig.node("n2").is_some_and(|slot| slot.exists)).await;
    assert_eq!(rig.relists("Pod"), 1);
    assert!(rig.gates.is_ready(), "readiness does not flap");
}

#[tokio::test(start_paused = true)]
async fn while_a_list_stalls_the_old_state_stands_and_binds_wait() {
    let api = one_node();
    api.put(&pod_path("a"), bound_object("a", 2, "n1"));
    let rig = Rig::synced(api).await;
    rig.api.fail(Method::GET, "/api/v1/pods", Fault::Stall, 1);
    rig.api.blink(|api| api.put(&pod_path("b"), bound_object("b", 1, "n1")));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.held("n1"), 2);
    let soon = || tokio::time::Instant::now() + Duration::from_millis(900);
    assert_eq!(rig.sinks.order.turn(Duration::ZERO, soon()).await.unwrap_err(), order::NoTurn::Listing);
    eventually("the stall is noticed", || rig.held("n1") == 3).await;
    rig.sinks.order.turn(Duration::ZERO, soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_list_does_not_keep_binds_waiting() {
    let rig = Rig::synced(one_node()).await;
    rig.api.fail(Method::GET, "/api/v1/pods", Fault::Refuse(503), 1000);
    rig.api.blink(|_| ());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let soon = tokio::time::Instant::now() + Duration::from_millis(900);
    rig.sinks.order.turn(Duration::ZERO, soon).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_brought_back_by_a_list() {
    let rig = Rig::synced(one_node()).await;
    let mut odd = node_object("n2");
    odd["status"]["allocatable"] = json!(7);
    rig.api.put(&node_path("n2"), odd);
    rig.api.put_unseen(&node_path("n2"), node_object("n2"));
    // The watch goes on behind it, so that resuming would not bring it either.
    rig.api.put(&node_path("n3"), node_object("n3"));
    a_moment().await;
    assert!(rig.node("n2").is_none());
    eventually("listed", || rig.node("n2").is_some_and(|slot| slot.exists)).await;
}

#[tokio::test(start_paused = true)]
async fn every_task_ends_with_the_shutdown_and_an_early_end_is_told() {
    let rig = Rig::synced(one_node()).await;
    rig.shutdown.cancel();
    join(rig.tasks, rig.shutdown).await.unwrap();

    let mut tasks = JoinSet::new();
    tasks.spawn(async { "Pod" });
    let ended = join(tasks, CancellationToken::new()).await.unwrap_err();
    assert_eq!(ended.to_string(), "the watcher of Pod ended");
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    tasks.spawn(async { panic!("on purpose") });
    assert!(matches!(join(tasks, CancellationToken::new()).await, Err(Ended::Panicked(_))));
}

/// Touches of nodes so far, once those for what the first lists brought have passed.
async fn touches_after_a_while(rig: &Rig) -> usize {
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.api.calls(&Method::PATCH, "/api/v1/nodes/").len()
}

#[tokio::test(start_paused = true)]
async fn a_pod_refused_just_before_we_saw_room_is_tried_again() {
    let api = one_node();
    api.put(&pod_path("a"), bound_object("a", 4, "n1"));
    api.put(&pod_path("b"), bound_object("b", 0, "n1"));
    api.put(&pod_path("pending"), pod_object("pending", 1));
    let rig = Rig::synced(api).await;
    let before = touches_after_a_while(&rig).await;
    // kube-scheduler has seen the end of `a` and asks about `pending`; our watch is a moment behind.
    rig.sinks.cluster.note_refusal();
    rig.api.delete(&pod_path("b"));
    assert_eq!(touches_after_a_while(&rig).await, before, "no GPU became free");
    rig.sinks.cluster.note_refusal();
    rig.api.delete(&pod_path("a"));
    assert_eq!(touches_after_a_while(&rig).await, before + 1);
}

#[tokio::test(start_paused = true)]
async fn room_that_kube_scheduler_sees_itself_is_not_told() {
    let api = one_node();
    api.put(&pod_path("a"), bound_object("a", 4, "n1"));
    api.put(&pod_path("pending"), pod_object("pending", 1));
    let rig = Rig::synced(api).await;
    let before = touches_after_a_while(&rig).await;
    rig.api.delete(&pod_path("a"));
    rig.api.put(&node_path("n2"), node_object("n2"));
    assert_eq!(touches_after_a_while(&rig).await, before);
    rig.api.blink(|api| api.put(&node_path("n3"), node_object("n3")));
    assert_eq!(touches_after_a_while(&rig).await, before + 1, "after a gap nobody knows what kube-scheduler saw when");
}
