//! Owns the promise that nothing outlives the test process: one small shell per
//! process that kills what we started and removes our folders and control groups when we
//! are gone, however we went. Knows process groups and paths, nothing of what they are.
//!
//! The shell reads a pipe whose other end only this process holds. The kernel
//! closes that end at our death, `kill -9` included, and the shell acts. A
//! parent-death signal would be tied to the *thread* that spawned the child,
//! and test threads end long before the test process does.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Ignores what a terminal sends to everybody, so that it is still there after Ctrl-C.
/// The second `rm` is for files that a dying server wrote between the kill and the first.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
groups=' '
cgroups=
set --
while read -r op rest; do
  case $op in
    watch) groups="$groups$rest " ;;
    unwatch) groups="${groups%% "$rest" *} ${groups#* "$rest" }" ;;
    cgroup) cgroups="$cgroups $rest" ;;
    folder) set -- "$@" "$rest" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
for name in $cgroups; do
  for try in 1 2 3 4 5 6 7 8 9 10; do
    found=$(find /sys/fs/cgroup -path "*/$name*" -type d)
    [ -n "$found" ] || break
    for group in $found; do
      for process in $(cat "$group/cgroup.procs"); do kill -s KILL "$process"; done
    done
    find /sys/fs/cgroup -depth -path "*/$name*" -type d -exec rmdir {} + && break
    sleep 0.2
  done
done
rm -rf -- "$@" || { sleep 1; rm -rf -- "$@"; }
"#;

static GUARD: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// Asks for the process group to be killed when this process is gone.
pub(super) fn watch(group: u32) -> io::Result<()> {
    tell("watch", group)
}

/// Takes [`watch`] back, after the group has been reaped: its number may be given to others.
pub(super) fn unwatch(group: u32) -> io::Result<()> {
    tell("unwatch", group)
}

/// Asks for the folder to be removed when this process is gone.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    tell("folder", folder.display())
}

/// Asks for everything in control groups of this name to be killed, and for the groups to be removed, when this process is gone. The
/// name must be one that nobody else has, and have no blank.
pub(crate) fn remove_cgroup(name: &str) -> io::Result<()> {
    tell("cgroup", name)
}

fn tell(op: &str, what: impl Display) -> io::Result<()> {
    let guard = match GUARD.get() {
        Some(guard) => guard,
        None => {
            // Two threads may both come here; the loser's shell sees its pipe close and ends.
            let started = Mutex::new(start()?);
            GUARD.get_or_init(|| started)
        }
    };
    let mut pipe = guard.lock().unwrap_or_else(PoisonError::into_inner);
    // One write, so that a death in the middle leaves no half line.
    pipe.write_all(format!("{op} {what}\n").as_bytes())
}

fn start() -> io::Result<ChildStdin> {
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    shell.stdin.take().ok_or_else(|| io::Error::other("the guard shell has no standard input"))
}
