//! The program from outside: exit statuses, and errors that are one sentence. No cluster and no GPU are needed.
#![expect(clippy::unwrap_used, reason = "clippy takes what these tests share for code outside tests")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `berth` without the surroundings of whoever runs the tests.
fn berth(arguments: &[&str]) -> Output {
    command(Path::new(env!("CARGO_BIN_EXE_berth"))).args(arguments).output().unwrap()
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// The error is one line for people: no Rust debug output, no backtrace.
fn one_sentence(output: &Output) -> String {
    let text = stderr(output);
    assert_eq!(status(output), 1, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for trace in ["Os {", "Error {", "Some(", "Err(", "panicked", "backtrace"] {
        assert!(!text.contains(trace), "{text}");
    }
    text
}

#[test]
fn wrong_usage_is_status_2_and_names_the_mistake() {
    for (arguments, said) in [
        (&["nodse"][..], "unrecognized subcommand 'nodse'"),
        (&["topo", "--machine", "a", "--node", "b"], "cannot be used with"),
        (&["topo", "-m", "-o", "json"], "cannot be used with"),
        (&["topo", "-m", "--svg"], "cannot be used with"),
        (&["nodes", "-o", "xml"], "[possible values: table, wide, json, yaml, name]"),
        (&["drift", "-o", "wide"], "[possible values: table, json, yaml]"),
        (&["explain"], "<POD>"),
        (&["topo", "--color", "sometimes"], "invalid value 'sometimes'"),
        (&[], "Usage: berth"),
    ] {
        let output = berth(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_default_policy_passes_its_own_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let default = berth(&["policy", "default"]);
    assert_eq!(status(&default), 0);
    std::fs::write(&file, default.stdout).unwrap();
    let checked = berth(&["policy", "check", file.to_str().unwrap()]);
    assert_eq!((status(&checked), stdout(&checked)), (0, format!("{}: ok\n", file.display())));
}

#[test]
fn a_wrong_policy_is_a_finding_with_its_place_and_an_unreadable_one_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let wrong = stdout(&berth(&["policy", "default"])).replace("  missing: reject", "  missign: reject");
    let line = 1 + wrong.lines().position(|l| l.contains("missign")).unwrap();
    std::fs::write(&file, wrong).unwrap();
    let shown = file.display().to_string();

    let found = berth(&["policy", "check", &shown]);
    assert_eq!(status(&found), 3);
    assert!(stdout(&found).starts_with(&format!("{shown}:{line}:3: ")), "{}", stdout(&found));
    assert!(stdout(&found).contains("missign"), "{}", stdout(&found));
    assert_eq!(status(&berth(&["policy", "scheduler-config", "--policy", &shown])), 3);

    let absent = folder.path().join("absent.yaml").display().to_string();
    assert!(one_sentence(&berth(&["policy", "check", &absent])).contains(&absent));
    one_sentence(&berth(&["policy", "check", folder.path().to_str().unwrap()]));

    let huge = folder.path().join("huge.yaml");
    std::fs::write(&huge, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(
        one_sentence(&berth(&["policy", "check", huge.to_str().unwrap()])).contains("it is larger than 1048576 bytes")
    );
}

#[test]
fn a_configmap_in_place_of_its_document_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("configmap.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: ConfigMap\ndata: {policy.yaml: ''}\n").unwrap();
    let found = berth(&["policy", "check", file.to_str().unwrap()]);
    assert_eq!(status(&found), 3);
    assert!(stdout(&found).contains("this is the ConfigMap"), "{}", stdout(&found));
    assert!(stdout(&found).contains(r"{.data.policy\.yaml}"), "{}", stdout(&found));
}

#[test]
fn the_scheduler_configuration_is_yaml_with_every_resource_of_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let document =
        stdout(&berth(&["policy", "default"])).replace("[nvidia.com/gpu]", "[nvidia.com/gpu, example.com/gpu]");
    std::fs::write(&file, document).unwrap();
    let printed = berth(&["policy", "scheduler-config", "--mode", "score", "--policy", file.to_str().unwrap()]);
    assert_eq!(status(&printed), 0, "{}", stderr(&printed));
    let config: serde_json::Value = serde_saphyr::from_str(&stdout(&printed)).unwrap();
    let extender = &config["extenders"][0];
    let managed = serde_json::json!([
        {"name": "example.com/gpu"},
        {"name": "nvidia.com/gpu"},
        {"name": "nvidia.com/gpucores", "ignoredByScheduler": true},
        {"name": "nvidia.com/gpumem", "ignoredByScheduler": true},
    ]);
    assert_eq!((&extender["managedResources"], &extender["bindVerb"]), (&managed, &serde_json::Value::Null));
}

#[test]
fn a_cluster_that_cannot_be_reached_costs_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    // Port 1 on loopback: nobody listens there, and the refusal comes at once.
    let dead = kubeconfig(
        "dead",
        "{apiVersion: v1, kind: Config, current-context: c, users: [], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], \
         contexts: [{name: c, context: {cluster: c, user: ''}}]}",
    );
    let garbage = kubeconfig("garbage", "clusters: 7\n");
    for (arguments, said) in [
        (&["nodes"][..], "no kubeconfig at /nonexistent/.kube/config"),
        (&["nodes", "--kubeconfig", "/nonexistent/k"], "no kubeconfig at /nonexistent/k"),
        (&["topo", "--node", "n", "--kubeconfig", &garbage], "kubeconfig: failed to parse"),
        (&["topo", "--node", "n", "--kubeconfig", &dead], "http://127.0.0.1:1/ cannot be reached: Connection refused"),
        (&["explain", "p", "--kubeconfig", &dead, "--context", "x"], "the kubeconfig has no context \"x\""),
        (&["policy", "scheduler-config", "--from-cluster", "--kubeconfig", &dead], "cannot be reached"),
    ] {
        let text = one_sentence(&berth(arguments));
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn colour_goes_where_it_is_asked_for() {
    let error = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_berth")));
        let output = command.envs(environment.iter().copied()).args(arguments).output().unwrap();
        stderr(&output)
    };
    assert!(!error(&[], &["nodes"]).contains('\x1b'), "a pipe is no terminal");
    assert!(error(&[], &["nodes", "--color", "always"]).contains('\x1b'));
    assert!(!error(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &["nodes"]).contains('\x1b'));
    assert!(!error(&[("CLICOLOR_FORCE", "1")], &["nodes", "--color", "never"]).contains('\x1b'));
}

#[test]
fn as_a_plugin_it_calls_itself_kubectl_berth() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-berth");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_berth"), &plugin).unwrap();
    let help = command(&plugin).args(["nodes", "--help"]).output().unwrap();
    assert!(stdout(&help).contains("Usage: kubectl berth nodes"), "{}", stdout(&help));
    assert!(stdout(&berth(&["nodes", "--help"])).contains("Usage: berth nodes"));
}

#[test]
fn completion_and_version_need_nothing() {
    for shell in ["bash", "zsh", "fish"] {
        let script = berth(&["completion", shell]);
        assert_eq!(status(&script), 0);
        assert!(stdout(&script).contains("scheduler-config"), "{shell}");
    }
    assert_eq!(stdout(&berth(&["version"])), format!("berth {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_picture_goes_to_standard_output_or_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.svg");
    let machine = format!("{}/../../tests/machines/dgx-1v.yaml", env!("CARGO_MANIFEST_DIR"));
    let printed = berth(&["topo", "--machine", &machine, "--svg"]);
    assert_eq!((status(&printed), stdout(&printed).starts_with("<svg ")), (0, true));
    let written = berth(&["topo", "--machine", &machine, "--svg", file.to_str().unwrap()]);
    assert_eq!((status(&written), stdout(&written)), (0, String::new()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), stdout(&printed));
    let refused = berth(&["topo", "--machine", &machine, "--svg", "/nonexistent/node.svg"]);
    assert!(one_sentence(&refused).contains("cannot write /nonexistent/node.svg"));
}

/// The commands that a help text lists.
fn commands(words: &[&str]) -> Vec<String> {
    let help = stdout(&berth(&[words, &["--help"]].concat()));
    let list = help.split("\nCommands:\n").nth(1).map(|rest| rest.split("\n\n").next().unwrap().to_owned());
    let names = list.unwrap_or_default();
    names.lines().filter_map(|l| l.split_whitespace().next().map(str::to_owned)).filter(|n| n != "help").collect()
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let output = berth(&["man", folder.path().to_str().unwrap()]);
    assert_eq!((status(&output), stdout(&output)), (0, String::new()), "{}", stderr(&output));
    let top = commands(&[]);
    assert!(top.contains(&"topo".to_owned()) && commands(&["topo"]).contains(&"diff".to_owned()), "{top:?}");
    let mut pages = vec!["berth.1".to_owned()];
    for command in &top {
        pages.push(format!("berth-{command}.1"));
        pages.extend(commands(&[command]).iter().map(|below| format!("berth-{command}-{below}.1")));
    }
    for page in pages {
        let text = std::fs::read_to_string(folder.path().join(&page)).unwrap_or_default();
        assert!(text.contains(".SH SYNOPSIS"), "{page} is missing or no man page");
    }
    assert!(
        one_sentence(&berth(&["man", "/nonexistent/man"])).contains("cannot write man pages into /nonexistent/man")
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = command(Path::new(env!("CARGO_BIN_EXE_berth")))
        .args(["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), stderr(&output)), (0, String::new()));
}

#[test]
fn a_capture_becomes_a_machine_file_with_its_assumptions_on_standard_error() {
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/captures/dgx-1v-8gpu-4nic.txt");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.yaml");
    let written = berth(&["topo", "import", capture, "-o", file.to_str().unwrap()]);
    assert_eq!((written.status.code(), written.stdout.len()), (Some(0), 0));
    let notes = String::from_utf8(written.stderr).unwrap();
    assert!(notes.lines().all(|line| line.starts_with("note: assumed: ")) && notes.contains("zone 1"), "{notes}");
    let printed = berth(&["topo", "import", capture]);
    assert_eq!(printed.stdout, std::fs::read(&file).unwrap());
    let matrix = berth(&["topo", "-m", "--machine", file.to_str().unwrap()]);
    assert!(String::from_utf8(matrix.stdout).unwrap().starts_with("\tGPU0\tGPU1\t"));

    let bad = folder.path().join("bad.txt");
    std::fs::write(&bad, "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tPIXX\t0-3\n").unwrap();
    let refused = berth(&["topo", "import", bad.to_str().unwrap()]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && text.contains("bad.txt:2:10: \"PIXX\" is none of"), "{text}");
}
