//! The state folder: one JSON file per lease, replaced by rename, on disk before anybody is told. A file that is none is left and said.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::{Lease, LeaseName};
use super::{LEASES_MAX, LeaseError};

/// Largest file taken: 128 devices with their profiles are a third of it.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Most entries of the folder that are looked at: twice the leases, for temporary files.
const ENTRIES_MAX: usize = 2 * LEASES_MAX;

/// Who holds which GPU is nobody else's to change.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Ends of file names.
const SUFFIX: &str = ".json";
const TEMPORARY: &str = ".tmp";

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder, made where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, LeaseError> {
        let folder = Self { path: path.to_owned() };
        let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
        made.map_err(|cause| failed(path, cause))?;
        Ok(folder)
    }

    /// The leases in it, in the order of their names.
    pub(super) fn read(&self) -> Result<Vec<Lease>, LeaseError> {
        let mut leases = Vec::new();
        let entries = fs::read_dir(&self.path).map_err(|cause| failed(&self.path, cause))?;
        for entry in entries.take(ENTRIES_MAX) {
            let path = entry.map_err(|cause| failed(&self.path, cause))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(TEMPORARY) {
                // Half a write of an agent that was killed; nobody was told of it.
                forget(&path);
                continue;
            }
            let Some(name) = name.strip_suffix(SUFFIX).and_then(LeaseName::parse) else { continue };
            match parse(&path, &name) {
                Ok(lease) => leases.push(lease),
                Err(error) => {
                    tracing::error!(file = %path.display(), error, "a lease cannot be read; its container cannot start again");
                }
            }
        }
        leases.sort_by(|a, b| a.name.cmp(&b.name));
        leases.truncate(LEASES_MAX);
        Ok(leases)
    }

    /// Puts a lease there, or what became of it; on disk when this returns.
    pub(super) fn write(&self, lease: &Lease) -> Result<(), LeaseError> {
        let path = self.path_of(&lease.name);
        let json = lease.to_json().map_err(|cause| failed(&path, cause.into()))?;
        replace(&path, &json, FILE_MODE).map_err(|cause| failed(&path, cause))
    }

    /// Takes a lease away.
    pub(super) fn remove(&self, name: &LeaseName) {
        forget(&self.path_of(name));
    }

    fn path_of(&self, name: &LeaseName) -> PathBuf {
        self.path.join(format!("{name}{SUFFIX}"))
    }
}

fn parse(path: &Path, name: &LeaseName) -> Result<Lease, String> {
    let mut json = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut json).map_err(|e| e.to_string())?;
    if u64::try_from(json.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(format!("more than {FILE_BYTES_MAX} bytes are no lease"));
    }
    let lease = Lease::parse(&json)?;
    if lease.name == *name { Ok(lease) } else { Err(format!("it is of {}, the name of its file is right", lease.name)) }
}

/// Replaces a file by rename, so that nobody ever reads half of it; on disk when this returns.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY.trim_start_matches('.'));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The name, too, must outlive a power cut.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Removes a file that may be gone already.
pub(super) fn forget(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "a file could not be removed");
    }
}

fn failed(path: &Path, cause: io::Error) -> LeaseError {
    LeaseError::Folder { path: path.to_owned(), cause }
}
