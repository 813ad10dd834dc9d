//! What facts of NVML mean together: health, findings, older forms of a call. Each fact by itself is in `facts`.
//!
//! Each report comes from the probe over the fake driver library, must equal what `--machines` would show, and must survive the wire.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by its attribute; this file has tests and what they share")]

use berth_model::mig::MigInstance;
use berth_model::{Gpu, Health, NodeName, NodeTopology};
use berth_probe::{ProbeConfig, Prober};
use berth_tests::made_node::MadeNode;

fn machine(facts: &str) -> MadeNode {
    machine_under("false", facts)
}

/// Two GPUs on an NVSwitch of four links.
fn machine_under(mig: &str, facts: &str) -> MadeNode {
    MadeNode::of_text(&text(mig, facts), "node-a").unwrap()
}

fn text(mig: &str, facts: &str) -> String {
    let comma = if facts.is_empty() { "" } else { ", " };
    format!(
        "apiVersion: berth.dev/machine/v1
name: two-gpus
source: made up for tests
synthetic: true
driver: 580.1
nvml: 13.580.1
cuda: 13010
zones: [{{id: 0, cpus: 0-7, memoryMib: 1024}}]
gpuFacts: {{product: NVIDIA Test, memoryMib: 81559, mig: {mig}{comma}{facts}}}
nvlink: {{fabric: nvswitch, links: 4}}
pcie:
- host: pci0000:00
  zone: 0
  below:
  - {{via: [0000:00:01.0], gpu: 0, at: 0000:01:00.0}}
  - {{via: [0000:00:02.0], gpu: 1, at: 0000:02:00.0}}
"
    )
}

fn prober(made: &MadeNode) -> Prober {
    let node = NodeName::parse(made.name()).unwrap();
    Prober::new(ProbeConfig { nvml_library: Some(made.library().unwrap()), ..ProbeConfig::new(made.root(), node) })
}

fn report(made: &MadeNode, previous: Option<&NodeTopology>) -> NodeTopology {
    let report = prober(made).probe(previous).unwrap();
    assert_eq!(report, made.topology(previous).unwrap(), "--machines shows another report than the agent");
    let wire = berth_proto::encode(&report, "test");
    assert_eq!(berth_proto::decode(made.name(), &wire).unwrap(), report, "the wire changes the report");
    report
}

fn gpu(facts: &str) -> Gpu {
    report(&machine(facts), None).into_parts().gpus.remove(0)
}

fn gpu_without(facts: &str, symbols: &str) -> Gpu {
    let mut made = machine(facts);
    made.set_faults(&format!("symbolsAbsent: [{symbols}]")).unwrap();
    report(&made, None).into_parts().gpus.remove(0)
}

#[test]
fn what_makes_a_gpu_unfit_is_its_reason_and_counts_alone_do_not() {
    for (facts, reason) in [
        ("remapPending: true", "drain and reset: a bad row of its memory waits to be remapped"),
        ("remapPending: true, remapFailed: true", "drain and replace: a bad row of its memory could not be remapped"),
        ("retirementPending: true", "drain and reset: bad pages of its memory wait to be retired"),
        ("eccVolatile: 1", "drain and reset: uncorrectable memory errors since the driver was loaded"),
        ("fabric: in-progress", "not registered with its NVSwitch fabric: CUDA does not start (error 802)"),
        ("fabric: completed, fabricFailed: true", "registration with its NVSwitch fabric failed"),
        ("fabric: completed, fabricHealth: unhealthy", "its NVSwitch fabric is unhealthy"),
        ("computeMode: prohibited", "compute mode is prohibited: no process gets a CUDA context"),
        ("virtualization: host-vgpu", "it serves virtual GPUs to guests and runs no CUDA itself"),
    ] {
        assert_eq!(gpu(facts).health, Health::Unhealthy(reason.to_owned()), "{facts}");
    }
    let worn = gpu("eccAggregate: 9, rowsUncorrectable: 4, retiredPages: 2, fabric: completed");
    assert_eq!(worn.health, Health::Healthy);
}

/// Codes and devices of a report's findings.
fn findings(node: &NodeTopology) -> Vec<(&str, &str)> {
    node.parts().findings.iter().map(|f| (f.code.as_str(), f.device.as_str())).collect()
}

#[test]
fn a_narrow_or_slow_pcie_link_is_a_finding_and_an_idle_gpu_is_not() {
    let codes = |facts: &str| {
        let node = report(&machine(facts), None);
        findings(&node).into_iter().map(|(code, _)| code.to_owned()).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(codes("pcieMax: 5x16, pcie: 5x8, fastest: false"), ["pcie-downgraded"; 2]);
    assert_eq!(codes("pcieMax: 5x16, pcie: 3x16, fastest: true"), ["pcie-downgraded"; 2]);
    assert_eq!(codes("pcieMax: 5x16, pcie: 1x16, fastest: false"), nothing, "an idle GPU lowers its speed");
    assert_eq!(codes("pcieMax: 5x16, pcie: 1x16"), nothing, "without the state nobody can say");
    assert_eq!(codes("pcieMax: 5x16, pcie: 4x8, slot: 4x8, fastest: true"), nothing, "the slot has no more");
    assert_eq!(gpu("pcieMax: 5x16, slot: 4x8").detail.board.pcie_max.unwrap().to_string(), "4x8");
}

#[test]
fn a_link_that_goes_down_lowers_the_count_and_stays_a_finding_until_it_is_back() {
    let mut made = machine("nvlinkVersion: 4");
    let before = report(&made, None);
    made.set_faults("nvlinksDown: [{gpu: 1, links: [0, 3]}]").unwrap();
    let after = report(&made, Some(&before));
    assert_eq!(after.parts().gpus[1].detail.nvlinks_down, [0, 3]);
    assert_eq!(after.parts().links.link(0, 1).unwrap().nvlinks, 2);
    assert_eq!(findings(&after), [("nvlink-down", "0000:02:00.0")]);

    made.set_faults("nvlinksDown: [{gpu: 0, links: [1]}, {gpu: 1, links: [1]}]").unwrap();
    assert_eq!(findings(&report(&made, None)), [], "bridges that are not fitted look the same");
    let both = report(&made, Some(&before));
    assert_eq!(findings(&both), [("nvlink-down", "0000:01:00.0"), ("nvlink-down", "0000:02:00.0")]);
    assert_eq!(findings(&report(&made, Some(&both))).len(), 2, "it is still down");
    made.set_faults("").unwrap();
    assert_eq!(report(&made, Some(&both)), before);
}

#[test]
fn a_rack_fabric_has_a_clique_and_older_structs_tell_less() {
    let facts = "fabric: completed, fabricCluster: 01020304-0506-0708-090a-0b0c0d0e0f10, fabricClique: 2, fabricHealth: limited-capacity, fabricDegraded: true";
    let made = machine(facts);
    let node = report(&made, None);
    let fabric = node.parts().gpus[0].detail.board.fabric.clone().unwrap();
    let clique = fabric.clique.unwrap();
    assert_eq!((clique.cluster.as_str(), clique.clique), ("01020304-0506-0708-090a-0b0c0d0e0f10", 2));
    assert_eq!(findings(&node)[0].0, "fabric-degraded");
    assert_eq!(
        gpu("fabric: completed, fabricClique: 5").detail.board.fabric.as_ref().unwrap().clique,
        None,
        "a cluster of zeros"
    );

    let second = gpu_without(facts, "nvmlDeviceGetGpuFabricInfoV/v3").detail.board.fabric.clone().unwrap();
    assert_eq!((second.clique.unwrap().clique, second.health, second.degraded), (2, None, Some(true)));
    let first = gpu_without(facts, "nvmlDeviceGetGpuFabricInfoV").detail.board.fabric.clone().unwrap();
    assert_eq!((first.clique.unwrap().clique, first.health, first.degraded), (2, None, None));
}

#[test]
fn mig_is_told_with_the_placements_that_nvml_offers_and_the_instances_that_exist() {
    let facts = "migProfiles: h100-80, migInstances: 3g.40gb@4+4; 1g.10gb@0+1; 1g.20gb@2+2";
    let gpu = report(&machine_under("true", facts), None).into_parts().gpus.remove(0);
    let board = berth_model::mig::catalog::KnownBoard::by_name("h100-80").unwrap();
    assert_eq!(gpu.detail.board.mig, board.capability().unwrap());
    let placed: Vec<String> = gpu.detail.mig_instances.iter().map(|i| i.to_string()).collect();
    assert!(placed[0].starts_with("1g.10gb@0+1 MIG-") && placed[2].starts_with("3g.40gb@4+4 MIG-"), "{placed:?}");
    assert_eq!(MigInstance::slots(&gpu.detail.mig_instances).unwrap().bits(), 0b1111_1101);
    assert_eq!((gpu.mig_enabled, gpu.detail.mig_pending, gpu.health.is_usable()), (Some(true), None, true));
}

#[test]
fn a_library_without_placements_or_instances_tells_the_rest() {
    let facts = "migProfiles: a30, migInstances: 2g.12gb@2+2";
    let made = |symbols: &str| {
        let mut made = machine_under("true", facts);
        made.set_faults(&format!("symbolsAbsent: [{symbols}]")).unwrap();
        let node = report(&made, None);
        let codes: Vec<String> = findings(&node).iter().map(|(code, _)| (*code).to_owned()).collect();
        (node.into_parts().gpus.remove(0).detail, codes)
    };
    let (detail, codes) = made("nvmlDeviceGetGpuInstancePossiblePlacements_v2");
    assert!(detail.board.mig.profiles().is_empty() && detail.mig_instances.is_empty());
    assert!(codes.iter().all(|c| c == "mig-unreadable") && !codes.is_empty(), "{codes:?}");
    let (detail, _) = made("nvmlDeviceGetGpuInstances");
    assert_eq!((detail.board.mig.profiles().len(), detail.mig_instances.len()), (4, 0));
    let (detail, _) = made("nvmlDeviceGetMigDeviceHandleByIndex");
    assert_eq!(detail.mig_instances[0].to_string(), "2g.12gb@2+2");
    let (detail, _) = made("nvmlDeviceGetGpuInstanceProfileInfoV");
    assert_eq!(detail.board.mig.by_id(5).unwrap().name(), "2g.profile5");
    let (detail, _) = made("nvmlDeviceGetMigMode");
    assert!(detail.board.mig.profiles().is_empty() && detail.mig_pending.is_none());
}

#[test]
fn a_mode_that_waits_for_a_reset_is_said() {
    let node = report(&machine("migPending: true, ecc: true, eccPending: false"), None);
    assert_eq!(node.parts().gpus[0].detail.mig_pending, Some(true));
    let texts: Vec<&str> =
        node.parts().findings.iter().filter(|f| f.device == "0000:01:00.0").map(|f| f.text.as_str()).collect();
    assert_eq!(texts, ["ECC is off after the next reset, and not now", "MIG is on after the next reset, and not now"]);
}
