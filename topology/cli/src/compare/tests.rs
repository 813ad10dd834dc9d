//! Claims about differences: what is told, how, and what is not told.

use berth_model::{CpuSet, Finding, GpuIndex, GpuUuid, Health, LinkMatrix, NicName, NodeName};

use super::*;
use crate::render::sample::{Sample, dgx_h100};

fn texts(before: &NodeTopology, after: &NodeTopology) -> Vec<String> {
    differences(before, after).into_iter().map(|d| d.text).collect()
}

/// The node with other cells: `change` says the cell of two positions as it shall be.
fn relinked(node: &NodeTopology, change: impl Fn(usize, usize, &str) -> Option<String>) -> NodeTopology {
    let mut parts = node.clone().into_parts();
    let rows: Vec<Vec<String>> = parts.links.rows().iter().map(|r| r.split(' ').map(str::to_owned).collect()).collect();
    let cell = |a: usize, b: usize| change(a.min(b), a.max(b), &rows[a][b]).unwrap_or_else(|| rows[a][b].clone());
    let rows: Vec<String> =
        (0..rows.len()).map(|a| (0..rows.len()).map(|b| cell(a, b)).collect::<Vec<_>>().join(" ")).collect();
    parts.links = LinkMatrix::parse(&rows).unwrap();
    NodeTopology::try_new(parts).unwrap()
}

fn changed(node: &NodeTopology, change: impl FnOnce(&mut berth_model::Parts)) -> NodeTopology {
    let mut parts = node.clone().into_parts();
    change(&mut parts);
    NodeTopology::try_new(parts).unwrap()
}

#[test]
fn the_same_report_under_another_generation_has_no_difference() {
    let node = dgx_h100();
    assert!(differences(&node, &node.clone().with_generation(berth_model::Generation(9))).is_empty());
}

#[test]
fn links_into_switches_are_told_once_per_gpu() {
    let node = dgx_h100();
    let lost = relinked(&node, |a, b, cell| (a == 3 || b == 3).then(|| cell.replace("NV18", "NV16")));
    assert_eq!(texts(&node, &lost), ["GPU3 lost 2 NVLinks (18 -> 16)"]);
    assert_eq!(texts(&lost, &node), ["GPU3 gained 2 NVLinks (16 -> 18)"]);
    let fallen = relinked(&node, |a, b, cell| (a == 3 || b == 3).then(|| cell.replace("NV18/", "")));
    assert_eq!(texts(&node, &fallen), ["GPU3 lost all its 18 NVLinks"]);
}

#[test]
fn links_of_a_mesh_are_told_with_their_other_ends() {
    let rows = ["X NV2/PIX NV1/PIX PIX", "NV2/PIX X PIX PIX", "NV1/PIX PIX X NV1/PIX", "PIX PIX NV1/PIX X"];
    let node = Sample::new(&rows, &[0, 0, 0, 0], &[]).build();
    let one = relinked(&node, |a, b, _| ((a, b) == (0, 1)).then(|| "NV1/PIX".to_owned()));
    assert_eq!(texts(&node, &one), ["GPU0 lost 1 of 2 NVLinks: to GPU1 2 -> 1"]);
    let all = relinked(&node, |a, b, _| (a == 0 || b == 0).then(|| "PIX".to_owned()).filter(|_| a != b));
    assert_eq!(texts(&node, &all), ["GPU0 lost 3 of 3 NVLinks: to GPU1 2 -> 0, GPU2 1 -> 0"]);
}

#[test]
fn a_gpu_that_moved_is_told_by_its_zone_and_its_pcie_distance_once() {
    let node = dgx_h100();
    let moved = changed(&node, |parts| {
        parts.gpus[6].zone = Some(ZoneId(0));
        parts.gpus[6].cpus = parts.zones[0].cpus.clone();
    });
    assert_eq!(texts(&node, &moved), ["GPU6 moved from zone 1 to zone 0"]);
    let far = relinked(&node, |a, b, cell| (a == 6 && b >= 8 && cell != "SYS").then(|| "SYS".to_owned()));
    assert_eq!(texts(&node, &far), ["PCIe distance of GPU6 to NIC6 NODE -> SYS, NIC7 NODE -> SYS, and to 4 more"]);
}

#[test]
fn every_fact_of_a_device_has_its_sentence() {
    let node = dgx_h100();
    let other = changed(&node, |parts| {
        parts.driver = Driver::Loaded("590.2".into());
        parts.zones[1].memory = Some(MiB(1024));
        parts.gpus[1].health = Health::Unhealthy("Xid 79".to_owned());
        parts.gpus[2].uuid = GpuUuid::parse("GPU-spare").unwrap();
        parts.gpus[3].mig_enabled = None;
        parts.gpus[4].memory = Some(MiB(40 * 1024));
        parts.gpus[5].cpus = CpuSet::parse("9").unwrap();
        parts.nics[5].state = PortState::Down;
        parts.nics[6].rate_gbps = None;
        parts.nics[7].name = NicName::parse("mlx5_bond_0").unwrap();
        parts.findings = vec![Finding {
            code: "zone-unknown".to_owned(),
            device: "0000:12:00.0".to_owned(),
            text: "odd".to_owned(),
        }];
    });
    let expected = [
        "driver 580.1 -> 590.2",
        "zone 1: memory 64 GiB -> 1 GiB",
        "GPU1 is unhealthy: Xid 79 (was healthy)",
        "GPU2 was replaced at 0000:12:00.0: GPU-2 -> GPU-spare",
        "GPU3: MIG off -> not known",
        "GPU4: memory 79.6 GiB -> 40 GiB",
        "GPU5: nearest CPUs 8-15,24-31 -> 9",
        "NIC5 (mlx5_5) is down",
        "NIC6 (mlx5_6): rate 400 Gbit/s -> not known",
        "NIC7 (mlx5_7) is called mlx5_bond_0 now",
        "new finding zone-unknown: 0000:12:00.0 odd",
    ];
    assert_eq!(texts(&node, &other), expected);
}

#[test]
fn settings_of_the_host_and_slots_of_a_gpu_have_their_sentences() {
    let node = dgx_h100();
    let mig = berth_model::mig::catalog::KnownBoard::by_name("h100-80").unwrap().capability().unwrap();
    let with = |instances: &[&str], link: &str, governor: &str, pages: &str| {
        changed(&node, |parts| {
            let gpu = &mut parts.gpus[2];
            gpu.mig_enabled = Some(true);
            let parsed = instances.iter().map(|i| berth_model::mig::MigInstance::parse(i, &mig).unwrap());
            gpu.detail.mig_instances = parsed.collect();
            gpu.detail.pcie = PcieLink::parse(link);
            parts.host.cpu.governor = berth_model::Governor::parse(governor);
            parts.zones[0].huge_pages = HugePages::parse(pages);
        })
    };
    let before = with(&["3g.40gb@4+4"], "5x16", "performance", "1048576x16");
    let after = with(&["1g.10gb@0+1", "3g.40gb@4+4"], "5x8", "powersave", "none");
    let expected = [
        "zone 0: huge pages 16 x 1 GiB -> none",
        "kernel: governor performance -> governor powersave",
        "GPU2: MIG instances 3g.40gb@4+4 -> 1g.10gb@0+1 3g.40gb@4+4",
        "GPU2: link PCIe 5 x16 -> PCIe 5 x8",
    ];
    assert_eq!(texts(&before, &after), expected);
}

#[test]
fn a_lost_gpu_moves_the_indexes_and_no_identity() {
    let rows = ["X PIX SYS", "PIX X SYS", "SYS SYS X"];
    let node = Sample::new(&rows, &[0, 0, 1], &[]).build();
    let mut lost = Sample::new(&["X SYS", "SYS X"], &[0, 1], &[]);
    for (gpu, was) in lost.parts.gpus.iter_mut().zip([0, 2]) {
        let index = gpu.index;
        *gpu = node.parts().gpus[was].clone();
        gpu.index = index;
    }
    let expected = ["GPU1 is gone (NVIDIA Test, 0000:11:00.0, GPU-1)", "GPU2 is GPU1 now (an index is no identity)"];
    assert_eq!(texts(&node, &lost.build()), expected);
    assert_eq!(GpuIndex(1).to_string(), "GPU1");
}

#[test]
fn two_nodes_of_one_make_are_alike_whatever_their_uuids() {
    let node = dgx_h100();
    let twin = changed(&node, |parts| {
        parts.node = NodeName::parse("twin").unwrap();
        for gpu in &mut parts.gpus {
            gpu.uuid = GpuUuid::parse(&format!("GPU-twin-{}", gpu.index.0)).unwrap();
            gpu.pci.bus += 0x40;
        }
    });
    assert_eq!(texts(&node, &twin), Vec::<String>::new());
}

#[test]
fn what_changed_alike_on_several_gpus_is_one_line() {
    let node = dgx_h100();
    let larger = changed(&node, |parts| parts.gpus.iter_mut().for_each(|g| g.memory = Some(MiB(1 << 17))));
    assert_eq!(texts(&node, &larger), ["8 GPUs: memory 79.6 GiB -> 128 GiB"]);
}

#[test]
fn devices_that_come_and_go_are_named() {
    let node = Sample::new(&["X PIX", "PIX X"], &[0], &[0]).build();
    let bare = Sample::new(&["X"], &[0], &[]).build();
    assert_eq!(texts(&node, &bare), ["NIC0 (mlx5_0) is gone"]);
    assert_eq!(texts(&bare, &node), ["NIC0 (mlx5_0) is new"]);
}
