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
    comeback::compare(&capture, &levels, &machine, &mut assumptions)?;
    let text = file::commented(&capture, &assumptions, &body);
    Ok(Imported { machine, text, assumptions })
}

#[cfg(test)]
mod tests;
