//! `berth` (also `kubectl berth`): shows what GPU nodes are, who holds which GPU, and why a pod is where it is.
//!
//! Commands gather (hardware, files, API server, scheduler); `render` turns values into text. Nothing here decides a placement.

mod api;
mod args;
mod certs;
mod compare;
mod doctor;
mod document;
mod drift;
mod explain;
mod islands;
mod lint;
mod nodes;
mod picture;
mod policy;
mod render;
mod run;
mod topo;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::run(std::env::args_os())
}
