//! Reads a node's hardware and says what it is: NVML and sysfs in, a checked [`berth_model::NodeTopology`] out.
//!
//! Three layers, each usable alone: [`nvml`] and [`sysfs`] read, [`facts`] holds what was read without judging it, [`assemble`]
//! judges and is pure. Reading goes through a relocatable root ([`tree::SysRoot`]) or an in-memory tree ([`tree::MemoryTree`]);
//! the NVML library's path is configuration. Nothing here writes, logs or knows Kubernetes.

pub mod assemble;
pub mod facts;
pub mod finding;
pub mod marks;
#[cfg(feature = "nvml")]
pub mod nvml;
pub mod probe;
pub mod rhythm;
pub mod sysfs;
pub mod tree;
pub mod xid;

pub use assemble::assemble;
#[cfg(feature = "nvml")]
pub use probe::{ProbeConfig, Prober, probe};
pub use probe::{ProbeError, probe_facts};
