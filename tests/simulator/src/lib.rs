//! The seeded simulator: schedulers of Berth, as they are, against a cluster that lies, stalls, drops, repeats and reorders.
//!
//! Watchers, index, filter, prioritize and bind are the real ones, over kube's real client and watcher. What is made up is the
//! world: the API server behind the client, kube-scheduler before it, kubelets, agents, people. One thread, one paused clock, one
//! source of chance: a seed says everything, and what is drawn is written down as steps that can be gone through again.
// All of it is a test.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answer;
mod api;
mod calm;
mod claims;
mod draw;
mod fleet;
mod invariants;
mod kube_scheduler;
mod mutant;
mod objects;
mod replica;
mod run;
mod step;
mod watch;
mod world;

mod tests;
