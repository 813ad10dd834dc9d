//! Where the devices of a capture are: which share a host bridge, and in which zone each is.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{CpuSet, PcieLevel};

use super::capture::{Capture, Word};
use super::levels::Levels;
use super::{ImportError, refuse};

/// How the devices of a group hang on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bus {
    /// Below a PCI host bridge.
    Pci,
    /// A single device whose distance to others was not captured: only its zone counts.
    Open,
}

/// Devices below one host bridge.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) devices: Vec<usize>,
    pub(super) bus: Bus,
    pub(super) zone: Option<u16>,
}

/// Places of all devices.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) groups: Vec<Group>,
    /// Zones of GPUs where they differ from their group's.
    pub(super) own_zones: BTreeMap<usize, u16>,
    /// CPUs of every zone; `None` where the capture does not say.
    pub(super) zones: BTreeMap<u16, Option<CpuSet>>,
    /// The bridges below each group, nearest last: clusters of PXB, in them clusters of PIX.
    pub(super) bridges: Vec<Vec<Vec<Vec<usize>>>>,
}

/// What is known between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Node,
    Sys,
    /// Hidden by NVLinks.
    Hidden,
    /// Not captured.
    Missing,
}

impl Places {
    pub(super) fn of(capture: &Capture, levels: &Levels, assumptions: &mut Vec<String>) -> Result<Self, ImportError> {
        let all: Vec<usize> = (0..capture.labels.len()).collect();
        let known = zones_of_gpus(capture, assumptions);
        let groups: Vec<Vec<usize>> = levels.groups(&all, PcieLevel::Phb);
        let relations = Relations::of(capture, levels, &groups);
        let mut groups: Vec<Group> = groups
            .into_iter()
            .enumerate()
            .map(|(i, devices)| {
                let zone = devices.iter().find_map(|d| known.get(d)).copied();
                let open = devices.len() == 1 && relations.has_missing(i);
                Group { devices, bus: if open { Bus::Open } else { Bus::Pci }, zone }
            })
            .collect();
        let open = groups.iter().filter(|g| g.bus == Bus::Open).flat_map(|g| &g.devices);
        let open: Vec<&str> = open.filter_map(|d| capture.labels.get(*d)).map(String::as_str).collect();
        if !open.is_empty() {
            assumptions
                .push(format!("without a way on PCI, because its cells are not all captured: {}", open.join(", ")));
        }
        let mentioned = mentioned_zones(capture);
        place_the_rest(capture, &mut groups, &relations, &mentioned, assumptions);
        let own_zones = groups
            .iter()
            .flat_map(|g| g.devices.iter().map(move |d| (*d, g.zone)))
            .filter_map(|(d, zone)| known.get(&d).filter(|own| Some(**own) != zone).map(|own| (d, *own)))
            .collect();
        let bridges = groups
            .iter()
            .map(|g| {
                let cascades = levels.groups(&g.devices, PcieLevel::Pxb);
                cascades.into_iter().map(|cascade| levels.groups(&cascade, PcieLevel::Pix)).collect()
            })
            .collect();
        let mut places = Self { groups, own_zones, zones: BTreeMap::new(), bridges };
        places.zones = places.cpus(capture, mentioned, assumptions)?;
        Ok(places)
    }

    pub(super) fn zone(&self, device: usize) -> Option<u16> {
        let group = self.groups.iter().find(|g| g.devices.contains(&device));
        self.own_zones.get(&device).copied().or(group.and_then(|g| g.zone))
    }

    /// The zones with the CPUs that the rows of their GPUs name.
    fn cpus(
        &self,
        capture: &Capture,
        mentioned: BTreeSet<u16>,
        assumptions: &mut Vec<String>,
    ) -> Result<BTreeMap<u16, Option<CpuSet>>, ImportError> {
        let memory_only = mentioned.iter().copied().filter(|z| !self.has_gpu(capture, *z));
        let memory_only: BTreeSet<u16> = memory_only.collect();
        let mut zones: BTreeMap<u16, Option<CpuSet>> = mentioned.into_iter().map(|id| (id, None)).collect();
        zones.extend(self.groups.iter().filter_map(|g| g.zone).map(|id| (id, None)));
        let mut owners: BTreeMap<u32, u16> = BTreeMap::new();
        let mut cut = Vec::new();
        for (gpu, affinity) in capture.affinity.iter().enumerate() {
            let (Some(given), Some(zone)) = (&affinity.cpus, self.zone(gpu)) else { continue };
            if given.value.is_empty() {
                cut.push(format!("GPU{gpu}"));
            }
            match zones.get(&zone) {
                Some(Some(cpus)) if *cpus == given.value => continue,
                Some(Some(cpus)) => {
                    let problem =
                        format!("CPUs {} for a GPU of zone {zone}, another GPU of that zone has {cpus}", given.value);
                    return refuse(given.at, problem);
                }
                _ => {}
            }
            for cpu in given.value.cpus() {
                if let Some(owner) = owners.insert(cpu, zone).filter(|owner| *owner != zone) {
                    return refuse(given.at, format!("CPU {cpu} is in zone {zone} here and in zone {owner} above"));
                }
            }
            zones.insert(zone, Some(given.value.clone()));
        }
        if !cut.is_empty() {
            let gpus = cut.join(", ");
            assumptions.push(format!(
                "no CPUs near {gpus}: the capture was taken inside a cpuset, so CPU lists are what it left"
            ));
        }
        for id in memory_only {
            zones.insert(id, Some(CpuSet::default()));
        }
        let unknown: Vec<String> =
            zones.iter().filter(|(_, cpus)| cpus.is_none()).map(|(id, _)| id.to_string()).collect();
        if !unknown.is_empty() {
            assumptions.push(format!("CPUs of zone {} are not in the capture", unknown.join(", ")));
        }
        Ok(zones)
    }

    fn has_gpu(&self, capture: &Capture, zone: u16) -> bool {
        (0..capture.gpu_count).any(|gpu| self.zone(gpu) == Some(zone))
    }
}

/// Every zone that the capture names.
fn mentioned_zones(capture: &Capture) -> BTreeSet<u16> {
    let lists = capture.affinity.iter().filter_map(|a| a.zones.as_ref()).flat_map(|g| g.value.iter().copied());
    let memory = capture.affinity.iter().filter_map(|a| a.memory_zone.as_ref()?.value);
    lists.chain(memory).collect()
}

/// Zones that the rows of GPUs give: by NUMA Affinity, else by CPU Affinity.
fn zones_of_gpus(capture: &Capture, assumptions: &mut Vec<String>) -> BTreeMap<usize, u16> {
    let mut known: BTreeMap<usize, u16> = BTreeMap::new();
    let mut by_cpus: BTreeMap<&CpuSet, u16> = BTreeMap::new();
    for (gpu, affinity) in capture.affinity.iter().enumerate() {
        let Some(first) = affinity.zones.as_ref().and_then(|given| given.value.first()) else { continue };
        known.insert(gpu, *first);
        if let Some(cpus) = affinity.cpus.as_ref().filter(|c| !c.value.is_empty()) {
            by_cpus.entry(&cpus.value).or_insert(*first);
        }
    }
    let rest = capture.affinity.iter().enumerate().filter(|(gpu, _)| !known.contains_key(gpu));
    let rest: Vec<(usize, &CpuSet)> =
        rest.filter_map(|(gpu, a)| Some((gpu, &a.cpus.as_ref().filter(|c| !c.value.is_empty())?.value))).collect();
    // Numbered in the order of their lowest CPU, as kernels number nodes.
    let mut lists: Vec<&CpuSet> =
        rest.iter().map(|(_, cpus)| *cpus).filter(|cpus| !by_cpus.contains_key(cpus)).collect();
    lists.sort_by_key(|cpus| cpus.cpus().next());
    for cpus in lists {
        if !by_cpus.contains_key(cpus) {
            let id = free_zone(by_cpus.values().copied());
            by_cpus.insert(cpus, id);
            assumptions.push(format!("CPUs {cpus} are taken for zone {id}: the capture does not number it"));
        }
    }
    known.extend(rest.into_iter().filter_map(|(gpu, cpus)| Some((gpu, *by_cpus.get(cpus)?))));
    known
}

fn free_zone(used: impl Iterator<Item = u16>) -> u16 {
    let used: BTreeSet<u16> = used.collect();
    (0..u16::MAX).find(|id| !used.contains(id)).unwrap_or(u16::MAX)
}

/// Relations of all groups.
struct Relations(Vec<Vec<Relation>>);

impl Relations {
    fn of(capture: &Capture, levels: &Levels, groups: &[Vec<usize>]) -> Self {
        let between = |a: &[usize], b: &[usize]| {
            let pairs = a.iter().flat_map(|x| b.iter().map(move |y| (*x, *y)));
            let mut found = Relation::Missing;
            for (x, y) in pairs {
                let hidden =
                    capture.cells.get(&(x.min(y), x.max(y))).is_some_and(|c| matches!(c.value, Word::NvLink(_)));
                match levels.get(x, y) {
                    Some(PcieLevel::Sys) => return Relation::Sys,
                    Some(_) => found = Relation::Node,
                    None if hidden && found == Relation::Missing => found = Relation::Hidden,
                    None => {}
                }
            }
            found
        };
        Self(groups.iter().map(|a| groups.iter().map(|b| between(a, b)).collect()).collect())
    }

    fn get(&self, a: usize, b: usize) -> Relation {
        self.0.get(a).and_then(|row| row.get(b)).copied().unwrap_or(Relation::Missing)
    }

    fn has_missing(&self, group: usize) -> bool {
        let row = self.0.get(group).map(Vec::as_slice).unwrap_or_default();
        row.iter().enumerate().any(|(other, relation)| other != group && *relation == Relation::Missing)
    }
}

/// Gives zones to groups without one: that of a group at NODE, else one that no captured SYS rules out, else a new one.
fn place_the_rest(
    capture: &Capture,
    groups: &mut [Group],
    relations: &Relations,
    mentioned: &BTreeSet<u16>,
    assumptions: &mut Vec<String>,
) {
    // Each round places one group; the bound only says that it ends.
    for _ in 0..groups.len() {
        let zone_at = |i: usize, groups: &[Group], wanted: Relation| {
            let near = groups.iter().enumerate().filter(|(j, _)| *j != i && relations.get(i, *j) == wanted);
            near.filter_map(|(_, g)| g.zone).collect::<Vec<u16>>()
        };
        let waiting: Vec<usize> =
            (0..groups.len()).filter(|i| groups.get(*i).is_some_and(|g| g.zone.is_none())).collect();
        let by_node = waiting.iter().find_map(|i| Some((*i, *zone_at(*i, groups, Relation::Node).first()?)));
        let next = by_node.or_else(|| {
            let told = |i: &&usize| {
                (0..groups.len()).any(|j| j != **i && matches!(relations.get(**i, j), Relation::Node | Relation::Sys))
            };
            let i = *waiting.iter().find(told)?;
            let far = zone_at(i, groups, Relation::Sys);
            let used: BTreeSet<u16> = groups.iter().filter_map(|g| g.zone).collect();
            let open = used.iter().copied().find(|zone| !far.contains(zone));
            let zone = open.unwrap_or_else(|| free_zone(used.iter().chain(mentioned).copied()));
            let names: Vec<&str> =
                groups.get(i)?.devices.iter().filter_map(|d| capture.labels.get(*d)).map(String::as_str).collect();
            let names = names.join(", ");
            assumptions.push(match open {
                Some(_) => {
                    format!("{names}: taken to be in zone {zone}, the first that the captured cells leave open")
                }
                None => format!("{names}: taken to be in a zone {zone}, being SYS to every device of the other zones"),
            });
            Some((i, zone))
        });
        let Some((i, zone)) = next else { return };
        if let Some(group) = groups.get_mut(i) {
            group.zone = Some(zone);
        }
    }
}
