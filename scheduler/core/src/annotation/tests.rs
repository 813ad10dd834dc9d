//! Claims about the annotation.

use super::*;

fn note() -> Note {
    Note {
        v: 1,
        pod_uid: "u1".to_owned(),
        node: "n1".to_owned(),
        level: Level::Advice,
        containers: vec![Container {
            name: "main".to_owned(),
            resource: "nvidia.com/gpu".to_owned(),
            init: false,
            devices: vec![Device::whole("GPU-a"), Device::whole("GPU-b")],
        }],
        nics: vec!["mlx5_0".to_owned()],
        zone: Some(0),
        topology_generation: 7,
        score: 734_567,
        why: "GPUs 0,1".to_owned(),
    }
}

fn node() -> NodeName {
    NodeName::parse("n1").unwrap()
}

#[test]
fn the_form_is_pinned() {
    let json = note().to_json().unwrap();
    assert_eq!(
        json,
        r#"{"v":1,"podUID":"u1","node":"n1","level":"advice","containers":[{"name":"main","resource":"nvidia.com/gpu","devices":[{"uuid":"GPU-a"},{"uuid":"GPU-b"}]}],"nics":["mlx5_0"],"zone":0,"topologyGeneration":7,"score":734567,"why":"GPUs 0,1"}"#
    );
    assert_eq!(Note::parse(&json, "u1", &node()).unwrap(), note());
}

#[test]
fn a_plan_of_another_pod_or_node_or_version_is_void() {
    let json = note().to_json().unwrap();
    assert!(matches!(Note::parse(&json, "u2", &node()), Err(NoteError::OtherPod(_))));
    let other = NodeName::parse("n2").unwrap();
    assert!(matches!(Note::parse(&json, "u1", &other), Err(NoteError::OtherNode(_))));
    let later = json.replace("\"v\":1", "\"v\":2");
    assert!(matches!(Note::parse(&later, "u1", &node()), Err(NoteError::Version(2))));
}

#[test]
fn garbage_is_refused() {
    let long = format!("\"{}\"", "x".repeat(PLAN_BYTES_MAX));
    for bad in ["", "{}", "[]", "null", &long] {
        assert!(Note::parse(bad, "u1", &node()).is_err(), "{bad:.20} was taken");
    }
    let mut blank = note();
    blank.containers[0].devices[0].uuid = "a b".to_owned();
    assert!(matches!(Note::parse(&blank.to_json().unwrap(), "u1", &node()), Err(NoteError::Device(_))));
}

#[test]
fn every_level_is_read_as_it_was_written_and_another_word_is_told_the_right_ones() {
    for level in Level::ALL {
        let written = serde_json::to_string(&Note { level, ..note() }).unwrap();
        assert!(written.contains(&format!(r#""level":"{}""#, level.word())), "{written}");
        assert_eq!(Note::parse(&written, "u1", &node()).unwrap().level, level);
    }
    let wrong = serde_json::to_string(&note()).unwrap().replace("advice", "Advice");
    let error = Note::parse(&wrong, "u1", &node()).unwrap_err().to_string();
    let expected = r#"level "Advice", one of advice, preferred, enforced is right"#;
    assert!(
        matches!(Note::parse(&wrong, "u1", &node()), Err(NoteError::Malformed(_))) && error.contains(expected),
        "{error}"
    );
}

#[test]
fn thirty_two_gpus_fit_into_four_kilobytes() {
    let mut big = note();
    big.containers[0].devices =
        (0..32).map(|i| Device::whole(&format!("GPU-{i:08x}-0000-0000-0000-000000000000"))).collect();
    big.why = "x".repeat(200);
    assert!(big.to_json().unwrap().len() <= PLAN_BYTES_MAX);
}
