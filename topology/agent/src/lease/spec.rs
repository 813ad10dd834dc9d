//! The CDI specs of leases: one file per lease in the runtime's folder, put there by rename, so that a container sees all of it or nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::edits::Edits;
use super::folder::forget;
use super::record::LeaseName;
use super::{KIND, LeaseError};

/// How the names of our specs begin: vendor, class, and a dash.
pub(super) const PREFIX: &str = "berth.dev-gpu-";

const SUFFIX: &str = ".json";
const TEMPORARY: &str = ".tmp";

/// Most entries of the folder that are looked at.
const ENTRIES_MAX: usize = 16_384;

/// The runtime's folder of CDI specs.
#[derive(Debug)]
pub(super) struct Specs {
    folder: PathBuf,
}

impl Specs {
    /// The folder, made where there is none: a reboot empties `/var/run`.
    pub(super) fn open(folder: &Path) -> Result<Self, LeaseError> {
        let failed = |cause| LeaseError::Folder { path: folder.to_owned(), cause };
        fs::create_dir_all(folder).map_err(failed)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Puts a spec there, unless it stands there already. Says whether it was written.
    pub(super) fn write(&self, lease: &LeaseName, version: &str, edits: &Edits) -> io::Result<bool> {
        let spec = json!({
            "cdiVersion": version,
            "kind": KIND,
            "devices": [{"name": lease.as_str(), "containerEdits": edits}],
        });
        let text = spec.to_string().into_bytes();
        let path = self.path_of(lease);
        if fs::read(&path).is_ok_and(|known| known == text) {
            return Ok(false);
        }
        // The runtime takes no file whose name does not end like a spec.
        let temporary = self.folder.join(format!(".{PREFIX}{lease}{TEMPORARY}"));
        // The folder may have gone with a reboot, or by hand.
        let written = fs::create_dir_all(&self.folder).and_then(|()| fs::write(&temporary, &text));
        let written = written.and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            forget(&temporary);
        }
        written.map(|()| true)
    }

    /// Whether the spec of a lease is there.
    pub(super) fn has(&self, lease: &LeaseName) -> bool {
        self.path_of(lease).exists()
    }

    /// Takes the spec of a lease away.
    pub(super) fn remove(&self, lease: &LeaseName) {
        forget(&self.path_of(lease));
    }

    /// Takes away every spec of ours but those of `live` leases; says how many.
    pub(super) fn sweep(&self, live: &BTreeSet<LeaseName>) -> usize {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().take(ENTRIES_MAX).filter_map(Result::ok);
        let is_stale = |name: &str| {
            let half = name
                .strip_prefix('.')
                .and_then(|name| name.strip_prefix(PREFIX))
                .is_some_and(|n| n.ends_with(TEMPORARY));
            let lease = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
            half || lease.and_then(LeaseName::parse).is_some_and(|lease| !live.contains(&lease))
        };
        let stale = entries
            .map(|entry| entry.path())
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_stale));
        stale.map(|path| forget(&path)).count()
    }

    fn path_of(&self, lease: &LeaseName) -> PathBuf {
        self.folder.join(format!("{PREFIX}{lease}{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(digit: &str) -> LeaseName {
        LeaseName::parse(&format!("lease-{}", digit.repeat(32))).unwrap()
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_spec_is_there_whole_and_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let specs = Specs::open(&folder.path().join("cdi")).unwrap();
        let edits = Edits::from_iter([("env".to_owned(), json!(["A=1"]))]);
        assert!(specs.write(&name("a"), "0.5.0", &edits).unwrap());
        assert!(!specs.write(&name("a"), "0.5.0", &edits).unwrap());
        assert!(specs.write(&name("a"), "0.6.0", &edits).unwrap());
        let path = specs.path_of(&name("a"));
        let text = fs::read_to_string(&path).unwrap();
        let device = format!(r#"{{"name":"{}","containerEdits":{{"env":["A=1"]}}}}"#, name("a"));
        let spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        let right = format!(r#"{{"cdiVersion":"0.6.0","kind":"berth.dev/gpu","devices":[{device}]}}"#);
        assert_eq!(spec, serde_json::from_str::<serde_json::Value>(&right).unwrap());
        assert_eq!(names(&folder.path().join("cdi")).len(), 1, "no half of a write is left");
        specs.remove(&name("a"));
        specs.remove(&name("a"));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_swept_is_ours_and_without_a_lease() {
        let folder = tempfile::tempdir().unwrap();
        let specs = Specs::open(folder.path()).unwrap();
        for lease in ["a", "b"] {
            specs.write(&name(lease), "0.5.0", &Edits::new()).unwrap();
        }
        let others = ["nvidia.yaml", "berth.dev-gpu-x.json", "berth.dev-gpu-lease-1.yaml", ".other.tmp"];
        for other in others.into_iter().chain([".berth.dev-gpu-lease-1.tmp"]) {
            fs::write(folder.path().join(other), "x").unwrap();
        }
        assert_eq!(specs.sweep(&BTreeSet::from([name("b")])), 2);
        let mut left: BTreeSet<String> = others.iter().map(|name| (*name).to_owned()).collect();
        left.insert(format!("berth.dev-gpu-{}.json", name("b")));
        assert_eq!(names(folder.path()), left);
    }
}
