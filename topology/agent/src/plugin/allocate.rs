//! How a container gets devices: what an Allocate answer says. The kubelet waits for it with every other pod of the node, so nothing here
//! asks anybody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_proto::kubelet::deviceplugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec};

use super::cdi::Specs;
use super::devices::{Device, Devices};
use crate::lease::{LeaseError, Leases};

/// By which NVIDIA's runtime learns the devices of a container.
///
/// Source: github.com/NVIDIA/k8s-device-plugin `internal/plugin/server.go`, strategy `envvar`.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// What that runtime takes for "leave this container alone"; images of CUDA say `all`.
const VOID: &str = "void";

/// Device files of the driver as a whole. Of those that are not there, none is needed.
const CONTROL: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// How containers get devices at level preferred.
#[derive(Debug)]
pub(crate) struct Preferred {
    /// Folders of CDI specs, where the runtime takes CDI names.
    pub(super) cdi: Option<Vec<PathBuf>>,
    /// Where the device files of the host are seen.
    pub(super) dev_root: PathBuf,
    pub(super) specs: Mutex<Specs>,
}

impl Preferred {
    /// The answer for these ids: by CDI where a spec names all of them, else by environment and device files.
    pub(super) fn answer(&self, ids: &[String], devices: &Devices) -> ContainerAllocateResponse {
        if let Some(names) = self.cdi_names(ids, devices) {
            return by_cdi(names);
        }
        let envs = BTreeMap::from([(VISIBLE.to_owned(), ids.join(","))]);
        let known: Vec<&Device> = ids.iter().filter_map(|id| devices.get(id)).collect();
        let mut minors: Vec<u32> = known.iter().filter_map(|device| device.minor).collect();
        minors.sort_unstable();
        minors.dedup();
        let cards = minors.into_iter().map(|minor| format!("nvidia{minor}"));
        let names: Vec<String> = cards.chain(CONTROL.map(str::to_owned)).collect();
        let files = names.iter().filter(|name| is_there(&self.dev_root, name)).map(|name| device_file(name));
        ContainerAllocateResponse { envs, devices: files.collect(), cdi_devices: Vec::new() }
    }

    fn cdi_names(&self, ids: &[String], devices: &Devices) -> Option<Vec<String>> {
        let folders = self.cdi.as_deref()?;
        // A spec is whole or not there, so one that a panic left is.
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        specs.read(folders);
        ids.iter().map(|id| specs.name(id, devices.get(id))).collect()
    }
}

/// An answer by CDI names; the environment keeps NVIDIA's own runtime from adding what the image asks for.
fn by_cdi(names: Vec<String>) -> ContainerAllocateResponse {
    ContainerAllocateResponse {
        envs: BTreeMap::from([(VISIBLE.to_owned(), VOID.to_owned())]),
        devices: Vec::new(),
        cdi_devices: names.into_iter().map(|name| CdiDevice { name }).collect(),
    }
}

/// An answer by a lease: a name that stands for nothing until it is known which pod has it.
///
/// # Errors
/// The lease is not on disk, so nobody could ever fill it: the pod fails.
pub(super) fn by_lease(
    leases: &Leases,
    resource: &str,
    ids: &[String],
) -> Result<ContainerAllocateResponse, LeaseError> {
    leases.grant(resource, ids).map(|name| by_cdi(vec![name.to_string()]))
}

fn is_there(dev_root: &Path, name: &str) -> bool {
    dev_root.join(name).exists()
}

fn device_file(name: &str) -> DeviceSpec {
    let path = format!("/dev/{name}");
    DeviceSpec { container_path: path.clone(), host_path: path, permissions: "rw".to_owned() }
}

#[cfg(test)]
mod tests;
