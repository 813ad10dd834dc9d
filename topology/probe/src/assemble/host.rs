//! The host of the report: what was read, with foreign texts made fit for it.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{Cpu, Host, IommuGroup, NodeTopology, PciAddress, VfioGpu, VgpuCarrier, VgpuHosts, virt};

use super::clean;
use crate::facts::SysfsFacts;

/// Takes what the kernel shows of the host. `this_boot` is the last report of this boot.
pub(super) fn take(sysfs: &SysfsFacts, this_boot: Option<&NodeTopology>) -> Host {
    let word = |text: &Option<String>| text.as_deref().map(clean).filter(|t| !t.is_empty());
    Host {
        cpu: Cpu { vendor: word(&sysfs.cpu.vendor), model: word(&sysfs.cpu.model), ..sysfs.cpu.clone() },
        transparent_huge_pages: sysfs.transparent_huge_pages,
        samepage_merging: sysfs.samepage_merging,
        kubelet: sysfs.kubelet.clone(),
        vfio_gpus: vfio_gpus(sysfs),
        iommu_groups: iommu_groups(sysfs),
        vgpu_hosts: vgpu_hosts(sysfs, this_boot),
    }
}

/// GPUs that NVML cannot see because they are to go to virtual machines: a fact, not a fault.
fn vfio_gpus(sysfs: &SysfsFacts) -> Vec<VfioGpu> {
    let bound = sysfs.pci.iter().filter(|(_, facts)| facts.is_gpu() && facts.is_vfio());
    let taken = bound
        .map(|(address, facts)| VfioGpu { pci: *address, driver: clean(facts.driver.as_deref().unwrap_or_default()) });
    taken.take(virt::GROUPS_MAX).collect()
}

/// Groups that tie devices together, and those of GPUs that vfio has. A group for each device, the usual case, says nothing.
fn iommu_groups(sysfs: &SysfsFacts) -> Vec<IommuGroup> {
    let of_vfio = |id: u32| sysfs.pci.values().any(|d| d.iommu_group == Some(id) && d.is_gpu() && d.is_vfio());
    let telling = sysfs.iommu_groups.iter().filter(|(id, devices)| devices.len() > 1 || of_vfio(**id));
    let group = |(id, devices): (&u32, &Vec<_>)| IommuGroup {
        id: *id,
        devices: devices.iter().copied().take(virt::GROUP_DEVICES_MAX).collect(),
    };
    telling.take(virt::GROUPS_MAX).map(group).collect()
}

/// Types by GPU, those of its virtual functions included. A list that the kernel shortens as the GPU fills keeps what the last report of
/// this boot had: else every virtual machine that starts would be a new report.
fn vgpu_hosts(sysfs: &SysfsFacts, this_boot: Option<&NodeTopology>) -> Vec<VgpuHosts> {
    let mut found: BTreeMap<(PciAddress, VgpuCarrier), BTreeSet<&str>> = BTreeMap::new();
    for (address, facts) in &sysfs.pci {
        let Some((carrier, types)) = &facts.vgpu else { continue };
        let gpu = facts.physical.unwrap_or(*address);
        found.entry((gpu, *carrier)).or_default().extend(types.iter().map(String::as_str));
    }
    for known in this_boot.iter().flat_map(|report| &report.parts().host.vgpu_hosts) {
        for gpu in &known.gpus {
            if let Some(types) = found.get_mut(&(*gpu, known.carrier)) {
                types.extend(known.types.iter().map(String::as_str));
            }
        }
    }
    let mut alike: BTreeMap<(VgpuCarrier, BTreeSet<&str>), Vec<PciAddress>> = BTreeMap::new();
    for ((gpu, carrier), types) in found.into_iter().filter(|(_, types)| !types.is_empty()) {
        alike.entry((carrier, types)).or_default().push(gpu);
    }
    let host = |((carrier, types), gpus): ((VgpuCarrier, BTreeSet<&str>), Vec<PciAddress>)| VgpuHosts {
        gpus,
        carrier,
        types: types.into_iter().take(virt::VGPU_TYPES_MAX).map(str::to_owned).collect(),
    };
    let mut hosts: Vec<VgpuHosts> = alike.into_iter().map(host).collect();
    hosts.sort();
    hosts
}
