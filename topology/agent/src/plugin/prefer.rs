//! Which of the offered devices a container should get, from values alone: the planned ones, else those that are nearest to each other.
//! Always a subset of what is offered, of the size asked for where there is so much: the kubelet silently takes others otherwise.

use std::collections::BTreeSet;

use berth_model::{LinkClass, NodeTopology};

use super::devices::{Device, Devices};

/// Most ids of one request that are looked at.
const IDS_MAX: usize = 512;

/// What the kubelet asks for one container.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Free devices.
    pub(super) available: BTreeSet<String>,
    /// Devices that the container gets anyhow.
    pub(super) must: BTreeSet<String>,
    /// How many it gets, those of `must` among them.
    pub(super) size: usize,
}

impl Wanted {
    /// The request within bounds: more ids than a node has devices are nothing that a kubelet sends.
    pub(super) fn new(available: Vec<String>, must: Vec<String>, size: i32) -> Self {
        Self {
            available: available.into_iter().take(IDS_MAX).collect(),
            must: must.into_iter().take(IDS_MAX).collect(),
            size: usize::try_from(size).unwrap_or_default(),
        }
    }
}

/// How far an answer is the plan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is the plan.
    Planned,
    /// There is a plan, and not all of its devices are free, or it is for another number.
    Partly,
    /// There is no plan.
    Unplanned,
}

impl Kept {
    /// The word of the metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Partly => "partly",
            Self::Unplanned => "unplanned",
        }
    }
}

/// The devices for a container, in order of id. `planned` are those of its plan, `promised` those of the plans of others.
pub(super) fn prefer(
    wanted: &Wanted,
    planned: Option<&BTreeSet<String>>,
    promised: &BTreeSet<String>,
    devices: &Devices,
    topology: &NodeTopology,
) -> (Vec<String>, Kept) {
    let mut chosen: BTreeSet<String> = wanted.must.iter().take(wanted.size).cloned().collect();
    for id in planned.into_iter().flatten() {
        if chosen.len() < wanted.size && wanted.available.contains(id) {
            chosen.insert(id.clone());
        }
    }
    let kept = match planned {
        Some(planned) if chosen == *planned && chosen.len() == wanted.size => Kept::Planned,
        Some(_) => Kept::Partly,
        None => Kept::Unplanned,
    };
    let known = |id: &String| devices.get(id).map(|device| Choice { id: id.clone(), device: device.clone() });
    let free = wanted.available.iter().filter(|id| !chosen.contains(*id));
    let (others, own): (Vec<&String>, Vec<&String>) = free.partition(|id| promised.contains(*id));
    for pool in [own, others] {
        let missing = wanted.size.saturating_sub(chosen.len());
        let near: Vec<Choice> = chosen.iter().filter_map(known).collect();
        let choices: Vec<Choice> = pool.iter().copied().filter_map(known).collect();
        chosen.extend(nearest(&near, choices, missing, topology));
        // An id that no report knows is the kubelet's own word for a device of ours: better than too few.
        let unknown = pool.into_iter().filter(|id| !devices.contains_key(*id));
        chosen.extend(unknown.take(wanted.size.saturating_sub(chosen.len())).cloned());
    }
    (chosen.into_iter().collect(), kept)
}

/// A device that may be chosen.
#[derive(Debug, Clone)]
struct Choice {
    id: String,
    device: Device,
}

/// So many of `choices` as are asked for, near to each other and to `near`.
fn nearest(near: &[Choice], choices: Vec<Choice>, count: usize, topology: &NodeTopology) -> Vec<String> {
    if count == 0 || choices.is_empty() {
        return Vec::new();
    }
    if choices.iter().any(|choice| choice.device.start.is_some()) {
        return fullest(choices, count);
    }
    // Each start once, where nothing is chosen yet: what is nearest to the first may be far from the rest.
    let starts = if near.is_empty() { choices.len() } else { 1 };
    let grown = (0..starts).map(|start| grow(near, &choices, near.is_empty().then_some(start), count, topology));
    let best = grown.min_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut ids: Vec<String> = choices.into_iter().map(|choice| choice.id).collect();
    let mut keep = best.map(|(_, positions)| positions).unwrap_or_default();
    keep.sort_unstable();
    keep.into_iter().rev().map(|position| ids.swap_remove(position)).collect()
}

/// How near a set is: its weakest link, then the NVLinks of all pairs.
type Nearness = (Option<LinkClass>, u32);

/// Adds the nearest choice again and again; the positions that were taken, and how near they came.
fn grow(
    near: &[Choice],
    choices: &[Choice],
    start: Option<usize>,
    count: usize,
    topology: &NodeTopology,
) -> (Nearness, Vec<usize>) {
    let to = |a: &Choice, b: &Choice| {
        let (a, b) = (usize::from(a.device.gpu.0), usize::from(b.device.gpu.0));
        let link = topology.parts().links.link(a, b).unwrap_or_default();
        (link.class(), u32::from(link.nvlinks))
    };
    let mut taken: Vec<usize> = Vec::new();
    let mut total: Nearness = (None, 0);
    // Of each choice, how near it is to all that were taken.
    let mut each: Vec<Nearness> = vec![(None, 0); choices.len()];
    let join = |nearness: &mut Nearness, (class, nvlinks): (LinkClass, u32)| {
        nearness.0 = Some(nearness.0.map_or(class, |weakest| weakest.min(class)));
        nearness.1 = nearness.1.saturating_add(nvlinks);
    };
    for (nearness, choice) in each.iter_mut().zip(choices) {
        near.iter().for_each(|other| join(nearness, to(other, choice)));
    }
    let mut next = start;
    while taken.len() < count.min(choices.len()) {
        let free = (0..choices.len()).filter(|position| !taken.contains(position));
        // The last of equals by `max_by`, so the order is turned: the lowest index wins.
        let best = next.take().or_else(|| {
            free.max_by(|a, b| {
                each.get(*a).cmp(&each.get(*b)).then_with(|| index(choices, *b).cmp(&index(choices, *a)))
            })
        });
        let Some((best, choice)) = best.and_then(|best| Some((best, choices.get(best)?))) else { break };
        if let Some((Some(class), nvlinks)) = each.get(best).copied() {
            join(&mut total, (class, nvlinks));
        }
        taken.push(best);
        for (nearness, other) in each.iter_mut().zip(choices) {
            join(nearness, to(choice, other));
        }
    }
    (total, taken)
}

fn index(choices: &[Choice], position: usize) -> Option<u8> {
    choices.get(position).map(|choice| choice.device.gpu.0)
}

/// Instances of the GPUs that have the fewest free ones, so that other GPUs stay whole.
fn fullest(mut choices: Vec<Choice>, count: usize) -> Vec<String> {
    let mut free = [0_usize; 256];
    for choice in &choices {
        if let Some(free) = free.get_mut(usize::from(choice.device.gpu.0)) {
            *free = free.saturating_add(1);
        }
    }
    choices.sort_by_key(|choice| {
        let gpu = choice.device.gpu.0;
        (free.get(usize::from(gpu)).copied(), gpu, choice.device.start, choice.id.clone())
    });
    choices.into_iter().take(count).map(|choice| choice.id).collect()
}

#[cfg(test)]
mod tests;
