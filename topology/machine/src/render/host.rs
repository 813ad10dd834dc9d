//! The host's part of a kernel tree: CPUs, memory settings, and the kubelet's file beside it.

use std::collections::BTreeMap;

use berth_model::{Cpu, CpuGroups, CpuSet, HugePages, SamepageMerging, TransparentHugePages};
use berth_probe::sysfs::kubelet::CONFIG;
use berth_probe::tree::{Entry, MemoryTree};

use crate::machine::Machine;

const CPUS: &str = "sys/devices/system/cpu";

/// Sizes that a kernel of x86-64 shows, with pages or without.
const PAGE_SIZES_KIB: [u64; 2] = [2048, 1_048_576];

pub(super) fn put(tree: &mut MemoryTree, machine: &Machine) {
    let host = &machine.host;
    put_cpuinfo(tree, &host.cpu);
    put_topology(tree, machine);
    for (file, list) in [("isolated", &host.cpu.isolated), ("nohz_full", &host.cpu.nohz_full)] {
        if let Some(list) = list {
            tree.put_line(format!("{CPUS}/{file}"), list);
        }
    }
    if let Some(enabled) = host.transparent_huge_pages {
        let word =
            |w: &TransparentHugePages| if *w == enabled { format!("[{}]", w.word()) } else { w.word().to_owned() };
        let words: Vec<String> = TransparentHugePages::ALL.iter().map(word).collect();
        tree.put_line("sys/kernel/mm/transparent_hugepage/enabled", words.join(" "));
    }
    if let Some(merging) = host.samepage_merging {
        let number = match merging {
            SamepageMerging::Off => 0,
            SamepageMerging::On => 1,
            SamepageMerging::Unmerge => 2,
        };
        tree.put_line("sys/kernel/mm/ksm/run", number);
    }
    if let Some(text) = &host.kubelet_config {
        tree.put(CONFIG, Entry::File(text.clone()));
    }
}

/// One CPU's block, as x86-64 prints it.
fn put_cpuinfo(tree: &mut MemoryTree, cpu: &Cpu) {
    let mut lines = Vec::new();
    lines.extend(cpu.vendor.as_ref().map(|vendor| format!("vendor_id\t: {vendor}")));
    lines.extend(cpu.model.as_ref().map(|model| format!("model name\t: {model}")));
    // Flags that no report names stand around those that it does.
    lines.extend(cpu.flags.as_ref().map(|flags| {
        let words: Vec<&str> = flags.iter().map(|f| f.word()).collect();
        format!("flags\t\t: fpu vme {} lm", words.join(" "))
    }));
    if !lines.is_empty() {
        tree.put_line("proc/cpuinfo", format!("processor\t: 0\n{}\n\nprocessor\t: 1", lines.join("\n")));
    }
}

/// What each CPU says of its neighbours.
fn put_topology(tree: &mut MemoryTree, machine: &Machine) {
    let cpu = &machine.host.cpu;
    let online: Vec<u32> = machine.zones.iter().flat_map(|z| &z.cpus).flat_map(|cpus| cpus.cpus()).collect();
    let (cores, sockets, caches) = (by_cpu(&cpu.cores), by_cpu(&cpu.sockets), by_cpu(&cpu.l3_caches));
    if !cores.is_empty() || !sockets.is_empty() || !caches.is_empty() {
        tree.put_line(format!("{CPUS}/online"), CpuSet::from_cpus(online.iter().copied()));
    }
    for number in online {
        let directory = format!("{CPUS}/cpu{number}");
        for (file, groups) in [("thread_siblings_list", &cores), ("package_cpus_list", &sockets)] {
            if let Some(group) = groups.get(&number) {
                tree.put_line(format!("{directory}/topology/{file}"), group);
            }
        }
        if let Some(group) = caches.get(&number) {
            // Not at index 3, where it usually is: a reader must look at the level.
            for (index, level, shared) in [(0, 1, cores.get(&number)), (1, 3, Some(group))] {
                let cache = format!("{directory}/cache/index{index}");
                tree.put_line(format!("{cache}/level"), level);
                tree.put_line(format!("{cache}/shared_cpu_list"), shared.unwrap_or(&CpuSet::from_cpus([number])));
            }
        }
    }
    if let Some(governor) = cpu.governor {
        let firsts = cpu.sockets.iter().flat_map(CpuGroups::groups).filter_map(|g| g.first());
        for first in firsts.chain([0]) {
            tree.put_line(format!("{CPUS}/cpufreq/policy{first}/scaling_governor"), governor.word());
        }
    }
}

fn by_cpu(groups: &Option<CpuGroups>) -> BTreeMap<u32, CpuSet> {
    let groups = groups.iter().flat_map(CpuGroups::groups);
    groups.flat_map(|group| group.cpus().map(|cpu| (cpu, group.clone())).collect::<Vec<_>>()).collect()
}

/// The pools of a zone. Sizes without a page are shown too, as a kernel does.
pub(super) fn put_huge_pages(tree: &mut MemoryTree, directory: &str, pools: &[HugePages]) {
    let mut sizes: BTreeMap<u64, u64> = PAGE_SIZES_KIB.into_iter().map(|kib| (kib, 0)).collect();
    sizes.extend(pools.iter().map(|pool| (pool.page_kib, pool.page_count)));
    for (kib, pages) in sizes {
        let pool = format!("{directory}/hugepages-{kib}kB");
        for (file, number) in [("nr_hugepages", pages), ("free_hugepages", pages), ("surplus_hugepages", 0)] {
            tree.put_line(format!("{pool}/{file}"), number);
        }
    }
}
