//! Edits copied from nvidia-ctk's specs, and device files where there is none.

use berth_core::annotation::Mig;

use super::*;
use crate::lease::testing::{cards, gpu};

/// As `nvidia-ctk cdi generate` of v1.17 writes it, shortened: names by index and UUID, the driver's files for all of them.
const NVIDIA_SPEC: &str = r#"---
cdiVersion: 0.8.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card1
      fileMode: 432
- name: GPU-b
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
- name: MIG-b1
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
    - path: /dev/nvidia-caps/nvidia-cap30
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib64]
  mounts:
  - hostPath: /usr/bin/nvidia-smi
    containerPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, bind]
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn paths(edits: &Edits) -> Vec<&str> {
    edits["deviceNodes"].as_array().unwrap().iter().map(|node| node["path"].as_str().unwrap()).collect()
}

#[test]
fn the_edits_of_nvidia_ctk_are_copied_once_by_uuid_or_index() {
    let folder = folder(&[
        ("nvidia.yaml", NVIDIA_SPEC),
        ("other.json", r#"{"cdiVersion":"1.0.0","kind":"a.b/c"}"#),
        ("bad.yaml", ": ["),
    ]);
    let sources = Sources::read(&[PathBuf::from("/nonexistent"), folder.path().to_owned()], Path::new("/nonexistent"));
    let (version, edits) = sources.of(&[gpu("GPU-a"), gpu("GPU-b")], &cards(&["GPU-a", "GPU-b"])).unwrap();
    assert_eq!(version, "0.8.0");
    assert_eq!(paths(&edits), ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dri/card1", "/dev/nvidia1"]);
    assert_eq!(edits["env"], json!(["NVIDIA_VISIBLE_DEVICES=void", "BERTH_DEVICES=GPU-a,GPU-b"]));
    assert_eq!(edits["hooks"].as_array().unwrap().len(), 1);
    assert_eq!(edits["mounts"][0]["hostPath"], "/usr/bin/nvidia-smi");
    assert_eq!(edits["deviceNodes"][2]["fileMode"], 432);
}

#[test]
fn json_is_read_and_a_later_folder_wins() {
    let spec = |path: &str| json!({"cdiVersion": "0.3.0", "kind": NVIDIA, "devices": [{"name": "GPU-a", "containerEdits": {"deviceNodes": [{"path": path}]}}]});
    let first = folder(&[("nvidia.json", &spec("/dev/first").to_string())]);
    let second = folder(&[("nvidia.json", &spec("/dev/second").to_string())]);
    let sources = Sources::read(&[first.path().to_owned(), second.path().to_owned()], Path::new("/nonexistent"));
    let (version, edits) = sources.of(&[gpu("GPU-a")], &cards(&["GPU-a"])).unwrap();
    assert_eq!((version.as_str(), paths(&edits)), (VERSION, vec!["/dev/second"]));
}

#[test]
fn an_instance_has_the_edits_of_its_own_device_or_none() {
    let folder = folder(&[("nvidia.yaml", NVIDIA_SPEC)]);
    let sources = Sources::read(&[folder.path().to_owned()], Path::new("/dev"));
    let instance = |uuid: &str| {
        let mig = Mig { uuid: Some(uuid.to_owned()), profile: "1g.10gb".to_owned(), start: 0, size: 1 };
        Device { mig: Some(mig), ..gpu("GPU-b") }
    };
    let cards = cards(&["GPU-a", "GPU-b"]);
    let (_, edits) = sources.of(&[instance("MIG-b1")], &cards).unwrap();
    assert_eq!(paths(&edits), ["/dev/nvidiactl", "/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap30"]);
    assert_eq!(edits["env"][1], "BERTH_DEVICES=MIG-b1");
    let error = sources.of(&[instance("MIG-b2")], &cards).unwrap_err();
    assert!(error.contains("MIG-b2") && error.contains("nvidia-ctk cdi generate"), "{error}");
}

#[test]
fn without_a_spec_the_device_files_that_exist_are_given() {
    let dev = folder(&[("nvidia1", ""), ("nvidiactl", ""), ("nvidia-uvm", "")]);
    let sources = Sources::read(&[], dev.path());
    let cards = cards(&["GPU-a", "GPU-b"]);
    let (version, edits) = sources.of(&[gpu("GPU-b")], &cards).unwrap();
    assert_eq!((version.as_str(), paths(&edits)), (VERSION, vec!["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"]));
    assert_eq!(edits["deviceNodes"][0], json!({"path": "/dev/nvidia1"}), "the host's own path, wherever it is seen");
    let error = sources.of(&[gpu("GPU-a")], &cards).unwrap_err();
    assert!(error.contains("nvidia0 is not there") && error.contains("GPU-a"), "{error}");
    assert!(sources.of(&[gpu("GPU-c")], &cards).is_err());
}

#[test]
fn the_signature_tells_a_changed_spec_from_the_same_one() {
    let folder = folder(&[("nvidia.yaml", NVIDIA_SPEC), ("berth.dev-gpu-lease-1.json", "{}")]);
    let folders = [folder.path().to_owned()];
    let before = signature(&folders);
    assert_eq!(before.len(), 1, "our own leases are no source");
    assert_eq!(signature(&folders), before);
    fs::write(folder.path().join("nvidia.yaml"), format!("{NVIDIA_SPEC}\n")).unwrap();
    assert_ne!(signature(&folders), before);
}
