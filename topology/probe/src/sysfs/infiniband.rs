//! RDMA devices and their ports, from `sys/class/infiniband`.

use berth_model::{LinkLayer, PciPath, PortState, ZoneId};

use super::{Reader, netdev, pci};
use crate::facts::{PortFacts, RdmaFacts};
use crate::tree::resolve;

const CLASS: &str = "sys/class/infiniband";
/// Most ports of one device taken. Adapters have one or two; InfiniBand switches as devices have up to 80.
const PORTS_MAX: usize = 128;

pub(super) fn read(reader: &mut Reader<'_>) -> Vec<RdmaFacts> {
    names(reader).into_iter().map(|name| read_device(reader, name)).collect()
}

/// Names of all devices.
pub(super) fn names(reader: &mut Reader<'_>) -> Vec<String> {
    reader.list(CLASS)
}

/// The files that hold the states of all ports.
pub(super) fn state_files(reader: &mut Reader<'_>) -> Vec<String> {
    let mut files = Vec::new();
    for name in names(reader) {
        let Some(directory) = directory(reader, &name) else { continue };
        files.extend(ports(reader, &directory).into_iter().map(|port| format!("{directory}/ports/{port}/state")));
    }
    files
}

/// Where a device's files are; `None` when its link leads out of the tree.
fn directory(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    let entry = format!("{CLASS}/{name}");
    // The class entry is a link on a kernel, and a plain directory in some copies of one.
    let Some(text) = reader.link(&entry) else { return Some(entry) };
    let directory = resolve(&entry, &text).ok();
    if directory.is_none() {
        reader.fault(&entry, "the link leads out of the tree");
    }
    directory
}

/// Numbers of a device's ports.
fn ports(reader: &mut Reader<'_>, directory: &str) -> Vec<u32> {
    let mut ports: Vec<u32> =
        reader.list(&format!("{directory}/ports")).iter().filter_map(|p| p.parse().ok()).collect();
    ports.sort_unstable();
    ports.truncate(PORTS_MAX);
    ports
}

fn read_device(reader: &mut Reader<'_>, name: String) -> RdmaFacts {
    let Some(directory) = directory(reader, &name) else { return RdmaFacts { name, ..RdmaFacts::default() } };
    let path = read_path(reader, &directory);
    let zone = if path.is_none() { read_zone(reader, &directory) } else { None };
    let ports = ports(reader, &directory)
        .into_iter()
        .map(|port| read_port(reader, &format!("{directory}/ports/{port}")))
        .collect();
    let guid = reader.parsed(&format!("{directory}/sys_image_guid"), "a GUID like 9803:9b03:0067:ab58", parse_guid);
    let device = path.as_ref().map(|_| format!("{directory}/device")).and_then(|link| {
        let text = reader.link(&link)?;
        resolve(&link, &text).ok()
    });
    let netdevs = device.as_ref().map(|device| netdev::read(reader, device)).unwrap_or_default();
    let bond = device.as_ref().and_then(|device| netdev::read_bond(reader, device, &netdevs));
    RdmaFacts { name, path, zone, ports, card_guid: guid.flatten(), netdevs, bond }
}

/// The PCI device behind `device`. A software device (rxe, siw) has none, or one that is not on PCI.
fn read_path(reader: &mut Reader<'_>, directory: &str) -> Option<PciPath> {
    let link = format!("{directory}/device");
    let text = reader.link(&link)?;
    pci::follow(&link, &text).map(|(_, path)| path)
}

/// The zone of a device that is not on PCI. A software device has no `device` link and no zone.
fn read_zone(reader: &mut Reader<'_>, directory: &str) -> Option<ZoneId> {
    let link = format!("{directory}/device");
    let text = reader.link(&link)?;
    let device = resolve(&link, &text).ok()?;
    reader.parsed(&format!("{device}/numa_node"), "a zone number or -1", pci::parse_zone).flatten()
}

fn read_port(reader: &mut Reader<'_>, directory: &str) -> PortFacts {
    let state = reader.parsed(&format!("{directory}/state"), "a port state like 4: ACTIVE", parse_state);
    let layer = reader.parsed(&format!("{directory}/link_layer"), "InfiniBand or Ethernet", parse_link_layer);
    PortFacts {
        state: state.unwrap_or(PortState::Unknown),
        rate_gbps: reader.parsed(&format!("{directory}/rate"), "a rate like 400 Gb/sec (4X NDR)", parse_rate),
        link_layer: layer.unwrap_or(LinkLayer::Unknown),
    }
}

/// `9803:9b03:0067:ab58`: `Some(None)` for the zero of a device that has none.
#[must_use]
pub fn parse_guid(text: &str) -> Option<Option<String>> {
    let parts: Vec<&str> = text.split(':').collect();
    let hex = |p: &&str| p.len() == 4 && p.bytes().all(|b| b.is_ascii_hexdigit());
    let is_zero = text.bytes().all(|b| matches!(b, b'0' | b':'));
    (parts.len() == 4 && parts.iter().all(hex)).then(|| (!is_zero).then(|| text.to_ascii_lowercase()))
}

/// `4: ACTIVE`. Everything between down and active (INIT, ARMED, ACTIVE_DEFER) carries no traffic now.
#[must_use]
pub fn parse_state(text: &str) -> Option<PortState> {
    let (number, _) = text.split_once(':')?;
    match number.trim().parse::<u8>().ok()? {
        0 => Some(PortState::Unknown),
        4 => Some(PortState::Active),
        1..=5 => Some(PortState::Down),
        _ => None,
    }
}

/// `InfiniBand`, `Ethernet`.
#[must_use]
pub fn parse_link_layer(text: &str) -> Option<LinkLayer> {
    match text {
        "InfiniBand" => Some(LinkLayer::InfiniBand),
        "Ethernet" => Some(LinkLayer::Ethernet),
        "Unspecified" | "Unknown" => Some(LinkLayer::Unknown),
        _ => None,
    }
}

/// `400 Gb/sec (4X NDR)`, `2.5 Gb/sec (1X SDR)`: whole Gbit/s, rounded down.
#[must_use]
pub fn parse_rate(text: &str) -> Option<u32> {
    let (number, unit) = text.split_once(' ')?;
    let whole = number.split_once('.').map_or(number, |(whole, _)| whole);
    whole.parse().ok().filter(|_| unit.starts_with("Gb/sec"))
}
