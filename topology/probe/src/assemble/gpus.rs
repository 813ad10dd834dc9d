//! GPUs of the report: which answered, which kept the identity of the previous report, which are findings only.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{Gpu, GpuIndex, GpuSet, GpuUuid, Health, MiB, NodeTopology, PciAddress, PciPath, ZoneId};

use super::{Findings, Zones, clean, detail, health};
use crate::facts::{Answer, NvLinkFacts, NvmlDevice, NvmlFailure, NvmlNode, SysfsFacts};
use crate::finding;

/// Product of a GPU that does not say.
const PRODUCT_UNKNOWN: &str = "unknown";
const BYTES_PER_MIB: u64 = 1024 * 1024;

/// A GPU of the report with what the link matrix asks of it.
pub(super) struct TakenGpu<'a> {
    pub(super) gpu: Gpu,
    pub(super) path: Option<&'a PciPath>,
    pub(super) nvlinks: Option<&'a Answer<Vec<NvLinkFacts>>>,
}

/// A device of NVML without an identity of its own.
struct Unreadable<'a> {
    index: usize,
    address: Option<PciAddress>,
    why: &'a NvmlFailure,
}

/// Judges each NVML device in its order, then the GPUs on the PCI bus that the driver does not list.
pub(super) fn take<'a>(
    nvml: &'a NvmlNode,
    sysfs: &'a SysfsFacts,
    zones: &Zones,
    previous: Option<&NodeTopology>,
    findings: &mut Findings,
) -> Vec<TakenGpu<'a>> {
    let mut taking = Taking {
        sysfs,
        zones,
        known: previous.map(|p| p.parts().gpus.as_slice()).unwrap_or_default(),
        identities: BTreeMap::new(),
        addresses: BTreeSet::new(),
        taken: Vec::new(),
    };
    let mut unreadable = Vec::new();
    for (index, device) in nvml.devices.iter().enumerate() {
        match device.as_ref().map_err(|why| (None, why)).and_then(identity) {
            Ok((uuid, pci)) => taking.claim(index, uuid, pci, findings),
            Err((address, why)) => unreadable.push(Unreadable { index, address, why }),
        }
    }
    locate_by_elimination(&mut unreadable, &taking.unclaimed());
    for (index, device) in nvml.devices.iter().enumerate() {
        if let (Ok(device), Some((uuid, pci))) = (device, taking.identities.get(&index).cloned()) {
            taking.take_readable(device, uuid, pci, findings);
        } else if let Some(lost) = unreadable.iter().find(|u| u.index == index) {
            taking.take_unreadable(lost, findings);
        }
    }
    for address in taking.unclaimed() {
        taking.take_unlisted(address, findings);
    }
    taking.taken
}

/// Says which GPUs are missing from the report for want of a driver.
pub(super) fn note_driverless(sysfs: &SysfsFacts, why: &str, findings: &mut Findings) {
    let gpu_count = sysfs.pci.values().filter(|p| p.is_gpu() && !p.is_vfio()).count();
    if gpu_count > 0 {
        let text = format!("{gpu_count} NVIDIA GPUs on the PCI bus are not reported: {why}");
        findings.add(finding::DRIVER_ABSENT, "", text);
    }
}

fn identity(device: &NvmlDevice) -> Result<(GpuUuid, PciAddress), (Option<PciAddress>, &NvmlFailure)> {
    const NO_UUID: &NvmlFailure = &NvmlFailure::NotSupported;
    let address = device.pci.as_ref().ok().copied();
    let uuid = device.uuid.as_ref().map_err(|why| (address, why))?;
    let uuid = GpuUuid::parse(uuid).map_err(|_| (address, NO_UUID))?;
    let pci = device.pci.as_ref().map_err(|why| (None, why))?;
    Ok((uuid, *pci))
}

/// NVML numbers GPUs in the order of the bus. When as many addresses are left as GPUs without one, each has its own.
fn locate_by_elimination(unreadable: &mut [Unreadable<'_>], unclaimed: &[PciAddress]) {
    let stated: Vec<PciAddress> = unreadable.iter().filter_map(|u| u.address).collect();
    let free: Vec<PciAddress> = unclaimed.iter().copied().filter(|a| !stated.contains(a)).collect();
    let nameless = unreadable.iter_mut().filter(|u| u.address.is_none());
    let nameless: Vec<&mut Unreadable<'_>> = nameless.collect();
    if nameless.len() == free.len() {
        for (gpu, address) in nameless.into_iter().zip(free) {
            gpu.address = Some(address);
        }
    }
}

/// The work of [`take`]: what is known so far.
struct Taking<'a, 'b> {
    sysfs: &'a SysfsFacts,
    zones: &'b Zones,
    /// GPUs of the previous report.
    known: &'b [Gpu],
    /// Identities of devices that answered, by NVML index.
    identities: BTreeMap<usize, (GpuUuid, PciAddress)>,
    /// Addresses that are spoken for.
    addresses: BTreeSet<PciAddress>,
    taken: Vec<TakenGpu<'a>>,
}

impl<'a> Taking<'a, '_> {
    /// Speaks for an identity, unless another GPU has it.
    fn claim(&mut self, index: usize, uuid: GpuUuid, pci: PciAddress, findings: &mut Findings) {
        let twin = self.identities.values().any(|(u, _)| *u == uuid) || self.addresses.contains(&pci);
        if twin {
            let text = format!("NVML index {index} repeats the identity of another GPU ({uuid}): left out");
            findings.add(finding::GPU_REFUSED, &pci.to_string(), text);
            return;
        }
        self.addresses.insert(pci);
        self.identities.insert(index, (uuid, pci));
    }

    /// GPUs on the PCI bus that nothing has spoken for, in the order of the bus.
    fn unclaimed(&self) -> Vec<PciAddress> {
        let gpus = self.sysfs.pci.iter().filter(|(_, facts)| facts.is_gpu() && !facts.is_vfio());
        gpus.map(|(address, _)| *address).filter(|a| !self.addresses.contains(a)).collect()
    }

    fn take_readable(&mut self, device: &'a NvmlDevice, uuid: GpuUuid, pci: PciAddress, findings: &mut Findings) {
        let seen = self.sysfs.pci.get(&pci);
        let claimed = seen.and_then(|p| p.zone);
        let zone = self.zones.of_device(claimed, &pci.to_string(), findings).or_else(|| {
            let affinity = device.memory_affinity.as_deref().unwrap_or_default();
            self.zones.nearest(affinity)
        });
        let nearest_zones = self.nearest_zones(&device.memory_affinity, zone);
        let slot = seen.and_then(|p| p.slot);
        let detail = detail::take(device, slot, &pci.to_string(), findings);
        let product = device.product.as_ref().map_or_else(|_| String::new(), |p| clean(p));
        let gpu = Gpu {
            index: GpuIndex(0),
            uuid,
            pci,
            product: if product.is_empty() { PRODUCT_UNKNOWN.to_owned() } else { product },
            // A board without memory is a driver that does not know, never zero.
            memory: device.memory_bytes.as_ref().ok().filter(|b| **b > 0).map(|b| MiB(b / BYTES_PER_MIB)),
            zone,
            nearest_zones,
            cpus: self.zones.cpus(zone),
            memory_zone: device.memory_zone.as_ref().ok().copied().filter(|z| self.zones.get(*z).is_some()),
            mig_enabled: device.mig_enabled.as_ref().ok().copied(),
            health: health::judge(device, &detail),
            detail,
        };
        health::note(&gpu, device, findings);
        self.push(gpu, seen.map(|p| &p.path), Some(&device.nvlinks), findings);
    }

    /// The zones that the driver names, where that says more than `zone`. A driver that says "not supported" knows of no zones.
    fn nearest_zones(&self, named: &Answer<Vec<ZoneId>>, zone: Option<ZoneId>) -> Option<Vec<ZoneId>> {
        let named = match named {
            Ok(named) => named.as_slice(),
            Err(NvmlFailure::NotSupported) => &[],
            Err(_) => return None,
        };
        let known: Vec<ZoneId> = named.iter().copied().filter(|z| self.zones.get(*z).is_some()).collect();
        (known != zone.into_iter().collect::<Vec<_>>()).then_some(known)
    }

    fn take_unreadable(&mut self, lost: &Unreadable<'_>, findings: &mut Findings) {
        let at_address = |gpu: &&Gpu| lost.address == Some(gpu.pci);
        let at_index = |gpu: &&Gpu| lost.address.is_none() && usize::from(gpu.index.0) == lost.index;
        let known = self.known.iter().filter(|g| self.is_free(g)).find(|g| at_address(g) || at_index(g)).cloned();
        if let Some(address) = lost.address {
            self.addresses.insert(address);
        }
        if let Some(known) = known {
            self.take_known(known, format!("NVML: {}", lost.why), findings);
            return;
        }
        let device = lost.address.map_or_else(|| format!("index {}", lost.index), |a| a.to_string());
        let text = format!("NVML index {} is not reported: {}", lost.index, lost.why);
        findings.add(finding::GPU_UNREADABLE, &device, text);
    }

    fn take_unlisted(&mut self, address: PciAddress, findings: &mut Findings) {
        let known = self.known.iter().filter(|g| self.is_free(g)).find(|g| g.pci == address).cloned();
        match known {
            Some(known) => self.take_known(known, "the driver no longer lists it".to_owned(), findings),
            None => {
                let text = "an NVIDIA GPU on the PCI bus that the driver does not list";
                findings.add(finding::GPU_UNLISTED, &address.to_string(), text);
            }
        }
    }

    /// Whether a GPU of the previous report is spoken for by none that answered.
    fn is_free(&self, gpu: &Gpu) -> bool {
        let answered = self.identities.values().any(|(uuid, _)| *uuid == gpu.uuid);
        let taken = self.taken.iter().any(|t| t.gpu.uuid == gpu.uuid);
        !answered && !taken && !self.addresses.contains(&gpu.pci)
    }

    fn take_known(&mut self, known: Gpu, why: String, findings: &mut Findings) {
        self.addresses.insert(known.pci);
        let path = self.sysfs.pci.get(&known.pci).map(|p| &p.path);
        let zone = known.zone.filter(|z| self.zones.get(*z).is_some());
        let cpus = self.zones.cpus(zone);
        let memory_zone = known.memory_zone.filter(|z| self.zones.get(*z).is_some());
        // What was nearest is asked anew of a GPU that is back.
        let nearest_zones = known.nearest_zones.filter(|zones| zones.iter().all(|z| self.zones.get(*z).is_some()));
        self.push(
            Gpu { zone, nearest_zones, cpus, memory_zone, health: Health::Unhealthy(why), ..known },
            path,
            None,
            findings,
        );
    }

    fn push(
        &mut self,
        mut gpu: Gpu,
        path: Option<&'a PciPath>,
        nvlinks: Option<&'a Answer<Vec<NvLinkFacts>>>,
        findings: &mut Findings,
    ) {
        let position = u8::try_from(self.taken.len()).ok().filter(|p| usize::from(*p) < GpuSet::GPUS_MAX);
        let Some(position) = position else {
            let text = format!("left out: at most {} GPUs of a node are reported", GpuSet::GPUS_MAX);
            findings.add(finding::GPU_REFUSED, &gpu.pci.to_string(), text);
            return;
        };
        gpu.index = GpuIndex(position);
        self.taken.push(TakenGpu { gpu, path, nvlinks });
    }
}
