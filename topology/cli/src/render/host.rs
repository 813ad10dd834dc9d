//! What a report says of the host around the GPUs, in a few lines for the tree and the picture. What is not known is not there.

use std::collections::BTreeMap;

use berth_model::{Cpu, CpuFlag, CpuSet, HugePages, Kubelet, MiB, NicFunction, NodeTopology, VgpuHosts};

use super::size::{gib, gpus};

/// Vector and matrix units in the order of what they are worth for inference; of each row the best that the CPU has.
const UNITS: [&[(CpuFlag, &str)]; 3] = [
    &[(CpuFlag::AmxTile, "AMX")],
    &[(CpuFlag::Avx512F, "AVX-512"), (CpuFlag::AvxVnni, "AVX-VNNI"), (CpuFlag::Avx2, "AVX2")],
    &[(CpuFlag::Sve2, "SVE2"), (CpuFlag::Sve, "SVE")],
];
/// vGPU types that are named; more are counted.
const TYPES_MAX: usize = 4;
/// Devices and groups that are named; more are counted.
const LISTED_MAX: usize = 8;

/// One line: what it is about, and its facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostLine {
    pub(crate) label: &'static str,
    pub(crate) facts: Vec<String>,
}

/// All lines that have a fact.
pub(crate) fn host_lines(node: &NodeTopology) -> Vec<HostLine> {
    let host = &node.parts().host;
    let line = |label, facts| HostLine { label, facts };
    let vfio = host.vfio_gpus.iter().map(|g| format!("{} ({})", g.pci, g.driver));
    let groups = host.iommu_groups.iter().map(|g| {
        let devices = cut(g.devices.iter().map(ToString::to_string).collect(), " ");
        format!("{}: {devices}", g.id)
    });
    let listed = |facts: Vec<String>| if facts.is_empty() { facts } else { vec![cut(facts, "  ")] };
    let lines = [
        line("CPU", cpu(&host.cpu)),
        line("kernel", kernel(node)),
        line("kubelet", host.kubelet.as_ref().map(kubelet).unwrap_or_default()),
        line("GPUs of vfio", listed(vfio.collect())),
        line("vGPU", host.vgpu_hosts.iter().map(|hosts| vgpu(node, hosts)).collect()),
        line("IOMMU groups", listed(groups.collect())),
    ];
    lines.into_iter().filter(|line| !line.facts.is_empty()).collect()
}

fn cpu(cpu: &Cpu) -> Vec<String> {
    let mut facts: Vec<String> =
        cpu.model.iter().chain(cpu.vendor.iter().filter(|_| cpu.model.is_none())).cloned().collect();
    facts.extend(cpu.sockets.as_ref().map(|s| counted(s.group_count(), "socket")));
    facts.extend(cpu.cores.as_ref().map(|cores| {
        let threads = cpu.threads_per_core().filter(|t| *t > 1);
        counted(cores.group_count(), "core") + &threads.map_or_else(String::new, |t| format!(" x {t} threads"))
    }));
    facts.extend(cpu.l3_caches.as_ref().map(|caches| counted(caches.group_count(), "L3 cache")));
    if let Some(flags) = &cpu.flags {
        let best =
            |row: &[(CpuFlag, &'static str)]| row.iter().find(|(flag, _)| flags.contains(flag)).map(|(_, name)| *name);
        let units: Vec<&str> = UNITS.iter().filter_map(|row| best(row)).collect();
        facts.extend((!units.is_empty()).then(|| units.join(" ")));
        facts.extend(flags.contains(&CpuFlag::Hypervisor).then(|| "in a virtual machine".to_owned()));
    }
    facts
}

fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn kernel(node: &NodeTopology) -> Vec<String> {
    let host = &node.parts().host;
    let cpus = |what: &str, set: &Option<CpuSet>| {
        set.as_ref().map(|s| if s.is_empty() { format!("no {what}") } else { format!("{what} {s}") })
    };
    let facts = [
        cpus("isolated CPUs", &host.cpu.isolated),
        cpus("tickless CPUs", &host.cpu.nohz_full),
        host.cpu.governor.map(|g| format!("governor {}", g.word())),
        host.transparent_huge_pages.map(|t| format!("transparent huge pages {}", t.word())),
        host.samepage_merging.map(|s| format!("page merging {}", s.word())),
    ];
    facts.into_iter().flatten().collect()
}

fn kubelet(kubelet: &Kubelet) -> Vec<String> {
    let options = |list: &BTreeMap<String, String>| {
        let list: Vec<String> = list.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if list.is_empty() { String::new() } else { format!(" ({})", list.join(" ")) }
    };
    let topology = format!(
        "topology {} per {}{}",
        kubelet.topology_manager.word(),
        kubelet.topology_manager_scope.word(),
        options(&kubelet.topology_manager_options)
    );
    let mut facts = vec![
        format!("CPUs {}{}", kubelet.cpu_manager.word(), options(&kubelet.cpu_manager_options)),
        format!("memory {}", kubelet.memory_manager.word()),
        topology,
    ];
    if !kubelet.reserved_cpus.is_empty() {
        facts.push(format!("reserved CPUs {}", kubelet.reserved_cpus));
    }
    facts
}

fn vgpu(node: &NodeTopology, hosts: &VgpuHosts) -> String {
    let known = |pci| node.parts().gpus.iter().find(|g| g.pci == pci).map(|g| g.index);
    let indexes: Option<Vec<_>> = hosts.gpus.iter().map(|pci| known(*pci)).collect();
    let who = indexes.map_or_else(|| cut(hosts.gpus.iter().map(ToString::to_string).collect(), " "), gpus);
    let shown = hosts.types.iter().take(TYPES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = hosts.types.len().saturating_sub(TYPES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{who} by {}: {shown}{more}", hosts.carrier.word())
}

fn cut(list: Vec<String>, between: &str) -> String {
    let more = list.len().saturating_sub(LISTED_MAX);
    let shown = list.into_iter().take(LISTED_MAX).collect::<Vec<_>>().join(between);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Huge pages of a zone, the largest first: `128 x 1 GiB`; `None` where there are none or it is not known.
pub(crate) fn huge_pages(pools: Option<&[HugePages]>) -> Option<String> {
    let size = |kib: u64| if kib.is_multiple_of(1024) { gib(MiB(kib / 1024)) } else { format!("{kib} KiB") };
    let pools = pools.filter(|p| !p.is_empty())?;
    let list: Vec<String> = pools.iter().rev().map(|p| format!("{} x {}", p.page_count, size(p.page_kib))).collect();
    Some(list.join(" + "))
}

/// What a NIC is beside its port: network devices, bond, card, virtual functions.
pub(crate) fn function(function: &NicFunction, number: usize) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(bond) = &function.bond {
        facts.push(format!("{} of {}", bond.name, bond.members.join("+")));
    } else if !function.netdevs.is_empty() {
        facts.push(cut(function.netdevs.clone(), " "));
    }
    let card = function.card.map(usize::from).filter(|card| *card != number);
    facts.extend(card.map(|card| format!("card of NIC{card}")));
    facts.extend(function.sriov.map(|s| format!("{} of {} VFs", s.function_count, s.function_count_max)));
    facts
}

#[cfg(test)]
mod tests {
    use berth_model::kubelet::TopologyManagerPolicy;
    use berth_model::{Bond, CpuGroups, Governor, PciAddress, Sriov, TransparentHugePages, VfioGpu};

    use super::*;
    use crate::render::sample::Sample;

    fn lines(sample: Sample) -> Vec<String> {
        host_lines(&sample.build()).iter().map(|l| format!("{}: {}", l.label, l.facts.join("; "))).collect()
    }

    #[test]
    fn what_is_known_of_a_host_is_told_in_a_line_each_and_the_rest_is_not_there() {
        assert_eq!(lines(Sample::new(&["X"], &[0], &[])), [""; 0]);
        let mut sample = Sample::new(&["X"], &[0], &[]);
        let host = &mut sample.parts.host;
        host.cpu.model = Some("Some CPU".to_owned());
        host.cpu.cores = CpuGroups::parse("0,8x8+1").ok();
        host.cpu.sockets = CpuGroups::parse("0-15").ok();
        host.cpu.flags = Some([CpuFlag::Avx2, CpuFlag::Avx512F, CpuFlag::AmxTile].into());
        host.cpu.isolated = CpuSet::parse("2-7").ok();
        host.cpu.nohz_full = Some(CpuSet::default());
        host.cpu.governor = Some(Governor::Performance);
        host.transparent_huge_pages = Some(TransparentHugePages::Madvise);
        let options = [("full-pcpus-only".to_owned(), "true".to_owned())].into();
        host.kubelet = Some(Kubelet {
            cpu_manager_options: options,
            topology_manager: TopologyManagerPolicy::SingleNumaNode,
            reserved_cpus: CpuSet::parse("0-1").unwrap(),
            ..Kubelet::default()
        });
        let pci = PciAddress::parse("0000:41:00.0").unwrap();
        host.vfio_gpus.push(VfioGpu { pci, driver: "vfio-pci".to_owned() });
        let expected = [
            "CPU: Some CPU; 1 socket; 8 cores x 2 threads; AMX AVX-512",
            "kernel: isolated CPUs 2-7; no tickless CPUs; governor performance; transparent huge pages madvise",
            "kubelet: CPUs none (full-pcpus-only=true); memory none; topology single-numa-node per container; reserved CPUs 0-1",
            "GPUs of vfio: 0000:41:00.0 (vfio-pci)",
        ];
        assert_eq!(lines(sample), expected);
    }

    #[test]
    fn huge_pages_are_told_by_size_and_an_empty_pool_is_not() {
        let told = |text: &str| huge_pages(HugePages::parse(text).as_deref());
        assert_eq!(told("2048x1024,1048576x16").as_deref(), Some("16 x 1 GiB + 1024 x 2 MiB"));
        assert_eq!(told("64x8").as_deref(), Some("8 x 64 KiB"));
        assert_eq!((told("none"), huge_pages(None)), (None, None));
    }

    #[test]
    fn a_nic_says_its_devices_its_card_and_its_virtual_functions() {
        let sriov = Some(Sriov { function_count_max: 16, function_count: 4 });
        let mut nic =
            NicFunction { netdevs: vec!["ens1f0".to_owned()], card: Some(2), sriov, ..NicFunction::default() };
        assert_eq!(function(&nic, 3), ["ens1f0", "card of NIC2", "4 of 16 VFs"]);
        nic.bond = Some(Bond { name: "bond0".to_owned(), members: vec!["a".to_owned(), "b".to_owned()] });
        assert_eq!(function(&nic, 2), ["bond0 of a+b", "4 of 16 VFs"], "it is the first of its card");
        assert_eq!(function(&NicFunction::default(), 0), [""; 0]);
    }
}
