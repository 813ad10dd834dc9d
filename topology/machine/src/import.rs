//! Makes a machine from a capture of `nvidia-smi topo -m` or `-mp`, and says what it had to assume.
//!
//! The matrix says how far devices are from each other, not where they are. Single linkage over its levels gives switches, host bridges and
//! zones; addresses, sizes and products are not in it. [`import`] writes a machine file, reads it back, and compares what an agent on that
//! machine would report with the capture: a cell that would come back otherwise is refused or said, never silent.

mod capture;
mod comeback;
mod fabric;
mod file;
mod levels;
mod lines;
mod places;

use crate::machine::Machine;
use crate::{contradiction, spec};

/// Largest capture taken: a table of 128 devices takes 90 KiB.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// A machine made from a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The machine.
    pub machine: Machine,
    /// Its machine file, with the assumptions as comments.
    pub text: String,
    /// What the capture does not say and the machine does, and cells that come back otherwise; a sentence each.
    pub assumptions: Vec<String>,
}

/// Why a text is no capture, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ImportError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A place in a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    line: usize,
    column: usize,
}

impl Default for At {
    fn default() -> Self {
        Self { line: 1, column: 1 }
    }
}

fn refuse<T>(at: At, problem: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError { line: at.line, column: at.column, problem: problem.into() })
}

/// Whether a text is meant as a capture: a line of it begins with `GPU0`, as headers and rows do.
#[must_use]
pub fn is_capture(text: &str) -> bool {
    let first = |line: &lines::Line| line.cells.iter().find(|c| !c.text.is_empty()).is_some_and(|c| c.text == "GPU0");
    text.len() <= TEXT_BYTES_MAX && lines::lines(text).iter().any(first)
}

/// Makes a machine from a capture. `name` becomes the machine's name as far as it can be a node name.
///
/// # Errors
/// [`ImportError`] where the text is no capture, contradicts itself, or shows what no tree of PCIe bridges gives.
pub fn import(text: &str, name: &str) -> Result<Imported, ImportError> {
    if text.len() > TEXT_BYTES_MAX {
        return refuse(At::default(), format!("{} bytes, at most {TEXT_BYTES_MAX} are taken", text.len()));
    }
    let capture = capture::read(text)?;
    let levels = levels::Levels::of(&capture)?;
    let mut assumptions = capture.notes.clone();
    let places = places::Places::of(&capture, &levels, &mut assumptions)?;
    let fabric = fabric::Fabric::of(&capture, &mut assumptions)?;
    let body = file::body(&capture, &places, &fabric, name)?;
    let machine = match Machine::parse(&body) {
        Ok(machine) => machine,
        Err(error) => return refuse(capture.header, format!("the machine is none: {error}")),
    };
    let contradicted = comeback::compare(&capture, &levels, &machine, &mut assumptions)?;
    let body = format!("{body}{}", contradiction::written(&contradicted));
    let text = file::commented(&capture, &assumptions, &body);
    let machine = Machine { contradicted, ..machine };
    if text.len() > spec::TEXT_BYTES_MAX {
        return refuse(
            capture.header,
            format!("its machine file would have {} bytes, at most {} are taken", text.len(), spec::TEXT_BYTES_MAX),
        );
    }
    Ok(Imported { machine, text, assumptions })
}

#[cfg(test)]
mod tests;
