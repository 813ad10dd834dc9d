//! Files that a person names on the command line.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

/// Reads a text file of at most `bytes_max` bytes; `-` is standard input.
pub(crate) fn read_bounded(file: &Path, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more than allowed, to tell a file that just fits from one that does not.
    let limit = bytes_max.saturating_add(1);
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let good = String::from_utf8_lossy(good);
        let (line, column) = (good.split('\n').count(), good.chars().rev().take_while(|c| *c != '\n').count() + 1);
        Error::new(ErrorKind::InvalidData, format!("line {line}, column {column}: a byte that is no UTF-8"))
    })
}
