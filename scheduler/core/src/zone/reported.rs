//! The site of an idle node, from its report and what its kubelet offers.
//!
//! What the kubelet keeps for the system is in no report. CPUs that it does not name are taken to be the lowest ones, as the kubelet
//! takes them; memory is taken to be kept in every zone alike and in full, so that a prediction errs to the safe side.

use std::collections::BTreeMap;

use berth_model::{CpuSet, MiB, NodeTopology, Zone, ZoneId};

use super::mask::ZoneMask;
use super::seat::{Seat, resources, seats};
use super::site::{Device, Memory, Rules, Site, ZoneSite};
use crate::policy::Resources;
use crate::view::Compute;

/// CPUs in thousandths.
const MILLI: u64 = 1000;

impl Site {
    /// The site of a node on which no pod is, with its GPUs and MIG instances under all their names, at the positions of [`seats`]; `None`
    /// where the report does not tell the kubelet's rules, or these leave the kubelet no say.
    #[must_use]
    pub fn of_idle(topology: &NodeTopology, allocatable: Compute, names: &Resources) -> Option<Self> {
        let parts = topology.parts();
        let kubelet = parts.host.kubelet.as_ref()?;
        let rules = Rules::of(kubelet, parts.host.cpu.threads_per_core().unwrap_or(1));
        if !rules.has_say() {
            return None;
        }
        let reserved = reserved_cpus(&parts.zones, &kubelet.reserved_cpus, allocatable);
        let kept = kept_memory(&parts.zones, allocatable);
        let sockets: Vec<CpuSet> = parts.host.cpu.sockets.iter().flat_map(|groups| groups.groups()).collect();
        let ids: Vec<ZoneId> = parts.zones.iter().map(|z| z.id).collect();
        let zones = parts.zones.iter().map(|zone| zone_site(zone, &ids, &reserved, kept, &sockets)).collect();
        let device = |seat: Seat| {
            let gpu = parts.gpus.get(usize::from(seat.gpu.0));
            let zones = gpu.and_then(|gpu| gpu.zone).and_then(ZoneMask::single).unwrap_or_default();
            let is_cut = gpu.is_some_and(|gpu| gpu.mig_enabled == Some(true));
            let is_healthy = gpu.is_some_and(|gpu| gpu.health.is_usable());
            Device { zones, is_free: is_healthy && is_cut == seat.placement.is_some() }
        };
        let listed = |name: &String| seats(topology, name, names).into_iter().map(device).collect();
        let devices = resources(topology, names).into_iter().map(|name| (name.clone(), listed(&name))).collect();
        Some(Self { rules, zones, devices, untaken_count: 0 })
    }
}

fn zone_site(zone: &Zone, ids: &[ZoneId], reserved: &CpuSet, kept: MiB, sockets: &[CpuSet]) -> ZoneSite {
    let own: Vec<u32> = zone.cpus.cpus().collect();
    let taken = reserved.cpus().filter(|c| own.contains(c)).count();
    let cpu_count = zone.cpus.cpu_count();
    let first = zone.cpus.first();
    let socket = sockets.iter().zip(0_u16..).find(|(cpus, _)| first.is_some_and(|f| cpus.cpus().any(|c| c == f)));
    let huge = zone.huge_pages.iter().flatten();
    let mut memory: BTreeMap<String, Memory> = BTreeMap::new();
    let mut huge_bytes = 0_u64;
    for pool in huge {
        let bytes = pool.page_kib.saturating_mul(pool.page_count).saturating_mul(1024);
        huge_bytes = huge_bytes.saturating_add(bytes);
        memory.insert(huge_name(pool.page_kib), all_free(bytes));
    }
    let whole = zone.memory.unwrap_or_default().0.saturating_sub(kept.0).saturating_mul(1 << 20);
    memory.insert("memory".to_owned(), all_free(whole.saturating_sub(huge_bytes)));
    ZoneSite {
        id: zone.id,
        socket: socket.map(|(_, number)| number),
        cpu_count,
        free_cpu_count: cpu_count.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)),
        distances: ids.iter().copied().zip(zone.distances.iter().copied()).collect(),
        memory,
        block_count: 0,
        group: ZoneMask::single(zone.id).unwrap_or_default(),
    }
}

fn all_free(bytes: u64) -> Memory {
    Memory { allocatable_bytes: bytes, free_bytes: bytes }
}

/// The name that pods use, e.g. `hugepages-2Mi`.
fn huge_name(page_kib: u64) -> String {
    match page_kib {
        kib if kib > 0 && kib.is_multiple_of(1 << 20) => format!("hugepages-{}Gi", kib >> 20),
        kib if kib > 0 && kib.is_multiple_of(1 << 10) => format!("hugepages-{}Mi", kib >> 10),
        kib => format!("hugepages-{kib}Ki"),
    }
}

/// `reservedSystemCPUs` where the kubelet names them, else as many of the lowest as are missing from what it offers.
fn reserved_cpus(zones: &[Zone], named: &CpuSet, allocatable: Compute) -> CpuSet {
    if !named.is_empty() {
        return named.clone();
    }
    let mut all: Vec<u32> = zones.iter().flat_map(|z| z.cpus.cpus().collect::<Vec<_>>()).collect();
    all.sort_unstable();
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let missing = count.saturating_mul(MILLI).saturating_sub(allocatable.cpu_milli).div_ceil(MILLI);
    CpuSet::from_cpus(all.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)))
}

fn kept_memory(zones: &[Zone], allocatable: Compute) -> MiB {
    let huge = |z: &Zone| {
        let kib = z.huge_pages.iter().flatten().map(|p| p.page_kib.saturating_mul(p.page_count));
        kib.fold(0_u64, u64::saturating_add) >> 10
    };
    let own = |z: &Zone| z.memory.unwrap_or_default().0.saturating_sub(huge(z));
    let all = zones.iter().map(own).fold(0_u64, u64::saturating_add);
    MiB(all.saturating_sub(allocatable.memory.0))
}
