//! What the command line says of the device plugin and of leases.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use berth_model::{Level, NodeName};
use clap::Args;

use crate::lease::Places;
use crate::plugin::{Config, MigStrategy};

/// Where the kubelet tells who holds what, unless it is said.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// The kubelet's own file of devices, in its folder of plugins.
///
/// Source: `kubeletDeviceManagerCheckpoint` in github.com/kubernetes/kubernetes `pkg/kubelet/cm/devicemanager/manager.go`.
const CHECKPOINT: &str = "kubelet_internal_checkpoint";

/// Where CDI specs of administrators are.
///
/// Source: the CDI specification, "well-known directories".
const CDI_STATIC_DIR: &str = "/etc/cdi";

/// The device plugin's part of the command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct PluginArgs {
    /// What plans for this node promise: advice, where another device plugin gives out the GPUs; preferred, where this agent is the device
    /// plugin and asks the kubelet for the planned ones; enforced, where a container gets the planned ones or does not start. Beyond advice
    /// it needs root, the folders of the kubelet, and the right to list and watch pods.
    #[arg(long, env = "BERTH_LEVEL", value_name = "LEVEL", default_value = "advice", value_parser = level)]
    pub(crate) level: Level,

    /// The kubelet's folder of device plugins.
    #[arg(
        long,
        env = "BERTH_DEVICE_PLUGIN_DIR",
        value_name = "DIR",
        default_value = "/var/lib/kubelet/device-plugins"
    )]
    pub(crate) device_plugin_dir: PathBuf,

    /// Names of MIG instances: mixed, one resource per profile; single, nvidia.com/gpu where every GPU is cut into instances of one
    /// profile.
    #[arg(long, env = "BERTH_MIG_STRATEGY", value_name = "STRATEGY", value_enum, default_value_t = MigStrategy::Mixed)]
    pub(crate) mig_strategy: MigStrategy,

    /// Where the host's device files are seen, to know which of them there are.
    #[arg(long, env = "BERTH_DEV_ROOT", value_name = "DIR", default_value = "/dev")]
    pub(crate) dev_root: PathBuf,

    /// Folder of CDI specs that the container runtime reads: NVIDIA's are looked for there and in /etc/cdi, leases are written there.
    #[arg(long, env = "BERTH_CDI_DIR", value_name = "DIR", default_value = "/var/run/cdi")]
    pub(crate) cdi_dir: PathBuf,

    /// That the container runtime takes CDI devices though its version leaves that open: containerd 1.7 with enable_cdi.
    #[arg(long, env = "BERTH_RUNTIME_HAS_CDI")]
    pub(crate) runtime_has_cdi: bool,

    /// The host's processes, to know when the program of a pod that was deleted by force has ended; its own proc if absent, which shows
    /// a container its own processes only.
    #[arg(long, env = "BERTH_HOST_PROC", value_name = "DIR")]
    pub(crate) host_proc: Option<PathBuf>,

    /// Where leases outlive the agent and the boot, at level enforced.
    #[arg(long, env = "BERTH_LEASE_DIR", value_name = "DIR", default_value = "/var/lib/berth/leases")]
    pub(crate) lease_dir: PathBuf,
}

impl PluginArgs {
    /// # Errors
    /// A level beyond advice, which needs an API server.
    pub(crate) fn refuse_without_object(&self) -> Result<()> {
        let level = self.level.word();
        ensure!(self.level == Level::Advice, "--level {level}: with --no-object nobody tells which pod has which plan");
        Ok(())
    }

    /// Where steering finds what it needs. The runtime takes a spec of its own folder before one of an administrator.
    pub(crate) fn places(&self, config: &Config, root: &Path) -> Places {
        Places {
            node: config.node.clone(),
            pod_resources: config.pod_resources.clone(),
            checkpoint: self.device_plugin_dir.join(CHECKPOINT),
            cdi_dir: self.cdi_dir.clone(),
            cdi_sources: vec![PathBuf::from(CDI_STATIC_DIR), self.cdi_dir.clone()],
            dev_root: self.dev_root.clone(),
            proc: self.host_proc.clone().unwrap_or_else(|| root.join("proc")),
        }
    }

    /// How the agent is the device plugin; `None` at level advice.
    ///
    /// # Errors
    /// The node's name is none.
    pub(crate) fn config(&self, node: &str, pod_resources: Option<PathBuf>) -> Result<Option<Config>> {
        let level = self.level;
        if level == Level::Advice {
            return Ok(None);
        }
        Ok(Some(Config {
            node: NodeName::parse(node).context("--node-name or NODE_NAME")?,
            level,
            folder: self.device_plugin_dir.clone(),
            pod_resources: pod_resources.unwrap_or_else(|| PathBuf::from(POD_RESOURCES)),
            strategy: self.mig_strategy,
            cdi: Some(vec![self.cdi_dir.clone(), PathBuf::from(CDI_STATIC_DIR)]),
            dev_root: self.dev_root.clone(),
            lease_dir: self.lease_dir.clone(),
        }))
    }
}

fn level(word: &str) -> Result<Level, String> {
    Level::parse(word).ok_or_else(|| "advice, preferred or enforced is right".to_owned())
}
