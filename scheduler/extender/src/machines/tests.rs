//! Claims about nodes from machine files.

use super::*;
use crate::metrics::Metrics;
use berth_model::GpuSet;

const H100: &str = include_str!("../../../../tests/machines/dgx-h100.yaml");
const CPU_ONLY: &str = include_str!("../../../../tests/machines/cpu-only.yaml");

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn cluster() -> Cluster {
    Cluster::new(Arc::new(Metrics::new("test")))
}

fn usable(cluster: &Cluster, node: &str) -> (u64, GpuSet) {
    let snapshot = cluster.index.snapshot();
    let hardware = snapshot.node(node).unwrap().view.hardware.clone().unwrap();
    (hardware.topology.parts().generation.0, hardware.topology.usable_gpus())
}

#[test]
fn two_files_of_one_machine_are_two_nodes_with_their_own_gpus() {
    let dir = folder(&[("a.yaml", H100), ("b.yaml", H100), ("c.yaml", CPU_ONLY)]);
    let cluster = cluster();
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    let snapshot = cluster.index.snapshot();
    let uuid = |node: &str| {
        let hardware = snapshot.node(node).unwrap().view.hardware.clone().unwrap();
        hardware.topology.parts().gpus.first().map(|g| g.uuid.clone())
    };
    assert_ne!(uuid("a"), uuid("b"));
    assert_eq!(uuid("c"), None);
    let view = &snapshot.node("a").unwrap().view;
    assert_eq!(view.offered.get("nvidia.com/gpu"), Some(&8));
    assert_eq!(view.allocatable.cpu_milli, 224_000);
}

#[test]
fn a_fault_is_a_new_generation_and_unchanged_hardware_is_not() {
    let dir = folder(&[("a.yaml", H100)]);
    let cluster = cluster();
    for _ in 0..2 {
        enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
        assert_eq!(usable(&cluster, "a"), (1, GpuSet::first(8)));
    }
    std::fs::write(dir.path().join("a.faults.yaml"), "apiVersion: berth.dev/faults/v1\nlost: [3]\n").unwrap();
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    assert_eq!(usable(&cluster, "a"), (2, GpuSet::from_bits(0b1111_0111)));
}

#[test]
fn a_node_whose_file_is_gone_is_gone() {
    let dir = folder(&[("a.yaml", H100), ("b.yaml", H100)]);
    let cluster = cluster();
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    assert!(cluster.index.snapshot().node("b").is_none());
}

#[test]
fn what_is_no_machine_file_is_named() {
    let missing = read_dir(Path::new("/nonexistent")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nonexistent");
    assert!(read_dir(folder(&[]).path()).unwrap_err().to_string().ends_with("holds no machine file NAME.yaml"));
    let wrong = folder(&[("a.yaml", "apiVersion: berth.dev/machine/v1\nnmae: x\n")]);
    let error = read_dir(wrong.path()).unwrap_err();
    assert!(error.to_string().ends_with("a.yaml"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("line 2"), "{cause}");
}
