//! The host of a report. A word of a newer agent is unknown, or `other` where the kubelet's words have one.

use std::collections::BTreeMap;

use berth_model::host::{Governor, SamepageMerging, TransparentHugePages};
use berth_model::kubelet::{CpuManagerPolicy, MemoryManagerPolicy, TopologyManagerPolicy, TopologyManagerScope};
use berth_model::{Cpu, CpuFlag, CpuGroups, Host, IommuGroup, Kubelet, PciAddress, VfioGpu, VgpuCarrier, VgpuHosts};

use super::{DecodeError, at_most, cpus_at, each, outside, refusal, text};
use crate::encode::host::SOCKETS;
use crate::limit::{
    CPU_LIST_BYTES_MAX, GPUS_MAX, GROUP_DEVICES_MAX, GROUPS_MAX, NAME_BYTES_MAX, OPTION_BYTES_MAX, OPTIONS_MAX,
    TEXT_BYTES_MAX, VGPU_TYPES_MAX,
};
use crate::topology::v1alpha1 as wire;

pub(super) fn host(host: Option<&wire::Host>) -> Result<Host, DecodeError> {
    let Some(host) = host else { return Ok(Host::default()) };
    let transparent = text("host.thp", &host.transparent_huge_pages, NAME_BYTES_MAX)?;
    let merging = text("host.ksm", &host.samepage_merging, NAME_BYTES_MAX)?;
    Ok(Host {
        cpu: cpu(host)?,
        transparent_huge_pages: TransparentHugePages::parse(&transparent),
        samepage_merging: SamepageMerging::parse(&merging),
        kubelet: host.kubelet.as_ref().map(kubelet).transpose()?,
        vfio_gpus: each("host.vfioGpus", &host.vfio_gpus, GROUPS_MAX, |_, gpu| vfio_gpu(gpu))?,
        vgpu_hosts: host_list(host)?,
        iommu_groups: each("host.iommuGroups", &host.iommu_groups, GROUPS_MAX, |_, group| iommu_group(group))?,
    })
}

fn cpu(host: &wire::Host) -> Result<Cpu, DecodeError> {
    let name = |field: &str, given: &str| -> Result<Option<String>, DecodeError> {
        let name = text(field, given, NAME_BYTES_MAX)?;
        Ok((!name.is_empty()).then_some(name))
    };
    let flags = host.cpu_flags.as_deref().map(|flags| text("host.cpuFlags", flags, TEXT_BYTES_MAX)).transpose()?;
    let list = |field: &str, list: Option<&String>| list.map(|list| cpus_at(field, list)).transpose();
    let sockets = groups("host.sockets", host.sockets.as_deref())?;
    let l3_caches = match host.l3_caches.as_deref() {
        Some(SOCKETS) => sockets.clone(),
        given => groups("host.l3Caches", given)?,
    };
    Ok(Cpu {
        vendor: name("host.cpuVendor", &host.cpu_vendor)?,
        model: name("host.cpuModel", &host.cpu_model)?,
        flags: flags.map(|flags| flags.split(' ').filter_map(CpuFlag::parse).collect()),
        cores: groups("host.cores", host.cores.as_deref())?,
        sockets,
        l3_caches,
        isolated: list("host.isolated", host.isolated_cpus.as_ref())?,
        nohz_full: list("host.nohzFull", host.nohz_full_cpus.as_ref())?,
        governor: Governor::parse(&text("host.governor", &host.governor, NAME_BYTES_MAX)?),
    })
}

fn groups(field: &str, groups: Option<&str>) -> Result<Option<CpuGroups>, DecodeError> {
    let Some(groups) = groups else { return Ok(None) };
    let groups = text(field, groups, CPU_LIST_BYTES_MAX)?;
    CpuGroups::parse(&groups).map(Some).map_err(|e| refusal(field, e))
}

fn kubelet(kubelet: &wire::Kubelet) -> Result<Kubelet, DecodeError> {
    let default = Kubelet::default();
    let word = |field: &str, given: &str| text(&format!("host.kubelet.{field}"), given, NAME_BYTES_MAX);
    let cpu_manager = word("cpuManager", &kubelet.cpu_manager)?;
    let memory_manager = word("memoryManager", &kubelet.memory_manager)?;
    let topology_manager = word("topologyManager", &kubelet.topology_manager)?;
    let scope = word("topologyManagerScope", &kubelet.topology_manager_scope)?;
    Ok(Kubelet {
        cpu_manager: closed(&cpu_manager, default.cpu_manager, CpuManagerPolicy::parse, CpuManagerPolicy::Other),
        cpu_manager_options: options("host.kubelet.cpuManagerOptions", &kubelet.cpu_manager_options)?,
        memory_manager: closed(
            &memory_manager,
            default.memory_manager,
            MemoryManagerPolicy::parse,
            MemoryManagerPolicy::Other,
        ),
        topology_manager: closed(
            &topology_manager,
            default.topology_manager,
            TopologyManagerPolicy::parse,
            TopologyManagerPolicy::Other,
        ),
        topology_manager_scope: closed(
            &scope,
            default.topology_manager_scope,
            TopologyManagerScope::parse,
            TopologyManagerScope::Other,
        ),
        topology_manager_options: options("host.kubelet.topologyManagerOptions", &kubelet.topology_manager_options)?,
        reserved_cpus: cpus_at("host.kubelet.reservedCPUs", &kubelet.reserved_cpus)?,
    })
}

/// A word of a closed list; the default where there is none.
fn closed<T>(word: &str, default: T, parse: impl Fn(&str) -> Option<T>, other: T) -> T {
    if word.is_empty() { default } else { parse(word).unwrap_or(other) }
}

fn options(field: &str, given: &[String]) -> Result<BTreeMap<String, String>, DecodeError> {
    at_most(field, given.len(), OPTIONS_MAX)?;
    let option = |option: &String| {
        let option = text(field, option, OPTION_BYTES_MAX)?;
        let (name, value) = option.split_once('=').ok_or_else(|| refusal(field, "name=value is right"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    given.iter().map(option).collect()
}

fn vfio_gpu(gpu: &wire::VfioGpu) -> Result<VfioGpu, DecodeError> {
    Ok(VfioGpu { pci: address("pci", &gpu.pci)?, driver: text("driver", &gpu.driver, NAME_BYTES_MAX)? })
}

/// A carrier of a newer agent costs that entry, not the report.
fn host_list(host: &wire::Host) -> Result<Vec<VgpuHosts>, DecodeError> {
    let hosts = each("host.vgpuHosts", &host.vgpu_hosts, GPUS_MAX, |_, hosts| vgpu_hosts(hosts))?;
    Ok(hosts.into_iter().flatten().collect())
}

fn vgpu_hosts(hosts: &wire::VgpuHosts) -> Result<Option<VgpuHosts>, DecodeError> {
    at_most("gpus", hosts.gpus.len(), GPUS_MAX)?;
    at_most("types", hosts.types.len(), VGPU_TYPES_MAX)?;
    let gpus = hosts.gpus.iter().map(|pci| address("gpus", pci)).collect::<Result<_, _>>()?;
    let types = hosts.types.iter().map(|t| text("types", t, NAME_BYTES_MAX)).collect::<Result<_, _>>()?;
    Ok(VgpuCarrier::parse(&hosts.carrier).map(|carrier| VgpuHosts { gpus, carrier, types }))
}

fn iommu_group(group: &wire::IommuGroup) -> Result<IommuGroup, DecodeError> {
    at_most("devices", group.devices.len(), GROUP_DEVICES_MAX)?;
    Ok(IommuGroup {
        id: u32::try_from(group.id).map_err(|_| outside("id", group.id, i32::MAX))?,
        devices: group.devices.iter().map(|pci| address("devices", pci)).collect::<Result<_, _>>()?,
    })
}

fn address(field: &str, given: &str) -> Result<PciAddress, DecodeError> {
    PciAddress::parse(given).map_err(|e| refusal(field, e))
}
