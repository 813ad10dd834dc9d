//! Owns which programs a control plane and its nodes' kubelets are: those of the pinned Go modules of `tests/controlplane/`.

use std::path::PathBuf;

use anyhow::Result;

pub use crate::go_module::BuildOptions;
use crate::go_module::{GoBuild, GoModule};

/// Kubernetes refuses to guess its version: unset, it calls itself v0.0.0-master and clients stumble.
const VERSIONED: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
                         -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

const MODULE: GoModule = GoModule {
    folder: "controlplane",
    purpose: "the control plane",
    programs: &["etcd", "kube-apiserver", "kube-scheduler", "kubectl", "kubelet"],
    builds: &[GoBuild { packages: &["tool"], flags: &["-ldflags", VERSIONED], with_c: false }],
    renamed: &[("server", "etcd")],
};

/// The built programs of a control plane.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The store.
    pub fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// The API server.
    pub fn kube_apiserver(&self) -> PathBuf {
        self.folder.join("kube-apiserver")
    }

    /// The stock scheduler.
    pub fn kube_scheduler(&self) -> PathBuf {
        self.folder.join("kube-scheduler")
    }

    /// The client.
    pub fn kubectl(&self) -> PathBuf {
        self.folder.join("kubectl")
    }

    /// The node's own.
    pub fn kubelet(&self) -> PathBuf {
        self.folder.join("kubelet")
    }
}

/// Finds the programs, or builds them: about seven minutes on two cores the first time, and
/// again only when `go.mod`, `go.sum`, Go or the flags change. Blocks; progress goes to standard error.
///
/// # Errors
/// Go is missing (the text says what to install) or fails; the cache cannot be written.
pub fn programs(options: &BuildOptions) -> Result<Programs> {
    Ok(Programs { folder: MODULE.built(options)? })
}
