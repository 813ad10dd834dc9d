//! Claims about the kernel's texts, and about trees that are not as they should be.

use berth_model::{LinkLayer, MiB, PciAddress, PortState, ZoneId};
use proptest::prelude::*;

use super::infiniband::{parse_link_layer, parse_rate, parse_state};
use super::numa::{parse_distances, parse_meminfo, parse_node_name};
use super::pci::{is_host_bridge, parse_hex, parse_path, parse_zone};
use super::*;
use crate::tree::{Entry, MemoryTree};

fn address(text: &str) -> PciAddress {
    PciAddress::parse(text).unwrap()
}

#[test]
fn the_way_to_a_device_starts_at_the_last_host_bridge() {
    for (directory, host, bridges, device) in [
        ("pci0000:15/0000:15:01.0/0000:16:00.0/0000:1b:00.0", "pci0000:15", 2, "0000:1b:00.0"),
        ("pci0000:00/0000:00:02.0", "pci0000:00", 0, "0000:00:02.0"),
        // VMD: a domain of five digits below another device.
        ("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", "pci10000:e0", 1, "10000:e1:00.0"),
        // Hyper-V and ACPI hosts.
        ("LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:01/pci0001:00/0001:00:00.0", "pci0001:00", 0, "0001:00:00.0"),
        ("platform/soc/14160000.pcie/pci0008:00/0008:00:00.0/0008:01:00.0", "pci0008:00", 1, "0008:01:00.0"),
    ] {
        let path = parse_path(directory).unwrap();
        assert_eq!((path.host_bridge.as_str(), path.bridges.len()), (host, bridges), "{directory}");
        assert_eq!(path.device, address(device));
    }
    for bad in
        ["", "pci0000:00", "0000:1b:00.0", "pci0000:00/0000:00:02.0/net/eth0", "virtual/net/lo", "pci/0000:00:02.0"]
    {
        assert_eq!(parse_path(bad), None, "{bad:?} was taken");
    }
    assert!(is_host_bridge("pci10000:e0"));
    assert!(["pci0000:0", "pci000:00", "pcix000:00", "0000:00"].iter().all(|n| !is_host_bridge(n)));
}

#[test]
fn kernel_texts_are_read_and_nothing_else() {
    assert_eq!([parse_hex("0x10de"), parse_hex("0x030200")], [Some(0x10de), Some(0x03_0200)]);
    assert!(["", "10de", "0x", "0xg", "0x-1", "0x+1", "0x1ffffffff"].iter().all(|t| parse_hex(t).is_none()));
    assert_eq!([parse_zone("-1"), parse_zone("3")], [Some(None), Some(Some(ZoneId(3)))]);
    assert!(["", "-2", "x", "70000"].iter().all(|t| parse_zone(t).is_none()));
    assert_eq!([parse_node_name("node0"), parse_node_name("node33")], [Some(0), Some(33)]);
    assert!(["node", "nodes", "node-1", "has_cpu", "node99999"].iter().all(|t| parse_node_name(t).is_none()));
    assert_eq!(parse_meminfo("Node 0 MemTotal:       11626708 kB\nNode 0 MemFree: 1 kB"), Some(MiB(11354)));
    assert!(["", "MemTotal: 12", "MemTotal: x kB", "MemTotal: -1 kB"].iter().all(|t| parse_meminfo(t).is_none()));
    assert_eq!(parse_distances("10 21"), Some(vec![10, 21]));
    assert!(["", "10 x", "10 -1", "99999"].iter().all(|t| parse_distances(t).is_none()));
}

#[test]
fn only_active_is_active_and_rates_are_whole_gigabits() {
    for (text, state) in [
        ("4: ACTIVE", Some(PortState::Active)),
        ("1: DOWN", Some(PortState::Down)),
        ("2: INIT", Some(PortState::Down)),
        ("5: ACTIVE_DEFER", Some(PortState::Down)),
        ("0: NOP", Some(PortState::Unknown)),
        ("9: ACTIVE", None),
        ("ACTIVE", None),
    ] {
        assert_eq!(parse_state(text), state, "{text}");
    }
    for (text, rate) in [
        ("400 Gb/sec (4X NDR)", Some(400)),
        ("2.5 Gb/sec (1X SDR)", Some(2)),
        ("400", None),
        ("x Gb/sec", None),
        ("400 Mb/sec", None),
    ] {
        assert_eq!(parse_rate(text), rate, "{text}");
    }
    assert_eq!(parse_link_layer("InfiniBand"), Some(LinkLayer::InfiniBand));
    assert_eq!(parse_link_layer("Token Ring"), None);
}

#[test]
fn a_kernel_without_numa_is_one_zone() {
    let mut tree = MemoryTree::default();
    tree.put_line("sys/devices/system/cpu/online", "0-3");
    let facts = read(&tree);
    assert_eq!(facts.zones.len(), 1);
    assert_eq!(facts.zones[0].cpus.as_ref().unwrap().to_string(), "0-3");
    assert_eq!(read(&MemoryTree::default()), SysfsFacts::default());
}

#[test]
fn links_that_lead_nowhere_are_named_and_cost_only_their_device() {
    let mut tree = MemoryTree::default();
    let device = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0";
    tree.put_line(format!("{device}/vendor"), "0x10de");
    tree.put_line(format!("{device}/class"), "0x030200");
    tree.put_line(format!("{device}/numa_node"), "-1");
    for (name, link) in [
        ("0000:01:00.0", "../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0"),
        ("0000:02:00.0", "../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0"),
        ("0000:03:00.0", "/sys/devices/pci0000:00/0000:03:00.0"),
        ("0000:04:00.0", "../../../../../../etc"),
        ("0000:05:00.0", "../../../devices/virtual/thing"),
    ] {
        tree.put(format!("sys/bus/pci/devices/{name}"), Entry::Link(link.to_owned()));
    }
    let facts = read(&tree);
    assert_eq!(facts.pci.keys().copied().collect::<Vec<_>>(), [address("0000:01:00.0")]);
    let gpu = &facts.pci[&address("0000:01:00.0")];
    assert!(gpu.is_gpu() && gpu.zone.is_none());
    let named: Vec<&str> = facts.faults.iter().map(|f| f.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(named, ["0000:02:00.0", "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"]);
}

#[test]
fn a_broken_tree_does_not_fill_the_report() {
    let mut tree = MemoryTree::default();
    for node in 0..100 {
        tree.put_line(format!("sys/devices/system/node/node{node}/cpulist"), "nonsense");
    }
    let facts = read(&tree);
    assert_eq!((facts.zones.len(), facts.faults.len()), (100, FAULTS_MAX));
    assert!(facts.faults[0].problem.starts_with("\"nonsense\" is not a CPU list"), "{:?}", facts.faults[0]);
}

proptest! {
    #[test]
    fn no_text_breaks_a_parser(text in "\\PC{0,60}|[0-9a-fx:. /-]{0,60}") {
        let _ = (parse_path(&text), parse_hex(&text), parse_zone(&text), parse_node_name(&text));
        let _ = (parse_meminfo(&text), parse_distances(&text));
        let _ = (parse_state(&text), parse_rate(&text), parse_link_layer(&text));
    }
}
