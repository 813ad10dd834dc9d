//! The two places a kernel tree may be read from: a directory on disk and an in-memory map.
//!
//! Paths are relative, `/`-separated and free of `..` (for example `sys/devices/system/node`). Links are read as text and joined by
//! hand ([`resolve`]), never by the operating system: a copied tree under another root then works, and no link leads out of it.

mod disk;

use std::collections::{BTreeMap, BTreeSet};

pub use disk::SysRoot;

/// Largest file taken. A sysfs attribute is one page; `meminfo` of a node is below 2 KiB.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How much of a file is read where its start is enough: one CPU's block of `/proc/cpuinfo` is below 4 KiB, the whole file above 500.
pub const START_BYTES: u64 = 16 * 1024;
/// Most entries of one directory taken. `bus/pci/devices` of the largest machines holds a few thousand.
pub const ENTRIES_MAX: usize = 16_384;
/// Deepest path taken; cascaded PCIe switches stay below 24 components.
pub const COMPONENTS_MAX: usize = 64;

/// Why something that is there could not be read. What is not there is no error.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The path holds `..`, an empty component, or too many of them.
    #[error("the path leads out of the tree or is longer than {COMPONENTS_MAX} components")]
    Path,
    /// A link stands where a directory or file is right.
    #[error("{0} is a link where a directory or file is right")]
    Link(String),
    /// More than [`FILE_BYTES_MAX`].
    #[error("larger than {FILE_BYTES_MAX} bytes")]
    Large,
    /// More than [`ENTRIES_MAX`].
    #[error("more than {ENTRIES_MAX} entries")]
    Crowded,
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    Text,
    /// The operating system refused.
    #[error("cannot be read: {}", .0.kind())]
    Io(#[source] std::io::Error),
}

/// A kernel tree (`sys/...`, `proc/...`). `Ok(None)` always means that there is no such thing.
pub trait Tree {
    /// The text of a file.
    ///
    /// # Errors
    /// [`TreeError`] when it is there and cannot be taken.
    fn read(&self, path: &str) -> Result<Option<String>, TreeError>;

    /// The start of a file that may be longer than is taken: whole lines within [`START_BYTES`].
    ///
    /// # Errors
    /// [`TreeError`] when it is there and cannot be taken.
    fn read_start(&self, path: &str) -> Result<Option<String>, TreeError>;

    /// The text of a symbolic link, unresolved; `None` for anything else.
    ///
    /// # Errors
    /// [`TreeError`] when it is there and cannot be taken.
    fn read_link(&self, path: &str) -> Result<Option<String>, TreeError>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// [`TreeError`] when it is there and cannot be taken.
    fn list(&self, path: &str) -> Result<Option<Vec<String>>, TreeError>;
}

/// Splits a path and refuses what could lead elsewhere.
fn components(path: &str) -> Result<Vec<&str>, TreeError> {
    let parts: Vec<&str> = path.split('/').collect();
    let bad = |p: &&str| p.is_empty() || *p == "." || *p == ".." || p.contains('\0');
    if parts.len() > COMPONENTS_MAX || parts.iter().any(bad) {
        return Err(TreeError::Path);
    }
    Ok(parts)
}

/// Joins a link's text to the place of the link, without asking the file system.
///
/// # Errors
/// [`TreeError::Path`] when the text is absolute or leads above the root.
pub fn resolve(link_path: &str, link_text: &str) -> Result<String, TreeError> {
    if link_text.starts_with('/') {
        return Err(TreeError::Path);
    }
    let mut parts: Vec<&str> = components(link_path)?;
    parts.pop();
    for part in link_text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or(TreeError::Path)?),
            name => parts.push(name),
        }
        if parts.len() > COMPONENTS_MAX {
            return Err(TreeError::Path);
        }
    }
    if parts.is_empty() {
        return Err(TreeError::Path);
    }
    Ok(parts.join("/"))
}

/// Cuts the start of a file after its last whole line.
fn whole_lines(mut bytes: Vec<u8>) -> Vec<u8> {
    if u64::try_from(bytes.len()).is_ok_and(|n| n >= START_BYTES) {
        let end = bytes.iter().rposition(|b| *b == b'\n').unwrap_or_default();
        bytes.truncate(end);
    }
    bytes
}

/// What stands at a path of a [`MemoryTree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file with its text.
    File(String),
    /// A symbolic link with its text.
    Link(String),
    /// A directory that may be empty.
    Directory,
}

/// A kernel tree in memory. Directories above an entry come with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryTree {
    entries: BTreeMap<String, Entry>,
}

impl MemoryTree {
    /// Puts an entry at a path, in place of what was there.
    pub fn put(&mut self, path: impl Into<String>, entry: Entry) {
        let path = path.into();
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
            above = parent;
        }
        self.entries.insert(path, entry);
    }

    /// Puts a file at a path; a line end is added, as the kernel does.
    pub fn put_line(&mut self, path: impl Into<String>, line: impl std::fmt::Display) {
        self.put(path, Entry::File(format!("{line}\n")));
    }

    /// All entries in the order of their paths: directories before what is in them.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }
}

impl Tree for MemoryTree {
    fn read(&self, path: &str) -> Result<Option<String>, TreeError> {
        components(path)?;
        match self.entries.get(path) {
            Some(Entry::File(text)) if u64::try_from(text.len()).is_ok_and(|n| n > FILE_BYTES_MAX) => {
                Err(TreeError::Large)
            }
            Some(Entry::File(text)) => Ok(Some(text.clone())),
            Some(Entry::Link(_)) => Err(TreeError::Link(path.to_owned())),
            Some(Entry::Directory) => Err(TreeError::Text),
            None => Ok(None),
        }
    }

    fn read_start(&self, path: &str) -> Result<Option<String>, TreeError> {
        components(path)?;
        let Some(Entry::File(text)) = self.entries.get(path) else { return self.read(path) };
        let kept = text.bytes().take(usize::try_from(START_BYTES).unwrap_or(usize::MAX)).collect();
        String::from_utf8(whole_lines(kept)).map(Some).map_err(|_| TreeError::Text)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, TreeError> {
        components(path)?;
        match self.entries.get(path) {
            Some(Entry::Link(text)) => Ok(Some(text.clone())),
            Some(Entry::File(_) | Entry::Directory) | None => Ok(None),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>, TreeError> {
        components(path)?;
        match self.entries.get(path) {
            Some(Entry::Directory) => {}
            Some(Entry::Link(_)) => return Err(TreeError::Link(path.to_owned())),
            Some(Entry::File(_)) | None => return Ok(None),
        }
        let prefix = format!("{path}/");
        let below = self.entries.range(prefix.clone()..).map_while(|(p, _)| p.strip_prefix(&prefix));
        let names: BTreeSet<&str> = below.filter(|rest| !rest.contains('/')).collect();
        if names.len() > ENTRIES_MAX {
            return Err(TreeError::Crowded);
        }
        Ok(Some(names.into_iter().map(str::to_owned).collect()))
    }
}

#[cfg(test)]
mod tests;
