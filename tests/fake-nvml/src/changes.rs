//! Tells when the faults file may have changed, without a look into it: an agent's system calls are to be its own, and a library that
//! reads a file at every call would hide them. Knows nothing of what the file says.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

/// How often a file is looked at whose folder the kernel does not watch.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Room for some dozens of the kernel's notes; what they say does not matter.
const NOTES_BYTES: usize = 4096;

/// A watch over the folder of one file. Every change in the folder counts: a file may be replaced by renaming, or through a link.
#[derive(Debug)]
pub(crate) struct Changes(Option<OwnedFd>);

impl Changes {
    /// Watches from now on. Where the kernel cannot, everything counts as changed at all times.
    pub(crate) fn near(file: &Path) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let watched = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|watch| {
            let kinds = WatchFlags::CLOSE_WRITE
                | WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO;
            add_watch(&watch, folder, kinds).map(|_| watch)
        });
        Self(watched.ok())
    }

    /// Whether there was a change since the last call.
    pub(crate) fn any(&self) -> bool {
        let Some(watch) = &self.0 else { return true };
        let mut notes = [0_u8; NOTES_BYTES];
        let mut changed = false;
        while rustix::io::read(watch, &mut notes).is_ok_and(|bytes| bytes > 0) {
            changed = true;
        }
        changed
    }

    /// Waits for a change, so long at most; may return without one.
    pub(crate) fn wait(&self, within: Duration) {
        let Some(watch) = &self.0 else { return std::thread::sleep(LOOK_EVERY.min(within)) };
        let within = Timespec::try_from(within).ok();
        // An interrupted wait is one without a change.
        let _ended = poll(&mut [PollFd::new(watch, PollFlags::IN)], within.as_ref());
        self.any();
    }
}
