//! The host of a report.

use std::collections::BTreeMap;

use berth_model::host::{Governor, SamepageMerging, TransparentHugePages};
use berth_model::{CpuFlag, CpuGroups, CpuSet, Host, IommuGroup, Kubelet, PciAddress, VfioGpu, VgpuHosts};

use crate::limit::{
    GPUS_MAX, GROUP_DEVICES_MAX, GROUPS_MAX, NAME_BYTES_MAX, OPTION_BYTES_MAX, OPTIONS_MAX, VGPU_TYPES_MAX, cut,
};
use crate::topology::v1alpha1 as wire;

/// What stands for the caches of a machine with one per socket, the usual case on Intel.
pub(crate) const SOCKETS: &str = "sockets";

/// `None` where nothing is known: it costs no byte then.
pub(super) fn host(host: &Host) -> Option<wire::Host> {
    if *host == Host::default() {
        return None;
    }
    let name = |text: Option<&String>| text.map_or_else(String::new, |t| cut(t, NAME_BYTES_MAX).to_owned());
    let cpu = &host.cpu;
    let flags = cpu.flags.as_ref().map(|flags| flags.iter().map(|f| CpuFlag::word(*f)).collect::<Vec<_>>().join(" "));
    Some(wire::Host {
        cpu_vendor: name(cpu.vendor.as_ref()),
        cpu_model: name(cpu.model.as_ref()),
        cpu_flags: flags,
        cores: cpu.cores.as_ref().map(CpuGroups::to_string),
        sockets: cpu.sockets.as_ref().map(CpuGroups::to_string),
        l3_caches: if cpu.l3_caches.is_some() && cpu.l3_caches == cpu.sockets {
            Some(SOCKETS.to_owned())
        } else {
            cpu.l3_caches.as_ref().map(CpuGroups::to_string)
        },
        isolated_cpus: cpu.isolated.as_ref().map(CpuSet::to_string),
        nohz_full_cpus: cpu.nohz_full.as_ref().map(CpuSet::to_string),
        governor: cpu.governor.map(Governor::word).unwrap_or_default().to_owned(),
        transparent_huge_pages: word(host.transparent_huge_pages.map(TransparentHugePages::word)),
        samepage_merging: word(host.samepage_merging.map(SamepageMerging::word)),
        kubelet: host.kubelet.as_ref().map(kubelet),
        vfio_gpus: host.vfio_gpus.iter().take(GROUPS_MAX).map(vfio_gpu).collect(),
        vgpu_hosts: host.vgpu_hosts.iter().take(GPUS_MAX).map(vgpu_hosts).collect(),
        iommu_groups: host.iommu_groups.iter().take(GROUPS_MAX).map(iommu_group).collect(),
    })
}

fn word(word: Option<&'static str>) -> String {
    word.unwrap_or_default().to_owned()
}

/// Words at the kubelet's own default are left out.
fn kubelet(kubelet: &Kubelet) -> wire::Kubelet {
    let unless = |word: &str, default: &str| if word == default { String::new() } else { word.to_owned() };
    let default = Kubelet::default();
    wire::Kubelet {
        cpu_manager: unless(kubelet.cpu_manager.word(), default.cpu_manager.word()),
        cpu_manager_options: options(&kubelet.cpu_manager_options),
        memory_manager: unless(kubelet.memory_manager.word(), default.memory_manager.word()),
        topology_manager: unless(kubelet.topology_manager.word(), default.topology_manager.word()),
        topology_manager_scope: unless(kubelet.topology_manager_scope.word(), default.topology_manager_scope.word()),
        topology_manager_options: options(&kubelet.topology_manager_options),
        reserved_cpus: kubelet.reserved_cpus.to_string(),
    }
}

fn options(options: &BTreeMap<String, String>) -> Vec<String> {
    let texts = options.iter().map(|(name, value)| cut(&format!("{name}={value}"), OPTION_BYTES_MAX).to_owned());
    texts.take(OPTIONS_MAX).collect()
}

fn vfio_gpu(gpu: &VfioGpu) -> wire::VfioGpu {
    wire::VfioGpu { pci: gpu.pci.to_string(), driver: cut(&gpu.driver, NAME_BYTES_MAX).to_owned() }
}

fn vgpu_hosts(hosts: &VgpuHosts) -> wire::VgpuHosts {
    wire::VgpuHosts {
        gpus: hosts.gpus.iter().take(GPUS_MAX).map(PciAddress::to_string).collect(),
        carrier: hosts.carrier.word().to_owned(),
        types: hosts.types.iter().take(VGPU_TYPES_MAX).map(|t| cut(t, NAME_BYTES_MAX).to_owned()).collect(),
    }
}

fn iommu_group(group: &IommuGroup) -> wire::IommuGroup {
    wire::IommuGroup {
        id: group.id.try_into().unwrap_or(i32::MAX),
        devices: group.devices.iter().take(GROUP_DEVICES_MAX).map(PciAddress::to_string).collect(),
    }
}
