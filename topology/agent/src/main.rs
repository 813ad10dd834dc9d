//! Entry point of `berth-agent`: arguments in, exit status out. Everything else is in `run`.

mod admin;
mod args;
mod hardware;
mod holders;
#[allow(dead_code, reason = "who steers leases reads them")]
mod lease;
mod metrics;
mod news;
mod plugin;
mod pods;
mod publish;
mod readiness;
mod report;
mod reporter;
mod run;
mod statement;
mod stream;
mod writer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run::main(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
