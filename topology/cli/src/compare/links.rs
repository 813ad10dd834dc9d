//! Differences of links, told once per cause: a GPU that lost links changes a whole row of the matrix, and is one sentence.

use std::collections::BTreeSet;

use berth_model::{Link, NodeTopology, PcieLevel, ZoneId};

use super::{Found, Match};
use crate::islands::{Shape, islands, nvlinks_of};

/// A cell that differs: two matched devices by their place in the list, and the links before and after.
type Changed = (usize, usize, Link, Link);

/// A device with as many changed cells or more is told once, with the first of them.
const CELLS_TOLD_MAX: usize = 2;

/// Compares the links of matched devices, the first `gpu_count` of which are GPUs.
pub(super) fn compare(
    before: &NodeTopology,
    after: &NodeTopology,
    devices: &[Match],
    gpu_count: usize,
    found: &mut Found,
) {
    let name = |place: usize| {
        let (position, gpus) = (devices.get(place).map_or(0, |d| d.0), before.parts().gpus.len());
        if position < gpus { format!("GPU{position}") } else { format!("NIC{}", position - gpus) }
    };
    let mut cells: Vec<Changed> = Vec::new();
    for (i, (a, b)) in devices.iter().enumerate() {
        for (j, (c, d)) in devices.iter().enumerate().skip(i + 1) {
            let pair = before.parts().links.link(*a, *c).zip(after.parts().links.link(*b, *d));
            cells.extend(pair.filter(|(old, new)| old != new).map(|(old, new)| (i, j, old, new)));
        }
    }
    let nvlink: Vec<Changed> = cells.iter().filter(|c| c.2.nvlinks != c.3.nvlinks).copied().collect();
    if is_even(before) && is_even(after) {
        even(before, after, devices.get(..gpu_count).unwrap_or_default(), found);
    } else {
        tell(nvlink, &name, found, "nvlink", nvlink_text);
    }
    let has_moved = |place: usize| devices.get(place).is_some_and(|(a, b)| zone(before, *a) != zone(after, *b));
    // NODE and SYS follow from zones: of a device that moved, the zone has been told.
    let by_zone = |level: Option<PcieLevel>| level < Some(PcieLevel::Phb);
    let follows = |c: &Changed| by_zone(c.2.pcie) && by_zone(c.3.pcie) && (has_moved(c.0) || has_moved(c.1));
    let pcie: Vec<Changed> = cells.into_iter().filter(|c| c.2.pcie != c.3.pcie && !follows(c)).collect();
    tell(pcie, &name, found, "pcie", pcie_text);
}

/// The zone of a device by its position in the matrix.
fn zone(node: &NodeTopology, position: usize) -> Option<ZoneId> {
    let parts = node.parts();
    let nic = || parts.nics.get(position.checked_sub(parts.gpus.len())?)?.zone;
    parts.gpus.get(position).map_or_else(nic, |gpu| gpu.zone)
}

/// Whether the links of single GPUs tell all NVLinks of the node.
fn is_even(node: &NodeTopology) -> bool {
    matches!(islands(node).as_slice(), [island] if matches!(island.shape, Shape::Even(_)))
}

fn even(before: &NodeTopology, after: &NodeTopology, gpus: &[Match], found: &mut Found) {
    for (i, j) in gpus {
        let (old, new) = (nvlinks_of(before, *i).0, nvlinks_of(after, *j).0);
        let text = match (old, new) {
            (old, new) if old == new => continue,
            (old, 0) => format!("GPU{i} lost all its {old} NVLinks"),
            (0, new) => format!("GPU{i} has {} now, and had none", links(new)),
            (old, new) if new < old => format!("GPU{i} lost {} ({old} -> {new})", links(old - new)),
            (old, new) => format!("GPU{i} gained {} ({old} -> {new})", links(new - old)),
        };
        found.add(format!("GPU{i}"), "nvlink", text);
    }
}

fn links(count: u8) -> String {
    if count == 1 { "1 NVLink".to_owned() } else { format!("{count} NVLinks") }
}

/// Tells the cells, the device with the most of them first, until each is told.
fn tell(
    mut cells: Vec<Changed>,
    name: &dyn Fn(usize) -> String,
    found: &mut Found,
    fact: &'static str,
    text: impl Fn(&str, &[(String, Link, Link)]) -> String,
) {
    while !cells.is_empty() {
        let ends: BTreeSet<usize> = cells.iter().flat_map(|c| [c.0, c.1]).collect();
        let count = |end: usize| cells.iter().filter(|c| c.0 == end || c.1 == end).count();
        // The lowest of those with the most: one cell belongs to both ends, and is told of the first.
        let worst = ends.iter().copied().max_by_key(|end| (count(*end), usize::MAX - end)).unwrap_or(0);
        let (told, rest): (Vec<Changed>, Vec<Changed>) = cells.into_iter().partition(|c| c.0 == worst || c.1 == worst);
        let others: Vec<(String, Link, Link)> =
            told.iter().map(|c| (name(if c.0 == worst { c.1 } else { c.0 }), c.2, c.3)).collect();
        found.add(name(worst), fact, text(&name(worst), &others));
        cells = rest;
    }
}

fn nvlink_text(name: &str, others: &[(String, Link, Link)]) -> String {
    let count = |of: fn(&(String, Link, Link)) -> u8| others.iter().map(|o| u32::from(of(o))).sum::<u32>();
    let (before, after) = (count(|o| o.1.nvlinks), count(|o| o.2.nvlinks));
    let verb = match before.cmp(&after) {
        std::cmp::Ordering::Greater => format!("lost {} of", before - after),
        std::cmp::Ordering::Less => format!("gained {} over", after - before),
        std::cmp::Ordering::Equal => "has other places for".to_owned(),
    };
    let each = others.iter().map(|(other, old, new)| format!("{other} {} -> {}", old.nvlinks, new.nvlinks));
    let noun = if before == 1 { "NVLink" } else { "NVLinks" };
    format!("{name} {verb} {before} {noun}: to {}", each.collect::<Vec<_>>().join(", "))
}

fn pcie_text(name: &str, others: &[(String, Link, Link)]) -> String {
    let word = |level: Option<PcieLevel>| level.map_or("not known", PcieLevel::word);
    let each = |(other, old, new): &(String, Link, Link)| format!("{other} {} -> {}", word(old.pcie), word(new.pcie));
    let shown = others.iter().take(CELLS_TOLD_MAX).map(each).collect::<Vec<_>>().join(", ");
    let more = match others.len().saturating_sub(CELLS_TOLD_MAX) {
        0 => String::new(),
        count => format!(", and to {count} more"),
    };
    format!("PCIe distance of {name} to {shown}{more}")
}
