//! What each call answers, good or bad.

use hyper::StatusCode;

use super::rig::{bind_body, error_of, eventually, filter_body, rig, rig_with};

const EMPTY: &str = r#""FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":""}"#;

#[tokio::test]
async fn filter_hands_every_name_on_and_answers_by_position() {
    let rig = rig().await;
    let (status, answer) = rig.post("/filter", filter_body("p", &["gpu-b", "ghost", "gpu-a"])).await;
    let expected = r#"{"Nodes":null,"NodeNames":["gpu-b","gpu-a"],"FailedNodes":null,"FailedAndUnresolvableNodes":{"ghost":"berth: unknown"},"Error":""}"#;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, expected));
    assert_eq!(*rig.decide.asked.lock().unwrap(), [["gpu-b", "ghost", "gpu-a"]]);
    rig.shows("berth_extender_filter_rejections_total{reason=\"unknown-node\"} 1").await;
    rig.shows("berth_extender_nodes_evaluated_total{verb=\"filter\"} 3").await;
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"filter\",result=\"ok\"} 1").await;
}

#[tokio::test]
async fn prioritize_answers_a_bare_list() {
    let rig = rig().await;
    let (status, answer) = rig.post("/prioritize", filter_body("p", &["gpu-a", "x"])).await;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, r#"[{"Host":"gpu-a","Score":10},{"Host":"x","Score":11}]"#));
}

#[tokio::test]
async fn an_empty_list_of_names_is_answered_with_one() {
    let rig = rig().await;
    let (_, answer) = rig.post("/filter", filter_body("p", &[])).await;
    assert_eq!(answer, format!(r#"{{"Nodes":null,"NodeNames":[],{EMPTY}"#));
}

#[tokio::test]
async fn bind_passes_all_fields() {
    let rig = rig().await;
    rig.decide.bind_permits.add_permits(1);
    let (status, answer) = rig.post("/bind", bind_body("train-0")).await;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, r#"{"Error":""}"#));
    let bound = rig.decide.bound.lock().unwrap().clone();
    assert_eq!((bound[0].pod_name.as_str(), bound[0].pod_uid.as_str()), ("train-0", "u"));
    assert_eq!((bound[0].pod_namespace.as_str(), bound[0].node.as_str()), ("ml", "gpu-a"));
    rig.shows("berth_bind_results_total{result=\"ok\"} 1").await;
}

#[tokio::test]
async fn malformed_json_is_200_with_the_field_named() {
    let rig = rig().await;
    let cases = [
        ("{", "ExtenderArgs: EOF while parsing an object at line 1 column 1"),
        ("", "ExtenderArgs: body is empty, expected one JSON object"),
        ("\u{0}\u{1}", "ExtenderArgs: expected value at line 1 column 1"),
        (r#"{"Pod":{"spec":{"priority":1.5}}}"#, "ExtenderArgs: Pod.spec.priority: invalid type: floating point `1.5`"),
        (r#"{"Pod":null,"NodeNames":["a"]}"#, "ExtenderArgs: Pod is null"),
        ("[[[[", "ExtenderArgs: invalid type: sequence"),
    ];
    for (body, expected) in cases {
        let (status, answer) = rig.post("/filter", body).await;
        assert_eq!(status, StatusCode::OK);
        assert!(error_of(&answer).starts_with(expected), "{body}: {answer}");
        assert_eq!(rig.post("/prioritize", body).await, (StatusCode::OK, "[]".into()));
    }
    let (status, answer) = rig.post("/bind", r#"{"PodName":"a","Node":1}"#).await;
    assert_eq!(status, StatusCode::OK);
    assert!(error_of(&answer).starts_with("ExtenderBindingArgs: Node: invalid type: integer `1`"), "{answer}");
    assert!(rig.decide.asked.lock().unwrap().is_empty());
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"prioritize\",result=\"bad-request\"} 6").await;
}

#[tokio::test]
async fn deep_json_does_not_end_the_server() {
    let rig = rig().await;
    for open in ["[", "{\"Pod\":", "{\"a\":"] {
        let (status, answer) = rig.post("/filter", open.repeat(1_000_000)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(error_of(&answer).starts_with("ExtenderArgs: "), "{answer}");
    }
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
}

#[tokio::test]
async fn node_objects_are_refused_with_the_setting_to_change() {
    let rig = rig().await;
    let nodes = r#"{"Pod":{},"Nodes":{"items":[{"metadata":{"name":"gpu-a"}}]},"NodeNames":null}"#;
    for (body, said) in [(nodes, "Nodes were sent"), (r#"{"Pod":{}}"#, "NodeNames is null")] {
        let (status, answer) = rig.post("/filter", body).await;
        assert_eq!(status, StatusCode::OK);
        let error = error_of(&answer);
        assert!(error.contains(said) && error.contains("set nodeCacheCapable: true"), "{error}");
        assert_eq!(rig.post("/prioritize", body).await.1, "[]");
    }
}

#[tokio::test]
async fn letter_case_of_keys_does_not_matter() {
    let rig = rig().await;
    let (_, answer) = rig.post("/filter", r#"{"POD":{"Metadata":{"NAME":"p"}},"nodenames":["gpu-a"]}"#).await;
    assert_eq!(answer, format!(r#"{{"Nodes":null,"NodeNames":["gpu-a"],{EMPTY}"#));
    let (_, answer) = rig.post("/filter", r#"{"POD":{"Metadata":{"NAME":"refuse"}},"nodenames":["gpu-a"]}"#).await;
    assert_eq!(error_of(&answer), "refused by script");
}

#[tokio::test]
async fn a_refused_call_carries_its_text() {
    let rig = rig().await;
    assert_eq!(error_of(&rig.post("/filter", filter_body("refuse", &["a"])).await.1), "refused by script");
    assert_eq!(rig.post("/prioritize", filter_body("refuse", &["a"])).await, (StatusCode::OK, "[]".into()));
    assert_eq!(error_of(&rig.post("/bind", bind_body("refuse")).await.1), "refused by script");
    rig.shows("berth_bind_results_total{result=\"scripted\"} 1").await;
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"filter\",result=\"scripted\"} 1").await;
}

#[tokio::test]
async fn a_panic_costs_one_call_and_not_the_connection() {
    let rig = rig().await;
    let mut client = rig.client().await;
    let (status, answer) = client.post("/filter", filter_body("panic", &["a"])).await;
    assert_eq!(
        (status, error_of(&answer).as_str()),
        (StatusCode::OK, "filter: internal error, see the log of berth-scheduler")
    );
    assert_eq!(client.post("/prioritize", filter_body("panic", &["a"])).await, (StatusCode::OK, "[]".into()));
    let (status, answer) = client.post("/bind", bind_body("panic")).await;
    assert_eq!(
        (status, error_of(&answer).as_str()),
        (StatusCode::OK, "bind: internal error, see the log of berth-scheduler")
    );
    let (status, _) = client.call("GET", "/explain?namespace=ml&pod=panic", "").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    rig.shows("berth_panics_total 4").await;
    rig.shows("berth_bind_results_total{result=\"panic\"} 1").await;
    assert_eq!(error_of(&client.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
    rig.shows("berth_extender_connections 1").await;
}

#[tokio::test]
async fn closed_gates_are_named_and_nothing_is_decided() {
    let rig = rig().await;
    let (nodes, policy) = (rig.gates.add("nodes listed"), rig.gates.add("policy loaded"));
    policy.open();
    let waiting = "not ready: waiting for nodes listed";
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), waiting);
    assert_eq!(error_of(&rig.post("/bind", bind_body("p")).await.1), waiting);
    assert_eq!(rig.post("/prioritize", filter_body("p", &["gpu-a"])).await, (StatusCode::OK, "[]".into()));
    let (status, _) = rig.client().await.call("GET", "/explain?namespace=ml&pod=train-0", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(rig.decide.asked.lock().unwrap().is_empty());
    nodes.open();
    assert_eq!(error_of(&rig.post("/filter", filter_body("p", &["gpu-a"])).await.1), "");
}

#[tokio::test]
async fn wrong_methods_and_paths_say_what_is_right() {
    let rig = rig().await;
    let mut client = rig.client().await;
    for path in ["/filter", "/prioritize", "/preempt", "/bind"] {
        let (status, answer) = client.call("GET", path, "").await;
        assert_eq!(
            (status, answer),
            (StatusCode::METHOD_NOT_ALLOWED, format!("{{\"error\":\"{path} takes POST, not GET\"}}"))
        );
    }
    assert_eq!(client.call("DELETE", "/explain", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    for path in ["/", "/filter/", "/berth/filter", "/Filter"] {
        let (status, answer) = client.post(path, "{}").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(answer.contains("known: /filter /prioritize /preempt /bind /explain"), "{answer}");
    }
}

#[tokio::test]
async fn explain_speaks_in_status_codes() {
    let rig = rig().await;
    let mut client = rig.client().await;
    let cases = [
        ("GET", "/explain?namespace=ml&pod=train-0", "", StatusCode::OK, r#"{"in":"ml"}"#),
        ("GET", "/explain?pod=nobody&namespace=ml", "", StatusCode::NOT_FOUND, r#"{"error":"no pod nobody"}"#),
        ("POST", "/explain", r#"{"Pod":{"metadata":{"name":"what-if"}}}"#, StatusCode::OK, r#"{"pod":"what-if"}"#),
        ("POST", "/explain", r#"{"Pod":{},"NodeNames":["a"]}"#, StatusCode::BAD_REQUEST, r#"{"error":"scripted"}"#),
    ];
    for (method, path, body, status, answer) in cases {
        assert_eq!(client.call(method, path, body).await, (status, answer.to_owned()), "{method} {path} {body}");
    }
    for (method, path, body) in
        [("GET", "/explain", ""), ("GET", "/explain?pod=&namespace=a", ""), ("POST", "/explain", "{}")]
    {
        let (status, answer) = client.call(method, path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer.contains("GET /explain?namespace=NAMESPACE"), "{answer}");
    }
}

#[tokio::test]
async fn a_bind_past_the_deadline_is_answered_and_still_ends() {
    let rig = rig_with(|settings| settings.deadline = std::time::Duration::from_millis(400)).await;
    let error = error_of(&rig.post("/bind", bind_body("p")).await.1);
    assert!(error.starts_with("bind takes too long and goes on"), "{error}");
    rig.shows("berth_extender_request_duration_seconds_count{verb=\"bind\",result=\"deadline\"} 1").await;
    rig.decide.bind_permits.add_permits(1);
    eventually("the bind ends", || rig.decide.bound.lock().unwrap().len() == 1).await;
    rig.shows("berth_bind_results_total{result=\"ok\"} 1").await;
}

#[tokio::test]
async fn a_bind_outlives_the_caller_that_hangs_up() {
    let rig = rig().await;
    let mut raw = rig.raw().await;
    let body = bind_body("p");
    raw.send(format!("POST /bind HTTP/1.1\r\nhost: b\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    rig.decide.binds_begun.acquire().await.unwrap().forget();
    drop(raw);
    rig.shows("berth_extender_connections 0").await;
    rig.decide.bind_permits.add_permits(1);
    eventually("the bind ends", || rig.decide.bound.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn binds_over_the_limit_are_refused_as_busy() {
    let limit = |settings: &mut crate::http::Settings| {
        (settings.binds_max, settings.deadline) = (1, std::time::Duration::from_millis(600));
    };
    let rig = rig_with(limit).await;
    let mut first = rig.client().await;
    let first = tokio::spawn(async move { first.post("/bind", bind_body("first")).await.1 });
    rig.decide.binds_begun.acquire().await.unwrap().forget();
    let second = error_of(&rig.post("/bind", bind_body("second")).await.1);
    assert_eq!(second, "too many binds in flight, try again");
    assert!(error_of(&first.await.unwrap()).starts_with("bind takes too long"));
    rig.decide.bind_permits.add_permits(2);
    eventually("the first ends", || rig.decide.bound.lock().unwrap().len() == 1).await;
    assert_eq!(error_of(&rig.post("/bind", bind_body("third")).await.1), "");
}

#[tokio::test]
async fn a_preemption_is_answered_in_uids_and_a_failure_of_it_is_a_status() {
    let rig = rig().await;
    let body = r#"{"Pod":{"metadata":{"name":"p","uid":"u"}},"NodeNameToVictims":null,"NodeNameToMetaVictims":{"gpu-1":{"Pods":[{"UID":"a"}],"NumPDBViolations":2},"cpu-1":{"Pods":[{"UID":"b"}],"NumPDBViolations":0}}}"#;
    let (status, text) = rig.post("/preempt", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text, r#"{"NodeNameToMetaVictims":{"gpu-1":{"Pods":[{"UID":"a"}],"NumPDBViolations":2}}}"#);
    for (body, expected) in [
        ("", StatusCode::BAD_REQUEST),
        (r#"{"Pod":{"metadata":{"name":"refuse"}}}"#, StatusCode::SERVICE_UNAVAILABLE),
        (r#"{"Pod":{"metadata":{"name":"panic"}}}"#, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (status, text) = rig.post("/preempt", body).await;
        assert_eq!(status, expected, "{body}: {text}");
        assert!(text.starts_with(r#"{"error":"#), "{text}");
    }
}
