//! What joins the GPUs of a node: islands, and the words for them.

use std::collections::BTreeMap;

use berth_model::{GpuIndex, NodeTopology};

use super::branch::Branch;
use super::ink::{strong, warn};
use super::size::gpus;
use crate::islands::nvlinks;

/// Splits members into groups that hang together by `joined`, each in ascending order, groups by their lowest member.
pub(crate) fn components(members: &[usize], joined: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for member in members {
        let touches = |group: &Vec<usize>| group.iter().any(|other| joined(*member, *other));
        let (touched, mut rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(touches);
        let mut merged: Vec<usize> = touched.into_iter().flatten().collect();
        merged.push(*member);
        merged.sort_unstable();
        rest.push(merged);
        groups = rest;
    }
    groups.sort();
    groups
}

/// The islands of the node with what joins them; `None` where no GPU has an NVLink to another.
pub(crate) fn nvlink(node: &NodeTopology) -> Option<Branch> {
    let all: Vec<usize> = (0..node.parts().gpus.len()).collect();
    let groups = components(&all, |a, b| nvlinks(node, a, b) > 0);
    let (islands, alone): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| g.len() > 1);
    if islands.is_empty() {
        return None;
    }
    let mut lines: Vec<Branch> = islands.iter().map(|island| island_branch(node, island)).collect();
    if !alone.is_empty() {
        lines.push(Branch::leaf(warn(format!("no NVLink: {}", named(&alone.concat())))));
    }
    Some(Branch::with(strong("NVLink"), lines))
}

fn island_branch(node: &NodeTopology, island: &[usize]) -> Branch {
    let mut pairs: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for (i, a) in island.iter().enumerate() {
        for b in island.iter().skip(i + 1) {
            pairs.entry(nvlinks(node, *a, *b)).or_default().push(format!("{a}-{b}"));
        }
    }
    let name = named(island);
    if let (1, Some((count, _))) = (pairs.len(), pairs.first_key_value()) {
        return Branch::leaf(format!("{name}  NV{count} between every two"));
    }
    let total: usize = pairs.values().map(Vec::len).sum();
    let unjoined = pairs.remove(&0).map_or(0, |p| p.len());
    let lines = pairs.iter().rev().map(|(count, list)| Branch::leaf(format!("NV{count}  {}", list.join(" "))));
    Branch::with(format!("{name}  {} of {total} pairs joined", total - unjoined), lines.collect())
}

fn named(positions: &[usize]) -> String {
    gpus(positions.iter().filter_map(|p| u8::try_from(*p).ok()).map(GpuIndex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_meet_late_are_one() {
        let joined = |a: usize, b: usize| [(0, 3), (3, 1), (2, 4)].iter().any(|p| *p == (a, b) || *p == (b, a));
        assert_eq!(components(&[0, 1, 2, 3, 4, 5], joined), [vec![0, 1, 3], vec![2, 4], vec![5]]);
    }
}
