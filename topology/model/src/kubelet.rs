//! How the node's kubelet hands out CPUs, memory and zones, as far as its configuration file says. Without it nobody can tell beforehand
//! which pods the kubelet will refuse.

use std::collections::BTreeMap;

use crate::cpuset::CpuSet;
use crate::host::words;

words! {
    /// `cpuManagerPolicy`.
    CpuManagerPolicy {
        /// CPUs are shared.
        None = "none",
        /// Guaranteed pods with whole CPUs get CPUs of their own.
        Static = "static",
        /// One that this list does not have.
        Other = "other",
    }
}

words! {
    /// `memoryManagerPolicy`.
    MemoryManagerPolicy {
        /// Memory is not tied to zones.
        None = "none",
        /// Guaranteed pods get memory of certain zones.
        Static = "static",
        /// One that this list does not have.
        Other = "other",
    }
}

words! {
    /// `topologyManagerPolicy`.
    TopologyManagerPolicy {
        /// Zones do not matter.
        None = "none",
        /// Wished for.
        BestEffort = "best-effort",
        /// A pod that could be nearer on an empty node is refused.
        Restricted = "restricted",
        /// A pod that does not fit one zone is refused.
        SingleNumaNode = "single-numa-node",
        /// One that this list does not have.
        Other = "other",
    }
}

words! {
    /// `topologyManagerScope`.
    TopologyManagerScope {
        /// Each container by itself.
        Container = "container",
        /// All containers of a pod together.
        Pod = "pod",
        /// One that this list does not have.
        Other = "other",
    }
}

/// What the kubelet's configuration file says; what it does not say is the kubelet's default. Its command line and drop-in files may
/// overrule the file and are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubelet {
    /// Who gets CPUs.
    pub cpu_manager: CpuManagerPolicy,
    /// `cpuManagerPolicyOptions`, e.g. `full-pcpus-only: true`.
    pub cpu_manager_options: BTreeMap<String, String>,
    /// Who gets memory.
    pub memory_manager: MemoryManagerPolicy,
    /// Whether zones must match.
    pub topology_manager: TopologyManagerPolicy,
    /// Of what they must match.
    pub topology_manager_scope: TopologyManagerScope,
    /// `topologyManagerPolicyOptions`.
    pub topology_manager_options: BTreeMap<String, String>,
    /// `reservedSystemCPUs`: CPUs that no pod gets for itself.
    pub reserved_cpus: CpuSet,
}

impl Kubelet {
    /// Most options of one manager; Kubernetes 1.37 knows six.
    pub const OPTIONS_MAX: usize = 16;
    /// Longest name or value of an option in bytes.
    pub const OPTION_BYTES_MAX: usize = 63;
}

impl Default for Kubelet {
    /// The kubelet's own defaults. Source: `KubeletConfiguration` v1beta1 of Kubernetes 1.36.
    fn default() -> Self {
        Self {
            cpu_manager: CpuManagerPolicy::None,
            cpu_manager_options: BTreeMap::new(),
            memory_manager: MemoryManagerPolicy::None,
            topology_manager: TopologyManagerPolicy::None,
            topology_manager_scope: TopologyManagerScope::Container,
            topology_manager_options: BTreeMap::new(),
            reserved_cpus: CpuSet::default(),
        }
    }
}
