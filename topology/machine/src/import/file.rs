//! Writes the machine file of a capture: a tree of bridges that gives the captured levels, with addresses made up in the order of the bus.

use std::fmt::Write as _;

use berth_model::{CpuSet, PciAddress};

use super::capture::Capture;
use super::fabric::Fabric;
use super::places::{Bus, Group, Places};
use super::{ImportError, refuse};
use crate::machine::Machine;

/// Buses of a PCI domain.
const BUSES_MAX: usize = 256;
/// Devices on one bus that get a number of their own; more become functions of these.
const DEVICES_MAX: usize = 31;
/// Longest source taken over, in characters; machine files take 200 bytes.
const SOURCE_CHARS_MAX: usize = 60;

/// The machine file without its comments.
pub(super) fn body(capture: &Capture, places: &Places, fabric: &Fabric, name: &str) -> Result<String, ImportError> {
    let said = |key: &str| capture.said.get(key).map(String::as_str).unwrap_or_default();
    let origin: String = said("source").chars().take(SOURCE_CHARS_MAX).collect();
    let origin = if origin.is_empty() { "a capture".to_owned() } else { origin };
    let driver = said("driver").split(' ').next().unwrap_or_default();
    let is_version =
        driver.contains('.') && driver.len() <= 40 && driver.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let mut out = format!("apiVersion: {}\nname: {}\n", Machine::API_VERSION, quoted(&node_name(name)));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "source: {}\nsynthetic: false", quoted(&format!("{origin}, nvidia-smi topo")));
    let _ = writeln!(out, "driver: {}", if is_version { quoted(driver) } else { "unknown".to_owned() });
    put_zones(&mut out, places);
    put_fabric(&mut out, fabric);
    put_tree(&mut out, capture, places)?;
    Ok(out)
}

/// The machine file with what it assumes.
pub(super) fn commented(capture: &Capture, assumptions: &[String], body: &str) -> String {
    let mut out = String::new();
    if let Some(machine) = capture.said.get("machine") {
        let _ = writeln!(out, "# {}", plain(machine));
    }
    out.push_str("# Imported from a capture of nvidia-smi topo. It shows how far devices are from each other; addresses are made up in the order of\n");
    out.push_str("# the bus, and products, sizes and port states are unknown until somebody fills them in.\n");
    if !assumptions.is_empty() {
        out.push_str("# Assumed:\n");
    }
    for assumption in assumptions {
        let _ = writeln!(out, "# - {}", plain(assumption));
    }
    out.push_str(body);
    out
}

/// A node name as near to the given one as can be.
fn node_name(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let fitted: String = name.chars().take(63).map(fit).collect();
    let fitted = fitted.trim_matches(['-', '.']);
    if fitted.is_empty() { "imported".to_owned() } else { fitted.to_owned() }
}

/// Foreign text without what YAML does not take even in a comment, or takes for the end of a line.
fn plain(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text).replace('\\', "\\\\").replace('"', "\\\""))
}

fn put_zones(out: &mut String, places: &Places) {
    if places.zones.is_empty() {
        out.push_str("zones: unknown\n");
        return;
    }
    out.push_str("zones:\n");
    for (id, cpus) in &places.zones {
        let cpus = cpus.as_ref().filter(|c| !c.is_empty() || !places.groups.iter().any(|g| g.zone == Some(*id)));
        let cpus = cpus.map_or_else(|| "unknown".to_owned(), |cpus| format!("\"{cpus}\""));
        let _ = writeln!(out, "- {{id: {id}, cpus: {cpus}, memoryMib: unknown}}");
    }
}

fn put_fabric(out: &mut String, fabric: &Fabric) {
    match fabric {
        Fabric::None => {}
        Fabric::Unknown => out.push_str("nvlink: {fabric: unknown}\n"),
        Fabric::Direct(pairs) => {
            out.push_str("nvlink:\n  fabric: direct\n  pairs:\n");
            for (a, b, links) in pairs {
                let _ = writeln!(out, "  - {{gpus: [{a}, {b}], links: {links}}}");
            }
        }
        Fabric::Switch { links, except } if except.is_empty() => {
            let _ = writeln!(out, "nvlink: {{fabric: nvswitch, links: {links}}}");
        }
        Fabric::Switch { links, except } => {
            let except: Vec<String> =
                except.iter().map(|(gpu, links)| format!("{{gpu: {gpu}, links: {links}}}")).collect();
            let _ = writeln!(out, "nvlink: {{fabric: nvswitch, links: {links}, except: [{}]}}", except.join(", "));
        }
    }
}

fn put_tree(out: &mut String, capture: &Capture, places: &Places) -> Result<(), ImportError> {
    out.push_str("pcie:\n");
    let mut buses = Buses { domain: 0, next: 0 };
    for (group, cascades) in places.groups.iter().zip(&places.bridges) {
        let zone = group.zone.map_or_else(|| "unknown".to_owned(), |z| z.to_string());
        match group.bus {
            Bus::Open => {
                let at = buses.reserve(1).map_or_else(|| "unknown".to_owned(), |()| buses.take().at(0).to_string());
                let _ = writeln!(out, "- host: unknown\n  zone: {zone}\n  below:");
                let device = group.devices.first().copied().unwrap_or_default();
                let at = if device < capture.gpu_count { at } else { "unknown".to_owned() };
                put_leaf(out, capture, places, device, &Leaf { indent: "  ", via: Vec::new(), at });
            }
            Bus::Pci => {
                if buses.reserve(buses_of(cascades)).is_none() {
                    let names = names(capture, group);
                    return refuse(
                        capture.header,
                        format!("{names}: more than {BUSES_MAX} buses below one host bridge"),
                    );
                }
                let root = buses.take();
                let _ = writeln!(out, "- host: pci{:04x}:{:02x}\n  zone: {zone}\n  below:", root.domain, root.bus);
                for (i, cascade) in cascades.iter().enumerate() {
                    put_cascade(out, capture, places, &mut buses, root.at(i.saturating_add(1)), cascade);
                }
            }
        }
    }
    Ok(())
}

fn names(capture: &Capture, group: &Group) -> String {
    let names: Vec<&str> = group.devices.iter().filter_map(|d| capture.labels.get(*d)).map(String::as_str).collect();
    names.join(", ")
}

/// The root bus, and per cascade: a bus of the device; or a switch (upstream and inner bus) and a bus per device; or a switch of switches.
fn buses_of(cascades: &[Vec<Vec<usize>>]) -> usize {
    let switch = |devices: &Vec<usize>| devices.len().saturating_add(2);
    let of = |cascade: &Vec<Vec<usize>>| match cascade.as_slice() {
        [single] if single.len() == 1 => 1,
        [one] => switch(one),
        many => many.iter().map(switch).sum::<usize>().saturating_add(2),
    };
    cascades.iter().map(of).sum::<usize>().saturating_add(1)
}

fn put_cascade(
    out: &mut String,
    capture: &Capture,
    places: &Places,
    buses: &mut Buses,
    root_port: PciAddress,
    cascade: &[Vec<usize>],
) {
    match cascade {
        [single] if single.len() == 1 => {
            let at = buses.take().at(0).to_string();
            let device = single.first().copied().unwrap_or_default();
            put_leaf(out, capture, places, device, &Leaf { indent: "  ", via: vec![root_port], at });
        }
        [one] => put_switch(out, capture, places, buses, "  ", &[root_port], one),
        many => {
            // Every switch has one of its own below the common one, also for a single device: else two of them would be PIX.
            let upstream = buses.take().at(0);
            let inner = buses.take();
            let _ = writeln!(out, "  - via: [{root_port}, {upstream}]\n    below:");
            for (i, switch) in many.iter().enumerate() {
                put_switch(out, capture, places, buses, "    ", &[inner.at(i)], switch);
            }
        }
    }
}

/// A switch with a port per device.
fn put_switch(
    out: &mut String,
    capture: &Capture,
    places: &Places,
    buses: &mut Buses,
    indent: &'static str,
    above: &[PciAddress],
    devices: &[usize],
) {
    let upstream = buses.take().at(0);
    let inner = buses.take();
    let via: Vec<String> = above.iter().chain([&upstream]).map(PciAddress::to_string).collect();
    let _ = writeln!(out, "{indent}- via: [{}]\n{indent}  below:", via.join(", "));
    for (i, device) in devices.iter().enumerate() {
        let at = buses.take().at(0).to_string();
        let indent = if indent.len() == 2 { "    " } else { "      " };
        put_leaf(out, capture, places, *device, &Leaf { indent, via: vec![inner.at(i)], at });
    }
}

/// How a device stands in the file.
struct Leaf {
    indent: &'static str,
    via: Vec<PciAddress>,
    at: String,
}

fn put_leaf(out: &mut String, capture: &Capture, places: &Places, device: usize, leaf: &Leaf) {
    let via: String = leaf.via.iter().map(|bridge| format!("via: [{bridge}], ")).collect();
    let nic = device.checked_sub(capture.gpu_count).and_then(|nic| capture.nic_names.get(nic));
    let what = nic.map_or_else(|| format!("gpu: {device}"), |name| format!("nic: {name}"));
    let facts = gpu_facts(capture, places, device);
    let facts = if facts.is_empty() { facts } else { format!(", gpuFacts: {{{facts}}}") };
    let _ = writeln!(out, "{}- {{{via}{what}, at: {}{facts}}}", leaf.indent, leaf.at);
}

/// What of a GPU is not as its host bridge says.
fn gpu_facts(capture: &Capture, places: &Places, device: usize) -> String {
    let Some(affinity) = capture.affinity.get(device) else { return String::new() };
    let zone = places.zone(device);
    let own = places.own_zones.get(&device).map(|zone| format!("zone: {zone}"));
    let nearest = affinity.zones.as_ref().map(|given| given.value.as_slice());
    let nearest = nearest.filter(|list| *list != zone.into_iter().collect::<Vec<_>>()).map(|list| {
        let text = CpuSet::from_cpus(list.iter().map(|id| u32::from(*id))).to_string();
        if text.is_empty() { "memoryAffinity: unknown".to_owned() } else { format!("memoryAffinity: \"{text}\"") }
    });
    let memory = affinity.memory_zone.as_ref().and_then(|given| given.value).map(|zone| format!("memoryZone: {zone}"));
    [own, nearest, memory].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Bus numbers in ascending order; a host bridge whose buses do not fit begins the next domain.
struct Buses {
    domain: u32,
    next: usize,
}

/// One bus.
#[derive(Clone, Copy)]
struct BusNumber {
    domain: u32,
    bus: u8,
}

impl BusNumber {
    /// The address of the device with this number on the bus.
    fn at(self, number: usize) -> PciAddress {
        let device = u8::try_from(number % DEVICES_MAX).unwrap_or_default();
        let function = u8::try_from(number / DEVICES_MAX).unwrap_or_default();
        PciAddress { domain: self.domain, bus: self.bus, device, function }
    }
}

impl Buses {
    /// Makes room for so many buses in one domain; `None` where none has as many.
    fn reserve(&mut self, count: usize) -> Option<()> {
        if self.next.saturating_add(count) > BUSES_MAX {
            self.domain = self.domain.saturating_add(1);
            self.next = 0;
        }
        (count <= BUSES_MAX).then_some(())
    }

    fn take(&mut self) -> BusNumber {
        let bus = u8::try_from(self.next).unwrap_or(u8::MAX);
        self.next = self.next.saturating_add(1);
        BusNumber { domain: self.domain, bus }
    }
}
