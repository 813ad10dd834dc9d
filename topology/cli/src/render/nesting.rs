//! Which bridges the devices of a zone hang below.
//!
//! A report carries the PCIe level of every pair and not the bridges themselves, so the bridges told here are those that the levels
//! imply: devices joined by PIX share a switch, by PXB a chain of switches, by PHB a host bridge.

use berth_model::{NodeTopology, PciAddress, PcieLevel, ZoneId};

use super::fabric::components;

/// A device, or a bridge with what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Matrix position of a GPU or NIC.
    Device(usize),
    /// A bridge that the levels imply.
    Frame {
        /// `PCIe switch (PIX)`.
        label: String,
        /// At least two.
        items: Vec<Item>,
    },
}

/// Levels that imply a bridge, from far to near.
const LEVELS: [PcieLevel; 3] = [PcieLevel::Phb, PcieLevel::Pxb, PcieLevel::Pix];

/// The devices of a zone below their bridges.
pub(crate) fn nesting(node: &NodeTopology, zone: Option<ZoneId>) -> Vec<Item> {
    nest(node, &devices_of(node, zone), &LEVELS)
}

/// Matrix positions of the GPUs and NICs of a zone.
fn devices_of(node: &NodeTopology, zone: Option<ZoneId>) -> Vec<usize> {
    let parts = node.parts();
    let zones = parts.gpus.iter().map(|g| g.zone).chain(parts.nics.iter().map(|n| n.zone));
    zones.enumerate().filter(|(_, z)| *z == zone).map(|(position, _)| position).collect()
}

/// The devices below the bridges that `levels` imply. A level that joins nothing more than the next nearer one is left out.
fn nest(node: &NodeTopology, members: &[usize], levels: &[PcieLevel]) -> Vec<Item> {
    let Some((level, nearer)) = levels.split_first() else {
        return members.iter().copied().map(Item::Device).collect();
    };
    let joined = |a: usize, b: usize| node.parts().links.link(a, b).is_some_and(|l| l.pcie >= Some(*level));
    let mut items = Vec::new();
    for group in components(members, joined) {
        let mut below = nest(node, &group, nearer);
        if below.len() < 2 {
            items.append(&mut below);
        } else {
            items.push(Item::Frame { label: bridge(node, &group, *level), items: below });
        }
    }
    items
}

fn bridge(node: &NodeTopology, group: &[usize], level: PcieLevel) -> String {
    let name = match level {
        PcieLevel::Pix if is_one_card(node, group) => "one card",
        PcieLevel::Pix => "PCIe switch",
        PcieLevel::Pxb => "PCIe switches",
        PcieLevel::Phb | PcieLevel::Node | PcieLevel::Sys => "host bridge",
    };
    format!("{name} ({})", level.word())
}

/// Whether all devices are functions in one slot.
fn is_one_card(node: &NodeTopology, group: &[usize]) -> bool {
    let slot = |position: &usize| address(node, *position).map(|a| (a.domain, a.bus, a.device));
    let first = group.first().and_then(slot);
    first.is_some() && group.iter().all(|p| slot(p) == first)
}

fn address(node: &NodeTopology, position: usize) -> Option<PciAddress> {
    let parts = node.parts();
    match parts.gpus.get(position) {
        Some(gpu) => Some(gpu.pci),
        None => parts.nics.get(position - parts.gpus.len()).and_then(|n| n.pci),
    }
}
