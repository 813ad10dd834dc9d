//! Claims about reports: what is refused, what stays, what is told.

use crate::metrics::ByReason;

use super::*;

impl Rig {
    fn generation(&self, node: &str) -> u64 {
        let slot = self.node(node).unwrap();
        slot.view.hardware.as_ref().map_or(0, |hardware| hardware.topology.parts().generation.0)
    }

    fn rejected(&self, reason: &'static str) -> u64 {
        self.sinks.cluster.metrics.topology_reports_rejected.get_or_create(&ByReason { reason }).get()
    }
}

fn broken(node: &str) -> Value {
    let mut object = report_object(&topology(node, 2, 0));
    object["status"]["gpus"][3]["uuid"] = json!("not a uuid");
    object
}

#[tokio::test(start_paused = true)]
async fn a_refused_report_keeps_the_last_good_one_and_names_the_field_once() {
    let rig = Rig::synced(one_node()).await;
    for _ in 0..3 {
        rig.api.put(&report_path("n1"), broken("n1"));
    }
    eventually("rejected", || rig.rejected("malformed") == 1).await;
    assert_eq!((rig.generation("n1"), rig.knowledge("n1")), (1, Knowledge::Current));
    eventually("told", || !rig.told().is_empty()).await;
    let told = rig.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].0.as_str(), told[0].1.as_str()), ("TopologyReportRejected", "Warning"));
    assert!(told[0].2.contains("gpus[3].uuid"), "{}", told[0].2);
    let about = &rig.api.calls(&Method::POST, "/events")[0].body["regarding"];
    assert_eq!((&about["kind"], &about["name"]), (&json!("NodeTopology"), &json!("n1")));
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 3, 0)));
    eventually("corrected", || rig.generation("n1") == 3).await;
    assert_eq!(rig.rejected("malformed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_with_a_refused_report_keeps_that_node_s_last_good_one() {
    let api = one_node();
    api.put(&node_path("n2"), node_object("n2"));
    api.put(&report_path("n2"), report_object(&topology("n2", 1, 0)));
    let rig = Rig::synced(api).await;
    rig.api.blink(|api| {
        api.put(&report_path("n1"), broken("n1"));
        api.put(&report_path("n2"), report_object(&topology("n2", 2, 0)));
    });
    eventually("listed again", || rig.generation("n2") == 2).await;
    assert_eq!((rig.generation("n1"), rig.rejected("malformed")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_status_of_another_form_costs_its_own_node_only() {
    let api = one_node();
    for (node, status) in [("n2", json!("x")), ("n3", json!({"gpus": 7})), ("n4", Value::Null)] {
        let mut object = report_object(&topology(node, 1, 0));
        object["status"] = status;
        api.put(&report_path(node), object);
    }
    let rig = Rig::synced(api).await;
    assert_eq!((rig.generation("n1"), rig.rejected("malformed")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_older_generation_is_refused_unless_the_object_is_another() {
    let rig = Rig::synced(one_node()).await;
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 5, 0)));
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 4, 0)));
    eventually("refused", || rig.rejected("generation") == 1).await;
    assert_eq!(rig.generation("n1"), 5);
    let another = |generation| {
        let mut object = report_object(&topology("n1", generation, 0));
        object["metadata"]["uid"] = json!(format!("another-{generation}"));
        object
    };
    rig.api.put(&report_path("n1"), another(2));
    eventually("another object", || rig.generation("n1") == 2).await;
    rig.api.blink(|api| api.put(&report_path("n1"), another(1)));
    eventually("another object in a list", || rig.generation("n1") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_gone_is_gone() {
    let rig = Rig::synced(one_node()).await;
    rig.api.delete(&report_path("n1"));
    eventually("gone", || rig.knowledge("n1") == Knowledge::Missing).await;
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 1, 0)));
    eventually("back", || rig.knowledge("n1") == Knowledge::Current).await;
    rig.api.blink(|api| api.delete(&report_path("n1")));
    eventually("gone in a list", || rig.knowledge("n1") == Knowledge::Missing).await;
}

#[tokio::test(start_paused = true)]
async fn a_healthy_gpu_that_comes_back_makes_kube_scheduler_look_again() {
    let api = one_node();
    api.put(&report_path("n1"), report_object(&topology("n1", 1, 2)));
    api.put(&pod_path("pending"), pod_object("pending", 4));
    let rig = Rig::synced(api).await;
    // Let the touch for what the first lists brought pass.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let touches = || rig.api.calls(&Method::PATCH, "/api/v1/nodes/").len();
    let before = touches();
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 2, 3)));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(touches(), before, "less is no growth");
    rig.api.put(&report_path("n1"), report_object(&topology("n1", 3, 0)));
    eventually("touched", || touches() == before + 1).await;
}
