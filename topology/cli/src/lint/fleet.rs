//! What shows only between nodes of one product: drivers and fabrics that differ.

use std::collections::BTreeMap;

use berth_model::{Driver, Link, NodeTopology};

use super::{Remark, Remarks, code, majority};

/// Looks at nodes with the same GPUs, and as many, together.
pub(super) fn look(nodes: &[NodeTopology]) -> Vec<Remark> {
    let mut kinds: BTreeMap<(String, usize), Vec<&NodeTopology>> = BTreeMap::new();
    for node in nodes.iter().filter(|n| !n.parts().gpus.is_empty()) {
        kinds.entry((node.products(), node.parts().gpus.len())).or_default().push(node);
    }
    let mut remarks = Vec::new();
    for peers in kinds.values() {
        let drivers = |n: &NodeTopology| match &n.parts().driver {
            Driver::Loaded(versions) if !versions.driver.is_empty() => Some(versions.driver.clone()),
            Driver::Loaded(_) | Driver::Absent(_) => None,
        };
        let driver = |mine: &String, usual: &String| format!("driver {mine}; others of its product run {usual}");
        remarks.extend(odd_ones(code::DRIVER_DIFFERS, peers, drivers, driver));
        let said = |_: &Vec<String>, _: &Vec<String>| {
            "its links are not those of the other nodes with as many GPUs of this product".to_owned()
        };
        remarks.extend(odd_ones(code::FABRIC_DIFFERS, peers, |n| Some(fabric(n)), said));
    }
    remarks
}

/// The GPUs' part of the matrix, and how many NICs there are. What is not known is no difference of the hardware, but shows all the same.
fn fabric(node: &NodeTopology) -> Vec<String> {
    let (gpu_count, nic_count) = (node.parts().gpus.len(), node.parts().nics.len());
    let cell =
        |a: usize, b: usize| node.parts().links.link(a, b).map(Link::class).map_or_else(String::new, |c| c.cell());
    let rows = (0..gpu_count).map(|a| (0..gpu_count).map(|b| cell(a, b)).collect::<Vec<_>>().join(" "));
    rows.chain([format!("{nic_count} NICs")]).collect()
}

/// Remarks on the nodes that differ from most; on all but the first where there is no majority.
fn odd_ones<T: Ord + Clone>(
    code: &str,
    peers: &[&NodeTopology],
    value: impl Fn(&NodeTopology) -> Option<T>,
    text: impl Fn(&T, &T) -> String,
) -> Vec<Remark> {
    let known: Vec<(&str, T)> = peers.iter().filter_map(|n| value(n).map(|v| (n.parts().node.as_str(), v))).collect();
    let usual = majority(known.iter().map(|(_, v)| v.clone())).map(|(v, _)| v);
    let Some(usual) = usual.or_else(|| known.first().map(|(_, v)| v.clone())) else { return Vec::new() };
    let odd = known.iter().filter(|(_, v)| *v != usual);
    odd.flat_map(|(node, v)| {
        let mut remarks = Remarks::of(node);
        remarks.add(code, "", text(v, &usual));
        remarks.list
    })
    .collect()
}
