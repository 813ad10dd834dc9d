//! Owns a machine file as a kubelet sees it: zones with their CPUs, cores, sockets, memory and huge pages, and all memory. It is said by files, which are put over the kernel's own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use berth_machine::{Machine, MachineZone};
use berth_model::{CpuGroups, CpuSet};

/// Shown by every kernel of x86-64, with pages or without; the kubelet counts sizes that it finds.
const PAGE_SIZES_KIB: [u64; 2] = [2048, 1_048_576];

/// Writes `zones/`, `hugepages/`, `online` and `meminfo` into the folder, over those of another machine.
pub(super) fn write(machine: &Machine, folder: &Path) -> Result<()> {
    let zones = folder.join("zones");
    // The folder itself is what is seen: it stays.
    for entry in fs::read_dir(&zones).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    let mut online = Vec::new();
    let mut memory_kib = 0_u64;
    for zone in &machine.zones {
        let cpus = zone.cpus.as_ref().context("a real node needs zones with CPUs in its machine file")?;
        online.extend(cpus.cpus());
        let kib = kib_of(zone)?;
        memory_kib += kib;
        write_zone(machine, zone, cpus, kib, &zones.join(format!("node{}", zone.id.0)))?;
    }
    anyhow::ensure!(!online.is_empty(), "a real node needs zones in its machine file");
    let ids: CpuSet = CpuSet::from_cpus(machine.zones.iter().map(|zone| u32::from(zone.id.0)));
    for file in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] {
        fs::write(zones.join(file), format!("{ids}\n"))?;
    }
    write_huge_pages(&machine.zones, &folder.join("hugepages"))?;
    fs::write(folder.join("online"), format!("{}\n", CpuSet::from_cpus(online)))?;
    let mut meminfo = String::new();
    for field in ["MemTotal", "MemFree", "MemAvailable"] {
        writeln!(meminfo, "{field}: {memory_kib:>15} kB")?;
    }
    meminfo.push_str("SwapTotal: 0 kB\nSwapFree: 0 kB\n");
    fs::write(folder.join("meminfo"), meminfo)?;
    Ok(())
}

fn kib_of(zone: &MachineZone) -> Result<u64> {
    let memory = zone.memory.context("a real node needs zones with memory in its machine file")?;
    Ok(memory.0 * 1024)
}

fn write_zone(machine: &Machine, zone: &MachineZone, cpus: &CpuSet, kib: u64, folder: &Path) -> Result<()> {
    let cpu = &machine.host.cpu;
    for number in cpus.cpus() {
        let topology = folder.join(format!("cpu{number}/topology"));
        fs::create_dir_all(&topology)?;
        let core = group_of(&cpu.cores, number).unwrap_or(usize::try_from(number)?);
        let socket = group_of(&cpu.sockets, number).unwrap_or(usize::from(zone.id.0));
        fs::write(topology.join("core_id"), format!("{core}\n"))?;
        fs::write(topology.join("physical_package_id"), format!("{socket}\n"))?;
    }
    fs::write(folder.join("cpulist"), format!("{cpus}\n"))?;
    let id = zone.id.0;
    fs::write(folder.join("meminfo"), format!("Node {id} MemTotal: {kib} kB\nNode {id} MemFree: {kib} kB\n"))?;
    let distances = zone.distances.clone().unwrap_or_else(|| {
        // What a kernel says that was told nothing: near, and not so near.
        machine.zones.iter().map(|other| if other.id == zone.id { 10 } else { 20 }).collect()
    });
    let distances: Vec<String> = distances.iter().map(ToString::to_string).collect();
    fs::write(folder.join("distance"), distances.join(" ") + "\n")?;
    write_huge_pages(std::slice::from_ref(zone), &folder.join("hugepages"))
}

/// The pools of zones together.
fn write_huge_pages(zones: &[MachineZone], folder: &Path) -> Result<()> {
    for size in PAGE_SIZES_KIB {
        let pools = zones.iter().flat_map(|zone| zone.huge_pages.iter().flatten());
        let count: u64 = pools.filter(|pool| pool.page_kib == size).map(|pool| pool.page_count).sum();
        let pool = folder.join(format!("hugepages-{size}kB"));
        fs::create_dir_all(&pool)?;
        for (file, number) in [("nr_hugepages", count), ("free_hugepages", count), ("surplus_hugepages", 0)] {
            fs::write(pool.join(file), format!("{number}\n"))?;
        }
    }
    Ok(())
}

/// The place among its fellows of the group that has the CPU.
fn group_of(groups: &Option<CpuGroups>, cpu: u32) -> Option<usize> {
    groups.as_ref()?.groups().position(|group| group.cpus().any(|c| c == cpu))
}
