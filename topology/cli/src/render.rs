//! Texts that `berth` prints, as pure functions over values: no IO, no clock, no Kubernetes client.
//!
//! Texts may carry ANSI styles; the output stream strips them where nobody can see colour.

pub(crate) mod branch;
pub(crate) mod card;
pub(crate) mod doctor;
pub(crate) mod drift;
pub(crate) mod explain;
pub(crate) mod explanation;
pub(crate) mod fabric;
pub(crate) mod host;
pub(crate) mod ink;
pub(crate) mod matrix;
pub(crate) mod mig;
pub(crate) mod nesting;
pub(crate) mod nodes;
pub(crate) mod review;
pub(crate) mod size;
pub(crate) mod tree;

#[cfg(test)]
pub(crate) mod sample;
