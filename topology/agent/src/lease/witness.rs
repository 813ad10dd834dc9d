//! The kubelet's own file of devices, `kubelet_internal_checkpoint`: which container of which UID was answered with which lease. It is read
//! beside the kubelet's list, because that one has neither UIDs nor plain init containers. It is no public form: where it cannot be
//! read, no lease is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use serde::Deserialize;

use super::KIND;
use super::record::LeaseName;

/// Largest file taken: 1000 pods with an answer of 4 KiB each are a quarter of it.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the file says at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Witness {
    /// Whether it could be read.
    pub(super) is_readable: bool,
    /// UID and container of each lease.
    holders: BTreeMap<LeaseName, (String, String)>,
    /// Who was given devices, leases or not.
    pub(super) entries: Vec<Entry>,
}

/// What one container was given of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pod_uid: String,
    pub(super) container: String,
    pub(super) resource: String,
    pub(super) ids: BTreeSet<String>,
    /// The leases that its answer names; none, where a plugin gave the devices themselves.
    pub(super) leases: BTreeSet<LeaseName>,
}

/// Source: `Data`, `checkpointData` and `PodDevicesEntry` in github.com/kubernetes/kubernetes
/// `pkg/kubelet/cm/devicemanager/checkpoint/checkpoint.go` at v1.36, the same since v1.20.
#[derive(Deserialize)]
struct Checkpoint {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries")]
    entries: Option<Vec<Filed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filed {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    #[serde(default)]
    resource_name: String,
    /// By zone; -1 is none.
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<BTreeMap<String, Option<Vec<String>>>>,
    /// The device plugin's answer in protobuf, in which names stand as they are.
    alloc_resp: Option<ByteString>,
}

impl Witness {
    /// Reads what the file says; `None` where it is none.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let checkpoint: Checkpoint = serde_json::from_slice(json).ok()?;
        let entries = checkpoint.data.entries.unwrap_or_default().into_iter().map(|filed| Entry {
            pod_uid: filed.pod_uid,
            container: filed.container_name,
            resource: filed.resource_name,
            ids: filed.device_ids.unwrap_or_default().into_values().flatten().flatten().collect(),
            leases: filed.alloc_resp.map(|ByteString(answer)| names(&answer)).unwrap_or_default(),
        });
        Some(Self::of(entries.collect()))
    }

    /// What these entries say.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        let mut holders = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for entry in &entries {
            for name in &entry.leases {
                let holder = (entry.pod_uid.clone(), entry.container.clone());
                if holders.insert(name.clone(), holder).is_some() {
                    twice.insert(name.clone());
                }
            }
        }
        // One lease, one answer: anything else is no testimony.
        holders.retain(|name, _| !twice.contains(name));
        Self { is_readable: true, holders, entries }
    }

    #[cfg(test)]
    pub(super) fn of_holders(holders: BTreeMap<LeaseName, (String, String)>) -> Self {
        let entry = |(lease, (pod_uid, container))| Entry {
            pod_uid,
            container,
            leases: BTreeSet::from([lease]),
            ..Entry::default()
        };
        Self::of(holders.into_iter().map(entry).collect())
    }

    /// UID and container that were answered with this lease.
    pub(super) fn holder(&self, lease: &LeaseName) -> Option<(&str, &str)> {
        self.holders.get(lease).map(|(uid, container)| (uid.as_str(), container.as_str()))
    }
}

/// The leases that an answer names.
fn names(answer: &[u8]) -> BTreeSet<LeaseName> {
    let start = format!("{KIND}=");
    let windows = answer.windows(start.len()).enumerate().filter(|(_, window)| *window == start.as_bytes());
    let ends = windows.filter_map(|(at, _)| {
        let from = at.checked_add(start.len())?;
        let name = answer.get(from..from.checked_add(LeaseName::BYTES)?)?;
        LeaseName::parse(std::str::from_utf8(name).ok()?)
    });
    ends.collect()
}

/// Where the file is.
#[derive(Debug)]
pub(super) struct WitnessFile {
    path: PathBuf,
    /// Whether the log was told that it cannot be read.
    told: bool,
}

impl WitnessFile {
    /// The file at `path`, which need not be there.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), told: false }
    }

    /// What it says now.
    pub(super) fn read(&mut self) -> Witness {
        let read =
            self.bytes().and_then(|json| Witness::parse(&json).ok_or_else(|| "it is not the form known".to_owned()));
        match read {
            Ok(witness) => {
                if std::mem::take(&mut self.told) {
                    tracing::info!(file = %self.path.display(), "the kubelet's file of devices is read again");
                }
                witness
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    let file = self.path.display();
                    tracing::warn!(%file, error, "the kubelet's file of devices is not read; no lease is given");
                }
                Witness::default()
            }
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        let size = fs::metadata(&self.path).map_err(|e| e.to_string())?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("{size} bytes, at most {FILE_BYTES_MAX} are read"));
        }
        let mut json = Vec::new();
        let file = File::open(&self.path).map_err(|e| e.to_string())?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut json).map_err(|e| e.to_string())?;
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(digit: &str) -> LeaseName {
        LeaseName::parse(&format!("lease-{}", digit.repeat(32))).unwrap()
    }

    /// An answer as the kubelet keeps it: envs, then a CDI device, of a container's protobuf.
    fn answer(lease: &LeaseName) -> String {
        let cdi = format!("{KIND}={lease}");
        let inner: Vec<u8> = [&[0x0a, u8::try_from(cdi.len()).unwrap()], cdi.as_bytes()].concat();
        let outer: Vec<u8> = [&[0x2a, u8::try_from(inner.len()).unwrap()], inner.as_slice()].concat();
        serde_json::to_string(&ByteString(outer)).unwrap()
    }

    fn file(entries: &[(&str, &str, &LeaseName)]) -> Vec<u8> {
        let entries = entries.iter().map(|(uid, container, lease)| {
            format!(
                r#"{{"PodUID":"{uid}","ContainerName":"{container}","ResourceName":"nvidia.com/gpu","DeviceIDs":{{"0":["GPU-1"]}},
                "AllocResp":{}}}"#,
                answer(lease)
            )
        });
        let entries = entries.collect::<Vec<_>>().join(",");
        let text = r#","RegisteredDevices":{"nvidia.com/gpu":["GPU-1"]}},"Checksum":1}"#;
        format!(r#"{{"Data":{{"PodDeviceEntries":[{entries}]{text}"#).into_bytes()
    }

    #[test]
    fn the_kubelets_file_says_who_was_answered_with_a_lease() {
        let witness = Witness::parse(&file(&[("u1", "main", &name("a")), ("u2", "pull", &name("b"))])).unwrap();
        assert_eq!(witness.holder(&name("a")), Some(("u1", "main")));
        assert_eq!(witness.holder(&name("b")), Some(("u2", "pull")));
        assert_eq!(witness.holder(&name("c")), None);
        let none = br#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}"#;
        assert!(Witness::parse(none).unwrap().is_readable);
    }

    #[test]
    fn who_was_given_devices_by_another_plugin_is_told_with_all_of_them() {
        let of = |ids: &str, answer: &str| {
            let head = r#""PodUID":"u","ContainerName":"main","ResourceName":"nvidia.com/gpu""#;
            let file = format!(r#"{{"Data":{{"PodDeviceEntries":[{{{head}{ids}{answer}}}]}}}}"#);
            Witness::parse(file.as_bytes()).unwrap().entries.remove(0)
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let entry = |ids: BTreeSet<String>| Entry {
            pod_uid: "u".to_owned(),
            container: "main".to_owned(),
            resource: "nvidia.com/gpu".to_owned(),
            ids,
            leases: BTreeSet::new(),
        };
        let zones = r#","DeviceIDs":{"0":["GPU-1","GPU-2"],"1":["GPU-3"],"-1":null}"#;
        let by_env =
            format!(r#","AllocResp":{}"#, serde_json::to_string(&ByteString(b"\x0a\x05GPU-1".to_vec())).unwrap());
        assert_eq!(of(zones, &by_env), entry(ids(&["GPU-1", "GPU-2", "GPU-3"])));
        assert_eq!(of(zones, ""), entry(ids(&["GPU-1", "GPU-2", "GPU-3"])));
        assert_eq!(of("", r#","AllocResp":null"#), entry(ids(&[])));
    }

    #[test]
    fn a_lease_that_stands_there_twice_has_no_testimony() {
        let witness = Witness::parse(&file(&[("u1", "main", &name("a")), ("u2", "main", &name("a"))])).unwrap();
        assert_eq!(witness.holder(&name("a")), None);
    }

    #[test]
    fn a_file_of_another_form_or_none_at_all_says_nothing() {
        for bad in ["", "{}", "[]", r#"{"Data":1}"#, r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u"}]}}"#] {
            assert_eq!(Witness::parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(!WitnessFile::new(Path::new("/nonexistent/file")).read().is_readable);
    }
}
