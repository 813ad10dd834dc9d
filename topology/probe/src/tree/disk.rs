//! The tree on disk. Every path is opened in one step by which the kernel itself refuses links and ways out (`openat2`, Linux 5.6); where
//! it cannot, or where that step fails, component by component, which also tells what is wrong.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::{ENTRIES_MAX, FILE_BYTES_MAX, START_BYTES, Tree, TreeError, components, whole_lines};

/// Room for one read: a page and the byte that tells a longer file, as nearly all files of a kernel tree are.
const READ_BYTES: usize = 4097;

/// A directory on disk that holds `sys/` and `proc/`; `/` on the machine itself, the host's mount in a container.
#[derive(Debug)]
pub struct SysRoot {
    path: PathBuf,
    /// Opened at the first question.
    opened: OnceLock<Option<OwnedFd>>,
}

/// What one step came to.
enum Step<T> {
    Found(T),
    Absent,
    /// Only the walk can tell.
    Unclear,
}

impl<T> Step<T> {
    fn failed(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Absent,
            _ => Self::Unclear,
        }
    }
}

impl SysRoot {
    /// The tree under `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { path: root.into(), opened: OnceLock::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what stands at a path.
    fn open(&self, path: &str, flags: OFlags) -> Step<OwnedFd> {
        let root = self.opened.get_or_init(|| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, &self.path, flags, Mode::empty()).ok()
        });
        let Some(root) = root else { return Step::Unclear };
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), within) {
            Ok(opened) => Step::Found(opened),
            Err(error) => Step::failed(error),
        }
    }

    /// The first bytes of a file, in one step.
    fn bytes_at_once(&self, path: &str, bytes_max: usize) -> Step<Vec<u8>> {
        // Without NONBLOCK the opening of a FIFO would wait for its writer.
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Step::Found(file) => file,
            Step::Absent => return Step::Absent,
            Step::Unclear => return Step::Unclear,
        };
        if !fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile) {
            return Step::Unclear;
        }
        let mut bytes = Vec::new();
        let mut part = [0_u8; READ_BYTES];
        while bytes.len() < bytes_max {
            match rustix::io::read(&file, &mut part) {
                Ok(0) => break,
                Ok(count) => bytes.extend(part.iter().take(count)),
                Err(Errno::INTR) => {}
                Err(_) => return Step::Unclear,
            }
        }
        bytes.truncate(bytes_max);
        Step::Found(bytes)
    }

    fn link_at_once(&self, path: &str) -> Step<Option<String>> {
        let link = match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Step::Found(link) => link,
            Step::Absent => return Step::Absent,
            Step::Unclear => return Step::Unclear,
        };
        match readlinkat(&link, "", Vec::new()) {
            Ok(text) => text.into_string().map_or(Step::Unclear, |text| Step::Found(Some(text))),
            // Something else stands there.
            Err(Errno::NOENT | Errno::INVAL) => Step::Found(None),
            Err(_) => Step::Unclear,
        }
    }

    fn list_at_once(&self, path: &str) -> Step<Vec<String>> {
        let opened = match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Step::Found(opened) => opened,
            Step::Absent => return Step::Absent,
            Step::Unclear => return Step::Unclear,
        };
        let Ok(entries) = Dir::new(opened) else { return Step::Unclear };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.ok().and_then(|entry| entry.file_name().to_str().map(str::to_owned).ok());
            match name.as_deref() {
                Some("." | "..") => {}
                Some(_) if names.len() < ENTRIES_MAX => names.extend(name),
                Some(_) | None => return Step::Unclear,
            }
        }
        names.sort_unstable();
        Step::Found(names)
    }

    /// The path on disk, once every component above the last is known to be a real directory.
    fn locate(&self, path: &str) -> Result<Option<PathBuf>, TreeError> {
        let parts = components(path)?;
        let mut at = self.path.clone();
        for (i, part) in parts.iter().enumerate() {
            at.push(part);
            if i.saturating_add(1) == parts.len() {
                break;
            }
            match std::fs::symlink_metadata(&at) {
                Ok(meta) if meta.is_symlink() => return Err(TreeError::Link((*part).to_owned())),
                Ok(_) => {}
                Err(error) => return absent(error).map(|()| None),
            }
        }
        Ok(Some(at))
    }

    /// The first bytes of a file.
    fn bytes(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, TreeError> {
        components(path)?;
        match self.bytes_at_once(path, usize::try_from(bytes_max).unwrap_or(usize::MAX)) {
            Step::Found(bytes) => return Ok(Some(bytes)),
            Step::Absent => return Ok(None),
            Step::Unclear => {}
        }
        let Some(at) = self.locate(path)? else { return Ok(None) };
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => return Err(TreeError::Link(path.to_owned())),
            // A FIFO or device would block the reader for ever.
            Ok(meta) if !meta.is_file() => return Err(TreeError::Text),
            Ok(_) => {}
            Err(error) => return absent(error).map(|()| None),
        }
        let mut bytes = Vec::new();
        let file = match std::fs::File::open(&at) {
            Ok(file) => file,
            Err(error) => return absent(error).map(|()| None),
        };
        file.take(bytes_max).read_to_end(&mut bytes).map_err(TreeError::Io)?;
        Ok(Some(bytes))
    }
}

/// Takes "there is no such thing" as an answer.
fn absent(error: std::io::Error) -> Result<(), TreeError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    if matches!(error.kind(), NotFound | NotADirectory) { Ok(()) } else { Err(TreeError::Io(error)) }
}

impl Tree for SysRoot {
    fn read(&self, path: &str) -> Result<Option<String>, TreeError> {
        let Some(bytes) = self.bytes(path, FILE_BYTES_MAX.saturating_add(1))? else { return Ok(None) };
        if u64::try_from(bytes.len()).is_ok_and(|n| n > FILE_BYTES_MAX) {
            return Err(TreeError::Large);
        }
        String::from_utf8(bytes).map(Some).map_err(|_| TreeError::Text)
    }

    fn read_start(&self, path: &str) -> Result<Option<String>, TreeError> {
        let Some(bytes) = self.bytes(path, START_BYTES)? else { return Ok(None) };
        String::from_utf8(whole_lines(bytes)).map(Some).map_err(|_| TreeError::Text)
    }
    fn read_link(&self, path: &str) -> Result<Option<String>, TreeError> {
        use std::io::ErrorKind::InvalidInput;
        components(path)?;
        match self.link_at_once(path) {
            Step::Found(text) => return Ok(text),
            Step::Absent => return Ok(None),
            Step::Unclear => {}
        }
        let Some(at) = self.locate(path)? else { return Ok(None) };
        match std::fs::read_link(&at) {
            Ok(text) => text.into_os_string().into_string().map(Some).map_err(|_| TreeError::Text),
            Err(error) if error.kind() == InvalidInput => Ok(None),
            Err(error) => absent(error).map(|()| None),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>, TreeError> {
        components(path)?;
        match self.list_at_once(path) {
            Step::Found(names) => return Ok(Some(names)),
            Step::Absent => return Ok(None),
            Step::Unclear => {}
        }
        let Some(at) = self.locate(path)? else { return Ok(None) };
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => return Err(TreeError::Link(path.to_owned())),
            Ok(_) => {}
            Err(error) => return absent(error).map(|()| None),
        }
        let entries = match std::fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(error) => return absent(error).map(|()| None),
        };
        let mut names = Vec::new();
        for entry in entries {
            if names.len() >= ENTRIES_MAX {
                return Err(TreeError::Crowded);
            }
            let name = entry.map_err(TreeError::Io)?.file_name();
            names.push(name.into_string().map_err(|_| TreeError::Text)?);
        }
        names.sort_unstable();
        Ok(Some(names))
    }
}
