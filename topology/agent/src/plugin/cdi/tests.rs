//! Claims about names of devices in specs that others wrote.

use super::super::devices::{Devices, GPU, MigStrategy, offer};
use super::super::sample::pairs;
use super::*;

/// As `nvidia-ctk cdi generate --device-name-strategy=index,uuid` writes it, shortened.
const YAML: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  deviceNodes: [{path: /dev/nvidiactl}]
devices:
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/dri/card1}]}
- name: "1"
  containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}
- name: GPU-1
  containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}
- name: all
  containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/nvidia1}, {path: /dev/nvidia3}]}
"#;

fn devices() -> Devices {
    offer(&pairs(), MigStrategy::Mixed).remove(GPU).unwrap()
}

fn names(folder: &Path, ids: &[&str]) -> Vec<String> {
    let (mut specs, devices) = (Specs::default(), devices());
    specs.read(&[folder.to_owned()]);
    ids.iter().map(|id| specs.name(id, devices.get(*id)).unwrap_or_else(|| "-".to_owned())).collect()
}

#[test]
fn a_device_is_named_by_uuid_or_else_by_its_own_device_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("nvidia.yaml"), YAML).unwrap();
    let told = names(folder.path(), &["GPU-0", "GPU-1", "GPU-2", "GPU-3", "MIG-x"]);
    assert_eq!(told, ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1", "-", "-", "-"]);
}

#[test]
fn files_that_are_no_specs_of_nvidia_lose_themselves_only() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("broken.yaml", "kind: [");
    put("other.json", r#"{"kind":"amd.com/gpu","devices":[{"name":"GPU-0"}]}"#);
    put("berth.dev-gpu-x.json", r#"{"kind":"nvidia.com/gpu","devices":[{"name":"GPU-2"}]}"#);
    put("nvidia.txt", r#"{"kind":"nvidia.com/gpu","devices":[{"name":"GPU-0"}]}"#);
    put("nvidia.json", r#"{"kind":"nvidia.com/gpu","devices":[{"name":"GPU-3"}]}"#);
    std::fs::create_dir(folder.path().join("folder.json")).unwrap();
    assert_eq!(names(folder.path(), &["GPU-0", "GPU-2", "GPU-3"]), ["-", "-", "nvidia.com/gpu=GPU-3"]);
    assert_eq!(names(Path::new("/nowhere/at/all"), &["GPU-3"]), ["-"]);
}

#[test]
fn a_spec_that_changes_or_goes_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut specs) = (folder.path().join("nvidia.json"), Specs::default());
    let mut name = |id: &str| {
        specs.read(&[folder.path().to_owned()]);
        specs.name(id, None)
    };
    assert_eq!(name("GPU-0"), None);
    std::fs::write(&path, r#"{"kind":"nvidia.com/gpu","devices":[{"name":"GPU-0"}]}"#).unwrap();
    assert!(name("GPU-0").is_some());
    std::fs::write(&path, r#"{"kind":"nvidia.com/gpu","devices":[{"name":"GPU-1"},{"name":"GPU-2"}]}"#).unwrap();
    assert_eq!((name("GPU-0"), name("GPU-2").is_some()), (None, true));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(name("GPU-2"), None);
}
