//! Owns the device files of a real node: which of them a container needs for which device, as the driver has them and as nvidia-ctk would
//! write it down.

use std::collections::BTreeMap;

use berth_model::NodeTopology;
use serde_json::{Value, json};

/// Device files of the driver that belong to no device.
pub const SHARED: [&str; 3] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];

/// Paths by id, of cards that are whole and of instances. An instance has a file that no other has, beside that of its card.
#[must_use]
pub fn files(topology: &NodeTopology) -> BTreeMap<String, Vec<String>> {
    let mut files = BTreeMap::new();
    let mut instance_count = 0;
    for gpu in &topology.parts().gpus {
        let card = format!("/dev/nvidia{}", gpu.detail.minor.unwrap_or_else(|| gpu.index.0.into()));
        for uuid in gpu.detail.mig_instances.iter().flat_map(|instance| &instance.uuids) {
            instance_count += 1;
            files.insert(uuid.to_string(), vec![card.clone(), format!("/dev/nvidia-caps/nvidia-cap{instance_count}")]);
        }
        if gpu.mig_enabled != Some(true) {
            files.insert(gpu.uuid.to_string(), vec![card]);
        }
    }
    files
}

/// Names below `/dev` of all device files of a node.
pub(super) fn names(topology: &NodeTopology) -> Vec<String> {
    let own = files(topology).into_values().flatten();
    let mut names: Vec<String> =
        own.chain(SHARED.map(str::to_owned)).filter_map(|path| Some(path.strip_prefix("/dev/")?.to_owned())).collect();
    names.sort();
    names.dedup();
    names
}

/// As `nvidia-ctk cdi generate --device-name-strategy=uuid` writes it.
pub(super) fn cdi_spec(topology: &NodeTopology) -> Value {
    let nodes = |paths: &[String]| -> Vec<Value> { paths.iter().map(|path| json!({"path": path})).collect() };
    let device =
        |(id, paths): (&String, &Vec<String>)| json!({"name": id, "containerEdits": {"deviceNodes": nodes(paths)}});
    let devices: Vec<Value> = files(topology).iter().map(device).collect();
    json!({
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": devices,
        "containerEdits": {"deviceNodes": nodes(&SHARED.map(str::to_owned))},
    })
}
