//! Owns a real node's control groups: one group of a name that nobody else has in every hierarchy, made before its kubelet starts and
//! gone after it, with every process in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::controlplane::guard;

const ROOT: &str = "/sys/fs/cgroup";

/// The file that is there where one hierarchy has all controllers (version 2).
const UNIFIED: &str = "cgroup.controllers";

/// Where the node's own programs are; their children follow them there.
const DAEMONS: &str = "daemons";

/// A killed process is gone after its memory was given back; a busy machine takes its time.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);

/// The groups of one node.
#[derive(Debug)]
pub(super) struct Cgroups {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes them, and the groups below them whose limits the kubelet would otherwise write from CPUs that this machine does not have.
    pub(super) fn make(name: &str) -> Result<Self> {
        let made = Self { name: name.to_owned(), hierarchies: hierarchies()? };
        guard::remove_cgroup(name)?;
        for hierarchy in &made.hierarchies {
            for below in ["", DAEMONS, "kubepods"] {
                let group = hierarchy.join(name).join(below);
                fs::create_dir_all(&group).with_context(|| format!("create {}", group.display()))?;
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    // A group of processor sets takes no process before it has some; in version 2 it has its parent's.
                    if group.join(file).is_file() && !hierarchy.join(UNIFIED).is_file() {
                        let own = fs::read_to_string(hierarchy.join(file))?;
                        fs::write(group.join(file), own.trim()).with_context(|| format!("write {file} of {name}"))?;
                    }
                }
            }
        }
        Ok(made)
    }

    /// As kubelets and runtimes name it.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// The file into which the node's own programs write themselves: of one hierarchy, because one is enough to find them all again.
    pub(super) fn join_file(&self) -> Result<PathBuf> {
        let first = self.hierarchies.first().context("no control groups are mounted")?;
        Ok(first.join(&self.name).join(DAEMONS).join("cgroup.procs"))
    }

    /// Whether any process is in a group of this name below them.
    pub(super) fn is_alive(&self, name: &str) -> bool {
        let mut named = self.groups().into_iter().filter(|group| group.file_name().is_some_and(|own| own == name));
        named.any(|group| fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|ids| !ids.is_empty()))
    }

    /// Kills everything in them and removes them.
    pub(super) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTY_WITHIN;
        loop {
            let processes = self.processes();
            if processes.is_empty() && self.remove_empty() {
                return Ok(());
            }
            for process in processes {
                // One that is gone meanwhile needs no signal.
                let _gone = kill_process(process, Signal::KILL);
            }
            if Instant::now() > deadline {
                bail!("processes of {} are still there after {EMPTY_WITHIN:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn groups(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self.hierarchies.iter().map(|h| h.join(&self.name)).collect();
        let mut at = 0;
        while let Some(group) = found.get(at).cloned() {
            at += 1;
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            found.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        found
    }

    fn processes(&self) -> Vec<Pid> {
        let files = self.groups().into_iter().map(|group| group.join("cgroup.procs"));
        let texts: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
    }

    fn remove_empty(&self) -> bool {
        let groups = self.groups();
        groups.iter().rev().for_each(|group| {
            // Answered by whether it is still there.
            let _kept = fs::remove_dir(group);
        });
        groups.iter().all(|group| !group.exists())
    }
}

/// One per controller in version 1, one in all in version 2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join(UNIFIED).is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).with_context(|| format!("real nodes need control groups: read {ROOT}"))?;
    // A link names a hierarchy of several controllers a second time; `unified` has no controllers.
    let own = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()) && e.file_name() != "unified");
    let mut found: Vec<PathBuf> = own.map(|e| e.path()).filter(|p| p.join("cgroup.procs").is_file()).collect();
    // The first is where programs are put: that of processor sets would bind them.
    found.sort_by_key(|path| (path.ends_with("cpuset"), path.clone()));
    if found.is_empty() {
        bail!("real nodes need control groups: none are mounted below {ROOT}");
    }
    Ok(found)
}
