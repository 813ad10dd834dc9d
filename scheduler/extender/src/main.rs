//! Entry point of `berth-scheduler`: arguments in, exit status out. Everything else is in [`berth_extender::run`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match berth_extender::run::main(berth_extender::args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-scheduler: {error:#}");
            ExitCode::FAILURE
        }
    }
}
