//! `berth topo import`: a capture of `nvidia-smi topo` in, a machine file out. What it means is `berth-machine`'s.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use berth_machine::Imported;

use crate::args::ImportArgs;
use crate::document::read_bounded;
use crate::run::Outcome;

/// Largest capture read; the largest table takes a third of it.
const CAPTURE_BYTES_MAX: u64 = 256 * 1024;

/// Prints or writes the machine file; what it assumes goes to standard error as notes.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<Outcome> {
    let shown = args.capture.display();
    let text =
        read_bounded(&args.capture, CAPTURE_BYTES_MAX).with_context(|| format!("cannot read capture {shown}"))?;
    let imported = imported(&args.capture, &text)?;
    let notes = imported.assumptions.into_iter().map(|assumption| format!("assumed: {assumption}")).collect();
    let text = match &args.output {
        None => imported.text,
        Some(file) => {
            std::fs::write(file, imported.text).with_context(|| format!("cannot write {}", file.display()))?;
            String::new()
        }
    };
    Ok(Outcome::Noted { text, notes, is_finding: false })
}

/// The machine of a capture; a refusal says where in the file.
pub(super) fn imported(capture: &Path, text: &str) -> anyhow::Result<Imported> {
    let name = capture.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    berth_machine::import(text, name)
        .map_err(|error| anyhow!("{}:{}:{}: {}", capture.display(), error.line, error.column, error.problem))
}
