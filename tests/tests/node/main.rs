//! One node: machine files, the fake driver library and kernel tree, the probe, the unmodified agent, the CLI.
//! One program for all of them, since each program of tests links everything that Berth is.

mod agent;
mod captures;
mod cli;
mod facts;
mod facts_nvml;
mod faults;
mod findings;
mod machines;
mod probe;
mod quiet;
mod review;
