//! Claims about agents that are away. Policy's default patience is 60 s.

use super::*;

fn agent_path(pod: &str) -> String {
    format!("/api/v1/namespaces/berth-system/pods/{pod}")
}

fn agent(pod: &str, node: &str, ready: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "berth-system", "name": pod, "uid": format!("uid-{pod}")},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]},
    })
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

fn with_agent() -> FakeApi {
    let api = one_node();
    api.put(&agent_path("agent-1"), agent("agent-1", "n1", "True"));
    api
}

#[tokio::test(start_paused = true)]
async fn a_report_is_stale_when_its_agent_is_away_too_long_and_current_when_it_is_back() {
    let rig = Rig::synced(with_agent()).await;
    seconds(300).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
    rig.api.put(&agent_path("agent-1"), agent("agent-1", "n1", "False"));
    seconds(59).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
    seconds(3).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
    rig.api.put(&agent_path("agent-1"), agent("agent-1", "n1", "True"));
    a_moment().await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_replaced_within_the_patience_was_never_away() {
    let rig = Rig::synced(with_agent()).await;
    rig.api.delete(&agent_path("agent-1"));
    seconds(40).await;
    rig.api.put(&agent_path("agent-2"), agent("agent-2", "n1", "False"));
    seconds(10).await;
    rig.api.put(&agent_path("agent-2"), agent("agent-2", "n1", "True"));
    for _ in 0..30 {
        seconds(10).await;
        assert_eq!(rig.knowledge("n1"), Knowledge::Current);
    }
}

#[tokio::test(start_paused = true)]
async fn one_ready_pod_of_two_is_enough_and_a_leaving_one_is_none() {
    let rig = Rig::synced(with_agent()).await;
    rig.api.put(&agent_path("agent-2"), agent("agent-2", "n1", "True"));
    let mut leaving = agent("agent-1", "n1", "True");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    rig.api.put(&agent_path("agent-1"), leaving);
    seconds(120).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
    rig.api.delete(&agent_path("agent-2"));
    seconds(62).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_agent_was_never_seen_is_stale_after_the_patience() {
    let rig = Rig::synced(one_node()).await;
    seconds(58).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
    seconds(5).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
    rig.api.put(&agent_path("agent-1"), agent("agent-1", "n1", "True"));
    a_moment().await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_comes_back_without_its_agent_is_stale_again() {
    let rig = Rig::synced(one_node()).await;
    seconds(65).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
    rig.api.delete(&report_path("n1"));
    rig.api.delete(&node_path("n1"));
    eventually("forgotten", || rig.node("n1").is_none()).await;
    rig.api.put(&node_path("n1"), node_object("n1"));
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 1, 0)));
    seconds(65).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
}

/// Found by the simulator: the report of a deleted NodeTopology was stale for good once its agent had been away.
#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_after_its_report_was_deleted_makes_the_next_one_current() {
    let rig = Rig::synced(one_node()).await;
    seconds(65).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
    rig.api.delete(&report_path("n1"));
    seconds(5).await;
    rig.api.put(&agent_path("agent-1"), agent("agent-1", "n1", "True"));
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 2, 0)));
    seconds(5).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Current);
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_watch_of_agents_does_not_restart_their_clock() {
    let rig = Rig::synced(with_agent()).await;
    rig.api.delete(&agent_path("agent-1"));
    seconds(40).await;
    rig.api.blink(|_| ());
    seconds(22).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale);
    rig.api.blink(|api| api.put(&agent_path("agent-1"), agent("agent-1", "n1", "True")));
    eventually("seen in a list", || rig.knowledge("n1") == Knowledge::Current).await;
    rig.api.blink(|api| api.delete(&agent_path("agent-1")));
    seconds(100).await;
    assert_eq!(rig.knowledge("n1"), Knowledge::Stale, "its end was in a gap");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_back_makes_kube_scheduler_look_again() {
    let api = one_node();
    api.put(&pod_path("pending"), pod_object("pending", 4));
    let rig = Rig::synced(api).await;
    seconds(90).await;
    let touches = || rig.api.calls(&Method::PATCH, "/api/v1/nodes/").len();
    let before = touches();
    rig.api.put(&agent_path("agent-1"), agent("agent-1", "n1", "True"));
    eventually("touched", || touches() == before + 1).await;
}
