//! Claims about functions of NICs and about devices for virtual machines, on the kernel tree of a captured machine with files added.

use berth_model::{Bond, NicName, NodeTopology, PciAddress, Sriov, VgpuCarrier, VirtualFunction};
use berth_probe::probe_facts;
use berth_probe::tree::{Entry, MemoryTree};

use super::DGX_H100;
use crate::{Faults, Machine, Salt, nvml, render};

/// The directory of `mlx5_0`, and of the function beside it.
const NIC: &str = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0";
const BESIDE: &str = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.1";
const GPU: &str =
    "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:02.0/0000:19:00.0/0000:1a:00.0/0000:1b:00.0";

fn machine() -> Machine {
    Machine::parse(DGX_H100).unwrap()
}

fn tree() -> MemoryTree {
    render::tree(&machine(), &Salt::default(), &Faults::default())
}

fn report_of(tree: &MemoryTree, faults: &str, previous: Option<&NodeTopology>) -> NodeTopology {
    let machine = machine();
    let faults = Faults::parse(&format!("apiVersion: berth.dev/faults/v1\n{faults}"), &machine).unwrap();
    let nvml = nvml::facts(&machine, &Salt::default(), &faults);
    probe_facts(nvml, tree, previous, machine.name.clone()).unwrap()
}

fn report(tree: &MemoryTree) -> NodeTopology {
    report_of(tree, "", None)
}

fn address(text: &str) -> PciAddress {
    PciAddress::parse(text).unwrap()
}

fn link(tree: &mut MemoryTree, path: impl Into<String>, text: &str) {
    tree.put(path, Entry::Link(text.to_owned()));
}

/// A function on the bus with the class of another device.
fn function(tree: &mut MemoryTree, directory: &str, class: &str, vendor: &str) {
    tree.put_line(format!("{directory}/class"), class);
    tree.put_line(format!("{directory}/vendor"), vendor);
    tree.put_line(format!("{directory}/numa_node"), 0);
    let name = directory.rsplit('/').next().unwrap();
    link(tree, format!("sys/bus/pci/devices/{name}"), &directory.replacen("sys/", "../../../", 1));
}

#[test]
fn network_devices_and_the_bond_are_told_and_a_bridge_is_no_bond() {
    let mut tree = tree();
    assert_eq!(report(&tree).parts().nics[0].function, berth_model::NicFunction::default());
    tree.put(format!("{NIC}/net/ens1f0"), Entry::Directory);
    link(&mut tree, format!("{NIC}/net/ens1f0/master"), "../../../../../../../virtual/net/bond0");
    let function = report(&tree).parts().nics[0].function.clone();
    assert_eq!((function.netdevs, function.bond), (vec!["ens1f0".to_owned()], None));

    tree.put_line(format!("{NIC}/net/ens1f0/bonding_slave/state"), "active");
    tree.put_line("sys/devices/virtual/net/bond0/bonding/slaves", "ens1f1 ens1f0");
    let bond = report(&tree).parts().nics[0].function.bond.clone();
    let members = vec!["ens1f0".to_owned(), "ens1f1".to_owned()];
    assert_eq!(bond, Some(Bond { name: "bond0".to_owned(), members }));
}

#[test]
fn nics_of_one_card_are_told_by_its_guid_and_a_zero_is_none() {
    let mut tree = tree();
    let nic = |n: u8, bus: &str, device: &str| format!("sys/devices/{bus}/infiniband/mlx5_{n}/{device}");
    let pair = "pci0000:26/0000:26:01.0/0000:29:00";
    tree.put_line(nic(1, &format!("{pair}.0"), "sys_image_guid"), "9803:9b03:0067:ab58");
    tree.put_line(nic(2, &format!("{pair}.1"), "sys_image_guid"), "9803:9b03:0067:AB58");
    tree.put_line(format!("{NIC}/infiniband/mlx5_0/sys_image_guid"), "9803:9b03:0067:ab59");
    let cards = |tree: &MemoryTree| report(tree).parts().nics.iter().map(|n| n.function.card).collect::<Vec<_>>();
    let mut expected = vec![None; 12];
    (expected[1], expected[2]) = (Some(1), Some(1));
    assert_eq!(cards(&tree), expected);
    for none in ["0000:0000:0000:0000", "nonsense"] {
        tree.put_line(nic(2, &format!("{pair}.1"), "sys_image_guid"), none);
        assert_eq!(cards(&tree), vec![None; 12], "{none}");
    }
    assert_eq!(report(&tree).parts().findings.len(), 1);
}

#[test]
fn a_virtual_function_that_is_plugged_in_belongs_to_its_parent() {
    let mut tree = tree();
    let before = report(&tree);
    tree.put_line(format!("{NIC}/sriov_totalvfs"), 16);
    assert_eq!(report(&tree).parts().nics, before.parts().nics, "half of it is not known");
    tree.put_line(format!("{NIC}/sriov_numvfs"), 1);
    function(&mut tree, BESIDE, "0x020700", "0x15b3");
    link(&mut tree, format!("{BESIDE}/physfn"), "../0000:18:00.0");
    let unbound = VirtualFunction { pci: address("0000:18:00.1"), name: None };
    let node = report(&tree);
    assert_eq!(node.parts().nics[0].function.virtual_functions, std::slice::from_ref(&unbound));
    assert_eq!(node.parts().nics[0].function.sriov, Some(Sriov { function_count_max: 16, function_count: 1 }));

    link(&mut tree, format!("{BESIDE}/infiniband/mlx5_12/device"), "../../../0000:18:00.1");
    link(
        &mut tree,
        "sys/class/infiniband/mlx5_12",
        &format!("{}/infiniband/mlx5_12", BESIDE.replacen("sys/", "../../", 1)),
    );
    let node = report(&tree);
    let bound = VirtualFunction { name: NicName::parse("mlx5_12").ok(), ..unbound };
    assert_eq!(node.parts().nics[0].function.virtual_functions, [bound]);
    assert_eq!((node.parts().nics.len(), &node.parts().nics[1..]), (12, &before.parts().nics[1..]));
    assert_eq!(node.parts().findings, before.parts().findings);
}

#[test]
fn a_gpu_that_vfio_has_is_a_fact_and_no_finding() {
    let mut tree = tree();
    let unlisted = report_of(&tree, "unlisted: [0]", None);
    assert_eq!(unlisted.parts().findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["gpu-unlisted"]);
    link(&mut tree, format!("{GPU}/driver"), "../../../../../../../../bus/pci/drivers/vfio-pci");
    link(&mut tree, format!("{GPU}/iommu_group"), "../../../../../../../../kernel/iommu_groups/42");
    link(&mut tree, "sys/kernel/iommu_groups/42/devices/0000:1b:00.0", "../../../../devices/x");
    let known = report_of(&tree, "", None);
    for previous in [None, Some(&known)] {
        let node = report_of(&tree, "unlisted: [0]", previous);
        let parts = node.parts();
        assert_eq!((parts.gpus.len(), parts.findings.len()), (7, 0));
        let vfio: Vec<_> = parts.host.vfio_gpus.iter().map(|g| (g.pci, g.driver.as_str())).collect();
        assert_eq!(vfio, [(address("0000:1b:00.0"), "vfio-pci")]);
        assert_eq!((parts.host.iommu_groups[0].id, parts.host.iommu_groups[0].devices.len()), (42, 1));
    }
}

#[test]
fn iommu_groups_are_told_only_where_devices_share_one() {
    let mut tree = tree();
    link(&mut tree, format!("{GPU}/iommu_group"), "../../../../../../../../kernel/iommu_groups/7");
    assert_eq!(report(&tree).parts().host.iommu_groups, [], "a group whose devices the kernel does not list");
    for device in ["0000:1b:00.0", "0000:18:00.0"] {
        assert_eq!(report(&tree).parts().host.iommu_groups, [], "a GPU by itself");
        link(&mut tree, format!("sys/kernel/iommu_groups/7/devices/{device}"), "../../../../devices/x");
    }
    let node = report(&tree);
    let group = &node.parts().host.iommu_groups[0];
    assert_eq!((group.id, &group.devices), (7, &vec![address("0000:18:00.0"), address("0000:1b:00.0")]));
}

#[test]
fn vgpu_types_are_told_once_and_stay_while_the_gpu_fills() {
    let mut tree = tree();
    assert_eq!(report(&tree).parts().host.vgpu_hosts, []);
    let function_of_gpu = GPU.replace("1b:00.0", "1b:00.4");
    function(&mut tree, &function_of_gpu, "0x030200", "0x10de");
    link(&mut tree, format!("{function_of_gpu}/physfn"), "../0000:1b:00.0");
    let file = format!("{function_of_gpu}/nvidia/creatable_vgpu_types");
    tree.put_line(&file, "ID    : vGPU Name\n1428 : NVIDIA H100-80C\n1420 : NVIDIA H100-4C");
    let empty = report(&tree);
    let hosts = &empty.parts().host.vgpu_hosts;
    assert_eq!((hosts.len(), hosts[0].carrier, &hosts[0].gpus), (1, VgpuCarrier::Vfio, &vec![address("0000:1b:00.0")]));
    assert_eq!(hosts[0].types, ["NVIDIA H100-4C", "NVIDIA H100-80C"]);
    // Full: the kernel offers nothing any more, and the report stays as it was.
    tree.put_line(&file, "");
    assert_eq!(&report_of(&tree, "", Some(&empty)).parts().host.vgpu_hosts, hosts);
    assert_eq!(report(&tree).parts().host.vgpu_hosts, [], "never seen in this boot");

    tree.put_line(format!("{GPU}/mdev_supported_types/nvidia-105/name"), "GRID V100-1Q");
    tree.put_line(format!("{GPU}/mdev_supported_types/nvidia-105/available_instances"), 3);
    let hosts = report(&tree).parts().host.vgpu_hosts.clone();
    assert_eq!((hosts[0].carrier, hosts[0].types.as_slice()), (VgpuCarrier::Mdev, &["GRID V100-1Q".to_owned()][..]));
}
