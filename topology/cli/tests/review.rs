//! `berth topo diff` and `berth topo lint` from outside: sources, exit statuses, JSON, bad input.
#![expect(clippy::unwrap_used, reason = "clippy takes what these tests share for code outside tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn berth(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null()).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of an error.
fn refused(arguments: &[&str]) -> String {
    let output = berth(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn machine(name: &str) -> String {
    format!("{}/../../tests/machines/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// A DGX H100 with another driver and a GPU in the other zone, as a file.
fn bent(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(machine("dgx-h100")).unwrap();
    let text = text
        .replace("driver: 580.126.20", "driver: 590.1")
        .replace("gpu: 6, at: 0000:d1:00.0}", "gpu: 6, at: 0000:d1:00.0, gpuFacts: {zone: 0}}");
    let file = folder.join("bent.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_machine_file_and_the_reports_of_it_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let file = machine("dgx-h100");
    for form in ["json", "yaml"] {
        let report = folder.path().join(form);
        std::fs::write(&report, berth(&["topo", "--machine", &file, "-o", form]).stdout).unwrap();
        let output = berth(&["topo", "diff", &file, report.to_str().unwrap()]);
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("dgx-h100: no difference\n", Some(0)));
    }
}

#[test]
fn differences_are_status_3_in_words_and_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (machine("dgx-h100"), bent(folder.path()).display().to_string());
    let output = berth(&["topo", "diff", &before, &after]);
    assert_eq!(output.status.code(), Some(3));
    let text = stdout(&output);
    assert!(text.contains("driver 580.126.20 -> 590.1\n"), "{text}");
    assert!(text.contains("GPU6 moved from zone 1 to zone 0\n"), "{text}");
    let output = berth(&["topo", "diff", &before, &after, "-o", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&document["kind"], &document["apiVersion"]),
        (&"TopologyDiff".into(), &"cli.berth.dev/v1alpha1".into())
    );
    assert_eq!(document["items"].as_array().unwrap().len(), text.lines().count());
}

#[test]
fn lint_is_quiet_on_healthy_machines_and_status_3_on_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let healthy = [machine("dgx-h100"), machine("dgx-1v"), machine("cpu-only")];
    let output = berth(&["topo", "lint", &healthy[0], &healthy[1], &healthy[2]]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("3 nodes: nothing found\n", Some(0)));

    let bent = bent(folder.path()).display().to_string();
    let output = berth(&["topo", "lint", &healthy[0], &bent]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).contains("warning  driver-differs"), "{}", stdout(&output));
    let document: serde_json::Value =
        serde_json::from_str(&stdout(&berth(&["topo", "lint", &healthy[0], &bent, "-o", "json"]))).unwrap();
    assert_eq!((&document["kind"], &document["nodes"]), (&"TopologyFindings".into(), &2.into()));
    let codes: Vec<&str> = document["items"].as_array().unwrap().iter().map(|i| i["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"driver-differs"), "{codes:?}");
}

#[test]
fn a_note_alone_is_told_and_does_not_change_the_status() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(machine("dgx-h100")).unwrap();
    let file = folder.path().join("mig.yaml");
    std::fs::write(
        &file,
        text.replace("gpu: 6, at: 0000:d1:00.0}", "gpu: 6, at: 0000:d1:00.0, gpuFacts: {mig: true}}"),
    )
    .unwrap();
    let output = berth(&["topo", "lint", file.to_str().unwrap()]);
    assert!(stdout(&output).contains("note     mig-mixed"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_source_that_is_none_is_refused_with_its_name_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let good = machine("dgx-h100");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let absent = folder.path().join("absent.yaml").display().to_string();
    assert!(refused(&["topo", "diff", &good, &absent]).contains(&absent));
    assert!(refused(&["topo", "lint", folder.path().to_str().unwrap()]).contains("cannot read"));
    for (name, text, said) in [
        ("pod.yaml", "apiVersion: v1\nkind: Pod\n", "is neither a machine file"),
        ("noise", "\u{1}\u{2}", "is neither a machine file"),
        ("empty", "", "is neither a machine file"),
        ("report.json", r#"{"kind": "NodeTopology", "metadata": {"name": "n"}}"#, "has not reported yet"),
        ("broken.json", r#"{"kind": "NodeTopology", "metadata": {"name": "n"}, "status": {"gpuCount": 3}}"#, "node n"),
        ("machine.yaml", "apiVersion: berth.dev/machine/v1\nname: 7\n", "machine file"),
    ] {
        let text = refused(&["topo", "diff", &good, &file(name, text)]);
        assert!(text.contains(said), "{name}: {text}");
    }
    assert!(refused(&["topo", "diff", "-", "-"]).contains("standard input"));
    assert!(refused(&["topo", "diff", "node/gone", &good]).contains("no kubeconfig"));
    assert!(refused(&["topo", "lint", "--all-nodes"]).contains("no kubeconfig"));
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.txt");
    for (bytes, place) in
        [(&b"\tGPU0\tGPU1\nGPU0\t X \t\xff"[..], "line 2, column 10: "), (&b"\xff\xfe\t"[..], "line 1, column 1: ")]
    {
        std::fs::write(&file, bytes).unwrap();
        for command in ["import", "lint"] {
            let text = refused(&["topo", command, file.to_str().unwrap()]);
            assert!(text.contains(place), "{text}");
        }
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for arguments in [
        &["topo", "diff", "a"][..],
        &["topo", "diff", "a", "b", "c"],
        &["topo", "diff", "a", "b", "-o", "yaml"],
        &["topo", "lint", "--all-nodes", "a"],
        &["topo", "-m", "lint"],
    ] {
        assert_eq!(berth(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
