//! Owns what the programs of a real node are told: the configurations of its kubelet and of its containerd.

use std::path::Path;

use serde_json::{Value, json};

use super::runtime::IMAGE;

/// The kubelet's configuration file, with what a test wants of it over what the harness needs.
pub(super) fn kubelet(folder: &Path, cgroup: &str, rules: &Value) -> Value {
    let endpoint = format!("unix://{}", folder.join("containerd.sock").display());
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": endpoint,
        "cgroupRoot": cgroup,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        // Nobody asks it for logs: they are read where they lie. So there is no port to race for.
        "enableServer": false,
        "healthzPort": 0,
        "podLogsDir": folder.join("pods"),
        "volumePluginDir": folder.join("volume-plugins"),
        // The memory and disks that it counts are not this machine's.
        "evictionHard": {"nodefs.available": "0%", "memory.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        "maxPods": 250,
        // Else a device plugin's devices would be seen up to ten seconds late.
        "nodeStatusUpdateFrequency": "1s",
    });
    if let (Some(config), Some(rules)) = (config.as_object_mut(), rules.as_object()) {
        config.extend(rules.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    config
}

/// containerd's configuration file.
pub(super) fn containerd(folder: &Path, programs: &Path) -> String {
    let (folder, programs) = (folder.display(), programs.display());
    format!(
        r#"version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
enable_cdi = true
cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{programs}"]
conf_dir = "{folder}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{folder}/runc"
[plugins."io.containerd.nri.v1.nri"]
disable = true
"#
    )
}

/// What containerd calls as runc: the built one has no system call filters, which would need a library of the machine, and containerd
/// asks for them always. Nor are there the CPUs and zones that a kubelet with static CPUs or memory gives to a container. A key that runc
/// does not know it does not read.
pub(super) fn runc(programs: &Path) -> String {
    let programs = programs.display();
    format!(
        r#"#!/bin/sh
previous=
for argument; do
  [ "$previous" != --bundle ] || sed -i 's/"seccomp":{{/"none":{{/; s/"cpus":"/"none":"/; s/"mems":"/"none":"/' "$argument/config.json"
  previous=$argument
done
exec "{programs}/runc" "$@"
"#
    )
}

/// A network that is ready and has nothing: pods are on the host's.
pub(super) const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "loopback"}]}"#;
