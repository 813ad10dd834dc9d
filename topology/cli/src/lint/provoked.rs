//! Claims about lint on machine files: a line that is changed earns a finding, and one that is changed without harm earns none.

use berth_machine::{Faults, Machine, Salt};
use berth_model::NodeName;

use super::*;

const DGX_H100: &str = include_str!("../../../../tests/machines/dgx-h100.yaml");
const DGX_1V: &str = include_str!("../../../../tests/machines/dgx-1v.yaml");
const PCIE: &str = include_str!("../../../../tests/machines/pcie-8gpu-two-level.yaml");
const PAIRS: &str = include_str!("../../../../tests/machines/bridged-pairs.yaml");

/// The node of a machine file in which each text is replaced, wherever it stands.
fn node(name: &str, file: &str, changes: &[(&str, &str)]) -> NodeTopology {
    let mut text = file.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let machine = Machine::parse(&text).unwrap();
    berth_machine::topology(&machine, &NodeName::parse(name).unwrap(), &Salt::new(name)).unwrap()
}

fn told(nodes: &[NodeTopology]) -> Vec<String> {
    lint(nodes).into_iter().map(|r| format!("{} {} {}: {}", r.node, r.code, r.device, r.text)).collect()
}

fn of(file: &str, changes: &[(&str, &str)]) -> Vec<String> {
    told(&[node("n", file, changes)])
}

/// What is changed in every device of a file is a fact of the machine; in one of them it is a finding.
#[test]
fn mig_on_some_gpus_is_told_and_on_all_of_them_is_not() {
    let one = ("gpu: 6, at: 0000:d1:00.0}", "gpu: 6, at: 0000:d1:00.0, gpuFacts: {mig: true}}");
    assert_eq!(of(DGX_H100, &[one]), ["n mig-mixed : MIG is on for GPU6 and off for GPU0-5,7"]);
    assert_eq!(of(DGX_H100, &[("mig: false", "mig: true")]), [""; 0]);
    assert_eq!(of(DGX_H100, &[("mig: false", "mig: unknown")]), [""; 0]);
    let unknown = ("gpu: 6, at: 0000:d1:00.0}", "gpu: 6, at: 0000:d1:00.0, gpuFacts: {mig: unknown}}");
    assert_eq!(of(DGX_H100, &[unknown]), [""; 0], "a mode that is not known is no other mode");
}

#[test]
fn drivers_are_compared_between_nodes_of_one_product_only() {
    let new = [("driver: 580.126.20", "driver: 590.44.01")];
    let (a, b, c) = (node("a", DGX_H100, &[]), node("b", DGX_H100, &[]), node("c", DGX_H100, &new));
    let expected = ["c driver-differs : driver 590.44.01; others of its product run 580.126.20"];
    assert_eq!(told(&[a.clone(), b.clone(), c]), expected);
    let other = node("c", PAIRS, &[]);
    assert_eq!(told(&[a.clone(), b.clone(), other]), [""; 0]);
    let mute = node("c", DGX_H100, &[("driver: 580.126.20", "driver: unknown")]);
    assert_eq!(told(&[a, b, mute]), [""; 0]);
}

#[test]
fn nvlinks_that_are_not_the_same_from_all_sides_are_told() {
    let lame = ("fabric: nvswitch, links: 18", "fabric: nvswitch, links: 18, except: [{gpu: 3, links: 16}]");
    assert_eq!(of(DGX_H100, &[lame]), ["n nvlink-fewer GPU3: NV16 at best; 7 of its peers have NV18"]);
    let dead = ("fabric: nvswitch, links: 18", "fabric: nvswitch, links: 18, except: [{gpu: 3, links: 0}]");
    assert_eq!(of(DGX_H100, &[dead]), ["n nvlink-missing GPU3: has no NVLink; 7 of its 7 peers have"]);
    let thin = ("- {gpus: [0, 1], links: 12}", "- {gpus: [0, 1], links: 8}");
    let expected = [0, 1].map(|gpu| format!("n nvlink-fewer GPU{gpu}: NV8 at best; 6 of its peers have NV12"));
    assert_eq!(of(PAIRS, &[thin]), expected);
    assert_eq!(of(DGX_H100, &[("links: 18", "links: 12")]), [""; 0]);
    assert_eq!(of(PAIRS, &[("links: 12", "links: 4")]), [""; 0]);
}

#[test]
fn links_that_the_driver_says_are_down_are_told_once() {
    let machine = Machine::parse(DGX_H100).unwrap();
    let text = format!("apiVersion: {}\nnvlinksDown: [{{gpu: 4, links: [0, 5]}}]\n", Faults::API_VERSION);
    let faults = Faults::parse(&text, &machine).unwrap();
    let name = NodeName::parse("n").unwrap();
    let node = berth_machine::topology_with(&machine, &name, &Salt::default(), &faults, None).unwrap();
    let told = told(&[node]);
    assert!(told.len() == 1 && told[0].starts_with("n nvlink-down GPU4: "), "{told:?}");
}

#[test]
fn a_gpu_whose_zone_is_not_that_of_its_switch_is_told() {
    let moved = ("gpu: 6, at: 0000:d1:00.0}", "gpu: 6, at: 0000:d1:00.0, gpuFacts: {zone: 0}}");
    let expected = [
        "n zone-contradicted GPU6: NODE or nearer, in different zones: GPU6-NIC10",
        "n zone-uneven : 8 x NVIDIA H100 80GB HBM3: 5 in zone 0, 3 in zone 1",
    ];
    assert_eq!(of(DGX_H100, &[moved]), expected);
    let below_one_bridge = ("gpu: 3, at: 0000:0b:00.0}", "gpu: 3, at: 0000:0b:00.0, gpuFacts: {zone: 1}}");
    let told = of(DGX_1V, &[below_one_bridge]).join("\n");
    assert!(told.contains("zone-contradicted") && told.contains("GPU0-GPU3") && told.contains("GPU3-NIC0"), "{told}");
    let lost = ("gpu: 6, at: 0000:d1:00.0}", "gpu: 6, at: 0000:d1:00.0, gpuFacts: {zone: unknown}}");
    assert_eq!(of(DGX_H100, &[lost]), ["n zone-not-known GPU6: which zone is nearest is not known"]);
    assert_eq!(of(DGX_H100, &[("zone: 1", "zone: 0")]), [""; 0], "one zone for all is a setting of the firmware");
}

#[test]
fn a_pcie_link_below_what_card_and_slot_allow_is_told() {
    let facts = |link: &str| ("mig: false}", format!("mig: false, pcieMax: 5x16, {link}}}"));
    let of = |link: &str| {
        let (from, to) = facts(link);
        of(DGX_H100, &[(from, &to)])
    };
    let told = of("pcie: 5x8");
    assert!(told.len() == 1 && told[0].starts_with("n pcie-downgraded GPU0-7: "), "{told:?}");
    assert_eq!(of("pcie: 5x16"), [""; 0]);
    assert_eq!(of("pcie: 1x16, fastest: false"), [""; 0], "an idle GPU lowers its speed");
    assert_eq!(of("pcie: 4x16, slot: 4x16"), [""; 0], "the slot allows no more");
}

#[test]
fn a_nic_is_far_where_it_could_be_nearer() {
    // The machine has one NIC, PHB to the GPUs of zone 1. Behind a host bridge of its own it is as near as that board can.
    let own = ("  - {via: [0000:80:01.0], nic: mlx5_0, at: 0000:81:00.0}\n", "");
    let bridge = |zone: u8| {
        format!(
            "- host: pci0000:f0\n  zone: {zone}\n  below:\n  - {{via: [0000:f0:01.0], nic: mlx5_0, at: 0000:f1:00.0}}\n- host: pci0000:80\n"
        )
    };
    assert_eq!(of(PCIE, &[own, ("- host: pci0000:80\n", &bridge(1))]), [""; 0]);
    let all_in_one = [own, ("- host: pci0000:80\n  zone: 1", "- host: pci0000:80\n  zone: 0")];
    let far = [all_in_one[0], all_in_one[1], ("- host: pci0000:80\n", &bridge(1))];
    assert_eq!(of(PCIE, &far), ["n nic-far NIC0: mlx5_0 is SYS to its nearest GPU"]);
    let near = [all_in_one[0], all_in_one[1], ("- host: pci0000:80\n", &bridge(0))];
    assert_eq!(of(PCIE, &near), [""; 0], "all in one zone");
    let second = bridge(1).replace("nic: mlx5_0", "nic: mlx5_1");
    let told = of(PCIE, &[("- host: pci0000:80\n", &second)]);
    assert_eq!(told, ["n nic-far NIC1: mlx5_1 is NODE to its nearest GPU"], "the other NIC is nearer");
}

#[test]
fn cells_that_zones_contradict_are_counted_by_what_the_capture_prints() {
    let pairs = |count: usize| (0..count).map(|i| format!("GPU0-NIC{i}")).collect();
    let list = [
        Contradiction { captured: PcieLevel::Sys, pairs: pairs(2) },
        Contradiction { captured: PcieLevel::Node, pairs: pairs(8) },
    ];
    let text = contradicted("n", &list).unwrap().text;
    let expected = "SYS inside one zone: GPU0-NIC0 GPU0-NIC1; NODE between zones: \
                    GPU0-NIC0 GPU0-NIC1 GPU0-NIC2 GPU0-NIC3 GPU0-NIC4 GPU0-NIC5 and 2 more";
    assert_eq!(text, expected);
    assert_eq!(contradicted("n", &[]), None);
}
