//! Claims about Allocate answers: all devices by one way, and images of CUDA get nothing beside.

use super::super::devices::{GPU, MigStrategy, offer};
use super::super::sample::{cut, pairs};
use super::*;

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn preferred(cdi: Option<&Path>, dev_root: &Path) -> Preferred {
    let cdi = cdi.map(|folder| vec![folder.to_owned()]);
    Preferred { cdi, dev_root: dev_root.to_owned(), specs: Mutex::default() }
}

fn env(answer: &ContainerAllocateResponse) -> &str {
    &answer.envs[VISIBLE]
}

#[test]
fn without_cdi_a_container_gets_the_environment_and_the_device_files_that_there_are() {
    let dev = tempfile::tempdir().unwrap();
    for name in ["nvidia0", "nvidia1", "nvidia3", "nvidiactl", "nvidia-uvm"] {
        std::fs::write(dev.path().join(name), "").unwrap();
    }
    let devices = offer(&pairs(), MigStrategy::Mixed).remove(GPU).unwrap();
    let answer = preferred(None, dev.path()).answer(&ids(&["GPU-3", "GPU-1", "GPU-2"]), &devices);
    assert_eq!(env(&answer), "GPU-3,GPU-1,GPU-2");
    let paths: Vec<&str> = answer.devices.iter().map(|file| file.host_path.as_str()).collect();
    assert_eq!(paths, ["/dev/nvidia1", "/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
    assert!(answer.devices.iter().all(|file| file.container_path == file.host_path && file.permissions == "rw"));
    assert!(answer.cdi_devices.is_empty());
}

#[test]
fn instances_of_one_gpu_bring_its_device_file_once() {
    let dev = tempfile::tempdir().unwrap();
    std::fs::write(dev.path().join("nvidia0"), "").unwrap();
    let machine = cut(&[(0, &[("1g.10gb", 0), ("1g.10gb", 1)])]);
    let devices = offer(&machine, MigStrategy::Mixed).remove("nvidia.com/mig-1g.10gb").unwrap();
    let answer = preferred(None, dev.path()).answer(&ids(&["MIG-0-0", "MIG-0-1"]), &devices);
    assert_eq!((env(&answer), answer.devices.len()), ("MIG-0-0,MIG-0-1", 1));
}

#[test]
fn cdi_is_taken_for_all_devices_of_a_container_or_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let spec = r#"{"kind":"nvidia.com/gpu","devices":[{"name":"GPU-0"},{"name":"GPU-1"}]}"#;
    std::fs::write(folder.path().join("nvidia.json"), spec).unwrap();
    let devices = offer(&pairs(), MigStrategy::Mixed).remove(GPU).unwrap();
    let giver = preferred(Some(folder.path()), Path::new("/nowhere"));
    let answer = giver.answer(&ids(&["GPU-0", "GPU-1"]), &devices);
    let names: Vec<&str> = answer.cdi_devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!((env(&answer), names), (VOID, vec!["nvidia.com/gpu=GPU-0", "nvidia.com/gpu=GPU-1"]));
    let answer = giver.answer(&ids(&["GPU-0", "GPU-2"]), &devices);
    assert_eq!((env(&answer), answer.cdi_devices.len()), ("GPU-0,GPU-2", 0));
}

#[test]
fn a_lease_names_one_device_that_nothing_stands_for_and_voids_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let leases = Leases::open(folder.path()).unwrap();
    let answer = by_lease(&leases, GPU, &ids(&["GPU-0", "GPU-1"])).unwrap();
    assert_eq!((env(&answer), answer.cdi_devices.len(), answer.devices.len()), (VOID, 1, 0));
    assert!(answer.cdi_devices[0].name.starts_with("berth.dev/gpu="));
    assert!(by_lease(&leases, GPU, &[]).is_err());
}
