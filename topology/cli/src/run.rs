//! From the command line to an exit status: sets up colour, runs the command, prints its text.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::{Cli, Color, Command};
use crate::render::ink::{bad, warn};
use crate::{certs, doctor, drift, explain, nodes, policy, topo};

/// What a command came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All is well; the text is the answer.
    Text(String),
    /// The text is the answer as far as it could be had; the notes say what is missing.
    Noted {
        /// For standard output.
        text: String,
        /// For standard error, a line each.
        notes: Vec<String>,
        /// Whether the answer is that something is not in order.
        is_finding: bool,
    },
    /// What was checked is not in order; the text says where.
    Finding(String),
}

const ERROR: u8 = 1;
const FINDING: u8 = 3;

/// Runs the command line of this process.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.collect();
    let (command, name) = command(words.first());
    // clap prints usage errors itself and ends with status 2.
    let cli = match Cli::from_arg_matches(&command.get_matches_from(words)) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    match answer(&cli, &name) {
        Ok(Outcome::Text(text)) => print(&text, ExitCode::SUCCESS),
        Ok(Outcome::Noted { text, notes, is_finding }) => {
            for note in notes {
                let _ = writeln!(anstream::stderr(), "{} {note}", warn("note:"));
            }
            print(&text, if is_finding { ExitCode::from(FINDING) } else { ExitCode::SUCCESS })
        }
        Ok(Outcome::Finding(text)) => print(&text, ExitCode::from(FINDING)),
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(anstream::stderr(), "{} {error:#}", bad("error:"));
            ExitCode::from(ERROR)
        }
    }
}

/// The clap command under the name it was called by: as `kubectl-berth` it is a plugin and is typed `kubectl berth`.
fn command(program: Option<&OsString>) -> (clap::Command, String) {
    let file = program.and_then(|p| Path::new(p).file_stem()).and_then(|s| s.to_str()).unwrap_or_default();
    match file {
        "kubectl-berth" => (Cli::command().bin_name("kubectl berth"), file.to_owned()),
        _ => (Cli::command(), "berth".to_owned()),
    }
}

fn answer(cli: &Cli, name: &str) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &cli.command {
            Command::Topo(args) => topo::run(args, &cli.cluster).await,
            Command::Nodes(args) => nodes::run(args, &cli.cluster).await,
            Command::Drift(args) => drift::run(args, &cli.cluster).await,
            Command::Doctor(args) => doctor::run(args, &cli.cluster).await,
            Command::Explain(args) => explain::run(args, &cli.cluster).await,
            Command::Policy(command) => policy::run(command, &cli.cluster).await,
            Command::Certs(args) => certs::run(args, cli.cluster.namespace.as_deref()),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Cli::command(), name, &mut script);
                Ok(Outcome::Text(String::from_utf8(script)?))
            }
            Command::Man { folder } => {
                let pages = || clap_mangen::generate_to(Cli::command(), folder);
                pages().with_context(|| format!("cannot write man pages into {}", folder.display()))?;
                Ok(Outcome::Text(String::new()))
            }
            Command::Version => Ok(Outcome::Text(format!("berth {}\n", env!("CARGO_PKG_VERSION")))),
        }
    })
}

/// Prints the answer. A reader that has seen enough (`| head`) is no error.
fn print(text: &str, status: ExitCode) -> ExitCode {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => status,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => status,
        Err(error) => {
            let _ = writeln!(anstream::stderr(), "{} cannot print: {error}", bad("error:"));
            ExitCode::from(ERROR)
        }
    }
}
