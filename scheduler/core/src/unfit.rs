//! Why a node cannot take a pod: a closed list of reasons, each with fixed text.
//!
//! The texts land in FailedScheduling events and in pod status. They hold no names and no numbers, so that equal reasons are
//! grouped and a retry does not rewrite the pod. [`Reason::ALL`] is the documented table.

use std::fmt;

/// A reason of the closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A wish or request of the pod cannot be read.
    BadWish,
    /// The scheduler does not know the node.
    UnknownNode,
    /// No topology report for the node.
    NoTopology,
    /// The report is stale and policy refuses stale ones.
    StaleTopology,
    /// The node's device plugin promises less than the policy demands of its pool.
    LevelUnmet,
    /// The node's device plugin accepts no pods now.
    PluginAway,
    /// A pod has leased devices that the node's kubelet may take for free, and the node enforces plans no more.
    LeaseStray,
    /// The node has no GPU.
    NoGpu,
    /// The kubelet does not offer as many GPUs as asked.
    NotOffered,
    /// The node is smaller than the pod.
    TooFewGpus,
    /// Enough GPUs, too few healthy ones.
    GpusUnhealthy,
    /// No or too few GPUs of the wished product.
    ProductUnmet,
    /// Too few GPUs with the wished memory.
    MemoryUnmet,
    /// The named GPUs are not on this node.
    NamedGpusAbsent,
    /// The shares are more than the GPUs of the node have, even idle.
    ShareTooLarge,
    /// Enough GPUs, too few free ones.
    GpusBusy,
    /// No GPU has as much compute left as a share asks for.
    CoresBusy,
    /// No GPU has as much memory left as a share asks for.
    GpuMemoryBusy,
    /// Compute and memory are left, but the shares do not fit together.
    SharesBusy,
    /// The node has no GPU under MIG.
    MigAbsent,
    /// The kubelet does not offer as many MIG devices of the profile.
    MigNotOffered,
    /// The GPUs that would do have fewer instances of the profile than asked.
    MigUnmet,
    /// Enough instances of the profile, too few free ones.
    MigBusy,
    /// No set of the machine satisfies the link wish.
    LinkUnmet,
    /// The free GPUs do not form a set with the wished link.
    LinkBusy,
    /// No set of the machine has a rail for every GPU.
    RailUnmet,
    /// The free GPUs do not form a set with a rail each.
    RailBusy,
    /// No zone of the machine holds as many GPUs.
    ZoneUnmet,
    /// The free GPUs do not form a set inside one zone.
    ZoneBusy,
    /// The kubelet would refuse the pod on the idle machine too: its CPUs, memory and devices do not go together in zones.
    KubeletUnmet,
    /// The kubelet would refuse the pod now, or give it other zones than the plan needs.
    KubeletBusy,
}

impl Reason {
    /// Every reason, in the order of the documented table.
    pub const ALL: [Self; 31] = [
        Self::BadWish,
        Self::UnknownNode,
        Self::NoTopology,
        Self::StaleTopology,
        Self::LevelUnmet,
        Self::PluginAway,
        Self::LeaseStray,
        Self::NoGpu,
        Self::NotOffered,
        Self::TooFewGpus,
        Self::GpusUnhealthy,
        Self::ProductUnmet,
        Self::MemoryUnmet,
        Self::NamedGpusAbsent,
        Self::ShareTooLarge,
        Self::GpusBusy,
        Self::CoresBusy,
        Self::GpuMemoryBusy,
        Self::SharesBusy,
        Self::MigAbsent,
        Self::MigNotOffered,
        Self::MigUnmet,
        Self::MigBusy,
        Self::LinkUnmet,
        Self::LinkBusy,
        Self::RailUnmet,
        Self::RailBusy,
        Self::ZoneUnmet,
        Self::ZoneBusy,
        Self::KubeletUnmet,
        Self::KubeletBusy,
    ];

    /// The word of metrics and JSON.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadWish => "bad-wish",
            Self::UnknownNode => "unknown-node",
            Self::NoTopology => "no-topology",
            Self::StaleTopology => "stale-topology",
            Self::LevelUnmet => "level-unmet",
            Self::PluginAway => "plugin-away",
            Self::LeaseStray => "lease-stray",
            Self::NoGpu => "no-gpu",
            Self::NotOffered => "not-offered",
            Self::TooFewGpus => "too-few-gpus",
            Self::GpusUnhealthy => "gpus-unhealthy",
            Self::ProductUnmet => "product-unmet",
            Self::MemoryUnmet => "memory-unmet",
            Self::NamedGpusAbsent => "named-gpus-absent",
            Self::ShareTooLarge => "share-too-large",
            Self::GpusBusy => "gpus-busy",
            Self::CoresBusy => "cores-busy",
            Self::GpuMemoryBusy => "gpu-memory-busy",
            Self::SharesBusy => "shares-busy",
            Self::MigAbsent => "mig-absent",
            Self::MigNotOffered => "mig-not-offered",
            Self::MigUnmet => "mig-unmet",
            Self::MigBusy => "mig-busy",
            Self::LinkUnmet => "link-unmet",
            Self::LinkBusy => "link-busy",
            Self::RailUnmet => "rail-unmet",
            Self::RailBusy => "rail-busy",
            Self::ZoneUnmet => "zone-unmet",
            Self::ZoneBusy => "zone-busy",
            Self::KubeletUnmet => "kubelet-unmet",
            Self::KubeletBusy => "kubelet-busy",
        }
    }

    /// The sentence a user reads in `kubectl describe pod`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::BadWish => "berth: a GPU wish of the pod cannot be read",
            Self::UnknownNode => "berth: node not known to the scheduler yet",
            Self::NoTopology => "berth: no topology report for the node",
            Self::StaleTopology => "berth: topology report is stale",
            Self::LevelUnmet => "berth: device plugin of the node promises less than its pool demands",
            Self::PluginAway => "berth: device plugin of the node accepts no pods now",
            Self::LeaseStray => "berth: kubelet may take leased devices of a pod of the node for free",
            Self::NoGpu => "berth: node has no GPU",
            Self::NotOffered => "berth: kubelet does not offer enough GPUs",
            Self::TooFewGpus => "berth: node has fewer GPUs than asked",
            Self::GpusUnhealthy => "berth: too few healthy GPUs",
            Self::ProductUnmet => "berth: too few GPUs of the wished product",
            Self::MemoryUnmet => "berth: too few GPUs with the wished memory",
            Self::NamedGpusAbsent => "berth: the named GPUs are not on the node",
            Self::ShareTooLarge => "berth: a share of the pod is larger than any GPU of the node",
            Self::GpusBusy => "berth: too few free GPUs",
            Self::CoresBusy => "berth: no GPU has enough compute left for the share",
            Self::GpuMemoryBusy => "berth: no GPU has enough memory left for the share",
            Self::SharesBusy => "berth: compute and memory are left, but not together on one GPU",
            Self::MigAbsent => "berth: node has no GPU under MIG",
            Self::MigNotOffered => "berth: kubelet does not offer enough MIG devices of the profile",
            Self::MigUnmet => "berth: node has fewer MIG instances of the profile than asked",
            Self::MigBusy => "berth: too few free MIG instances of the profile",
            Self::LinkUnmet => "berth: no GPU set of the node has the required link",
            Self::LinkBusy => "berth: free GPUs do not form a set with the required link",
            Self::RailUnmet => "berth: no GPU set of the node has the required rails",
            Self::RailBusy => "berth: free GPUs do not form a set with the required rails",
            Self::ZoneUnmet => "berth: no zone of the node has as many GPUs",
            Self::ZoneBusy => "berth: free GPUs do not form a set inside one zone",
            Self::KubeletUnmet => "berth: kubelet would refuse the pod on any such machine",
            Self::KubeletBusy => "berth: kubelet would refuse the pod for its zones now",
        }
    }

    /// Whether kube-scheduler's eviction by counts could lead to a plan here. Only then the node goes to `FailedNodes`.
    ///
    /// A fragmented node fits by count, so the dry run of kube-scheduler finds no victim and never asks: those reasons stay out.
    #[must_use]
    pub fn helped_by_preemption(self) -> bool {
        matches!(self, Self::GpusBusy | Self::MigBusy)
    }

    /// Whether waiting alone may end it. Such reasons are told first: they are the nearest to a plan.
    #[must_use]
    pub fn is_passing(self) -> bool {
        match self {
            Self::UnknownNode
            | Self::NoTopology
            | Self::StaleTopology
            | Self::PluginAway
            | Self::LeaseStray
            | Self::GpusUnhealthy
            | Self::GpusBusy
            | Self::CoresBusy
            | Self::GpuMemoryBusy
            | Self::SharesBusy
            | Self::MigBusy
            | Self::LinkBusy
            | Self::RailBusy
            | Self::ZoneBusy
            | Self::KubeletBusy => true,
            Self::BadWish
            | Self::LevelUnmet
            | Self::NoGpu
            | Self::NotOffered
            | Self::TooFewGpus
            | Self::ProductUnmet
            | Self::MemoryUnmet
            | Self::NamedGpusAbsent
            | Self::ShareTooLarge
            | Self::MigAbsent
            | Self::MigNotOffered
            | Self::MigUnmet
            | Self::LinkUnmet
            | Self::RailUnmet
            | Self::ZoneUnmet
            | Self::KubeletUnmet => false,
        }
    }

    /// What an operator or the pod's owner can do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::BadWish => {
                "correct the annotation or resource that the detail names; the table of wishes has the forms"
            }
            Self::UnknownNode => {
                "wait for the watch to bring the node; if it lasts, check the scheduler's log and rights"
            }
            Self::NoTopology => "check that the berth-agent pod runs on the node, or set topology.missing: byCount",
            Self::StaleTopology => "check the berth-agent pod of the node, or set topology.stale: deprioritize",
            Self::LevelUnmet => {
                "give the node's agent the level that its pool demands, or lower it in the policy's levels"
            }
            Self::PluginAway => "wait for the agent or the kubelet to be back; if it lasts, see the agent's log",
            Self::LeaseStray => {
                "end the node's pods that have leases, or give it level enforced again: it came from there with them"
            }
            Self::NoGpu => "none: the node is no GPU node",
            Self::NotOffered => "check the device plugin: allocatable of the node lacks the resource",
            Self::TooFewGpus => "ask for fewer GPUs or add larger nodes",
            Self::GpusUnhealthy => "see `berth topo --node` for the GPU's health and why",
            Self::ProductUnmet => "widen berth.dev/gpu-product or add such nodes",
            Self::MemoryUnmet => "lower berth.dev/gpu-memory or add such nodes",
            Self::NamedGpusAbsent => "correct berth.dev/gpus",
            Self::ShareTooLarge => "ask for a smaller share, or add nodes with larger GPUs",
            Self::GpusBusy => "wait, add nodes, or give the pod a higher priority",
            Self::CoresBusy => "wait, ask for fewer cores, or add nodes",
            Self::GpuMemoryBusy => "wait, ask for less GPU memory, or add nodes",
            Self::SharesBusy => "wait, or ask for smaller shares",
            Self::MigAbsent => "none, unless the node should have MIG: nvidia-smi -mig 1",
            Self::MigNotOffered => {
                "check the profile and the strategy of the device plugin: allocatable of the node lacks the resource"
            }
            Self::MigUnmet => "ask for fewer, or change the layout of the node",
            Self::MigBusy => "wait, add nodes, or give the pod a higher priority",
            Self::LinkUnmet => "lower berth.dev/link, or make it preferred",
            Self::LinkBusy => "wait, or make berth.dev/link preferred",
            Self::RailUnmet => "make berth.dev/rail preferred",
            Self::RailBusy => "wait, or make berth.dev/rail preferred",
            Self::ZoneUnmet => "make berth.dev/zone preferred",
            Self::ZoneBusy => "wait, or make berth.dev/zone preferred",
            Self::KubeletUnmet => "ask for CPUs, memory and GPUs that fit the zones its Topology Manager policy takes",
            Self::KubeletBusy => "wait, or ask for fewer CPUs, less memory or fewer GPUs in one zone",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// There is no plan: the reason, with its numbers apart from the fixed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The reason.
    pub reason: Reason,
    /// One sentence with the numbers of this case, for explain and logs only.
    pub detail: String,
}

impl Unfit {
    /// An unfit with its numbers.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            return f.write_str(self.reason.text());
        }
        write!(f, "{} ({})", self.reason.text(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_texts_are_fixed_distinct_and_free_of_numbers() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        let texts: BTreeSet<_> = Reason::ALL.iter().map(|r| r.text()).collect();
        assert_eq!((codes.len(), texts.len()), (Reason::ALL.len(), Reason::ALL.len()));
        for reason in Reason::ALL {
            assert!(!reason.text().bytes().any(|b| b.is_ascii_digit()), "{reason:?}");
            assert!(reason.text().starts_with("berth: "), "{reason:?}");
            assert!(!reason.advice().is_empty());
        }
    }
}
