//! NICs of the report: RDMA devices in natural order, each with its best port.

use berth_model::{
    LinkLayer, Nic, NicFunction, NicName, NodeTopology, PciAddress, PciPath, PortState, VirtualFunction,
};

use super::{Findings, Zones};
use crate::facts::{PortFacts, RdmaFacts, SysfsFacts};
use crate::finding;

/// A NIC of the report with its way on the PCIe tree.
pub(super) struct TakenNic<'a> {
    pub(super) nic: Nic,
    pub(super) path: Option<&'a PciPath>,
}

/// Takes the RDMA devices of the kernel. Virtual functions are left out: they are handed to pods through their physical function,
/// whose place is theirs.
pub(super) fn take<'a>(sysfs: &'a SysfsFacts, zones: &Zones, findings: &mut Findings) -> Vec<TakenNic<'a>> {
    let mut devices: Vec<&RdmaFacts> = sysfs.rdma.iter().filter(|r| !is_virtual(sysfs, r)).collect();
    devices.sort_by_cached_key(|r| (natural_key(&r.name), r.name.clone()));
    let mut taken = Vec::new();
    for device in devices {
        let Ok(name) = NicName::parse(&device.name) else {
            findings.add(finding::NIC_REFUSED, &device.name, "left out: the name is none");
            continue;
        };
        if taken.len() >= NodeTopology::NICS_MAX {
            let text = format!("left out: at most {} NICs of a node are reported", NodeTopology::NICS_MAX);
            findings.add(finding::NIC_REFUSED, &device.name, text);
            break;
        }
        taken.push(TakenNic { nic: nic(name, device, sysfs, zones, findings), path: device.path.as_ref() });
    }
    mark_cards(&mut taken, sysfs);
    taken
}

/// Tells NICs of one card: those with one system image GUID, where there are several.
fn mark_cards(taken: &mut [TakenNic<'_>], sysfs: &SysfsFacts) {
    let guid_of =
        |nic: &Nic| sysfs.rdma.iter().find(|r| r.name == nic.name.as_str()).and_then(|device| device.card_guid.clone());
    let guids: Vec<Option<String>> = taken.iter().map(|t| guid_of(&t.nic)).collect();
    for (nic, guid) in taken.iter_mut().zip(&guids) {
        let Some(guid) = guid else { continue };
        let mut same = guids.iter().enumerate().filter(|(_, g)| g.as_ref() == Some(guid)).map(|(position, _)| position);
        let first = same.next().and_then(|position| u16::try_from(position).ok());
        nic.nic.function.card = first.filter(|_| same.next().is_some());
    }
}

fn function(device: &RdmaFacts, sysfs: &SysfsFacts) -> NicFunction {
    let pci = device.path.as_ref().map(|path| path.device);
    let rdma_at = |address: PciAddress| {
        let at = |r: &&RdmaFacts| r.path.as_ref().is_some_and(|p| p.device == address);
        sysfs.rdma.iter().find(at).and_then(|r| NicName::parse(&r.name).ok())
    };
    let of_this = sysfs.pci.iter().filter(|(_, facts)| pci.is_some() && facts.physical == pci);
    let functions = of_this.map(|(address, _)| VirtualFunction { pci: *address, name: rdma_at(*address) });
    NicFunction {
        netdevs: device.netdevs.clone(),
        bond: device.bond.clone(),
        card: None,
        sriov: pci.and_then(|address| sysfs.pci.get(&address)).and_then(|facts| facts.sriov),
        virtual_functions: functions.take(NicFunction::VIRTUAL_FUNCTIONS_MAX).collect(),
    }
}

fn is_virtual(sysfs: &SysfsFacts, device: &RdmaFacts) -> bool {
    let pci = device.path.as_ref().and_then(|path| sysfs.pci.get(&path.device));
    pci.is_some_and(|p| p.is_virtual)
}

fn nic(name: NicName, device: &RdmaFacts, sysfs: &SysfsFacts, zones: &Zones, findings: &mut Findings) -> Nic {
    let pci = device.path.as_ref().map(|path| path.device);
    // A software device (rxe over any interface) has no place, on a machine with one zone neither.
    let zone = match (pci, device.zone) {
        (Some(address), _) => {
            let claimed = sysfs.pci.get(&address).and_then(|p| p.zone);
            zones.of_device(claimed, &device.name, findings)
        }
        (None, Some(_)) => zones.of_device(device.zone, &device.name, findings),
        (None, None) => None,
    };
    let best = device.ports.iter().max_by_key(|port| rank(port));
    Nic {
        name,
        pci,
        zone,
        link_layer: best.map_or(LinkLayer::Unknown, |p| p.link_layer),
        state: best.map_or(PortState::Unknown, |p| p.state),
        rate_gbps: best.and_then(|p| p.rate_gbps),
        function: function(device, sysfs),
    }
}

/// The best port is active, then the fastest.
fn rank(port: &PortFacts) -> (u8, Option<u32>) {
    let state = match port.state {
        PortState::Active => 2,
        PortState::Down => 1,
        PortState::Unknown => 0,
    };
    (state, port.rate_gbps)
}

/// Sorts `mlx5_2` before `mlx5_10`, the order in which `nvidia-smi` numbers NICs: text and numbers in turns.
fn natural_key(name: &str) -> Vec<(String, u64)> {
    let mut key: Vec<(String, u64)> = vec![(String::new(), 0)];
    let mut in_number = false;
    for c in name.chars() {
        let digit = c.to_digit(10);
        if in_number && digit.is_none() {
            key.push((String::new(), 0));
        }
        in_number = digit.is_some();
        let Some((text, number)) = key.last_mut() else { continue };
        match digit {
            Some(digit) => *number = number.saturating_mul(10).saturating_add(u64::from(digit)),
            None => text.push(c),
        }
    }
    key
}
