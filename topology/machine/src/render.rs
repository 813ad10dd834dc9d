//! The kernel tree of a machine: what `sys` and `proc` would show, in memory or written below a directory. The host's part is in [`host`].

mod function;
mod host;

use std::collections::BTreeMap;
use std::path::Path;

use berth_model::{LinkLayer, PciPath, PortState, ZoneId};
use berth_probe::tree::{Entry, MemoryTree};

use crate::faults::Faults;
use crate::identity::Salt;
use crate::machine::{BootIdSource, Machine, MachineGpu, MachineNic, MachineZone};

/// What sysfs says of a kind of device. Sources: the PCI ID database; PCI Code and ID Assignment Specification.
struct Kind {
    vendor: &'static str,
    class: &'static str,
}

const BRIDGE: Kind = Kind { vendor: "0x1000", class: "0x060400" };
const GPU: Kind = Kind { vendor: "0x10de", class: "0x030200" };
const NVSWITCH: Kind = Kind { vendor: "0x10de", class: "0x068000" };
const NIC_INFINIBAND: Kind = Kind { vendor: "0x15b3", class: "0x020700" };
const NIC_ETHERNET: Kind = Kind { vendor: "0x15b3", class: "0x020000" };

/// Renders the kernel tree of a machine.
#[must_use]
pub fn tree(machine: &Machine, salt: &Salt, faults: &Faults) -> MemoryTree {
    let mut tree = MemoryTree::default();
    // A machine without NVIDIA and RDMA hardware has these directories all the same.
    for directory in ["sys/bus/pci/devices", "sys/devices/system", "sys/class", "proc/sys/kernel/random"] {
        tree.put(directory, Entry::Directory);
    }
    if let Some(id) = boot_id(machine, salt) {
        tree.put_line("proc/sys/kernel/random/boot_id", id);
    }
    put_zones(&mut tree, &machine.zones);
    host::put(&mut tree, machine);
    let devices = Devices::of(machine);
    devices.put(&mut tree);
    for gpu in &machine.gpus {
        put_slot(&mut tree, gpu);
    }
    for nic in &machine.nics {
        put_rdma(&mut tree, nic, faults);
    }
    function::put(&mut tree, machine);
    tree
}

/// The boot id of a machine under a salt; `None` when its kernel shows none.
#[must_use]
pub fn boot_id(machine: &Machine, salt: &Salt) -> Option<String> {
    match machine.boot_id.as_ref()? {
        BootIdSource::Given(text) if salt.is_empty() => Some(text.clone()),
        BootIdSource::Given(text) => Some(salt.uuid(&["boot", text])),
        BootIdSource::Derived => Some(salt.uuid(&["boot", machine.name.as_str()])),
    }
}

/// Writes a rendered tree below a directory, which is made if it is not there. Entries that stand there already are replaced.
///
/// # Errors
/// The first error of the file system.
#[cfg(unix)]
pub fn write(tree: &MemoryTree, root: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    for (path, entry) in tree.entries() {
        let at = root.join(path);
        match entry {
            Entry::Directory => std::fs::create_dir_all(&at)?,
            Entry::File(text) if std::fs::read(&at).is_ok_and(|old| old == text.as_bytes()) => {}
            // A new file renamed over the old one: a reader sees either, never half of it.
            Entry::File(text) => {
                let fresh = at.with_extension("berth-new");
                std::fs::write(&fresh, text)?;
                std::fs::rename(&fresh, &at)?;
            }
            Entry::Link(text) => match std::fs::read_link(&at) {
                Ok(old) if old.as_os_str() == text.as_str() => {}
                Ok(_) => {
                    std::fs::remove_file(&at)?;
                    std::os::unix::fs::symlink(text, &at)?;
                }
                Err(_) => std::os::unix::fs::symlink(text, &at)?,
            },
        }
    }
    Ok(())
}

fn put_zones(tree: &mut MemoryTree, zones: &[MachineZone]) {
    for zone in zones {
        let node = format!("sys/devices/system/node/node{}", zone.id);
        tree.put(node.clone(), Entry::Directory);
        if let Some(cpus) = &zone.cpus {
            tree.put_line(format!("{node}/cpulist"), cpus);
        }
        if let Some(memory) = zone.memory {
            let kib = memory.0.saturating_mul(1024);
            tree.put_line(format!("{node}/meminfo"), format!("Node {} MemTotal:       {kib} kB", zone.id));
        }
        if let Some(pools) = &zone.huge_pages {
            host::put_huge_pages(tree, &format!("{node}/hugepages"), pools);
        }
        if let Some(distances) = &zone.distances {
            let text: Vec<String> = distances.iter().map(u16::to_string).collect();
            tree.put_line(format!("{node}/distance"), text.join(" "));
        }
    }
}

/// PCI devices by their directory, bridges among them.
struct Devices {
    by_directory: BTreeMap<String, (&'static Kind, Option<ZoneId>)>,
}

impl Devices {
    fn of(machine: &Machine) -> Self {
        let mut devices = Self { by_directory: BTreeMap::new() };
        for gpu in machine.gpus.iter().filter(|g| g.shown) {
            devices.add(&gpu.path, &GPU, gpu.zone);
        }
        for vfio in &machine.vfio_gpus {
            devices.add(&vfio.path, &GPU, vfio.zone);
        }
        for path in &machine.nvswitches {
            devices.add(path, &NVSWITCH, None);
        }
        for nic in &machine.nics {
            if let Some(path) = &nic.path {
                devices.add(path, kind_of(nic), nic.zone);
            }
        }
        devices
    }

    fn add(&mut self, path: &PciPath, kind: &'static Kind, zone: Option<ZoneId>) {
        let mut directory = format!("sys/devices/{}", path.host_bridge);
        for bridge in &path.bridges {
            directory = format!("{directory}/{bridge}");
            self.by_directory.entry(directory.clone()).or_insert((&BRIDGE, zone));
        }
        self.by_directory.insert(directory_of(path), (kind, zone));
    }

    fn put(&self, tree: &mut MemoryTree) {
        for (directory, (kind, zone)) in &self.by_directory {
            function::put_device(tree, directory, kind, *zone);
        }
    }
}

/// The link that the bridge above a GPU allows.
fn put_slot(tree: &mut MemoryTree, gpu: &MachineGpu) {
    let directory = directory_of(&gpu.path);
    let Some((Some((bridge, _)), slot)) = gpu.slot.map(|slot| (directory.rsplit_once('/'), slot)) else { return };
    // Source: PCI Express Base Specification, transfer rates by generation.
    let speed = match slot.generation {
        1 => "2.5 GT/s PCIe",
        2 => "5.0 GT/s PCIe",
        3 => "8.0 GT/s PCIe",
        4 => "16.0 GT/s PCIe",
        5 => "32.0 GT/s PCIe",
        6 => "64.0 GT/s PCIe",
        _ => "Unknown",
    };
    tree.put_line(format!("{bridge}/max_link_speed"), speed);
    tree.put_line(format!("{bridge}/max_link_width"), slot.width.to_string());
}

fn directory_of(path: &PciPath) -> String {
    let mut directory = format!("sys/devices/{}", path.host_bridge);
    for part in path.bridges.iter().chain([&path.device]) {
        directory = format!("{directory}/{part}");
    }
    directory
}

fn kind_of(nic: &MachineNic) -> &'static Kind {
    if nic.link_layer == Some(LinkLayer::Ethernet) { &NIC_ETHERNET } else { &NIC_INFINIBAND }
}

/// The directory of an RDMA device on PCI; the class entry of another one is no directory, and it has no card.
fn rdma_directory(nic: &MachineNic) -> String {
    let path = nic.path.as_ref().map(directory_of).unwrap_or_default();
    format!("{path}/infiniband/{}", nic.name)
}

/// The directory of an RDMA device that is not on PCI: on the chip itself where it has a zone, else software.
fn put_off_pci(tree: &mut MemoryTree, nic: &MachineNic) -> String {
    let Some(zone) = nic.zone else { return format!("sys/devices/virtual/infiniband/{}", nic.name) };
    let device = format!("sys/devices/platform/{}", nic.name);
    tree.put_line(format!("{device}/numa_node"), zone);
    let directory = format!("{device}/infiniband/{}", nic.name);
    tree.put(format!("{directory}/device"), Entry::Link(format!("../../../{}", nic.name)));
    directory
}

fn put_rdma(tree: &mut MemoryTree, nic: &MachineNic, faults: &Faults) {
    let directory = match &nic.path {
        Some(path) => {
            let directory = rdma_directory(nic);
            tree.put(format!("{directory}/device"), Entry::Link(format!("../../../{}", path.device)));
            directory
        }
        None => put_off_pci(tree, nic),
    };
    let below_sys = directory.strip_prefix("sys/").unwrap_or_default().to_owned();
    tree.put(format!("sys/class/infiniband/{}", nic.name), Entry::Link(format!("../../{below_sys}")));
    tree.put_line(format!("{directory}/node_type"), "1: CA");
    let port = format!("{directory}/ports/1");
    tree.put(port.clone(), Entry::Directory);
    let down = faults.ports_down.contains(&nic.name);
    match nic.state {
        Some(PortState::Active) if !down => tree.put_line(format!("{port}/state"), "4: ACTIVE"),
        Some(PortState::Active | PortState::Down) => tree.put_line(format!("{port}/state"), "1: DOWN"),
        Some(PortState::Unknown) | None => {}
    }
    if let Some(rate) = nic.rate_gbps {
        tree.put_line(format!("{port}/rate"), format!("{rate} Gb/sec (4X)"));
    }
    match nic.link_layer {
        Some(LinkLayer::InfiniBand) => tree.put_line(format!("{port}/link_layer"), "InfiniBand"),
        Some(LinkLayer::Ethernet) => tree.put_line(format!("{port}/link_layer"), "Ethernet"),
        Some(LinkLayer::Unknown) | None => {}
    }
}
