//! How a container reaches a device: the edits that nvidia-ctk wrote for it, where there are any, else its device files. A CDI spec cannot
//! refer to another spec's device, so the edits are copied.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use berth_core::annotation::Device;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cards::{self, Cards};

/// Kind of the specs that nvidia-ctk writes.
const NVIDIA: &str = "nvidia.com/gpu";

/// Most files of a folder that are read: one per vendor and class is usual, and our own leases lie there too.
const FILES_MAX: usize = 16_384;

/// Largest spec taken: that of 16 GPUs in seven instances each, with all the driver's mounts, is 200 KiB.
const SPEC_BYTES_MAX: u64 = 4 << 20;

/// Version of a spec that has nothing but device nodes and environment: every runtime with CDI knows it. Source: github.com/cncf-tags/
/// container-device-interface `SPEC.md`, released versions.
pub(super) const VERSION: &str = "0.3.0";

/// Device files that every CUDA program opens beside its GPU's own; those that exist are given.
const SHARED_FILES: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// CDI containerEdits: lists by key.
pub(super) type Edits = Map<String, Value>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    devices: Vec<SpecDevice>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecDevice {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What tells one state of the folders from another: path, size and time of change of each file.
pub(super) type Signature = Vec<(PathBuf, u64, Option<std::time::SystemTime>)>;

/// The edits of all devices that some spec has.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By device name; a later folder wins, as in the runtime.
    devices: BTreeMap<String, Source>,
    /// Where the host's device files are seen.
    dev_root: PathBuf,
}

#[derive(Debug, Clone)]
struct Source {
    version: String,
    /// Edits of the spec as a whole, then those of the device.
    edits: [Edits; 2],
}

impl Sources {
    /// Reads the specs of kind `nvidia.com/gpu` in `folders`. A file that cannot be read loses itself only.
    pub(super) fn read(folders: &[PathBuf], dev_root: &Path) -> Self {
        let mut devices = BTreeMap::new();
        for path in files(folders) {
            match parse(&path) {
                Ok(spec) if spec.kind == NVIDIA => {
                    for device in spec.devices {
                        let edits = [spec.container_edits.clone(), device.container_edits];
                        devices.insert(device.name, Source { version: spec.cdi_version.clone(), edits });
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(file = %path.display(), error, "a CDI spec cannot be read; the others count");
                }
            }
        }
        Self { devices, dev_root: dev_root.to_owned() }
    }

    /// What makes the devices reachable: the version of a spec that needs it, and the edits.
    ///
    /// # Errors
    /// What is missing and where it would be right.
    pub(super) fn of(&self, devices: &[Device], cards: &Cards) -> Result<(String, Edits), String> {
        let (mut version, mut all) = (VERSION.to_owned(), Edits::new());
        for device in devices {
            let edits = match self.named(device, cards) {
                Some(source) => {
                    if number(&source.version) > number(&version) {
                        version.clone_from(&source.version);
                    }
                    source.edits.clone()
                }
                None => [Edits::new(), self.files_of(device, cards)?],
            };
            edits.into_iter().for_each(|edits| join(&mut all, edits));
        }
        let ids: Vec<&str> = devices.iter().map(cards::id).collect();
        let env = format!("BERTH_DEVICES={}", ids.join(","));
        join(&mut all, Edits::from_iter([("env".to_owned(), json!([env]))]));
        Ok((version, all))
    }

    /// nvidia-ctk names devices by UUID, by index, or both (`--device-name-strategy`).
    fn named(&self, device: &Device, cards: &Cards) -> Option<&Source> {
        let by_id = self.devices.get(cards::id(device));
        let index = || cards.get(&device.uuid).filter(|_| device.mig.is_none()).map(|card| card.index.0.to_string());
        by_id.or_else(|| self.devices.get(&index()?))
    }

    fn files_of(&self, device: &Device, cards: &Cards) -> Result<Edits, String> {
        if device.mig.is_some() {
            return Err(format!(
                "no CDI spec of kind {NVIDIA} has {}: `nvidia-ctk cdi generate` after each change of MIG writes one",
                cards::id(device)
            ));
        }
        let minor = cards.get(&device.uuid).and_then(|card| card.minor);
        let minor = minor.ok_or_else(|| format!("the number of the device file of {} is not known", device.uuid))?;
        let own = format!("nvidia{minor}");
        if !self.dev_root.join(&own).exists() {
            let path = self.dev_root.join(&own);
            return Err(format!(
                "{} is not there, nor a CDI spec of kind {NVIDIA} with {}",
                path.display(),
                device.uuid
            ));
        }
        let shared = SHARED_FILES.into_iter().map(str::to_owned).filter(|name| self.dev_root.join(name).exists());
        // Where the host has them, wherever this agent sees them.
        let node = |name: String| json!({"path": format!("/dev/{name}")});
        let nodes: Vec<Value> = std::iter::once(own).chain(shared).map(node).collect();
        Ok(Edits::from_iter([("deviceNodes".to_owned(), Value::Array(nodes))]))
    }
}

/// `0.8.0` as numbers.
fn number(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Adds edits to others: lists grow by what they do not have, of anything else the first stays.
fn join(all: &mut Edits, more: Edits) {
    for (key, value) in more {
        match (all.get_mut(&key), value) {
            (Some(Value::Array(have)), Value::Array(more)) => {
                for item in more {
                    if !have.contains(&item) {
                        have.push(item);
                    }
                }
            }
            (Some(_), _) => {}
            (None, value) => {
                all.insert(key, value);
            }
        }
    }
}

/// The state of the folders, without reading a file.
pub(super) fn signature(folders: &[PathBuf]) -> Signature {
    let of = |path: PathBuf| {
        let metadata = fs::metadata(&path).ok()?;
        Some((path, metadata.len(), metadata.modified().ok()))
    };
    files(folders).into_iter().filter_map(of).collect()
}

/// The specs of the folders but our own, in the order in which the runtime takes them.
fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in folders {
        // A folder that is not there has no specs.
        let entries = fs::read_dir(folder).into_iter().flatten().take(FILES_MAX).filter_map(Result::ok);
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_spec(path)).collect();
        paths.sort();
        all.append(&mut paths);
    }
    all
}

fn is_spec(path: &Path) -> bool {
    let is_named = path.extension().is_some_and(|extension| extension == "json" || extension == "yaml");
    let is_own =
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(super::spec::PREFIX));
    is_named && !is_own
}

fn parse(path: &Path) -> Result<Spec, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(SPEC_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > SPEC_BYTES_MAX {
        return Err(format!("more than {SPEC_BYTES_MAX} bytes"));
    }
    // JSON is YAML, too, but is read faster as itself.
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|e| e.to_string());
    }
    serde_saphyr::from_str(&text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
