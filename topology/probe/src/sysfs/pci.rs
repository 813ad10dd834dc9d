//! PCI devices and the bridges above them, from `sys/bus/pci/devices`.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::gpu::detail::PcieLink;
use berth_model::{PciAddress, PciPath, Sriov, ZoneId};

use super::{Reader, vgpu};
use crate::facts::PciFacts;
use crate::tree::resolve;

const DEVICES: &str = "sys/bus/pci/devices";
const GROUPS: &str = "sys/kernel/iommu_groups";
/// Most IOMMU groups looked into: more than GPUs and NICs of one node together.
const GROUPS_READ_MAX: usize = 512;

/// Reads all devices but those of `known` that are of no interest: under its address, a bridge stays what it was.
pub(super) fn read(reader: &mut Reader<'_>, known: &BTreeMap<PciAddress, PciFacts>) -> BTreeMap<PciAddress, PciFacts> {
    let mut devices = BTreeMap::new();
    for name in names(reader) {
        let known = PciAddress::parse(&name).ok().and_then(|address| known.get_key_value(&address));
        if let Some((address, facts)) = known.filter(|(_, facts)| !facts.class.is_none_or(is_of_interest)) {
            devices.insert(*address, facts.clone());
            continue;
        }
        let entry = format!("{DEVICES}/{name}");
        let Some((address, facts)) = read_device(reader, &entry, &name) else { continue };
        devices.insert(address, facts);
    }
    devices
}

/// Names of all devices.
pub(super) fn names(reader: &mut Reader<'_>) -> Vec<String> {
    reader.list(DEVICES)
}

fn read_device(reader: &mut Reader<'_>, entry: &str, name: &str) -> Option<(PciAddress, PciFacts)> {
    let text = reader.link(entry)?;
    let Some((directory, path)) = follow(entry, &text) else {
        reader.fault(entry, "the link does not lead to a device below a PCI host bridge");
        return None;
    };
    let address = PciAddress::parse(name).ok().filter(|a| *a == path.device);
    let Some(address) = address else {
        reader.fault(entry, format!("the name differs from the device {} that it leads to", path.device));
        return None;
    };
    let vendor = reader.parsed(&format!("{directory}/vendor"), "a hexadecimal id like 0x10de", parse_hex);
    let class = reader.parsed(&format!("{directory}/class"), "a hexadecimal class like 0x030200", parse_hex);
    let mut facts = PciFacts {
        path,
        vendor,
        class,
        zone: None,
        is_virtual: false,
        physical: None,
        sriov: None,
        driver: None,
        iommu_group: None,
        vgpu: None,
        slot: None,
    };
    // Hundreds of bridges and endpoints of no interest would cost two reads each.
    if class.is_none_or(is_of_interest) {
        let zone = reader.parsed(&format!("{directory}/numa_node"), "a zone number or -1", parse_zone);
        facts.zone = zone.flatten();
        let physical = reader.link(&format!("{directory}/physfn"));
        facts.is_virtual = physical.is_some();
        facts.physical = physical.and_then(|text| PciAddress::parse(last_part(&text)).ok());
        facts.sriov = read_sriov(reader, &directory);
        if facts.is_gpu() {
            facts.slot = read_slot(reader, &directory);
            facts.driver = reader.link(&format!("{directory}/driver")).map(|text| last_part(&text).to_owned());
        }
        if facts.vendor == Some(PciFacts::VENDOR_NVIDIA) && class.is_some_and(|c| c >> 16 == 0x03) {
            facts.vgpu = vgpu::read(reader, &directory);
        }
        let group = reader.link(&format!("{directory}/iommu_group"));
        facts.iommu_group = group.and_then(|text| last_part(&text).parse().ok());
    }
    Some((address, facts))
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// A device without virtual functions to give shows neither file.
fn read_sriov(reader: &mut Reader<'_>, directory: &str) -> Option<Sriov> {
    let number = |text: &str| text.parse::<u16>().ok();
    let function_count_max = reader.parsed(&format!("{directory}/sriov_totalvfs"), "a number", number)?;
    let function_count = reader.parsed(&format!("{directory}/sriov_numvfs"), "a number", number)?;
    Some(Sriov { function_count_max, function_count })
}

/// The devices of each IOMMU group that a GPU or NIC is in.
pub(super) fn read_groups(
    reader: &mut Reader<'_>,
    devices: &BTreeMap<PciAddress, PciFacts>,
) -> BTreeMap<u32, Vec<PciAddress>> {
    let ids: BTreeSet<u32> = devices.values().filter(|d| !d.is_virtual).filter_map(|d| d.iommu_group).collect();
    let members = |id: u32| {
        let names = reader.list(&format!("{GROUPS}/{id}/devices"));
        (id, names.iter().filter_map(|name| PciAddress::parse(name).ok()).collect())
    };
    ids.into_iter().take(GROUPS_READ_MAX).map(members).collect()
}

/// The best link that the bridge above a device allows. A virtual machine's bridges do not say, which is no fault.
fn read_slot(reader: &mut Reader<'_>, directory: &str) -> Option<PcieLink> {
    let (parent, _) = directory.rsplit_once('/')?;
    let generation = reader.parsed(&format!("{parent}/max_link_speed"), "a speed like 32.0 GT/s PCIe", parse_speed)?;
    let width = reader.parsed(&format!("{parent}/max_link_width"), "a number of lanes", |t| t.parse::<u8>().ok())?;
    PcieLink::new(generation?, width)
}

/// `32.0 GT/s PCIe`, or `8 GT/s` from kernels before 5.x, as a generation; `Some(None)` for `Unknown` and speeds yet to come.
#[must_use]
pub fn parse_speed(text: &str) -> Option<Option<u8>> {
    let speed = text.split_ascii_whitespace().next()?;
    // Source: PCI Express Base Specification, transfer rates by generation.
    let generation = match speed.strip_suffix(".0").unwrap_or(speed) {
        "2.5" => Some(1),
        "5" => Some(2),
        "8" => Some(3),
        "16" => Some(4),
        "32" => Some(5),
        "64" => Some(6),
        _ => None,
    };
    Some(generation)
}

/// Network (02), display (03), other bridge (0680: NVSwitch), InfiniBand (0c06), accelerator (12). Source: PCI Code and ID
/// Assignment Specification.
fn is_of_interest(class: u32) -> bool {
    matches!(class >> 16, 0x02 | 0x03 | 0x12) || matches!(class >> 8, 0x0680 | 0x0c06)
}

/// Follows a link by hand to a device directory and reads the way from its path.
pub(super) fn follow(link_path: &str, link_text: &str) -> Option<(String, PciPath)> {
    let directory = resolve(link_path, link_text).ok()?;
    let path = parse_path(directory.strip_prefix("sys/devices/")?)?;
    Some((directory, path))
}

/// Reads the way to a device from its directory below `sys/devices`.
///
/// The last host bridge counts: a VMD or Hyper-V root stands below other components. Components that are no PCI address are no
/// bridges. The last component is the device.
#[must_use]
pub fn parse_path(directory: &str) -> Option<PciPath> {
    let mut host_bridge = None;
    let mut chain: Vec<PciAddress> = Vec::new();
    let mut last_is_address = false;
    for part in directory.split('/') {
        last_is_address = false;
        if is_host_bridge(part) {
            host_bridge = Some(part.to_owned());
            chain.clear();
        } else if let Ok(address) = PciAddress::parse(part) {
            chain.push(address);
            last_is_address = true;
        }
    }
    let device = chain.pop().filter(|_| last_is_address)?;
    Some(PciPath { host_bridge: host_bridge?, bridges: chain, device })
}

/// `pci0000:00`, with a domain of four or more hexadecimal digits.
#[must_use]
pub fn is_host_bridge(name: &str) -> bool {
    let Some((domain, bus)) = name.strip_prefix("pci").and_then(|rest| rest.split_once(':')) else { return false };
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    (4..=8).contains(&domain.len()) && bus.len() == 2 && hex(domain) && hex(bus)
}

/// `0x10de`.
#[must_use]
pub fn parse_hex(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    // `from_str_radix` would take a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// `numa_node`: `Some(None)` for -1, the kernel's word for unknown.
#[must_use]
pub fn parse_zone(text: &str) -> Option<Option<ZoneId>> {
    if text == "-1" {
        return Some(None);
    }
    text.parse().ok().map(|id| Some(ZoneId(id)))
}
