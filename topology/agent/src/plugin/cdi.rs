//! The CDI specs that others wrote for the GPUs of this machine (`nvidia-ctk cdi generate`): under which name a runtime knows a device.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::devices::Device;

/// Vendor and class of NVIDIA's specs.
const KIND: &str = "nvidia.com/gpu";

/// Most files of a folder that are looked at; there is one per vendor, and one per container of ours.
const FILES_MAX: usize = 4096;

/// Largest file read. A spec of 16 GPUs with all libraries is a tenth of it.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// The names of NVIDIA's specs, as last read.
#[derive(Debug, Default)]
pub(super) struct Specs {
    files: BTreeMap<PathBuf, File>,
}

/// One file as it was read.
#[derive(Debug)]
struct File {
    changed_at: Option<SystemTime>,
    bytes: u64,
    devices: Vec<Named>,
}

/// A device of a spec.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    device_nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    path: String,
}

#[derive(Debug, Deserialize)]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
}

impl Specs {
    /// Reads what changed in the folders. What cannot be read is no spec, as a runtime takes it too.
    pub(super) fn read(&mut self, folders: &[PathBuf]) {
        let mut seen = BTreeMap::new();
        for folder in folders {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
            for path in entries.map(|entry| entry.path()).filter(|path| is_spec(path)) {
                let Ok(facts) = std::fs::metadata(&path) else { continue };
                let (changed_at, bytes) = (facts.modified().ok(), facts.len());
                let known = self.files.remove(&path).filter(|f| f.changed_at == changed_at && f.bytes == bytes);
                let file = known.unwrap_or_else(|| File { changed_at, bytes, devices: devices_of(&path) });
                seen.insert(path, file);
            }
        }
        self.files = seen;
    }

    /// The whole name of a device: by its UUID, else by the device file that only it has.
    pub(super) fn name(&self, id: &str, device: Option<&Device>) -> Option<String> {
        let all = || self.files.values().flat_map(|file| &file.devices);
        let by_uuid = all().find(|named| named.name == id);
        let whole = device.filter(|device| device.start.is_none());
        let path = whole.and_then(|device| device.minor).map(|minor| format!("/dev/nvidia{minor}"));
        let by_file = || {
            let path = path.as_deref()?;
            all()
                .filter(|named| named.name != "all")
                .find(|named| named.edits.device_nodes.iter().any(|n| n.path == path))
        };
        by_uuid.or_else(by_file).map(|named| format!("{KIND}={}", named.name))
    }
}

/// A spec's file ends in one of three ways; our own leases are none of NVIDIA's.
fn is_spec(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ends = [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end));
    ends && !name.starts_with("berth.dev-")
}

fn devices_of(path: &Path) -> Vec<Named> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let spec: Option<Spec> =
        if is_json { serde_json::from_str(&text).ok() } else { serde_saphyr::from_str(&text).ok() };
    spec.filter(|spec| spec.kind == KIND).map(|spec| spec.devices).unwrap_or_default()
}

#[cfg(test)]
mod tests;
