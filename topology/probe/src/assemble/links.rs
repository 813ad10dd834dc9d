//! The link matrix: PCIe levels from the chains of bridges, NVLinks from what each side says.

use std::collections::BTreeSet;

use berth_model::{Gpu, Link, LinkMatrix, NodeTopology, PciAddress, PciPath, PcieLevel, ZoneId};

use super::Findings;
use super::gpus::TakenGpu;
use super::nics::TakenNic;
use crate::facts::{NvLinkFacts, NvmlFailure, RemoteDevice, SysfsFacts};
use crate::finding;

/// The matrix of all GPUs, then all NICs.
pub(super) fn matrix(
    sysfs: &SysfsFacts,
    gpus: &[TakenGpu<'_>],
    nics: &[TakenNic<'_>],
    findings: &mut Findings,
) -> LinkMatrix {
    let ends: Vec<NvLinkEnds> = NvLinkEnds::of_all(sysfs, gpus, findings);
    let gpu_places = gpus.iter().map(|g| Place { way: g.path.map_or(Way::Unseen, Way::Pci), zone: g.gpu.zone });
    let nic_places = nics.iter().map(|n| Place { way: n.path.map_or(Way::OffPci, Way::Pci), zone: n.nic.zone });
    let places: Vec<Place<'_>> = gpu_places.chain(nic_places).collect();
    LinkMatrix::build(places.len(), |a, b| {
        let pcie = places.get(a).zip(places.get(b)).and_then(|(a, b)| a.level(b));
        let nvlinks = match (ends.get(a), ends.get(b)) {
            (Some(one), Some(other)) => one.count_to(other),
            _ => 0,
        };
        Link { nvlinks, pcie }
    })
}

/// Where a device is.
struct Place<'a> {
    way: Way<'a>,
    zone: Option<ZoneId>,
}

/// How a device hangs on the machine.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// On PCI.
    Pci(&'a PciPath),
    /// On another bus.
    OffPci,
    /// On PCI, the kernel does not show where.
    Unseen,
}

impl Place<'_> {
    /// The level between two devices; `None` where what is known of them leaves it open.
    fn level(&self, other: &Self) -> Option<PcieLevel> {
        let (zone, other_zone) = (self.zone, other.zone);
        match (self.way, other.way) {
            (Way::Pci(path), Way::Pci(other)) => path.level(zone, other, other_zone),
            // No bridge spans two zones, and a way from PCI to another bus leads through a host bridge.
            _ if zone? != other_zone? => Some(PcieLevel::Sys),
            (Way::Pci(_), Way::OffPci) | (Way::OffPci, Way::Pci(_)) => Some(PcieLevel::Node),
            (Way::Unseen, _) | (_, Way::Unseen) | (Way::OffPci, Way::OffPci) => None,
        }
    }
}

/// Says which GPUs lost NVLinks. A link that is down is no fault in itself: bridges that are not fitted look the same. It is one where a GPU
/// of the same product on the node has more links up, or where the previous report had more, and stays one until they are back.
pub(super) fn note_down(gpus: &[TakenGpu<'_>], previous: Option<&NodeTopology>, findings: &mut Findings) {
    let up = |gpu: &Gpu| {
        gpu.detail.board.nvlink_count.map(|count| usize::from(count).saturating_sub(gpu.detail.nvlinks_down.len()))
    };
    for taken in gpus.iter().filter(|t| t.nvlinks.is_some() && !t.gpu.detail.nvlinks_down.is_empty()) {
        let gpu = &taken.gpu;
        let like = gpus.iter().filter(|t| t.gpu.product == gpu.product);
        let fewer_than_like = like.filter_map(|t| up(&t.gpu)).max() > up(gpu);
        let before = previous.map(NodeTopology::parts);
        let known = before.and_then(|p| p.gpus.iter().find(|g| g.uuid == gpu.uuid));
        let fewer_than_before = known.is_some_and(|known| up(known) > up(gpu));
        let name = gpu.pci.to_string();
        let said_before = before.is_some_and(|p| {
            known.is_some() && p.findings.iter().any(|f| f.code == finding::NVLINK_DOWN && f.device == name)
        });
        if fewer_than_like || fewer_than_before || said_before {
            let numbers: Vec<String> = gpu.detail.nvlinks_down.iter().map(u8::to_string).collect();
            let text = format!("NVLinks {} are down", numbers.join(","));
            findings.add(finding::NVLINK_DOWN, &name, text);
        }
    }
}

/// Where the active NVLinks of a GPU end.
struct NvLinkEnds {
    address: PciAddress,
    /// Whether the GPU said anything; a silent one leaves the word to its peer.
    answered: bool,
    /// One entry per link to another GPU.
    peers: Vec<PciAddress>,
    /// Links into switches.
    switch_links: usize,
}

impl NvLinkEnds {
    fn of_all(sysfs: &SysfsFacts, gpus: &[TakenGpu<'_>], findings: &mut Findings) -> Vec<Self> {
        let addresses: BTreeSet<PciAddress> = gpus.iter().map(|g| g.gpu.pci).collect();
        gpus.iter().map(|gpu| Self::of(sysfs, &addresses, gpu, findings)).collect()
    }

    fn of(sysfs: &SysfsFacts, gpus: &BTreeSet<PciAddress>, gpu: &TakenGpu<'_>, findings: &mut Findings) -> Self {
        let mut ends = Self { address: gpu.gpu.pci, answered: false, peers: Vec::new(), switch_links: 0 };
        let mut failure: Option<&NvmlFailure> = None;
        match gpu.nvlinks {
            None => {}
            Some(Err(why)) => failure = Some(why),
            Some(Ok(links)) => {
                ends.answered = true;
                for link in links {
                    match &link.active {
                        Ok(true) => ends.add(sysfs, gpus, link),
                        Ok(false) => {}
                        Err(why) => failure = failure.or(Some(why)),
                    }
                }
            }
        }
        if let Some(why) = failure.filter(|why| why.blames_device()) {
            let text = format!("NVLinks are not all counted: {why}");
            findings.add(finding::NVLINK_UNREADABLE, &gpu.gpu.pci.to_string(), text);
        }
        ends
    }

    /// Adds one active link. A library without the remote type leaves the address: a GPU's, or that of an NVSwitch on the PCI bus.
    fn add(&mut self, sysfs: &SysfsFacts, gpus: &BTreeSet<PciAddress>, link: &NvLinkFacts) {
        if link.remote == Ok(RemoteDevice::Switch) {
            self.switch_links = self.switch_links.saturating_add(1);
            return;
        }
        let Ok(address) = link.remote_pci else { return };
        if gpus.contains(&address) {
            self.peers.push(address);
        } else if sysfs.pci.get(&address).is_some_and(crate::facts::PciFacts::is_nvswitch) {
            self.switch_links = self.switch_links.saturating_add(1);
        }
    }

    fn direct_to(&self, other: &Self) -> Option<usize> {
        self.answered.then(|| self.peers.iter().filter(|p| **p == other.address).count())
    }

    /// NVLinks between two GPUs. A switch reaches every GPU that has links into it; a direct link counts when both ends see it, or
    /// when the other end is silent.
    fn count_to(&self, other: &Self) -> u8 {
        let direct = match (self.direct_to(other), other.direct_to(self)) {
            (Some(a), Some(b)) => a.min(b),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 0,
        };
        let count = direct.max(self.switch_links.min(other.switch_links));
        u8::try_from(count).unwrap_or(Link::NVLINKS_MAX).min(Link::NVLINKS_MAX)
    }
}
