//! Machine files: a node's hardware written down, and what its kernel and driver would say of it.
//!
//! One YAML file describes a machine ([`Machine::parse`]); a second, optional one says what is broken ([`Faults::parse`]). From both come
//! a kernel tree ([`render::tree`]) and NVML's answers ([`nvml::facts`]), and through the probe's own parsers a report ([`topology`]).
//! So a demo, a test and an agent over the fake driver library see the same node: there is no second way to invent one.
#![forbid(unsafe_code)]

mod check;
pub mod faults;
pub mod identity;
pub mod machine;
pub mod nvml;
pub mod render;
mod scalar;
mod spec;

use berth_model::{NodeName, NodeTopology};
use berth_probe::{ProbeError, probe_facts};

pub use faults::Faults;
pub use identity::Salt;
pub use machine::{Machine, MachineError};

/// The report that an agent on this machine would publish, before it has a generation.
///
/// `salt` tells the nodes made from one file apart: another salt gives other GPU UUIDs and another boot id.
///
/// # Errors
/// [`ProbeError`] as the probe gives it; a checked machine without faults has none.
pub fn topology(machine: &Machine, node: &NodeName, salt: &Salt) -> Result<NodeTopology, ProbeError> {
    topology_with(machine, node, salt, &Faults::default(), None)
}

/// As [`topology`], of a machine with faults, given the node's last report.
///
/// # Errors
/// As [`topology`].
pub fn topology_with(
    machine: &Machine,
    node: &NodeName,
    salt: &Salt,
    faults: &Faults,
    previous: Option<&NodeTopology>,
) -> Result<NodeTopology, ProbeError> {
    let tree = render::tree(machine, salt, faults);
    probe_facts(nvml::facts(machine, salt, faults), &tree, previous, node.clone())
}

#[cfg(test)]
mod tests;
