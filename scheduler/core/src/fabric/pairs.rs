//! The facts of a fabric: links, speeds and values of all pairs of GPUs, their zones and rails. Equal facts are equal fabrics.

use berth_model::{GpuIndex, GpuSet, Link, LinkClass, NodeTopology, PcieLevel, PortState, ZoneId};

use super::rails::Rail;

/// What makes two fabrics equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pairs {
    pub(super) gpu_count: usize,
    /// Row-major `gpu_count` x `gpu_count`, as all of these; the diagonal is not used.
    links: Vec<LinkClass>,
    values: Vec<u32>,
    /// MB/s that one direction of a ring gets over the pair.
    pub(super) speeds: Vec<u32>,
    zones: Vec<Option<ZoneId>>,
    pub(super) rails: Vec<Rail>,
}

/// Worth of one NVLink in a set, against the PCIe levels below. The unit has no meaning beyond this order: one NVLink
/// carries more than any PCIe path, and the PCIe level breaks ties among NVLink-equal pairs.
const NVLINK_VALUE: u32 = 100;

fn value(link: Link) -> u32 {
    let pcie = match link.pcie {
        None => 0,
        Some(PcieLevel::Sys) => 10,
        Some(PcieLevel::Node) => 20,
        Some(PcieLevel::Phb) => 30,
        Some(PcieLevel::Pxb) => 40,
        Some(PcieLevel::Pix) => 50,
    };
    u32::from(link.nvlinks).saturating_mul(NVLINK_VALUE).saturating_add(pcie)
}

/// MB/s of one NVLink in one direction, of the generations from V100 to H100. Source: NVIDIA's data sheets of V100, A100 and H100.
const NVLINK_SPEED: u32 = 25_000;

/// MB/s of one direction. The PCIe figures are rough and are there for their order and for about how far apart they are; a path that
/// is not known is worth what the longest path gives, since none gives less.
fn speed(link: Link) -> u32 {
    if link.nvlinks > 0 {
        return u32::from(link.nvlinks).saturating_mul(NVLINK_SPEED);
    }
    match link.pcie {
        None | Some(PcieLevel::Sys) => 10_000,
        Some(PcieLevel::Node) => 13_000,
        Some(PcieLevel::Phb) => 16_000,
        Some(PcieLevel::Pxb) => 20_000,
        Some(PcieLevel::Pix) => 22_000,
    }
}

impl Pairs {
    pub(super) fn of(topology: &NodeTopology) -> Self {
        let parts = topology.parts();
        let gpu_count = parts.gpus.len();
        let cells = (0..gpu_count).flat_map(|a| (0..gpu_count).map(move |b| (a, b)));
        let cells: Vec<Link> = cells.map(|(a, b)| parts.links.link(a, b).unwrap_or_default()).collect();
        let mut rails = Vec::new();
        for gpu in parts.gpus.iter().map(|g| g.index) {
            for (nic, _) in parts.nics.iter().enumerate().filter(|(_, n)| n.state == PortState::Active) {
                let level = parts.links.link(usize::from(gpu.0), gpu_count.saturating_add(nic)).and_then(|l| l.pcie);
                if level >= Some(PcieLevel::Pxb) {
                    rails.push(Rail { gpu, nic, is_nearest: level == Some(PcieLevel::Pix) });
                }
            }
        }
        Self {
            gpu_count,
            links: cells.iter().map(|l| l.class()).collect(),
            values: cells.iter().map(|l| value(*l)).collect(),
            speeds: cells.iter().map(|l| speed(*l)).collect(),
            zones: parts.gpus.iter().map(|g| g.zone).collect(),
            rails,
        }
    }

    fn at(&self, a: GpuIndex, b: GpuIndex) -> usize {
        usize::from(a.0).saturating_mul(self.gpu_count).saturating_add(usize::from(b.0))
    }

    fn zone_of(&self, gpu: GpuIndex) -> Option<ZoneId> {
        self.zones.get(usize::from(gpu.0)).copied().flatten()
    }

    pub(super) fn value(&self, a: GpuIndex, b: GpuIndex) -> u32 {
        self.values.get(self.at(a, b)).copied().unwrap_or(0)
    }

    pub(super) fn inside(&self, set: GpuSet) -> u64 {
        within(set).fold(0, |sum, (a, b)| sum.saturating_add(u64::from(self.value(a, b))))
    }

    pub(super) fn weakest(&self, set: GpuSet) -> Option<LinkClass> {
        within(set).map(|(a, b)| self.links.get(self.at(a, b)).copied().unwrap_or(LinkClass::Unknown)).min()
    }

    pub(super) fn zone(&self, set: GpuSet) -> Option<ZoneId> {
        let mut zones = set.iter().map(|gpu| self.zone_of(gpu));
        let first = zones.next()??;
        zones.all(|z| z == Some(first)).then_some(first)
    }

    /// How many zones the set is spread over; GPUs whose zone is not known count for none.
    pub(super) fn zone_count(&self, set: GpuSet) -> u64 {
        let mut left = set;
        let mut count = 0_u64;
        while let Some(gpu) = left.highest() {
            let zone = self.zone_of(gpu);
            left = left.iter().filter(|g| *g != gpu && (zone.is_none() || self.zone_of(*g) != zone)).collect();
            count = count.saturating_add(u64::from(zone.is_some()));
        }
        count.max(1)
    }
}

fn within(set: GpuSet) -> impl Iterator<Item = (GpuIndex, GpuIndex)> {
    set.iter().flat_map(move |a| set.iter().filter(move |b| *b > a).map(move |b| (a, b)))
}
