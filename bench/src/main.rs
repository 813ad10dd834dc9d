//! Entry point of `berth-bench`: one run in, one line of JSON out. Progress goes to standard error.

mod agent;
mod args;
mod call;
mod carriers;
mod host;
mod line;
mod mig;
mod nodes;
mod pack;
mod sample;
mod scheduler;
mod serve;
mod sets;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Args, Command};
use line::Line;

fn run(args: &Args) -> Result<String> {
    match &args.command {
        Command::Serve(args) => Line::of("serve", serve::run(args)?).text(),
        Command::Agent(args) => Line::of("agent", agent::run(args)?).text(),
        Command::Carriers(args) => Line::of("carriers", carriers::run(args)?).text(),
        Command::Scheduler(args) => Line::of("scheduler", scheduler::run(args)?).text(),
        Command::Pack(args) => Line::of("pack", pack::pack(args)?).text(),
        Command::Mig(args) => Line::of("mig", mig::run(args)?).text(),
        Command::Churn(args) => Line::of("churn", pack::churned(args)?).text(),
        Command::Wire(args) => Line::of("wire", wire::run(args)?).text(),
        Command::Sets(args) => Line::of("sets", sets::run(args)?).text(),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("berth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
