//! Counts the calls in a file that `BERTH_FAKE_CALLS` names, or in `calls` beside the library where that is there, for whoever wants to know
//! how often a driver is asked. The file is mapped, so that counting costs no system call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::SYMBOLS;
use crate::state::beside_library;

/// Bytes of one count.
const COUNT_BYTES: usize = size_of::<u64>();

static COUNTS: OnceLock<Option<&'static [AtomicU64]>> = OnceLock::new();

/// Counts one call, if somebody wants to know.
pub(crate) fn count(symbol: &str) {
    let counts = COUNTS.get_or_init(|| {
        let beside = || beside_library("calls").ok().filter(|path| path.is_file());
        let path = std::env::var_os("BERTH_FAKE_CALLS").map(PathBuf::from).or_else(beside)?;
        let mapped = map(&path);
        mapped.map_err(|why| eprintln!("berth-fake-nvml: {}: {why}", path.display())).ok()
    });
    let Some(counts) = counts else { return };
    let count = SYMBOLS.iter().position(|known| *known == symbol).and_then(|position| counts.get(position));
    if let Some(count) = count {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// One count per symbol, zero in a fresh file. A process that starts later counts on.
fn map(path: &Path) -> io::Result<&'static [AtomicU64]> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let bytes = SYMBOLS.len().saturating_mul(COUNT_BYTES);
    file.set_len(u64::try_from(bytes).map_err(io::Error::other)?)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping that the kernel places and nobody takes away again.
    let start = unsafe { mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, &file, 0) }?;
    // SAFETY: the mapping is page-aligned, has room for so many counts, and lives as long as the process; every bit pattern is a count,
    // and whoever else maps the file counts by the same atomic operations.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), SYMBOLS.len()) })
}

/// How often each call was made so far, of those that were made.
///
/// # Errors
/// The file cannot be read, or is not one of counts. A file that is not there is one without calls.
pub fn counted(path: &Path) -> io::Result<BTreeMap<&'static str, u64>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let (counts, rest) = bytes.as_chunks::<COUNT_BYTES>();
    if !rest.is_empty() || counts.len() > SYMBOLS.len() {
        return Err(io::Error::other("no file of counts by this library"));
    }
    let counts = SYMBOLS.iter().copied().zip(counts.iter().map(|count| u64::from_ne_bytes(*count)));
    Ok(counts.filter(|(_, count)| *count > 0).collect())
}
