//! NUMA nodes with their CPUs, memory and distances, from `sys/devices/system/node`.

use berth_model::{CpuSet, HugePages, MiB, ZoneId};

use super::Reader;
use crate::facts::ZoneFacts;

const NODES: &str = "sys/devices/system/node";
const CPUS_ONLINE: &str = "sys/devices/system/cpu/online";

pub(super) fn read(reader: &mut Reader<'_>) -> Vec<ZoneFacts> {
    let mut ids: Vec<u16> = reader.list(NODES).iter().filter_map(|name| parse_node_name(name)).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        return without_nodes(reader);
    }
    ids.into_iter().map(|id| read_zone(reader, id)).collect()
}

/// A kernel without NUMA shows CPUs and no nodes: the machine is one zone.
fn without_nodes(reader: &mut Reader<'_>) -> Vec<ZoneFacts> {
    let cpus = reader.parsed(CPUS_ONLINE, "a CPU list", parse_cpus);
    cpus.map(|cpus| ZoneFacts { id: ZoneId(0), cpus: Some(cpus), memory: None, huge_pages: None, distances: None })
        .into_iter()
        .collect()
}

fn read_zone(reader: &mut Reader<'_>, id: u16) -> ZoneFacts {
    let directory = format!("{NODES}/node{id}");
    ZoneFacts {
        id: ZoneId(id),
        cpus: reader.parsed(&format!("{directory}/cpulist"), "a CPU list like 0-13,28-41", parse_cpus),
        memory: reader.parsed(&format!("{directory}/meminfo"), "node memory with a MemTotal in kB", parse_meminfo),
        huge_pages: read_huge_pages(reader, &format!("{directory}/hugepages")),
        distances: reader.parsed(&format!("{directory}/distance"), "a list of distances like 10 21", parse_distances),
    }
}

/// The pools of a zone, without surplus pages: those come and go with the programs that use them. One size that does not say makes
/// all unknown.
fn read_huge_pages(reader: &mut Reader<'_>, directory: &str) -> Option<Vec<HugePages>> {
    let sizes: Vec<(String, u64)> =
        reader.list(directory).into_iter().filter_map(|name| parse_page_size(&name).map(|kib| (name, kib))).collect();
    if sizes.is_empty() {
        return None;
    }
    let mut pools = Vec::new();
    for (name, page_kib) in sizes.into_iter().take(HugePages::SIZES_MAX) {
        let number = |text: &str| text.parse::<u64>().ok();
        let pages = reader.parsed(&format!("{directory}/{name}/nr_hugepages"), "a number of pages", number)?;
        let surplus = reader.parsed(&format!("{directory}/{name}/surplus_hugepages"), "a number of pages", number);
        let page_count = pages.saturating_sub(surplus.unwrap_or_default());
        if page_count > 0 {
            pools.push(HugePages { page_kib, page_count });
        }
    }
    pools.sort_unstable();
    Some(pools)
}

/// `hugepages-2048kB`.
#[must_use]
pub fn parse_page_size(name: &str) -> Option<u64> {
    let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    kib.parse().ok().filter(|kib| *kib > 0)
}

fn parse_cpus(text: &str) -> Option<CpuSet> {
    CpuSet::parse(text).ok()
}

/// `node3`.
#[must_use]
pub fn parse_node_name(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("node")?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `Node 0 MemTotal:       11626708 kB`, rounded down to MiB.
#[must_use]
pub fn parse_meminfo(text: &str) -> Option<MiB> {
    let line = text.lines().find(|line| line.contains("MemTotal:"))?;
    let (_, amount) = line.split_once("MemTotal:")?;
    let kib: u64 = amount.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MiB(kib / 1024))
}

/// `10 21`.
#[must_use]
pub fn parse_distances(text: &str) -> Option<Vec<u16>> {
    let distances: Option<Vec<u16>> = text.split_ascii_whitespace().map(|d| d.parse().ok()).collect();
    distances.filter(|d| !d.is_empty())
}
