//! From YAML to the file form, with the key and the place of what is wrong.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Deserializer as PathDeserializer, Path, Segment, Track};

use super::PolicyError;

/// Reads a document as its author wrote it.
pub(super) fn read<D: DeserializeOwned>(document: &str) -> Result<D, PolicyError> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(document, options, |deserializer| {
        D::deserialize(PathDeserializer::new(deserializer, &mut track))
    });
    read.map_err(|error| refusal(&error, &track.path()))
}

/// The parser's own words without its source excerpt and its place, which stand apart, and with the key: most name none.
fn refusal(error: &serde_saphyr::Error, path: &Path) -> PolicyError {
    let at = error.location();
    let rendered = error.render();
    let message = rendered.lines().next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let message = message.rsplit_once(" at line ").map_or(message, |(text, _)| text);
    let message = match message {
        "expected sequence start" => "a list is right, as in [a, b]",
        "expected mapping start" => "keys with values are right, as in {key: value}",
        number if number.starts_with("invalid u") => "a whole number is right, 0 or above",
        other => other,
    };
    let message = match key(path) {
        key if key.is_empty() => message.to_owned(),
        key => format!("{key}: {message}"),
    };
    PolicyError { line: at.map_or(1, |l| l.line()).max(1), column: at.map_or(1, |l| l.column()).max(1), message }
}

/// The key as its author wrote it: a value with its place is read as a structure of its own, of which nobody knows.
fn key(path: &Path) -> String {
    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            Segment::Map { key: name } if name != "value" => {
                let dot = if key.is_empty() { "" } else { "." };
                key.push_str(&format!("{dot}{name}"));
            }
            Segment::Map { .. } | Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    key
}
