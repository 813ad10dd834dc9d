//! Which pods still have processes. A pod may be gone for API server and kubelet's list while its program still ends: one that was deleted
//! by force is. Its devices are not anybody else's before that.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Most processes looked at. Source: a 64-bit kernel's `pid_max` is four million, a busy node has tens of thousands.
const PROCESSES_MAX: usize = 1 << 18;

/// Longest text read of a process's control groups: 12 controllers with paths of 250 bytes are a tenth.
const CGROUP_BYTES_MAX: usize = 32 << 10;

/// Of these UIDs, those in whose pods' control groups a process is. The kubelet names the group of a pod by its UID, with `_` for `-` where
/// systemd makes it. Where `proc` shows no processes, none is.
pub(super) fn running(proc: &Path, uids: &BTreeSet<String>) -> BTreeSet<String> {
    let mut running = BTreeSet::new();
    let groups: Vec<(&String, String)> =
        uids.iter().filter(|uid| !uid.is_empty()).map(|uid| (uid, uid.replace('-', "_"))).collect();
    if groups.is_empty() {
        return running;
    }
    let entries = fs::read_dir(proc).into_iter().flatten().take(PROCESSES_MAX).filter_map(Result::ok);
    for entry in entries {
        let name = entry.file_name();
        let is_process = name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_process {
            continue;
        }
        // A process that ended meanwhile has no such file.
        let Ok(text) = fs::read_to_string(entry.path().join("cgroup")) else { continue };
        let text = text.get(..CGROUP_BYTES_MAX).unwrap_or(&text);
        let found = groups.iter().filter(|(uid, group)| text.contains(uid.as_str()) || text.contains(group.as_str()));
        running.extend(found.map(|(uid, _)| (*uid).clone()));
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_runs_while_a_process_is_in_a_group_with_its_uid() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, cgroup: &str| {
            fs::create_dir(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("cgroup"), cgroup).unwrap();
        };
        process("1", "0::/init.scope\n");
        process("20", "0::/kubepods.slice/kubepods-pod0a_1.slice/cri-containerd-c.scope\n");
        process("21", "12:pids:/kn1/kubepods/burstable/pod0b-2/c\n0::/\n");
        process("self", "0::/kubepods/pod0c-3/c\n");
        fs::create_dir(proc.path().join("22")).unwrap();
        let uids = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(running(proc.path(), &uids(&["0a-1", "0b-2", "0c-3", "0d-4", ""])), uids(&["0a-1", "0b-2"]));
        assert_eq!(running(Path::new("/nonexistent"), &uids(&["0a-1"])), BTreeSet::new());
    }
}
