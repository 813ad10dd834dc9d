//! Nodes for the benches: many of one captured machine, by the same way that the demo, the tests and an agent take.

use anyhow::{Context, Result};
use berth_machine::{Machine, Salt};
use berth_model::{Generation, NodeName, NodeTopology};

/// Eight GPUs behind NVSwitch, twelve NICs, two zones: the machine that large clusters are made of.
const MACHINE: &str = include_str!("../../tests/machines/dgx-h100.yaml");

/// The name of a node. As long as names of real clusters, because the wire carries five thousand of them.
pub(crate) fn name(number: usize) -> String {
    format!("gpu-pool-a-{number:05}.berth.test")
}

/// The reports of so many nodes, one by one.
///
/// # Errors
/// The machine file is wrong: a defect. Each item has the error of its own node.
pub(crate) fn topologies(count: usize) -> Result<impl Iterator<Item = Result<NodeTopology>>> {
    let machine = Machine::parse(MACHINE).context("the bench's machine file")?;
    Ok((0..count).map(move |number| {
        let name = name(number);
        let node = NodeName::parse(&name)?;
        let read = berth_machine::topology(&machine, &node, &Salt::new(&name)).with_context(|| name.clone())?;
        Ok(read.with_generation(Generation(1)))
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_nodes_have_a_gpu_in_common() {
        let nodes: Vec<NodeTopology> = topologies(3).unwrap().map(Result::unwrap).collect();
        let uuids: BTreeSet<String> = nodes.iter().flat_map(|t| &t.parts().gpus).map(|g| g.uuid.to_string()).collect();
        assert_eq!(uuids.len(), 24);
    }
}
