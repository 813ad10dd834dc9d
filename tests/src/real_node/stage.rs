//! Owns the place where a real node's programs run: a mount namespace of its own, in which this machine's CPUs, zones, memory, boot id
//! and device nodes are those of a machine file, and in which nothing that a kubelet or containerd writes reaches the machine.
//!
//! All mounts are private to the namespace, and go with the last process in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cgroups::Cgroups;
use crate::controlplane::{Folder, Process, ProcessSpec};

/// `$1` is the node's folder, `$2` the group's file.
const SCRIPT: &str = r#"
set -eu
echo $$ >"$2"
d=$1
mount --make-rprivate /

# Devices: those that containers need, and harmless ones under the names of the machine's.
mkdir -p "$d/dev"
mount -t tmpfs -o mode=755 tmpfs "$d/dev"
for name in null zero full random urandom tty kmsg fuse; do
  if [ -e "/dev/$name" ]; then : >"$d/dev/$name"; mount --bind "/dev/$name" "$d/dev/$name"; fi
done
for name in pts shm mqueue; do
  if [ -d "/dev/$name" ]; then mkdir "$d/dev/$name"; mount --rbind "/dev/$name" "$d/dev/$name"; fi
done
ln -s pts/ptmx "$d/dev/ptmx"
ln -s /proc/self/fd "$d/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%%:*}" "$d/dev/${n##*:}"; done
while read -r name; do
  mkdir -p "$d/dev/$(dirname "$name")"
  : >"$d/dev/$name"
  mount --bind /dev/null "$d/dev/$name"
done <"$d/nodes"
mount --rbind "$d/dev" /dev

# Folders that the programs know by heart. What else is in /var/lib stays in sight.
mount -t tmpfs -o mode=755 tmpfs /run
[ -L /var/run ] || mount --rbind /run /var/run
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p "$d/lib"
mount -t tmpfs -o mode=755 tmpfs "$d/lib"
for path in /var/lib/*; do
  name=${path##*/}
  case $name in kubelet|containerd|cni|berth) continue ;; esac
  if [ -d "$path" ]; then mkdir "$d/lib/$name"; mount --rbind "$path" "$d/lib/$name"; fi
done
mkdir "$d/lib/kubelet" "$d/lib/berth"
mount --rbind "$d/lib" /var/lib
mount --bind "$d/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$d/berth" /var/lib/berth

# The machine.
mount --bind "$d/zones" /sys/devices/system/node
if [ -d /sys/kernel/mm/hugepages ]; then mount --bind "$d/hugepages" /sys/kernel/mm/hugepages; fi
mount --bind "$d/online" /sys/devices/system/cpu/online
mount --bind "$d/meminfo" /proc/meminfo
mount --bind "$d/boot_id" /proc/sys/kernel/random/boot_id
mkdir -p /run/cdi
echo staged
exec sleep infinity
"#;

/// Puts itself into the group, then goes into the namespace and becomes the program.
const ENTER: &str = r#"echo $$ >"$1" && namespace=$2 && shift 2 && exec nsenter --mount="$namespace" -- "$@""#;

const STAGED_WITHIN: Duration = Duration::from_secs(30);

/// Folders that the namespace covers: what the tests use must not be there.
const COVERED: [&str; 5] = ["/run", "/var/run", "/var/log", "/var/lib/kubelet", "/dev"];

/// A namespace and its groups. Dropping it ends every process in them.
#[derive(Debug)]
pub(super) struct Stage {
    holder: Process,
    cgroups: Cgroups,
    folder: Folder,
}

impl Stage {
    /// Sets it up in a folder that has `kubelet/`, `berth/`, `zones/`, `hugepages/`, `online`, `meminfo`, `boot_id` and `nodes`, the names below
    /// `/dev` that the machine has.
    pub(super) async fn set(folder: Folder) -> Result<Self> {
        if let Some(covered) = COVERED.iter().find(|covered| folder.path().starts_with(covered)) {
            bail!("real nodes cover {covered}, and {} is in it: set TMPDIR elsewhere", folder.path().display());
        }
        let name = folder.path().file_name().and_then(|name| name.to_str()).context("a folder without a name")?;
        let cgroups = Cgroups::make(name)?;
        let spec = ProcessSpec::new("stage", "unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", SCRIPT, "stage"])
            .arg(folder.path())
            .arg(cgroups.join_file()?);
        let mut holder = Process::spawn(spec, folder.path())?;
        holder.wait_for_log("staged", STAGED_WITHIN).await.context("make a mount namespace for a real node")?;
        Ok(Self { holder, cgroups, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path of the stage as this process reaches it.
    pub(super) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(path.trim_start_matches('/'))
    }

    /// The group below which the kubelet has its own.
    pub(super) fn cgroup(&self) -> String {
        self.cgroups.path()
    }

    /// Whether any process is in the group of this name.
    pub(super) fn is_alive(&self, group: &str) -> bool {
        self.cgroups.is_alive(group)
    }

    /// Starts a program on this stage, with its log in the node's folder.
    pub(super) fn spawn(&self, spec: ProcessSpec) -> Result<Process> {
        Process::spawn(self.through(spec)?, self.folder())
    }

    fn through(&self, spec: ProcessSpec) -> Result<ProcessSpec> {
        let namespace = PathBuf::from(format!("/proc/{}/ns/mnt", self.holder.pid()));
        let join = self.cgroups.join_file()?;
        Ok(spec.through("sh", ["-c".into(), ENTER.into(), "enter".into(), join.into(), namespace.into()]))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The guard tries again when this process ends.
        if let Err(error) = self.holder.kill().and_then(|()| self.cgroups.remove()) {
            eprintln!("{}: {error:#}", self.folder().display());
        }
    }
}

/// What this machine lacks for real nodes; `None` when nothing.
pub(super) fn lacks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    let tools = ["unshare", "nsenter", "mount"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if let Some(tool) = tools.into_iter().find(|tool| !there(tool)) {
        return Some(format!("the program {tool} (package util-linux)"));
    }
    let made = std::process::Command::new("unshare").args(["-m", "--propagation", "private", "true"]).output();
    let made = made.is_ok_and(|output| output.status.success());
    let groups = fs::metadata("/sys/fs/cgroup").is_ok_and(|m| !m.permissions().readonly());
    match (made, groups) {
        (false, _) => Some("the right to make mount namespaces".to_owned()),
        (true, false) => Some("control groups that may be written".to_owned()),
        (true, true) => None,
    }
}
