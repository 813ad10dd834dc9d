//! Claims about how often nodes are touched. Time is paused.

use http::Method;
use serde_json::Value;
use tokio::time::{advance, sleep};

use super::*;
use crate::convert::pod_request;
use crate::fake_api::{FakeApi, Fault};
use crate::fixture::{cluster, name, node_facts, node_object, node_path, pod_object};

struct Rig {
    api: FakeApi,
    cluster: Arc<Cluster>,
    requeue: Arc<Requeue>,
}

fn rig() -> Rig {
    let (api, cluster, requeue) = (FakeApi::default(), cluster(), Arc::new(Requeue::default()));
    for node in ["n1", "n2"] {
        api.put(&node_path(node), node_object(node));
        cluster.index.apply(berth_index::Event::Node(node_facts(node)));
    }
    tokio::spawn(Arc::clone(&requeue).run(api.client(), Arc::clone(&cluster), CancellationToken::new()));
    Rig { api, cluster, requeue }
}

impl Rig {
    fn wait(&self, pod: &str) {
        self.cluster.waiting.remember(pod_request(&serde_json::from_value(pod_object(pod, 1)).unwrap()));
    }

    fn touched(&self) -> Vec<String> {
        let calls = self.api.calls(&Method::PATCH, "/api/v1/nodes/");
        calls.into_iter().map(|call| call.path.rsplit('/').next().unwrap().to_owned()).collect()
    }
}

const JUST_UNDER: Duration = Duration::from_millis(4990);
const A_MOMENT: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn the_node_that_grew_is_touched_by_one_annotation_and_nothing_else() {
    let rig = rig();
    rig.wait("a");
    rig.requeue.node_grew(&name("n2"));
    sleep(A_MOMENT).await;
    assert_eq!(rig.touched(), ["n2"]);
    let body = &rig.api.calls(&Method::PATCH, "")[0].body;
    let annotations = body["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations.keys().collect::<Vec<_>>(), [REQUEUE_KEY]);
    let (whole, metadata) = (body.as_object().unwrap(), body["metadata"].as_object().unwrap());
    assert_eq!((whole.len(), metadata.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn growth_within_the_interval_is_touched_for_once_at_its_end() {
    let rig = rig();
    rig.wait("a");
    rig.requeue.node_grew(&name("n1"));
    sleep(A_MOMENT).await;
    for _ in 0..20 {
        rig.requeue.node_grew(&name("n2"));
        sleep(A_MOMENT).await;
    }
    assert_eq!(rig.touched().len(), 1);
    sleep(JUST_UNDER - 21 * A_MOMENT).await;
    assert_eq!(rig.touched().len(), 1);
    sleep(2 * A_MOMENT).await;
    assert_eq!(rig.touched(), ["n1", "n2"]);
    sleep(TOUCH_INTERVAL * 3).await;
    assert_eq!(rig.touched().len(), 2, "no growth, no touch");
    let values: Vec<Value> = rig.api.calls(&Method::PATCH, "").into_iter().map(|call| call.body).collect();
    assert_ne!(values[0], values[1], "an equal value would be no change of the Node");
}

#[tokio::test(start_paused = true)]
async fn where_no_pod_waits_nothing_is_touched() {
    let rig = rig();
    rig.requeue.node_grew(&name("n1"));
    sleep(TOUCH_INTERVAL * 3).await;
    assert!(rig.touched().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_our_watch_shows_late_is_not_missed() {
    let rig = rig();
    rig.requeue.node_grew(&name("n2"));
    sleep(Duration::from_secs(1)).await;
    rig.wait("a");
    sleep(TOUCH_INTERVAL).await;
    assert_eq!(rig.touched(), ["n2"]);
}

#[tokio::test(start_paused = true)]
async fn growth_while_looking_once_more_is_touched_for_once() {
    let rig = rig();
    rig.requeue.node_grew(&name("n1"));
    sleep(Duration::from_secs(1)).await;
    rig.wait("a");
    rig.requeue.node_grew(&name("n2"));
    sleep(TOUCH_INTERVAL * 4).await;
    assert_eq!(rig.touched(), ["n2"]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_touches_though_nobody_here_knows_who_waits() {
    let rig = rig();
    rig.requeue.policy_changed();
    sleep(A_MOMENT).await;
    assert_eq!(rig.touched().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_touch_is_tried_again_and_not_faster() {
    let rig = rig();
    rig.wait("a");
    rig.api.fail(Method::PATCH, "/nodes/", Fault::Refuse(500), 1);
    rig.api.fail(Method::PATCH, "/nodes/", Fault::Stall, 1);
    rig.requeue.node_grew(&name("n1"));
    sleep(A_MOMENT).await;
    assert_eq!(rig.touched().len(), 1);
    sleep(TOUCH_INTERVAL).await;
    assert_eq!(rig.touched().len(), 2);
    sleep(TOUCH_TIMEOUT + TOUCH_INTERVAL).await;
    assert_eq!(rig.touched(), ["n1", "n1", "n1"]);
    assert!(rig.api.get(&node_path("n1")).unwrap()["metadata"]["annotations"][REQUEUE_KEY].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_gone_is_not_asked_for() {
    let rig = rig();
    rig.wait("a");
    rig.cluster.index.apply(berth_index::Event::NodeGone(name("n1")));
    rig.requeue.node_grew(&name("n1"));
    advance(A_MOMENT).await;
    sleep(A_MOMENT).await;
    assert_eq!(rig.touched(), ["n2"]);
}
