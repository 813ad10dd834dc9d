//! Claims about the tree, as texts without colour.

use anstream::adapter::strip_str;
use berth_model::{CpuSet, Finding, MiB, ZoneId};

use super::*;
use crate::render::sample::{Sample, dgx_h100};

fn plain(node: &NodeTopology) -> String {
    strip_str(&tree(node)).to_string()
}

#[test]
fn each_gpu_of_a_dgx_shares_its_switch_with_its_rail() {
    let text = plain(&dgx_h100());
    let zone_0 = text.split("├─ zone 1").next().unwrap();
    let expected = "\
sample  8 x NVIDIA Test  driver 580.1  links NV18
├─ zone 0  CPUs 0-7,16-23 (16)  memory 64 GiB
│  ├─ PCIe switches (PXB)
│  │  ├─ GPU0  0000:10:00.0  NVIDIA Test  79.6 GiB  healthy
│  │  └─ NIC0  0000:80:00.0  mlx5_0  InfiniBand 400 Gbit/s  active
│  ├─ PCIe switches (PXB)
│  │  ├─ GPU1  0000:11:00.0  NVIDIA Test  79.6 GiB  healthy
│  │  └─ NIC3  0000:83:00.0  mlx5_3  InfiniBand 400 Gbit/s  active
│  ├─ PCIe switches (PXB)
│  │  ├─ GPU2  0000:12:00.0  NVIDIA Test  79.6 GiB  healthy
│  │  └─ NIC4  0000:84:00.0  mlx5_4  InfiniBand 400 Gbit/s  active
│  ├─ PCIe switches (PXB)
│  │  ├─ GPU3  0000:13:00.0  NVIDIA Test  79.6 GiB  healthy
│  │  └─ NIC5  0000:85:00.0  mlx5_5  InfiniBand 400 Gbit/s  active
│  └─ one card (PIX)
│     ├─ NIC1  0000:81:00.0  mlx5_1  InfiniBand 400 Gbit/s  active
│     └─ NIC2  0000:81:00.1  mlx5_2  InfiniBand 400 Gbit/s  active
";
    assert_eq!(zone_0, expected);
    assert!(text.ends_with("└─ NVLink\n   └─ GPU0-7  NV18 between every two\n"), "{text}");
}

#[test]
fn bridges_nest_and_a_bridge_that_joins_no_more_than_the_nearer_one_is_left_out() {
    let rows = ["X PIX PXB PHB", "PIX X PXB PHB", "PXB PXB X PHB", "PHB PHB PHB X"];
    let text = plain(&Sample::new(&rows, &[0, 0, 0], &[0]).build());
    let expected = "\
sample  3 x NVIDIA Test  driver 580.1  links PIX
├─ zone 0  CPUs 0-7,16-23 (16)  memory 64 GiB
│  └─ host bridge (PHB)
│     ├─ PCIe switches (PXB)
│     │  ├─ PCIe switch (PIX)
│     │  │  ├─ GPU0  0000:10:00.0  NVIDIA Test  79.6 GiB  healthy
│     │  │  └─ GPU1  0000:11:00.0  NVIDIA Test  79.6 GiB  healthy
│     │  └─ GPU2  0000:12:00.0  NVIDIA Test  79.6 GiB  healthy
│     └─ NIC0  0000:80:00.0  mlx5_0  InfiniBand 400 Gbit/s  active
└─ zone 1  CPUs 8-15,24-31 (16)  memory 64 GiB
";
    assert_eq!(text, expected);
}

#[test]
fn what_is_wrong_is_said_on_the_device_and_in_the_heading() {
    let mut sample = Sample::new(&["X SYS ?", "SYS X ?", "? ? X"], &[0, 1], &[0]);
    sample.parts.gpus[0].health = Health::Unhealthy("Xid 79, fell off the bus".to_owned());
    sample.parts.gpus[1].health = Health::Unknown("no answer in 5 s".to_owned());
    sample.parts.gpus[1].memory = None;
    sample.parts.nics[0].zone = None;
    sample.parts.nics[0].state = PortState::Down;
    sample.parts.findings.push(Finding {
        code: "gpu-unreadable".to_owned(),
        device: "0000:12:00.0".to_owned(),
        text: "the driver lists it and does not answer for it".to_owned(),
    });
    let expected = "\
sample  2 x NVIDIA Test  2 of 2 not healthy  driver 580.1  links SYS
├─ zone 0  CPUs 0-7,16-23 (16)  memory 64 GiB
│  └─ GPU0  0000:10:00.0  NVIDIA Test  79.6 GiB  unhealthy: Xid 79, fell off the bus
├─ zone 1  CPUs 8-15,24-31 (16)  memory 64 GiB
│  └─ GPU1  0000:11:00.0  NVIDIA Test  memory not known  health unknown: no answer in 5 s
├─ zone not known  (the kernel does not say; usual in virtual machines)
│  └─ NIC0  0000:80:00.0  mlx5_0  InfiniBand 400 Gbit/s  down
└─ findings
   └─ 0000:12:00.0: the driver lists it and does not answer for it (gpu-unreadable)
";
    assert_eq!(plain(&sample.build()), expected);
}

#[test]
fn a_hybrid_mesh_lists_its_pairs_and_the_gpu_that_fell_out_of_it() {
    let rows = ["X NV2/PIX NV1/PIX PIX", "NV2/PIX X PIX PIX", "NV1/PIX PIX X PIX", "PIX PIX PIX X"];
    let text = plain(&Sample::new(&rows, &[0, 0, 0, 0], &[]).build());
    let expected = "\
└─ NVLink
   ├─ GPU0-2  2 of 3 pairs joined
   │  ├─ NV2  0-1
   │  └─ NV1  0-2
   └─ no NVLink: GPU3
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn zones_that_are_a_gpus_memory_or_nothing_are_told_apart() {
    let mut sample = Sample::new(&["X"], &[0], &[]);
    for id in 2..6 {
        let memory = Some(MiB(if id == 2 { 188_416 } else { 0 }));
        sample.parts.zones.push(Zone {
            id: ZoneId(id),
            cpus: CpuSet::default(),
            memory,
            huge_pages: None,
            distances: Vec::new(),
        });
    }
    sample.parts.zones.iter_mut().for_each(|z| z.distances.clear());
    sample.parts.gpus[0].memory_zone = Some(ZoneId(2));
    let text = plain(&sample.build());
    assert!(text.contains("├─ zone 2  no CPUs  memory 184 GiB  (the memory of GPU0)\n"), "{text}");
    assert!(text.ends_with("└─ zones 3-5  no CPUs, no memory\n"), "{text}");
}

#[test]
fn a_node_without_a_driver_shows_its_cpus_and_says_so() {
    let mut sample = Sample::new(&[], &[], &[]);
    sample.parts.driver = Driver::Absent("the NVIDIA driver is not loaded".to_owned());
    let expected = "\
sample  no GPU  the NVIDIA driver is not loaded
├─ zone 0  CPUs 0-7,16-23 (16)  memory 64 GiB
└─ zone 1  CPUs 8-15,24-31 (16)  memory 64 GiB
";
    assert_eq!(plain(&sample.build()), expected);
}
