//! Functions of devices in a kernel tree: network devices, bonds, virtual functions, types of vGPU, vfio's GPUs, IOMMU groups.

use berth_model::{PciAddress, PciPath, VgpuCarrier, ZoneId};
use berth_probe::tree::{Entry, MemoryTree};

use super::{GPU, Kind, directory_of};
use crate::machine::{Machine, MachineGpu, MachineNic};

/// Type numbers of vGPUs count up from here; which number is which type differs by driver.
const VGPU_TYPE_FIRST: usize = 1400;

pub(super) fn put(tree: &mut MemoryTree, machine: &Machine) {
    for nic in &machine.nics {
        put_nic(tree, machine, nic);
    }
    for gpu in &machine.gpus {
        put_vgpu(tree, gpu);
    }
    for vfio in &machine.vfio_gpus {
        let directory = directory_of(&vfio.path);
        tree.put(format!("{directory}/driver"), to_sys(&directory, &format!("bus/pci/drivers/{}", vfio.driver)));
    }
    for (id, devices) in &machine.iommu_groups {
        for device in devices {
            let Some(directory) = directory_in(tree, *device) else { continue };
            tree.put(format!("{directory}/iommu_group"), to_sys(&directory, &format!("kernel/iommu_groups/{id}")));
            let entry = format!("sys/kernel/iommu_groups/{id}/devices/{device}");
            tree.put(entry, Entry::Link(format!("../../../../{}", below_sys(&directory))));
        }
    }
}

/// A device on the bus.
pub(super) fn put_device(tree: &mut MemoryTree, directory: &str, kind: &Kind, zone: Option<ZoneId>) {
    tree.put_line(format!("{directory}/vendor"), kind.vendor);
    tree.put_line(format!("{directory}/class"), kind.class);
    let zone = zone.map_or_else(|| "-1".to_owned(), |z| z.to_string());
    tree.put_line(format!("{directory}/numa_node"), zone);
    let name = directory.rsplit('/').next().unwrap_or_default();
    tree.put(format!("sys/bus/pci/devices/{name}"), Entry::Link(format!("../../../{}", below_sys(directory))));
}

fn below_sys(directory: &str) -> &str {
    directory.strip_prefix("sys/").unwrap_or_default()
}

/// A link from an entry of a directory below `sys` to another place there.
fn to_sys(directory: &str, place: &str) -> Entry {
    let depth = directory.split('/').count().saturating_sub(1);
    Entry::Link(format!("{}{place}", "../".repeat(depth)))
}

/// Where the bus says that a device is.
fn directory_in(tree: &MemoryTree, device: PciAddress) -> Option<String> {
    let entry = format!("sys/bus/pci/devices/{device}");
    let (_, found) = tree.entries().find(|(path, _)| **path == entry)?;
    match found {
        Entry::Link(text) => Some(format!("sys/{}", text.trim_start_matches("../"))),
        Entry::File(_) | Entry::Directory => None,
    }
}

/// The directory of a virtual function, which the bus shows beside its parent.
fn put_virtual(
    tree: &mut MemoryTree,
    parent: &PciPath,
    device: PciAddress,
    kind: &Kind,
    zone: Option<ZoneId>,
) -> String {
    let directory = directory_of(&PciPath { device, ..parent.clone() });
    put_device(tree, &directory, kind, zone);
    tree.put(format!("{directory}/physfn"), Entry::Link(format!("../{}", parent.device)));
    directory
}

fn put_nic(tree: &mut MemoryTree, machine: &Machine, nic: &MachineNic) {
    let function = &nic.function;
    if let Some(guid) = &function.card {
        tree.put_line(format!("{}/sys_image_guid", super::rdma_directory(nic)), guid);
    }
    let Some(path) = &nic.path else { return };
    let directory = directory_of(path);
    for netdev in &function.netdevs {
        let net = format!("{directory}/net/{netdev}");
        tree.put(net.clone(), Entry::Directory);
        let Some(bond) = &function.bond else { continue };
        tree.put(format!("{net}/master"), to_sys(&net, &format!("devices/virtual/net/{bond}")));
        tree.put_line(format!("{net}/bonding_slave/state"), "active");
        let slaves = machine.nics.iter().filter(|other| other.function.bond.as_ref() == Some(bond));
        let slaves: Vec<&str> = slaves.flat_map(|other| &other.function.netdevs).map(String::as_str).collect();
        tree.put_line(format!("sys/devices/virtual/net/{bond}/bonding/slaves"), slaves.join(" "));
    }
    if let Some(most) = function.function_count_max {
        tree.put_line(format!("{directory}/sriov_totalvfs"), most);
        tree.put_line(format!("{directory}/sriov_numvfs"), function.virtual_functions.len());
    }
    let kind = super::kind_of(nic);
    for (address, name) in &function.virtual_functions {
        let directory = put_virtual(tree, path, *address, kind, nic.zone);
        let Some(name) = name else { continue };
        let rdma = format!("{directory}/infiniband/{name}");
        tree.put(format!("{rdma}/device"), Entry::Link(format!("../../../{address}")));
        tree.put(format!("sys/class/infiniband/{name}"), Entry::Link(format!("../../{}", below_sys(&rdma))));
    }
}

fn put_vgpu(tree: &mut MemoryTree, gpu: &MachineGpu) {
    let Some(vgpu) = &gpu.vgpu else { return };
    let mut holders = vec![directory_of(&gpu.path)];
    if !vgpu.functions.is_empty() {
        let put = |device: &PciAddress| put_virtual(tree, &gpu.path, *device, &GPU, gpu.zone);
        holders = vgpu.functions.iter().map(put).collect();
    }
    let numbered = || vgpu.types.iter().enumerate().map(|(i, name)| (i.saturating_add(VGPU_TYPE_FIRST), name));
    for holder in holders {
        match vgpu.carrier {
            VgpuCarrier::Mdev => {
                for (number, name) in numbered() {
                    tree.put_line(format!("{holder}/mdev_supported_types/nvidia-{number}/name"), name);
                }
            }
            VgpuCarrier::Vfio => {
                let lines: Vec<String> = numbered().map(|(number, name)| format!("{number} : {name}")).collect();
                let text = format!("ID    : vGPU Name\n{}", lines.join("\n"));
                tree.put_line(format!("{holder}/nvidia/creatable_vgpu_types"), text);
            }
        }
    }
}
