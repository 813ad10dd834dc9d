//! Claims about lint: each code has a node that earns it, and healthy reference machines earn none.

use berth_machine::{Machine, Salt};
use berth_model::{CpuSet, Driver, Finding, Health, MiB, NodeName, PortState, ZoneId};

use super::*;
use crate::render::sample::{Sample, dgx_h100};

fn said(node: NodeTopology) -> Vec<(String, String, String)> {
    lint(&[node]).into_iter().map(|r| (r.code, r.device, r.text)).collect()
}

fn one(code: &str, device: &str, text: &str) -> Vec<(String, String, String)> {
    vec![(code.to_owned(), device.to_owned(), text.to_owned())]
}

fn changed(change: impl FnOnce(&mut berth_model::Parts)) -> NodeTopology {
    let mut parts = dgx_h100().into_parts();
    change(&mut parts);
    NodeTopology::try_new(parts).unwrap()
}

#[test]
fn healthy_reference_machines_have_no_finding() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machines");
    for name in ["dgx-h100", "dgx-1v", "pcie-8gpu-two-level", "bridged-pairs", "cpu-only"] {
        let text = std::fs::read_to_string(format!("{folder}/{name}.yaml")).unwrap();
        let machine = Machine::parse(&text).unwrap();
        let node = berth_machine::topology(&machine, &machine.name, &Salt::default()).unwrap();
        assert_eq!(lint(&[node]), [], "{name}");
    }
    assert_eq!(lint(&[dgx_h100()]), []);
}

#[test]
fn what_is_wrong_with_one_device_is_said_of_it() {
    let sick = changed(|p| p.gpus[3].health = Health::Unhealthy("Xid 79".to_owned()));
    assert_eq!(said(sick), one("gpu-unhealthy", "GPU3", "Xid 79"));
    let mute = changed(|p| p.gpus[3].health = Health::Unknown("no answer".to_owned()));
    assert_eq!(said(mute), one("gpu-health-unknown", "GPU3", "no answer"));
    let down = changed(|p| p.nics[5].state = PortState::Down);
    assert_eq!(said(down), one("nic-down", "NIC5", "mlx5_5 has no active port"));
    let unread = changed(|p| p.nics[5].state = PortState::Unknown);
    assert_eq!(said(unread), [], "a state that was not read is not down");
    let lost = changed(|p| p.nics[5].zone = None);
    assert_eq!(said(lost), one("zone-not-known", "NIC5", "the zone of mlx5_5 is not known"));
    let blind = changed(|p| p.gpus[2].cpus = CpuSet::default());
    assert_eq!(said(blind), one("affinity-not-known", "GPU2", "no CPUs are known to be near"));
    let mig = changed(|p| p.gpus[7].mig_enabled = Some(true));
    assert_eq!(said(mig), one("mig-mixed", "", "MIG is on for GPU7 and off for GPU0-6"));
    let small = changed(|p| p.gpus[1].memory = Some(MiB(40 * 1024)));
    assert_eq!(said(small), one("memory-mixed", "", "NVIDIA Test: GPU1 40 GiB, the others 79.6 GiB"));
}

#[test]
fn a_gpu_that_fell_out_of_the_fabric_or_lost_a_part_of_it_is_told_and_its_peers_are_not() {
    let poor = [
        "X NV18/SYS NV18/SYS NV16/SYS",
        "NV18/SYS X NV18/SYS NV16/SYS",
        "NV18/SYS NV18/SYS X NV16/SYS",
        "NV16/SYS NV16/SYS NV16/SYS X",
    ];
    let node = |rows: &[&str]| Sample::new(rows, &[0, 0, 1, 1], &[]).build();
    let codes = |rows: &[&str]| -> Vec<_> {
        said(node(rows)).into_iter().filter(|s| s.0 != "same-zone-sys").map(|s| (s.1, s.2)).collect()
    };
    assert_eq!(codes(&poor), [("GPU3".to_owned(), "NV16 at best; 3 of its peers have NV18".to_owned())]);
    let fallen = poor.map(|r| r.replace("NV16/", ""));
    let fallen: Vec<&str> = fallen.iter().map(String::as_str).collect();
    assert_eq!(codes(&fallen), [("GPU3".to_owned(), "has no NVLink; 3 of its 3 peers have".to_owned())]);
}

#[test]
fn a_mesh_that_lost_a_pair_is_told_of_both_ends() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machines/dgx-1v.yaml");
    let text = std::fs::read_to_string(folder).unwrap().replace("  - {gpus: [3, 7], links: 1}\n", "");
    let machine = Machine::parse(&text).unwrap();
    let node = berth_machine::topology(&machine, &machine.name, &Salt::default()).unwrap();
    let text = "5 NVLinks to 3 GPUs; 6 of its peers have 6".to_owned();
    let end = |gpu: &str| ("nvlink-fewer".to_owned(), gpu.to_owned(), text.clone());
    assert_eq!(said(node), [end("GPU3"), end("GPU7")]);
}

#[test]
fn rails_are_missed_where_most_have_one() {
    let rows = [
        "X NODE NODE PXB NODE",
        "NODE X NODE NODE PXB",
        "NODE NODE X NODE NODE",
        "PXB NODE NODE X NODE",
        "NODE PXB NODE NODE X",
    ];
    let node = Sample::new(&rows, &[0, 0, 0], &[0, 0]).build();
    let text = "no NIC under its PCIe switch; 2 of its 2 peers have one";
    assert_eq!(said(node), one("rail-missing", "GPU2", text));
    let far = Sample::new(&["X SYS", "SYS X"], &[0], &[1]).build();
    assert_eq!(said(far), one("nic-far", "NIC0", "mlx5_0 is SYS to its nearest GPU"));
    let half = ["X NODE PXB", "NODE X NODE", "PXB NODE X"];
    let half = Sample::new(&half, &[0, 0], &[0]).build();
    assert_eq!(said(half), [], "one rail for two GPUs is how many boards are built");
    let partial = ["X NODE NODE PXB", "NODE X NODE PXB", "NODE NODE X ?", "PXB PXB ? X"];
    let partial = Sample::new(&partial, &[0, 0, 0], &[0]).build();
    assert_eq!(said(partial), [], "a distance that is not known may be a near one");
    let unknown = Sample::new(&["X ?", "? X"], &[0], &[1]).build();
    assert_eq!(said(unknown), [], "a distance that is not known may be a near one");
}

#[test]
fn levels_and_zones_that_contradict_each_other_are_told_with_their_pairs() {
    let near = Sample::new(&["X NODE", "NODE X"], &[0, 1], &[]).build();
    assert_eq!(said(near), one("zone-contradicted", "GPU0-1", "NODE or nearer, in different zones: GPU0-GPU1"));
    let far = Sample::new(&["X SYS", "SYS X"], &[0, 0], &[]).build();
    assert_eq!(said(far), one("same-zone-sys", "GPU0-1", "SYS, in one zone: GPU0-GPU1"));
    let unknown = Sample::new(&["X ?", "? X"], &[0, 0], &[]).build();
    assert_eq!(said(unknown), one("link-unknown", "GPU0-1", "distance not known: GPU0-GPU1"));
    let rows = ["X NODE NODE SYS", "NODE X NODE SYS", "NODE NODE X SYS", "SYS SYS SYS X"];
    let uneven = Sample::new(&rows, &[0, 0, 0, 1], &[]).build();
    assert_eq!(said(uneven), one("zone-uneven", "", "4 x NVIDIA Test: 3 in zone 0, 1 in zone 1"));
    let rows = ["X NODE ?", "NODE X ?", "? ? X"];
    let mut unseen = Sample::new(&rows, &[0, 0, 1], &[]);
    unseen.parts.gpus[2].zone = None;
    let codes: Vec<_> = said(unseen.build()).into_iter().map(|s| s.0).collect();
    assert_eq!(codes, ["link-unknown", "zone-not-known"], "no word on zones that are not known");
    let mut lost = Sample::new(&["X ?", "? X"], &[0, 0], &[]);
    lost.parts.gpus[1].zone = None;
    lost.parts.gpus[1].cpus = CpuSet::default();
    let codes: Vec<_> = said(lost.build()).into_iter().map(|s| (s.0, s.1)).collect();
    let pair = |code: &str, device: &str| (code.to_owned(), device.to_owned());
    assert_eq!(codes, [pair("link-unknown", "GPU0-1"), pair("zone-not-known", "GPU1")]);
    assert_eq!(ZoneId(1).to_string(), "1");
}

#[test]
fn other_products_are_no_peers() {
    let mut sample = Sample::new(&["X NV4/SYS SYS", "NV4/SYS X SYS", "SYS SYS X"], &[0, 0, 1], &[]);
    sample.parts.gpus[2].product = "NVIDIA Other".to_owned();
    sample.parts.gpus[2].memory = Some(MiB(1024));
    let codes: Vec<_> = said(sample.build()).into_iter().map(|s| s.0).collect();
    assert_eq!(codes, ["product-mixed", "same-zone-sys"]);
}

#[test]
fn findings_of_the_report_pass_through_with_advice() {
    let finding = |code: &str| Finding { code: code.to_owned(), device: "d".to_owned(), text: "t".to_owned() };
    let node = changed(|p| p.findings = vec![finding("driver-absent"), finding("gpu-on-fire")]);
    let remarks = lint(&[node]);
    let seen: Vec<_> = remarks.iter().map(|r| (r.code.as_str(), r.severity)).collect();
    assert_eq!(seen, [("driver-absent", Severity::Error), ("gpu-on-fire", Severity::Warning)]);
    assert!(remarks.iter().all(|r| !r.advice.is_empty()));
}

#[test]
fn the_odd_node_among_its_kind_is_told() {
    let named = |name: &str, driver: &str| {
        changed(|p| {
            p.node = NodeName::parse(name).unwrap();
            p.driver = Driver::Loaded(driver.into());
        })
    };
    let nodes = [named("a", "580.1"), named("b", "580.1"), named("c", "535.2")];
    let seen: Vec<_> = lint(&nodes).into_iter().map(|r| (r.node, r.code, r.text)).collect();
    let text = "driver 535.2; others of its product run 580.1".to_owned();
    assert_eq!(seen, [("c".to_owned(), "driver-differs".to_owned(), text)]);

    let mut odd = named("d", "580.1").into_parts();
    let rows: Vec<String> = odd.links.rows().iter().map(|r| r.replace("NV18", "NV12")).collect();
    odd.links = berth_model::LinkMatrix::parse(&rows).unwrap();
    let nodes = [named("a", "580.1"), named("b", "580.1"), NodeTopology::try_new(odd).unwrap()];
    let seen: Vec<_> = lint(&nodes).into_iter().map(|r| (r.node, r.code)).collect();
    assert_eq!(seen, [("d".to_owned(), "fabric-differs".to_owned())]);
}
