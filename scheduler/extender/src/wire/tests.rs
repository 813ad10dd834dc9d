//! The wire against what Go writes and takes.
//!
//! Source of every Go string here: `encoding/json` of Go 1.26.8 over `k8s.io/kube-scheduler/extender/v1` v0.36.3, printed by a
//! ten-line program. Checked: 2026-11-21.

use std::borrow::Cow;

use super::*;

const GO_ARGS: &str = include_str!("golden_args.json");

const BUSY: Reason = Reason { code: "gpus-busy", text: "berth: too few free GPUs", helped_by_preemption: true };
const NO_GPU: Reason = Reason { code: "no-gpu", text: "berth: node has no GPU", helped_by_preemption: false };

fn names<'a>(texts: &[&'a str]) -> Vec<Cow<'a, str>> {
    texts.iter().map(|text| Cow::Borrowed(*text)).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn amounts(pairs: &[(&str, &str)]) -> ResourceList {
    pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
}

/// The pod of `GO_ARGS`.
fn expected_pod() -> Pod {
    let one = PreferredTerms { count: ItemCount(1) };
    Pod {
        metadata: PodMeta {
            name: "train-0".into(),
            namespace: "ml".into(),
            uid: "6b1e".into(),
            labels: [("app".to_owned(), "train".to_owned())].into(),
            annotations: [("berth.dev/link".to_owned(), "nvlink:preferred".to_owned())].into(),
            owner_references: vec![OwnerReference { kind: "Job".into(), controller: true }],
            ..PodMeta::default()
        },
        spec: PodSpec {
            containers: vec![Container {
                name: "main".into(),
                restart_policy: String::new(),
                resources: Resources {
                    requests: amounts(&[("nvidia.com/gpu", "2"), ("memory", "16Gi")]),
                    limits: amounts(&[("nvidia.com/gpu", "2")]),
                },
                ..Container::default()
            }],
            init_containers: vec![Container {
                name: "side".into(),
                restart_policy: "Always".into(),
                resources: Resources { requests: amounts(&[("cpu", "250m")]), ..Resources::default() },
                ..Container::default()
            }],
            overhead: amounts(&[("memory", "64Mi")]),
            affinity: Affinity { node_affinity: one, ..Affinity::default() },
            topology_spread_constraints: vec![TopologySpread { when_unsatisfiable: "ScheduleAnyway".into() }],
            scheduler_name: "berth".into(),
            priority: Some(7),
            scheduling_gates: ItemCount(1),
            ..PodSpec::default()
        },
        status: PodStatus { nominated_node_name: "gpu-b".into(), phase: "Pending".into(), ..PodStatus::default() },
    }
}

/// Lower-cases or upper-cases every key of the Go types, and no key of a map.
fn recase(json: &str, recase: fn(&str) -> String) -> String {
    let data = ["app", "berth.dev/link", "nvidia.com/gpu", "memory", "cpu"];
    let mut out = String::new();
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        let (before, quoted) = rest.split_at(start);
        let end = quoted[1..].find('"').unwrap() + 2;
        let (word, after) = quoted.split_at(end);
        let is_key = after.starts_with(':') && !data.contains(&word.trim_matches('"'));
        out.push_str(before);
        out.push_str(&if is_key { recase(word) } else { word.to_owned() });
        rest = after;
    }
    out + rest
}

#[test]
fn args_of_go_decode_to_every_fact() {
    let args = decode_extender_args(GO_ARGS.as_bytes()).unwrap();
    assert_eq!(args.pod.as_deref(), Some(&expected_pod()));
    assert_eq!(args.node_names, Some(names(&["gpu-a", "gpu-b"])));
    assert_eq!(args.nodes, Given(false));
    assert!(args.pod.unwrap().spec.affinity.has_preferred());
}

#[test]
fn keys_decode_in_any_letter_case() {
    for change in [str::to_lowercase, str::to_uppercase] as [fn(&str) -> String; 2] {
        let json = recase(GO_ARGS, change);
        assert_ne!(json, GO_ARGS);
        let args = decode_extender_args(json.as_bytes()).unwrap();
        assert_eq!(args.pod.as_deref(), Some(&expected_pod()), "{json}");
        assert_eq!(args.node_names, Some(names(&["gpu-a", "gpu-b"])));
    }
}

#[test]
fn map_keys_keep_their_case() {
    let args = decode_extender_args(br#"{"pod":{"metadata":{"labels":{"App":"x","app":"y"}}}}"#).unwrap();
    let labels = args.pod.unwrap().metadata.labels;
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), [("App".into(), "x".into()), ("app".into(), "y".into())]);
}

#[test]
fn names_are_borrowed_from_the_body_unless_escaped() {
    let args = decode_extender_args(br#"{"NodeNames":["plain","esc\u0061ped",null]}"#).unwrap();
    let decoded = args.node_names.unwrap();
    assert_eq!(decoded, names(&["plain", "escaped", ""]));
    assert!(matches!(decoded[0], Cow::Borrowed(_)));
    assert!(matches!(decoded[1], Cow::Owned(_)));
}

#[test]
fn nulls_are_zero_values_everywhere() {
    let all_null = br#"{"Pod":{"metadata":{"name":null,"labels":null,"creationTimestamp":null,"ownerReferences":[null]},
        "spec":{"containers":null,"priority":null,"affinity":null,"initContainers":[{"resources":{"requests":{"cpu":null}}}]},
        "status":null},"Nodes":null,"NodeNames":null}"#;
    let args = decode_extender_args(all_null).unwrap();
    assert_eq!((args.nodes, args.node_names.as_ref()), (Given(false), None));
    let pod = args.pod.unwrap();
    assert_eq!(pod.metadata.owner_references, [OwnerReference::default()]);
    assert_eq!(pod.spec.init_containers[0].resources.requests, amounts(&[("cpu", "0")]));
    assert_eq!(pod.spec.containers, []);
    assert_eq!(decode_extender_args(b"null").unwrap(), ExtenderArgs::default());
}

#[test]
fn duplicates_unknown_keys_and_trailing_bytes_are_tolerated() {
    let body = br#"{"PodName":"a","podname":"b","zz":[{"x":[1]}],"PodNamespace":"n","PODUID":"u","Node":"m"} {"Node":"other"} ,,"#;
    let args = decode_bind_args(body).unwrap();
    let expected = BindArgs { pod_name: "b".into(), pod_namespace: "n".into(), pod_uid: "u".into(), node: "m".into() };
    assert_eq!(args, expected);
}

#[test]
fn node_objects_are_noticed_and_skipped() {
    let args = decode_extender_args(
        br#"{"Pod":{},"Nodes":{"metadata":{},"items":[{"metadata":{"name":"a"}}]},"NodeNames":null}"#,
    );
    let args = args.unwrap();
    assert_eq!((args.nodes, args.node_names), (Given(true), None));
}

#[test]
fn quantities_decode_from_numbers_as_in_go() {
    let body = br#"{"Pod":{"spec":{"overhead":{"a":1,"b":1.5,"c":"1e3","d":-2,"e":10000000000}}}}"#;
    let overhead = decode_extender_args(body).unwrap().pod.unwrap().spec.overhead;
    assert_eq!(overhead, amounts(&[("a", "1"), ("b", "1.5"), ("c", "1e3"), ("d", "-2"), ("e", "10000000000")]));
}

#[test]
fn errors_name_the_field() {
    let cases: [(&str, &str); 10] = [
        (
            r#"{"Pod":{"spec":{"containers":[{},{"resources":{"requests":5}}]}}}"#,
            "Pod.spec.containers[1].resources.requests: invalid type: integer `5`, expected an object",
        ),
        (
            r#"{"pod":{"SPEC":{"containers":[{"resources":{"requests":{"nvidia.com/gpu":[]}}}]}}}"#,
            "Pod.spec.containers[0].resources.requests[\"nvidia.com/gpu\"]: invalid type: sequence, expected a quantity",
        ),
        (r#"{"Pod":{"spec":{"priority":5.0}}}"#, "Pod.spec.priority: invalid type: floating point `5.0`, expected i32"),
        (r#"{"Pod":{"spec":{"priority":"5"}}}"#, "Pod.spec.priority: invalid type: string \"5\", expected i32"),
        (
            r#"{"Pod":{"spec":{"priority":3000000000}}}"#,
            "Pod.spec.priority: invalid value: integer `3000000000`, expected i32",
        ),
        (
            r#"{"Pod":{"metadata":{"labels":{"a":1}}}}"#,
            "Pod.metadata.labels[\"a\"]: invalid type: integer `1`, expected a string",
        ),
        (r#"{"NodeNames":["a",7]}"#, "NodeNames[1]: invalid type: integer `7`, expected a string"),
        (r#"{"NodeNames":"a"}"#, "NodeNames: invalid type: string \"a\", expected an array"),
        (r#"{"NodeNames":["a","#, "NodeNames[1]: EOF while parsing a value at line 1 column 18"),
        ("[]", "invalid type: sequence, expected an object (ExtenderArgs)"),
    ];
    for (body, expected) in cases {
        let error = decode_extender_args(body.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("ExtenderArgs: {expected}")), "{body}\n got {error}\nwant {expected}");
    }
}

#[test]
fn an_error_text_stays_short() {
    let body = format!(r#"{{"Pod":{{"spec":{{"priority":"{}"}}}}}}"#, "é".repeat(100_000));
    let error = decode_extender_args(body.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("ExtenderArgs: Pod.spec.priority: "), "{error}");
    assert!(error.chars().count() < 500);
}

#[test]
fn empty_and_blank_bodies_are_refused() {
    for body in [&b""[..], b" \n\t"] {
        assert!(matches!(decode_extender_args(body), Err(DecodeError::Empty { what: "ExtenderArgs" })));
        assert!(matches!(decode_bind_args(body), Err(DecodeError::Empty { what: "ExtenderBindingArgs" })));
    }
}

#[test]
fn bind_refuses_a_missing_field_by_name() {
    let whole = r#"{"PodName":"train-0","PodNamespace":"ml","PodUID":"6b1e","Node":"gpu-a"}"#;
    assert_eq!(decode_bind_args(whole.as_bytes()).unwrap().pod_uid, "6b1e");
    for (field, value) in [("PodName", "train-0"), ("PodNamespace", "ml"), ("PodUID", "6b1e"), ("Node", "gpu-a")] {
        for hole in ["\"\"", "null"] {
            let body = whole.replace(&format!("\"{field}\":\"{value}\""), &format!("\"{field}\":{hole}"));
            let error = decode_bind_args(body.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("ExtenderBindingArgs: {field} is missing"));
        }
    }
}

#[test]
fn too_many_names_are_refused() {
    let body = format!(r#"{{"NodeNames":[{}""]}}"#, "\"\",".repeat(NODE_NAMES_MAX));
    let error = decode_extender_args(body.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "ExtenderArgs: 100001 nodes are named, at most 100000 are taken");
}

#[test]
fn deep_json_neither_overflows_nor_is_read_when_unknown() {
    let deep = "[".repeat(1_000_000);
    let unknown = format!("{{\"zz\":{deep}");
    assert!(decode_extender_args(unknown.as_bytes()).is_err());
    let closed = format!("{{\"zz\":{deep}{},\"NodeNames\":[]}}", "]".repeat(1_000_000));
    assert_eq!(decode_extender_args(closed.as_bytes()).unwrap().node_names, Some(vec![]));
    let known = format!("{{\"Pod\":{}", "{\"spec\":".repeat(100_000));
    assert!(decode_extender_args(known.as_bytes()).is_err());
}

#[test]
fn answers_are_what_go_writes() {
    let asked = names(&["gpu-a", "gpu-b", "gpu-c"]);
    let mut answer = FilterAnswer { fits: vec![0], rejected: vec![] };
    answer.reject(1, BUSY);
    answer.reject(2, NO_GPU);
    assert_eq!(
        text(encode_filter(&answer, &asked)),
        r#"{"Nodes":null,"NodeNames":["gpu-a"],"FailedNodes":{"gpu-b":"berth: too few free GPUs"},"FailedAndUnresolvableNodes":{"gpu-c":"berth: node has no GPU"},"Error":""}"#
    );
    let all = FilterAnswer { fits: vec![0, 1], rejected: vec![] };
    assert_eq!(
        text(encode_filter(&all, &asked)),
        r#"{"Nodes":null,"NodeNames":["gpu-a","gpu-b"],"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":""}"#
    );
    assert_eq!(
        text(encode_filter_error("a<b>&\"c\"\n\t\\ \u{2028} \u{1} \u{8}\u{c} é")),
        r#"{"Nodes":null,"NodeNames":null,"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":"a\u003cb\u003e\u0026\"c\"\n\t\\ \u2028 \u0001 \b\f é"}"#
    );
    let asked = names(&["gpu-a", "gpu-b", "gpu-c", "gpu-d", "gpu-e"]);
    let scores = PriorityAnswer { scores: vec![(0, 10), (1, -3), (2, i64::MAX), (3, i64::MIN), (4, 0)] };
    assert_eq!(
        text(encode_priorities(&scores, &asked)),
        r#"[{"Host":"gpu-a","Score":10},{"Host":"gpu-b","Score":-3},{"Host":"gpu-c","Score":9223372036854775807},{"Host":"gpu-d","Score":-9223372036854775808},{"Host":"gpu-e","Score":0}]"#
    );
    assert_eq!(text(encode_priorities(&PriorityAnswer::default(), &[])), "[]");
    assert_eq!(text(encode_bind(None)), r#"{"Error":""}"#);
    assert_eq!(text(encode_bind(Some("no"))), r#"{"Error":"no"}"#);
}

#[test]
fn nothing_fits_is_an_empty_list_and_never_null() {
    let mut answer = FilterAnswer::default();
    answer.reject(0, BUSY);
    answer.reject(1, BUSY);
    assert_eq!(answer.rejected.len(), 1);
    assert_eq!(
        text(encode_filter(&answer, &names(&["gpu-a", "gpu-b"]))),
        r#"{"Nodes":null,"NodeNames":[],"FailedNodes":{"gpu-a":"berth: too few free GPUs","gpu-b":"berth: too few free GPUs"},"FailedAndUnresolvableNodes":null,"Error":""}"#
    );
}

#[test]
fn a_position_outside_the_request_invents_no_node() {
    let mut answer = FilterAnswer { fits: vec![7, 0], rejected: vec![] };
    answer.reject(9, BUSY);
    let asked = names(&["gpu-a"]);
    let wrote = text(encode_filter(&answer, &asked));
    assert!(wrote.contains(r#""NodeNames":["gpu-a"],"FailedNodes":null"#), "{wrote}");
    assert_eq!(text(encode_priorities(&PriorityAnswer { scores: vec![(3, 1)] }, &asked)), "[]");
}

#[test]
fn hostile_names_stay_inside_their_strings() {
    let asked = names(&["a\",\"Error\":\"x", "\u{0}\\"]);
    let answer = FilterAnswer { fits: vec![0, 1], rejected: vec![] };
    let value: serde_json::Value = serde_json::from_slice(&encode_filter(&answer, &asked)).unwrap();
    assert_eq!(value["NodeNames"][0], "a\",\"Error\":\"x");
    assert_eq!(value["NodeNames"][1], "\u{0}\\");
    assert_eq!(value["Error"], "");
}

#[test]
fn a_watched_pod_gives_the_same_facts() {
    let args: serde_json::Value = serde_json::from_str(GO_ARGS).unwrap();
    let watched: WatchedPod = serde_json::from_value(args["Pod"].clone()).unwrap();
    assert_eq!(Pod::from(watched), expected_pod());
    let terminating = br#"{"metadata":{"name":"x","creationTimestamp":"2026-01-02T03:04:05Z","deletionTimestamp":"2026-01-02T03:05:05Z"}}"#;
    let watched: WatchedPod = serde_json::from_slice(terminating).unwrap();
    assert_eq!(Pod::from(watched), serde_json::from_slice(terminating).unwrap());
}
