//! What each of the kubelet's managers offers a container: the sets of zones in which it could have what it asks.
//!
//! Source: `devicemanager/topology_hints.go`, `cpumanager/policy_static.go` and `memorymanager/policy_static.go` below
//! `pkg/kubelet/cm` of Kubernetes 1.36.3.

use std::collections::BTreeMap;

use super::ask::ContainerAsk;
use super::hint::{Hint, Offer};
use super::mask::ZoneMask;
use super::site::{Device, Site};
use super::take::Reuse;

/// What every manager offers; a manager that does not look at zones offers nothing.
pub(crate) fn offers(site: &Site, ask: &ContainerAsk, reuse: &Reuse) -> Vec<Offer> {
    let mut offers: Vec<Offer> = ask.devices.iter().map(|(name, count)| devices(site, name, *count, reuse)).collect();
    offers.push(cpus(site, ask.exclusive_cpu_count, reuse));
    offers.extend(memory(site, &ask.memory_bytes, reuse));
    offers
}

/// Hints of all masks that will do; those are preferred that are as small as the smallest that would do on the empty machine.
fn marked(masks: impl Iterator<Item = ZoneMask>, least_count: u32, also: impl Fn(ZoneMask) -> bool) -> Vec<Hint> {
    let hint =
        |mask: ZoneMask| Hint { zones: Some(mask), is_preferred: mask.zone_count() == least_count || also(mask) };
    masks.map(hint).collect()
}

fn least_count(all: ZoneMask, would_do: impl Fn(ZoneMask) -> bool) -> u32 {
    let counts = all.subsets().filter(|m| would_do(*m)).map(ZoneMask::zone_count);
    counts.min().unwrap_or(u32::MAX).min(all.zone_count())
}

fn devices(site: &Site, name: &str, asked: u32, reuse: &Reuse) -> Offer {
    let devices = site.devices.get(name).map_or(&[][..], Vec::as_slice);
    let bearing = devices.iter().fold(ZoneMask::EMPTY, |all, d| all.or(d.zones));
    if bearing.is_empty() {
        return None;
    }
    let again = |position: usize| reuse.has_device(name, position);
    let in_mask = |d: &Device, mask: ZoneMask| !d.zones.and(mask).is_empty();
    let count = |fits: &dyn Fn(usize, &Device) -> bool| {
        u32::try_from(devices.iter().enumerate().filter(|(at, d)| fits(*at, d)).count()).unwrap_or(u32::MAX)
    };
    if count(&|at, d| d.is_free || again(at)) < asked {
        return Some(Vec::new());
    }
    // Zones without such devices do not count, and those that the machine does not have neither.
    let known = bearing.and(site.all_zones());
    let known = if known.is_empty() { site.all_zones() } else { known };
    let least = least_count(known, |mask| count(&|_, d| in_mask(d, mask)) >= asked);
    let will_do = |mask: &ZoneMask| {
        let leaves_one_out = count(&|at, d| again(at) && !d.zones.is_empty() && !in_mask(d, *mask)) > 0;
        !leaves_one_out && count(&|at, d| (d.is_free || again(at)) && in_mask(d, *mask)) >= asked
    };
    Some(marked(known.subsets().filter(will_do), least, |_| false))
}

fn cpus(site: &Site, asked: u32, reuse: &Reuse) -> Offer {
    if asked == 0 || !site.rules.has_exclusive_cpus {
        return None;
    }
    let bearing = ZoneMask::of(site.zones.iter().filter(|z| z.cpu_count > 0).map(|z| z.id));
    let sum = |mask: ZoneMask, of: &dyn Fn(&super::site::ZoneSite) -> u32| {
        site.within(mask).map(of).fold(0_u32, u32::saturating_add)
    };
    let least = least_count(bearing, |mask| sum(mask, &|z| z.cpu_count) >= asked);
    let will_do = |mask: &ZoneMask| {
        let has_all = reuse.cpus.iter().all(|(zone, count)| *count == 0 || mask.contains(*zone));
        has_all && sum(*mask, &|z| z.free_cpu_count.saturating_add(reuse.cpus_of(z.id))) >= asked
    };
    let sockets = usize::max(1, site.sockets(bearing));
    let per_socket = usize::try_from(bearing.zone_count()).unwrap_or(usize::MAX) / sockets;
    let least_sockets = usize::try_from(least).unwrap_or(usize::MAX).div_ceil(usize::max(1, per_socket));
    let is_in_socket =
        |mask: ZoneMask| site.rules.is_socket_enough && per_socket > 0 && site.sockets(mask) == least_sockets;
    Some(marked(bearing.subsets().filter(will_do), least, is_in_socket))
}

/// One offer for each kind of memory, all the same. Where no set of zones will do there is none at all, as if nothing were asked: the
/// kubelet then finds out when it takes the memory.
fn memory(site: &Site, asked: &BTreeMap<String, u64>, reuse: &Reuse) -> Vec<Offer> {
    if asked.is_empty() || !site.rules.has_exclusive_memory {
        return Vec::new();
    }
    match memory_hints(site, asked, reuse) {
        hints if hints.is_empty() => vec![None],
        hints => asked.iter().map(|_| Some(hints.clone())).collect(),
    }
}

/// Sets of zones where all kinds of memory can be had.
pub(crate) fn memory_hints(site: &Site, asked: &BTreeMap<String, u64>, reuse: &Reuse) -> Vec<Hint> {
    let all = site.all_zones();
    let sum = |mask: ZoneMask, name: &String, of: &dyn Fn(super::site::Memory) -> u64| {
        let amounts = site.within(mask).filter_map(|z| z.memory.get(name)).map(|m| of(*m));
        amounts.fold(0_u64, u64::saturating_add)
    };
    let would_do =
        |mask: ZoneMask| asked.iter().all(|(name, bytes)| sum(mask, name, &|m| m.allocatable_bytes) >= *bytes);
    let least = least_count(all, would_do);
    let will_do = |mask: &ZoneMask| {
        let has_room = |(name, bytes): (&String, &u64)| {
            sum(*mask, name, &|m| m.free_bytes).saturating_add(reuse.memory_of(*mask, name)) >= *bytes
        };
        would_do(*mask) && !breaks_a_group(site, *mask, true) && asked.iter().all(has_room)
    };
    marked(all.subsets().filter(will_do), least, |_| false)
}

/// Whether memory from these zones together would break a group: a zone gives to single zones or to one group of zones, not to both.
pub(crate) fn breaks_a_group(site: &Site, mask: ZoneMask, is_strict_for_one: bool) -> bool {
    if mask.zone_count() == 1 {
        return is_strict_for_one && site.within(mask).any(|z| z.group.zone_count() > 1);
    }
    site.within(mask).any(|z| z.block_count > 0 && z.group != mask)
}
