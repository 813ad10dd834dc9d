//! The line of JSON that a run prints: one form for all benches, so that a script can keep them in one file.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// Version of the form. It grows when a key changes its meaning or goes away.
const VERSION: u32 = 1;

/// One run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<T> {
    /// What was measured: the subcommand.
    pub(crate) bench: String,
    /// Version of the form.
    pub(crate) v: u32,
    /// What it ran on.
    pub(crate) host: Host,
    /// What came out.
    pub(crate) result: T,
}

impl<T: Serialize> Line<T> {
    /// The line of a run that ended just now.
    pub(crate) fn of(bench: &str, result: T) -> Self {
        Self { bench: bench.to_owned(), v: VERSION, host: Host::now(), result }
    }

    /// The line, without its end.
    ///
    /// # Errors
    /// A value that JSON cannot hold: a defect.
    pub(crate) fn text(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_reads_back() {
        let text = Line::of("serve", vec!["a\nb"]).text().unwrap();
        assert!(!text.contains('\n'), "{text}");
        let read: Line<Vec<String>> = serde_json::from_str(&text).unwrap();
        assert_eq!((read.bench.as_str(), read.v, read.result[0].as_str()), ("serve", 1, "a\nb"));
        assert!(serde_json::from_str::<Line<Vec<String>>>(&text.replace("\"v\"", "\"w\"")).is_err());
    }
}
