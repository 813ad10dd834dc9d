//! `mig`: the protocol of `berth_pack::mig` as a run.

use anyhow::Result;
use berth_pack::mig::{Answer, Protocol};

use crate::args::MigArgs;

/// Runs it.
///
/// # Errors
/// A defect of a rule or of the catalog.
pub(crate) fn run(args: &MigArgs) -> Result<Answer> {
    berth_pack::mig::run(&Protocol {
        gpu_count: args.gpus,
        arrival_count: args.arrivals,
        seeds: args.seed.clone(),
        loads_percent: args.load.clone(),
        policies: args.policy.clone(),
        ..Protocol::default()
    })
}
