//! Claims about binding through the API server, against one that fails on request. Time is paused: a wait of seconds costs none.

use std::collections::BTreeSet;

use berth_core::annotation::PLAN_KEY;
use berth_model::kubelet::TopologyManagerPolicy;
use berth_model::{CpuSet, Kubelet, NodeTopology, Zone, ZoneId};
use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::fake_api::{FakeApi, Fault};
use crate::fixture::{bound_object, cluster, name, node_facts, pod_object, pod_path, topology};
use crate::watch::PodOrder;
use crate::wire::Pod;

struct Rig {
    api: FakeApi,
    cluster: Arc<Cluster>,
    order: Arc<PodOrder>,
    binder: Arc<ApiBinder>,
}

/// A synced scheduler that knows nodes n1 and n2 of four GPUs each, after the window of two binders.
async fn rig() -> Rig {
    let (api, cluster, order) = (FakeApi::default(), cluster(), Arc::new(PodOrder::default()));
    for node in ["n1", "n2"] {
        cluster.index.apply(Event::Node(node_facts(node)));
        cluster.index.apply(Event::Report(Box::new(topology(node, 1, 0))));
    }
    order.listed();
    tokio::time::advance(QUIET).await;
    let binder = ApiBinder::new(Arc::clone(&cluster), api.client(), Arc::clone(&order), Some("berth".to_owned()));
    Rig { api, cluster, order, binder: Arc::new(binder) }
}

fn args(pod: &str, node: &str) -> BindArgs {
    BindArgs {
        pod_name: pod.to_owned(),
        pod_namespace: "ns".to_owned(),
        pod_uid: format!("uid-{pod}"),
        node: node.to_owned(),
    }
}

impl Rig {
    /// A pod that waits, as the API server has it and as the watch has shown it.
    fn wait(&self, pod: &str, gpus: u32) {
        let object = pod_object(pod, gpus);
        let seen: Pod = serde_json::from_value(object.clone()).unwrap();
        self.cluster.waiting.remember(pod_request(&seen));
        self.api.put(&pod_path(pod), object);
    }

    async fn bind(&self, pod: &str, node: &str) -> Result<(), Failure> {
        Arc::clone(&self.binder).bind(args(pod, node)).await
    }

    /// Binds and holds it to the time that a bind may take.
    async fn bind_in_time(&self, pod: &str, node: &str) -> Result<(), Failure> {
        let began_at = Instant::now();
        let result = self.bind(pod, node).await;
        assert!(began_at.elapsed() <= WORK_MAX, "{:?}", began_at.elapsed());
        result
    }

    fn hold_count(&self) -> usize {
        self.cluster.index.snapshot().hold_count()
    }

    fn posts(&self) -> Vec<Value> {
        self.api.calls(&Method::POST, "/binding").into_iter().map(|call| call.body).collect()
    }

    fn devices(&self, pod: &str) -> BTreeSet<String> {
        let pod = self.api.get(&pod_path(pod)).unwrap();
        devices(pod["metadata"]["annotations"][PLAN_KEY].as_str().unwrap())
    }
}

fn devices(plan: &str) -> BTreeSet<String> {
    let note: Note = serde_json::from_str(plan).unwrap();
    note.gpus().unwrap().into_iter().map(|uuid| uuid.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_write_carries_node_uid_and_plan() {
    let rig = rig().await;
    rig.wait("a", 2);
    rig.bind("a", "n1").await.unwrap();
    let posts = rig.posts();
    assert_eq!(posts.len(), 1);
    let metadata = &posts[0]["metadata"];
    assert_eq!((&posts[0]["kind"], &posts[0]["apiVersion"]), (&json!("Binding"), &json!("v1")));
    assert_eq!(posts[0]["target"], json!({"apiVersion": "v1", "kind": "Node", "name": "n1"}));
    assert_eq!((&metadata["name"], &metadata["uid"]), (&json!("a"), &json!("uid-a")));
    let plan = metadata["annotations"][PLAN_KEY].as_str().unwrap();
    let note = Note::parse(plan, "uid-a", &name("n1")).unwrap();
    assert_eq!(
        (note.level, note.topology_generation, note.devices().unwrap().len()),
        (berth_core::annotation::Level::Advice, 1, 2)
    );
    assert_eq!(rig.hold_count(), 1, "until the watch shows the pod bound");
}

#[tokio::test(start_paused = true)]
async fn every_request_tells_the_server_when_to_give_up_and_the_list_is_consistent() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.bind("a", "n1").await.unwrap();
    let list = &rig.api.calls(&Method::GET, "/api/v1/pods")[0];
    assert!(list.query.contains("timeout=1000ms") && !list.query.contains("resourceVersion"), "{}", list.query);
    assert!(list.query.contains("spec.nodeName%3Dn1"), "{}", list.query);
    let post = &rig.api.calls(&Method::POST, "/binding")[0];
    assert_eq!(post.query, "timeout=1500ms");
}

#[tokio::test(start_paused = true)]
async fn many_binds_at_once_never_share_a_device() {
    let rig = rig().await;
    let pods: Vec<String> = (0..12).map(|i| format!("p{i}")).collect();
    for pod in &pods {
        rig.wait(pod, 1);
    }
    let node = |i: usize| if i < 6 { "n1" } else { "n2" };
    let binds = pods.iter().enumerate().map(|(i, pod)| rig.bind(pod, node(i)));
    let results = futures::future::join_all(binds).await;
    let bound: Vec<&String> = pods.iter().zip(&results).filter(|(_, r)| r.is_ok()).map(|(pod, _)| pod).collect();
    assert_eq!(bound.len(), 8, "two nodes of four GPUs");
    let all: BTreeSet<String> = bound.iter().flat_map(|pod| rig.devices(pod)).collect();
    assert_eq!(all.len(), 8);
    for refused in results.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code, "gpus-busy");
        assert!(refused.text.contains("1 asked, 0 of 4 free"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_watch_has_shown_counts_before_the_plan() {
    let rig = rig().await;
    rig.api.put(&pod_path("foreign"), bound_object("foreign", 3, "n1"));
    rig.wait("a", 2);
    assert_eq!(rig.bind("a", "n1").await.unwrap_err().code, "gpus-busy");
    assert!(rig.posts().is_empty());
    assert_eq!(rig.hold_count(), 0);
    rig.bind("a", "n2").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_out_and_is_no_failure() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.fail(Method::POST, "/binding", Fault::LoseAnswer, 1);
    rig.bind_in_time("a", "n1").await.unwrap();
    assert_eq!(rig.posts().len(), 1, "a write is never repeated");
    assert_eq!(rig.hold_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_nobody_knows_keeps_the_devices_held_and_ends_in_time() {
    let rig = rig().await;
    rig.wait("a", 4);
    rig.wait("b", 1);
    rig.api.fail(Method::POST, "/binding", Fault::Stall, 1);
    let failure = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert_eq!(failure.code, "unknown");
    assert_eq!(rig.hold_count(), 1);
    assert_eq!(rig.bind("b", "n1").await.unwrap_err().code, "gpus-busy", "it may still land");
    rig.cluster.index.expire_holds(rig.cluster.now_ms() + HOLD_MS);
    rig.bind("b", "n1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_error_says_nothing_of_the_write() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.fail(Method::POST, "/binding", Fault::ApplyAndRefuse(504), 1);
    rig.bind_in_time("a", "n1").await.unwrap();
    rig.wait("b", 1);
    rig.api.fail(Method::POST, "/binding", Fault::Refuse(500), 1);
    let lands_late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        rig.api.put(&pod_path("b"), bound_object("b", 1, "n1"));
    };
    let (result, ()) = tokio::join!(rig.bind_in_time("b", "n1"), lands_late);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bind_waits_for_a_kubelet_that_aligns_zones_and_no_longer_than_it_may() {
    let rig = rig().await;
    let mut parts = topology("n1", 2, 0).into_parts();
    let (cpus, zone) = (CpuSet::parse("0-63").unwrap(), ZoneId(0));
    parts.zones = vec![Zone { id: zone, cpus, memory: None, huge_pages: None, distances: Vec::new() }];
    parts.gpus.iter_mut().for_each(|gpu| gpu.zone = Some(zone));
    let topology_manager = TopologyManagerPolicy::SingleNumaNode;
    parts.host.kubelet = Some(Kubelet { topology_manager, ..Kubelet::default() });
    rig.cluster.index.apply(Event::Report(Box::new(NodeTopology::try_new(parts).unwrap())));
    let taken = |pod: &str| {
        let mut object = bound_object(pod, 1, "n1");
        object["status"]["startTime"] = json!("2026-01-01T00:00:00Z");
        object
    };
    rig.api.put(&pod_path("first"), taken("first"));
    rig.api.put(&pod_path("second"), bound_object("second", 1, "n1"));
    rig.wait("a", 1);
    let refused = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert_eq!((refused.code, rig.posts().len(), rig.hold_count()), ("kubelet-busy", 0, 0), "{}", refused.text);
    let began_at = Instant::now();
    let bind = tokio::spawn(Arc::clone(&rig.binder).bind(args("a", "n1")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!bind.is_finished() && rig.posts().is_empty());
    let seen: Pod = serde_json::from_value(taken("second")).unwrap();
    rig.cluster.index.apply(Event::Pod(Box::new(pod_facts(&seen).unwrap())));
    bind.await.unwrap().unwrap();
    assert!(began_at.elapsed() < KUBELET_MAX && rig.posts().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_bound_here_already_is_bound() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.bind("a", "n1").await.unwrap();
    // Known as waiting still: the list of the node shows it.
    rig.bind("a", "n1").await.unwrap();
    rig.cluster.waiting.forget(&PodUid::new("uid-a"));
    // Not known at all: the pod itself shows it.
    rig.bind("a", "n1").await.unwrap();
    assert_eq!(rig.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_a_bind_to_the_same_node_is_no_failure() {
    let rig = rig().await;
    rig.wait("a", 1);
    // An earlier write of ours lands between the list and this write.
    rig.api.fail(Method::POST, "/binding", Fault::ApplyAndRefuse(409), 1);
    rig.bind_in_time("a", "n1").await.unwrap();
    assert_eq!(rig.hold_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_a_bind_elsewhere_gives_the_devices_back() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.put(&pod_path("a"), bound_object("a", 1, "n2"));
    let failure = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert_eq!(failure.code, "bound-elsewhere");
    assert_eq!(failure.text, "pod ns/a is bound to node n2 already, not to n1");
    assert_eq!(rig.hold_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_younger_pod_of_the_same_name_is_never_bound() {
    let rig = rig().await;
    rig.wait("a", 1);
    let mut younger = pod_object("a", 1);
    younger["metadata"]["uid"] = json!("uid-younger");
    rig.api.put(&pod_path("a"), younger);
    assert_eq!(rig.bind_in_time("a", "n1").await.unwrap_err().code, "pod-gone");
    assert_eq!(rig.posts().len(), 1, "the precondition refused it");
    rig.cluster.waiting.forget(&PodUid::new("uid-a"));
    assert_eq!(rig.bind_in_time("a", "n1").await.unwrap_err().code, "pod-gone");
    assert_eq!(rig.posts().len(), 1, "no need to write");
    rig.api.delete(&pod_path("a"));
    assert_eq!(rig.bind_in_time("a", "n1").await.unwrap_err().code, "pod-gone");
    assert_eq!(rig.hold_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_deleted_is_not_bound() {
    let rig = rig().await;
    rig.wait("a", 1);
    let mut leaving = pod_object("a", 1);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    rig.api.put(&pod_path("a"), leaving);
    assert_eq!(rig.bind_in_time("a", "n1").await.unwrap_err().code, "pod-leaving");
    assert_eq!(rig.hold_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named_and_holds_nothing() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.fail(Method::POST, "/binding", Fault::Refuse(403), 1);
    let failure = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert_eq!(failure.code, "forbidden");
    assert!(failure.text.contains("create on pods/binding"), "{failure}");
    rig.api.fail(Method::GET, "/api/v1/pods", Fault::Refuse(403), 1);
    let failure = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert!(failure.text.contains("get and list on pods"), "{failure}");
    assert_eq!((rig.hold_count(), rig.posts().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_too_busy_was_not_too_busy_in_secret() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.fail(Method::POST, "/binding", Fault::Refuse(429), 1);
    assert_eq!(rig.bind_in_time("a", "n1").await.unwrap_err().code, "api-busy");
    assert_eq!(rig.hold_count(), 0);
    rig.bind("a", "n1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_list_ends_the_bind_before_it_plans() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.fail(Method::GET, "/api/v1/pods", Fault::Stall, 1);
    let failure = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert_eq!(failure.code, "api-late");
    assert!(rig.posts().is_empty());
    assert_eq!(rig.hold_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bind_during_a_full_list_is_refused_and_told_why() {
    let rig = rig().await;
    rig.wait("a", 1);
    let list = rig.order.begin_list().await;
    let failure = rig.bind_in_time("a", "n1").await.unwrap_err();
    assert_eq!(failure.code, "no-turn");
    assert!(failure.text.contains("listed again"), "{failure}");
    drop(list);
    rig.bind("a", "n1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_long_keeps_no_list_waiting() {
    let rig = rig().await;
    rig.wait("a", 1);
    rig.api.fail(Method::POST, "/binding", Fault::Stall, 1);
    let list = async {
        while rig.posts().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(Duration::from_millis(1), rig.order.begin_list()).await.unwrap();
    };
    let (result, ()) = tokio::join!(rig.bind("a", "n1"), list);
    assert_eq!(result.unwrap_err().code, "unknown");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_watch_has_not_shown_is_read_and_checked() {
    let rig = rig().await;
    rig.api.put(&pod_path("a"), pod_object("a", 2));
    rig.bind("a", "n1").await.unwrap();
    assert_eq!(rig.devices("a").len(), 2);
    let mut foreign = pod_object("b", 1);
    foreign["spec"]["schedulerName"] = json!("default-scheduler");
    rig.api.put(&pod_path("b"), foreign);
    let failure = rig.bind("b", "n1").await.unwrap_err();
    assert_eq!(failure.code, "foreign-pod");
    assert!(failure.text.contains("\"berth\" is right"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_gpus_is_bound_without_a_plan() {
    let rig = rig().await;
    rig.wait("a", 0);
    rig.bind("a", "n1").await.unwrap();
    assert_eq!(rig.posts()[0]["metadata"].get("annotations"), None);
    assert_eq!(rig.hold_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn names_that_reach_out_of_their_path_are_refused_before_any_call() {
    let rig = rig().await;
    for (field, bad) in
        [("pod", "../x"), ("pod", "a/binding"), ("pod", ""), ("pod", ".."), ("ns", "a.b"), ("node", "n?x=")]
    {
        let mut args = args("a", "n1");
        match field {
            "pod" => args.pod_name = bad.to_owned(),
            "ns" => args.pod_namespace = bad.to_owned(),
            _ => args.node = bad.to_owned(),
        }
        let failure = Arc::clone(&rig.binder).bind(args).await.unwrap_err();
        assert_eq!(failure.code, "bad-request", "{field} {bad:?}");
    }
    assert!(rig.api.calls(&Method::GET, "").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bind_that_is_dropped_while_it_writes_keeps_its_devices_held() {
    let rig = rig().await;
    rig.wait("a", 4);
    rig.api.fail(Method::POST, "/binding", Fault::Stall, 1);
    let bind = rig.bind("a", "n1");
    assert!(tokio::time::timeout(Duration::from_millis(10), bind).await.is_err());
    assert_eq!(rig.posts().len(), 1);
    assert_eq!(rig.hold_count(), 1, "the write is on its way: nobody knows");
}
