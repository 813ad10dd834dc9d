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

#[test]
fn a_node_whose_stream_is_open_is_its_agents_whatever_the_files_say() {
    let dir = folder(&[("a.yaml", H100), ("b.yaml", H100)]);
    let cluster = cluster();
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    let stream = |node: &str, generation| {
        let name = NodeName::parse(node).unwrap();
        let machine = Machine::parse(H100).unwrap();
        let faults = Faults::parse("apiVersion: berth.dev/faults/v1\nlost: [0, 1]\n", &machine).unwrap();
        let node = MachineNode { name: name.clone(), machine, faults };
        let known = topology_with(&node.machine, &name, &Salt::new(name.as_str()), &Faults::default(), None).unwrap();
        let read = node.topology(Some(&known)).unwrap().with_generation(Generation(generation));
        cluster.index.apply(Event::Node(facts(&read, &cluster.policy())));
        cluster.index.apply(Event::Report(Box::new(read)));
        cluster.carriers.open(&name).unwrap()
    };
    let (of_a, _of_c) = (stream("a", 7), stream("c", 1));
    std::fs::write(dir.path().join("b.faults.yaml"), "apiVersion: berth.dev/faults/v1\nlost: [3]\n").unwrap();
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    assert_eq!(usable(&cluster, "a"), (7, GpuSet::from_bits(0b1111_1100)));
    assert_eq!(usable(&cluster, "b"), (2, GpuSet::from_bits(0b1111_0111)));
    assert_eq!(usable(&cluster, "c"), (1, GpuSet::from_bits(0b1111_1100)), "no file names it");

    cluster.carriers.close(&of_a, || panic!("an object may follow"));
    enter(&cluster, &read_dir(dir.path()).unwrap()).unwrap();
    assert_eq!(usable(&cluster, "a"), (8, GpuSet::first(8)), "the file speaks again, above what the agent said");
}
