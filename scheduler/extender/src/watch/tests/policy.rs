//! Claims about policy reloads.

use crate::metrics::ByResult;

use super::*;

const PATH: &str = "/api/v1/namespaces/berth-system/configmaps/berth-policy";

fn document(extra: &str) -> String {
    format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n{extra}")
}

fn config_map(document: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "berth-system", "name": "berth-policy", "uid": "policy"},
        "data": {"policy.yaml": document},
    })
}

fn with_policy(document: &str) -> FakeApi {
    let api = one_node();
    api.put(PATH, config_map(document));
    api
}

impl Rig {
    fn stale_after(&self) -> u64 {
        self.sinks.cluster.policy().stale_after_seconds()
    }

    fn reloads(&self, result: &'static str) -> u64 {
        self.sinks.cluster.metrics.policy_reloads.get_or_create(&ByResult { result }).get()
    }
}

const SEVEN: &str = "topology:\n  staleAfterSeconds: 7\n";
const EIGHT: &str = "topology:\n  staleAfterSeconds: 8\n";
const BROKEN: &str = "topology:\n  staleAfterSecond: 9\n";

#[tokio::test(start_paused = true)]
async fn an_edit_takes_effect_and_is_told() {
    let rig = Rig::synced(with_policy(&document(SEVEN))).await;
    assert_eq!(rig.stale_after(), 7);
    rig.api.put(PATH, config_map(&document(EIGHT)));
    eventually("the edit", || rig.stale_after() == 8).await;
    assert_eq!((rig.reloads("ok"), rig.reloads("rejected")), (2, 0));
    eventually("told", || rig.told().iter().any(|(reason, kind, _)| reason == "PolicyApplied" && kind == "Normal"))
        .await;
    assert!(rig.sinks.cluster.metrics.policy_last_success.get() > 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_broken_edit_changes_nothing_and_is_told_with_its_place() {
    let rig = Rig::synced(with_policy(&document(SEVEN))).await;
    rig.api.put(PATH, config_map(&document(BROKEN)));
    eventually("rejected", || rig.reloads("rejected") == 1).await;
    assert_eq!(rig.stale_after(), 7);
    assert!(rig.gates.is_ready());
    eventually("told", || rig.told().iter().any(|(reason, ..)| reason == "PolicyRejected")).await;
    let (_, kind, note) = rig.told().into_iter().find(|(reason, ..)| reason == "PolicyRejected").unwrap();
    assert_eq!(kind, "Warning");
    assert!(note.contains("line 4, column") && note.contains("staleAfterSecond"), "{note}");
    assert!(note.contains("last good policy stays in force"), "{note}");
    // A touch of the object or a list of it is no second edit.
    rig.api.put(PATH, config_map(&document(BROKEN)));
    rig.api.blink(|_| ());
    eventually("listed again", || rig.relists("ConfigMap") == 1).await;
    assert_eq!(rig.reloads("rejected"), 1);
    rig.api.put(PATH, config_map(&document(EIGHT)));
    eventually("corrected", || rig.stale_after() == 8).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_missing_is_a_broken_edit() {
    let rig = Rig::synced(with_policy(&document(SEVEN))).await;
    rig.api
        .put(PATH, json!({"metadata": {"namespace": "berth-system", "name": "berth-policy"}, "data": {"policy": "x"}}));
    eventually("rejected", || rig.reloads("rejected") == 1).await;
    assert_eq!(rig.stale_after(), 7);
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_the_defaults_hold() {
    let rig = Rig::synced(one_node()).await;
    assert_eq!(*rig.sinks.cluster.policy(), berth_core::Policy::default());
    rig.api.put(PATH, config_map(&document(SEVEN)));
    eventually("created", || rig.stale_after() == 7).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_deleted_later_stays_in_force() {
    let rig = Rig::synced(with_policy(&document(SEVEN))).await;
    rig.api.delete(PATH);
    a_moment().await;
    assert_eq!(rig.stale_after(), 7);
    assert!(rig.gates.is_ready());
    rig.api.put(PATH, config_map(&document(EIGHT)));
    eventually("created again", || rig.stale_after() == 8).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_with_a_broken_policy_is_not_ready_until_it_is_corrected() {
    let rig = Rig::start(with_policy(&document(BROKEN)));
    eventually("the others", || rig.gates.missing() == ["policy loaded"]).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let (_, why) = rig.gates.states().into_iter().find(|(name, _)| *name == "policy loaded").unwrap();
    assert!(why.as_ref().unwrap().contains("berth-system/berth-policy, policy.yaml: line 4"), "{why:?}");
    let (.., note) = rig.told().into_iter().find(|(reason, ..)| reason == "PolicyRejected").unwrap();
    assert!(note.contains("not ready until"), "{note}");
    rig.api.put(PATH, config_map(&document(SEVEN)));
    eventually("corrected", || rig.gates.is_ready() && rig.stale_after() == 7).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_policy_makes_kube_scheduler_look_again() {
    let rig = Rig::synced(one_node()).await;
    let touches = || rig.api.calls(&Method::PATCH, "/api/v1/nodes/").len();
    a_moment().await;
    let before = touches();
    rig.api.put(PATH, config_map(&document(SEVEN)));
    eventually("touched", || touches() == before + 1).await;
}
