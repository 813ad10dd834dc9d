//! How the kubelet's managers take what was hinted, and what init containers leave to those after them.
//!
//! Source: `Allocate` of the three managers below `pkg/kubelet/cm` of Kubernetes 1.36.3. CPUs are counted, not named: where a hint spans
//! zones, they are taken from zones that are wholly free and wholly needed first, then from the fullest, as the packed order does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use berth_model::ZoneId;

use super::Refusal;
use super::ask::{ContainerAsk, Phase};
use super::hint::Hint;
use super::mask::ZoneMask;
use super::offer::{breaks_a_group, memory_hints};
use super::site::{Site, ZoneSite};

/// What init containers of the pod held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reuse {
    pub(crate) cpus: BTreeMap<ZoneId, u32>,
    devices: BTreeMap<String, BTreeSet<usize>>,
    memory: BTreeMap<(ZoneMask, String), u64>,
}

impl Reuse {
    pub(crate) fn cpus_of(&self, zone: ZoneId) -> u32 {
        self.cpus.get(&zone).copied().unwrap_or(0)
    }

    pub(crate) fn has_device(&self, resource: &str, position: usize) -> bool {
        self.devices.get(resource).is_some_and(|d| d.contains(&position))
    }

    pub(crate) fn memory_of(&self, mask: ZoneMask, name: &str) -> u64 {
        self.memory.get(&(mask, name.to_owned())).copied().unwrap_or(0)
    }
}

/// Who chooses devices where the kubelet leaves a choice: the device plugin, or a plan that it follows.
pub trait Steer {
    /// `count` of the positions `among`, which are more, for one container. Others than those among are not taken.
    fn choose(&mut self, container: usize, resource: &str, among: &[usize], count: usize) -> Vec<usize>;
}

/// Takes the first ones, as nobody in particular.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstOnes;

impl Steer for FirstOnes {
    fn choose(&mut self, _: usize, _: &str, among: &[usize], count: usize) -> Vec<usize> {
        among.iter().copied().take(count).collect()
    }
}

/// Takes all that a container asks out of the site. Returns its devices by resource.
pub(crate) fn take(
    site: &mut Site,
    container: (usize, &ContainerAsk),
    hint: Hint,
    reuse: &mut Reuse,
    steer: &mut dyn Steer,
) -> Result<BTreeMap<String, BTreeSet<usize>>, Refusal> {
    let (number, ask) = container;
    let mut taken = BTreeMap::new();
    for (name, count) in ask.devices.iter().filter(|(_, count)| **count > 0) {
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        let mut choose = |among: &[usize], count: usize| steer.choose(number, name, among, count);
        let devices = take_devices(site, name, count, hint.zones, reuse, &mut choose)?;
        settle_devices(ask.phase, name, &devices, reuse);
        taken.insert(name.clone(), devices);
    }
    take_cpus(site, ask, hint.zones, reuse)?;
    take_memory(site, ask, hint, reuse)?;
    Ok(taken)
}

fn settle_devices(phase: Phase, name: &str, devices: &BTreeSet<usize>, reuse: &mut Reuse) {
    let left = reuse.devices.entry(name.to_owned()).or_default();
    match phase {
        Phase::Init => left.extend(devices),
        Phase::Sidecar | Phase::App => left.retain(|d| !devices.contains(d)),
    }
}

fn take_devices(
    site: &mut Site,
    name: &str,
    count: usize,
    hinted: Option<ZoneMask>,
    reuse: &Reuse,
    choose: &mut dyn FnMut(&[usize], usize) -> Vec<usize>,
) -> Result<BTreeSet<usize>, Refusal> {
    let mut taken: BTreeSet<usize> = reuse.devices.get(name).into_iter().flatten().copied().take(count).collect();
    // Devices that no report lists are counted by kube-scheduler, and nobody knows where they are.
    let Some(devices) = site.devices.get_mut(name) else { return Ok(BTreeSet::new()) };
    let free = |near: Option<bool>| -> Vec<usize> {
        let is_near = |zones: ZoneMask| hinted.is_some_and(|mask| !zones.and(mask).is_empty());
        let fits = devices.iter().enumerate().filter(|(_, d)| d.is_free && near.is_none_or(|n| n == is_near(d.zones)));
        fits.map(|(at, _)| at).collect()
    };
    let mut needed = count.saturating_sub(taken.len());
    let (near, all) = (free(Some(true)), free(None));
    if all.len() < needed {
        return Err(Refusal::Devices);
    }
    if needed >= near.len() && needed > 0 {
        needed = needed.saturating_sub(near.len());
        taken.extend(&near);
    }
    let among: Vec<usize> = if near.iter().all(|d| taken.contains(d)) { free(Some(false)) } else { near };
    if needed > 0 {
        let chosen = if among.len() > needed { choose(&among, needed) } else { among.clone() };
        let chosen: BTreeSet<usize> = chosen.into_iter().filter(|d| among.contains(d)).take(needed).collect();
        // What the plugin leaves open the kubelet fills up from anywhere.
        let rest = among.iter().filter(|d| !chosen.contains(d)).take(needed.saturating_sub(chosen.len()));
        taken.extend(chosen.iter().chain(rest));
    }
    for (at, device) in devices.iter_mut().enumerate() {
        device.is_free &= !taken.contains(&at);
    }
    Ok(taken)
}

fn take_cpus(site: &mut Site, ask: &ContainerAsk, hinted: Option<ZoneMask>, reuse: &mut Reuse) -> Result<(), Refusal> {
    let asked = ask.exclusive_cpu_count;
    if asked == 0 || !site.rules.has_exclusive_cpus {
        return Ok(());
    }
    let free = site.zones.iter().map(|z| z.free_cpu_count).fold(0_u32, u32::saturating_add);
    if let Some(threads) = site.rules.threads_per_core
        && (asked.checked_rem(threads).is_some_and(|rest| rest > 0) || asked > free)
    {
        return Err(Refusal::SmtAlignment);
    }
    let left = reuse.cpus.values().copied().fold(0_u32, u32::saturating_add);
    if free.saturating_add(left) < asked {
        return Err(Refusal::Cpus);
    }
    let all = site.all_zones();
    let near = match hinted {
        Some(mask) if site.rules.is_socket_enough => {
            let sockets: BTreeSet<_> = site.within(mask).map(|z| z.socket).collect();
            ZoneMask::of(site.zones.iter().filter(|z| sockets.contains(&z.socket)).map(|z| z.id))
        }
        Some(mask) => mask,
        None => ZoneMask::EMPTY,
    };
    let mut had: BTreeMap<ZoneId, u32> = BTreeMap::new();
    let missing = take_cpus_within(site, near, asked, reuse, &mut had);
    let far = ZoneMask::of(all.zones().filter(|z| !near.contains(*z)));
    take_cpus_within(site, far, missing, reuse, &mut had);
    for (zone, count) in had {
        let left = reuse.cpus.entry(zone).or_default();
        *left = match ask.phase {
            Phase::Init => (*left).max(count),
            Phase::Sidecar | Phase::App => left.saturating_sub(count),
        };
    }
    Ok(())
}

/// Takes up to `wanted` CPUs from these zones, in the kubelet's order; returns how many are still missing.
fn take_cpus_within(
    site: &mut Site,
    mask: ZoneMask,
    wanted: u32,
    reuse: &Reuse,
    had: &mut BTreeMap<ZoneId, u32>,
) -> u32 {
    let mut missing = wanted;
    let room = |z: &ZoneSite| z.free_cpu_count.saturating_add(reuse.cpus_of(z.id));
    let mut order: Vec<(ZoneId, u32, bool)> =
        site.within(mask).map(|z| (z.id, room(z), room(z) == z.cpu_count && z.cpu_count > 0)).collect();
    order.sort_unstable_by_key(|(id, room, is_whole)| (Reverse(*is_whole && *room <= wanted), *room, *id));
    let mut open = u32::try_from(order.len()).unwrap_or(u32::MAX);
    for (id, room, _) in order {
        let share = if site.rules.spreads_cpus { missing.div_ceil(open.max(1)) } else { missing };
        let taken = room.min(share);
        open = open.saturating_sub(1);
        missing = missing.saturating_sub(taken);
        if taken > 0 {
            had.insert(id, taken);
        }
        let fresh = taken.saturating_sub(reuse.cpus_of(id));
        if let Some(zone) = site.zones.iter_mut().find(|z| z.id == id) {
            zone.free_cpu_count = zone.free_cpu_count.saturating_sub(fresh);
        }
    }
    missing
}

fn take_memory(site: &mut Site, ask: &ContainerAsk, hint: Hint, reuse: &mut Reuse) -> Result<(), Refusal> {
    let asked = &ask.memory_bytes;
    if asked.is_empty() || !site.rules.has_exclusive_memory {
        return Ok(());
    }
    let best = |hints: Vec<Hint>, inside: ZoneMask| {
        let covering = hints.into_iter().filter(|h| h.zones.is_some_and(|z| z.covers(inside)));
        let key = |h: &Hint| (!h.is_preferred, h.zones.map(|z| (z.zone_count(), z)));
        covering.min_by_key(key).ok_or(Refusal::Memory)
    };
    let checked = |found: Hint| if hint.is_preferred && !found.is_preferred { Err(Refusal::Memory) } else { Ok(found) };
    let mask = match hint.zones {
        Some(mask) => mask,
        None => checked(best(memory_hints(site, asked, reuse), ZoneMask::EMPTY)?)?.zones.unwrap_or_default(),
    };
    let free = |mask: ZoneMask, name: &str| {
        let amounts = site.within(mask).filter_map(|z| z.memory.get(name)).map(|m| m.free_bytes);
        amounts.fold(0_u64, u64::saturating_add)
    };
    let mask = if asked.iter().all(|(name, bytes)| free(mask, name) >= *bytes) {
        mask
    } else {
        checked(best(memory_hints(site, asked, reuse), mask)?)?.zones.unwrap_or_default()
    };
    if breaks_a_group(site, mask, false) {
        return Err(Refusal::Memory);
    }
    for (name, bytes) in asked {
        let again = reuse.memory_of(mask, name);
        take_bytes(site, mask, name, bytes.saturating_sub(again));
        let left = reuse.memory.entry((mask, name.clone())).or_default();
        *left = match ask.phase {
            Phase::Init => (*left).max(*bytes),
            Phase::Sidecar | Phase::App => left.saturating_sub(*bytes),
        };
    }
    Ok(())
}

fn take_bytes(site: &mut Site, mask: ZoneMask, name: &str, bytes: u64) {
    let mut missing = bytes;
    for zone in site.zones.iter_mut().filter(|z| mask.contains(z.id)) {
        zone.block_count = zone.block_count.saturating_add(1);
        zone.group = mask;
        if let Some(memory) = zone.memory.get_mut(name) {
            let taken = memory.free_bytes.min(missing);
            memory.free_bytes = memory.free_bytes.saturating_sub(taken);
            missing = missing.saturating_sub(taken);
        }
    }
}
