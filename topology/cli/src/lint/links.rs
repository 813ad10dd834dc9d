//! What one report shows of its links: NVLinks that are missing, NICs that are far, levels that contradict zones.

use berth_model::{Gpu, LinkClass, Nic, NodeTopology, PcieLevel};
use berth_probe::finding;

use super::{PAIRS_TOLD_MAX, Remarks, code, majority};
use crate::islands::{nvlinks, nvlinks_of};
use crate::render::size::gpus;

/// Looks at all links.
pub(super) fn look(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    missing_nvlinks(node, remarks);
    fewer_nvlinks(node, remarks);
    rails(node, remarks);
    levels(node, remarks);
}

/// The level between two devices by position.
fn level(node: &NodeTopology, a: usize, b: usize) -> Option<PcieLevel> {
    node.parts().links.link(a, b).and_then(|l| l.pcie)
}

fn positions<'a>(node: &'a NodeTopology, which: impl Fn(&Gpu) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    node.parts().gpus.iter().enumerate().filter(move |(_, g)| which(g)).map(|(i, _)| i)
}

/// GPUs without any NVLink whose peers of the same product have some.
fn missing_nvlinks(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    for (i, gpu) in node.parts().gpus.iter().enumerate().filter(|(i, _)| nvlinks_of(node, *i).0 == 0) {
        let peers: Vec<usize> = positions(node, |g| g.product == gpu.product).filter(|p| *p != i).collect();
        let linked = peers.iter().filter(|p| nvlinks_of(node, **p).0 > 0).count();
        if linked > 0 {
            let text = format!("has no NVLink; {linked} of its {} peers have", peers.len());
            remarks.add(code::NVLINK_MISSING, gpu.index.to_string(), text);
        }
    }
}

/// GPUs with fewer links than more than half of the linked GPUs of their product have.
fn fewer_nvlinks(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    for (i, gpu) in node.parts().gpus.iter().enumerate() {
        let peers = || positions(node, |g| g.product == gpu.product).filter(|p| nvlinks_of(node, *p).0 > 0);
        let (most, sum) = nvlinks_of(node, i);
        // Where the report itself says which links are down, that is told.
        if most == 0 || is_told_down(node, gpu) {
            continue;
        }
        let usual_most = majority(peers().map(|p| nvlinks_of(node, p).0));
        if let Some((usual, count)) = usual_most.filter(|(usual, _)| *usual > most) {
            let text = format!("NV{most} at best; {count} of its peers have NV{usual}");
            remarks.add(code::NVLINK_FEWER, gpu.index.to_string(), text);
            continue;
        }
        let usual_sum = majority(peers().map(|p| nvlinks_of(node, p).1)).filter(|(usual, _)| *usual > sum);
        // A poor peer lowers the sum of everyone who is joined to it: told of that peer, not of this GPU.
        let is_poor = |p: usize| usual_most.is_some_and(|(usual, _)| nvlinks_of(node, p).0 < usual);
        let is_victim = peers().any(|p| p != i && is_poor(p));
        if let Some((usual, count)) = usual_sum.filter(|_| !is_victim) {
            let joined = peers().filter(|p| *p != i && nvlinks(node, i, *p) > 0).count();
            let text = format!("{sum} NVLinks to {joined} GPUs; {count} of its peers have {usual}");
            remarks.add(code::NVLINK_FEWER, gpu.index.to_string(), text);
        }
    }
}

fn is_told_down(node: &NodeTopology, gpu: &Gpu) -> bool {
    let device = gpu.pci.to_string();
    node.parts().findings.iter().any(|f| f.code == finding::NVLINK_DOWN && f.device == device)
}

fn rails(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    let parts = node.parts();
    let levels_of = |gpu: usize| -> Vec<Option<PcieLevel>> {
        (0..parts.nics.len()).map(|n| level(node, gpu, parts.gpus.len() + n)).collect()
    };
    let has_rail = |gpu: usize| levels_of(gpu).into_iter().max().flatten() >= Some(PcieLevel::Pxb);
    // A distance that is not known may be a near one.
    let lacks_rail = |gpu: usize| !has_rail(gpu) && !levels_of(gpu).contains(&None);
    for (_, gpu) in parts.gpus.iter().enumerate().filter(|(i, _)| lacks_rail(*i)) {
        let (mut railed, mut total) = (0, 0);
        for peer in positions(node, |g| g.product == gpu.product) {
            total += 1;
            railed += usize::from(has_rail(peer));
        }
        if railed * 2 > total {
            let text = format!("no NIC under its PCIe switch; {railed} of its {} peers have one", total - 1);
            remarks.add(code::RAIL_MISSING, gpu.index.to_string(), text);
        }
    }
    // Where every GPU has its rail, the other NICs are for storage and the front network.
    if !(0..parts.gpus.len()).any(lacks_rail) {
        return;
    }
    let nearest = |n: usize| {
        let levels = (0..parts.gpus.len()).map(|g| level(node, g, parts.gpus.len() + n));
        let levels: Vec<Option<PcieLevel>> = levels.collect();
        levels.iter().copied().max().flatten().filter(|_| !levels.contains(&None))
    };
    let has_near = (0..parts.nics.len()).any(|n| nearest(n) >= Some(PcieLevel::Phb));
    for (n, nic) in parts.nics.iter().enumerate() {
        if let Some(best) = nearest(n).filter(|best| *best < PcieLevel::Phb && (has_near || is_elsewhere(node, nic))) {
            let text = format!("{} is {} to its nearest GPU", nic.name, best.word());
            remarks.add(code::NIC_FAR, format!("NIC{n}"), text);
        }
    }
}

/// Whether a NIC is in a zone without GPUs though all GPUs are in others. Where GPUs and NICs have root ports of their own, NODE is as near as
/// the board can; on coherent platforms (Grace) a GPU's way to the NIC is not the one of the PCIe tree.
fn is_elsewhere(node: &NodeTopology, nic: &Nic) -> bool {
    let gpus = &node.parts().gpus;
    nic.zone.is_some() && gpus.iter().all(|g| g.memory_zone.is_none() && g.zone.is_some() && g.zone != nic.zone)
}

/// What a pair of GPUs may be told of, and a GPU with a NIC below its own host bridge.
fn levels(node: &NodeTopology, remarks: &mut Remarks<'_>) {
    let (all, nics) = (&node.parts().gpus, &node.parts().nics);
    let (mut contradicted, mut same_zone, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate().skip(i + 1) {
            let (class, level) = (node.parts().links.link(i, j).map(berth_model::Link::class), level(node, i, j));
            let zones = a.zone.zip(b.zone);
            if level >= Some(PcieLevel::Node) && zones.is_some_and(|(x, y)| x != y) {
                contradicted.push((i, j));
            } else if level == Some(PcieLevel::Sys) && zones.is_some_and(|(x, y)| x == y) {
                same_zone.push((i, j));
            } else if class == Some(LinkClass::Unknown) {
                unknown.push((i, j));
            }
        }
        for (n, nic) in nics.iter().enumerate() {
            let is_near = level(node, i, all.len() + n) >= Some(PcieLevel::Phb);
            if is_near && a.zone.zip(nic.zone).is_some_and(|(x, y)| x != y) {
                contradicted.push((i, all.len() + n));
            }
        }
    }
    for (code, pairs, what) in [
        (code::ZONE_CONTRADICTED, contradicted, "NODE or nearer, in different zones"),
        (code::SAME_ZONE_SYS, same_zone, "SYS, in one zone"),
        (code::LINK_UNKNOWN, unknown, "distance not known"),
    ] {
        if !pairs.is_empty() {
            let members = pairs.iter().flat_map(|(a, b)| [*a, *b]).filter_map(|p| all.get(p)).map(|g| g.index);
            remarks.add(code, gpus(members), format!("{what}: {}", listed(&pairs, all.len())));
        }
    }
}

fn listed(pairs: &[(usize, usize)], gpu_count: usize) -> String {
    let name = |i: usize| i.checked_sub(gpu_count).map_or_else(|| format!("GPU{i}"), |nic| format!("NIC{nic}"));
    let shown: Vec<String> =
        pairs.iter().take(PAIRS_TOLD_MAX).map(|(a, b)| format!("{}-{}", name(*a), name(*b))).collect();
    match pairs.len().saturating_sub(PAIRS_TOLD_MAX) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}
