//! What a node's kubelet has to give, zone by zone, and the rules by which it gives.

use std::collections::BTreeMap;

use berth_model::kubelet::{CpuManagerPolicy, MemoryManagerPolicy, TopologyManagerPolicy, TopologyManagerScope};
use berth_model::{Kubelet, ZoneId};

use super::mask::ZoneMask;

/// Most zones of which every set is looked at. The kubelet itself starts with eight at most, unless it is told otherwise, since it looks at
/// every set too. Source: `defaultMaxAllowableNUMANodes` of Kubernetes 1.36.3.
pub const ZONES_MAX: usize = 8;

/// A kind of memory: `memory`, or `hugepages-` and a size, as pods name it.
pub type MemoryName = String;

/// Memory of one kind in one zone, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// What Guaranteed pods can have of it on the empty machine: without what is reserved for the system.
    pub allocatable_bytes: u64,
    /// What of that no Guaranteed pod has.
    pub free_bytes: u64,
}

/// One zone as the kubelet counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSite {
    /// Kernel id.
    pub id: ZoneId,
    /// Its socket, where known.
    pub socket: Option<u16>,
    /// All CPUs, reserved ones among them: what is preferred is reckoned from these.
    pub cpu_count: u32,
    /// CPUs that a pod can have for itself now.
    pub free_cpu_count: u32,
    /// SLIT distances by zone id; a zone that is not there is as far as can be.
    pub distances: BTreeMap<ZoneId, u16>,
    /// Memory by kind.
    pub memory: BTreeMap<MemoryName, Memory>,
    /// How many blocks of memory are given from here.
    pub block_count: u32,
    /// The zones that the last block given from here spans: the zone alone, or a group that only equal groups may share.
    pub group: ZoneMask,
}

/// One device of a device plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Zones that the plugin said; empty for none.
    pub zones: ZoneMask,
    /// Whether the kubelet may give it: healthy and held by nobody.
    pub is_free: bool,
}

/// A node as its kubelet's managers see it. Devices have positions in their resource's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// By whose rules.
    pub rules: Rules,
    /// Zones with CPUs or memory, by id.
    pub zones: Vec<ZoneSite>,
    /// Devices by resource name.
    pub devices: BTreeMap<String, Vec<Device>>,
    /// Pods that are bound there, or about to be, and that the kubelet has not taken yet though it takes pods: in which order it will is
    /// not known, and each finds what those before it leave.
    pub untaken_count: usize,
}

/// What of the kubelet's configuration decides about zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether zones must match.
    pub policy: TopologyManagerPolicy,
    /// Of what.
    pub scope: TopologyManagerScope,
    /// `prefer-closest-numa-nodes`.
    pub prefers_closest: bool,
    /// Whether Guaranteed pods with whole CPUs get CPUs of their own.
    pub has_exclusive_cpus: bool,
    /// `full-pcpus-only`: threads of one core, of which a request must be a multiple.
    pub threads_per_core: Option<u32>,
    /// `align-by-socket`.
    pub is_socket_enough: bool,
    /// `distribute-cpus-across-numa`.
    pub spreads_cpus: bool,
    /// Whether Guaranteed pods get memory of certain zones.
    pub has_exclusive_memory: bool,
}

/// Options that change what is admitted. The others move CPUs inside a zone only.
const FULL_PCPUS_ONLY: &str = "full-pcpus-only";
const ALIGN_BY_SOCKET: &str = "align-by-socket";
const DISTRIBUTE_CPUS: &str = "distribute-cpus-across-numa";
const PREFER_CLOSEST: &str = "prefer-closest-numa-nodes";

impl Rules {
    /// The rules of a kubelet whose node has so many threads in every core.
    #[must_use]
    pub fn of(kubelet: &Kubelet, threads_per_core: u32) -> Self {
        let is_on = |options: &BTreeMap<String, String>, option: &str| {
            options.get(option).is_some_and(|v| matches!(v.as_str(), "true" | "True" | "TRUE" | "t" | "T" | "1"))
        };
        let cpu = |option: &str| is_on(&kubelet.cpu_manager_options, option);
        Self {
            policy: kubelet.topology_manager,
            scope: kubelet.topology_manager_scope,
            prefers_closest: is_on(&kubelet.topology_manager_options, PREFER_CLOSEST),
            has_exclusive_cpus: kubelet.cpu_manager == CpuManagerPolicy::Static,
            threads_per_core: cpu(FULL_PCPUS_ONLY).then_some(threads_per_core),
            is_socket_enough: cpu(ALIGN_BY_SOCKET),
            spreads_cpus: cpu(DISTRIBUTE_CPUS),
            has_exclusive_memory: kubelet.memory_manager == MemoryManagerPolicy::Static,
        }
    }

    /// Whether this kubelet may refuse a pod for its zones, or narrows devices to some.
    #[must_use]
    pub fn has_say(&self) -> bool {
        self.policy != TopologyManagerPolicy::None || self.has_exclusive_memory || self.threads_per_core.is_some()
    }
}

impl Site {
    /// All zones.
    #[must_use]
    pub fn all_zones(&self) -> ZoneMask {
        ZoneMask::of(self.zones.iter().map(|z| z.id))
    }

    /// The zones of a set.
    pub(crate) fn within(&self, mask: ZoneMask) -> impl Iterator<Item = &ZoneSite> {
        self.zones.iter().filter(move |z| mask.contains(z.id))
    }

    /// The sum of all distances inside a set, from each zone to each and itself. Equally large sets compare as their averages do.
    pub(crate) fn distance(&self, mask: ZoneMask) -> u64 {
        let far = |zone: &ZoneSite, to: ZoneId| u64::from(zone.distances.get(&to).copied().unwrap_or(u16::MAX));
        let from = |zone: &ZoneSite| mask.zones().fold(0_u64, |sum, to| sum.saturating_add(far(zone, to)));
        self.within(mask).map(from).fold(0, u64::saturating_add)
    }

    pub(crate) fn sockets(&self, mask: ZoneMask) -> usize {
        let sockets: std::collections::BTreeSet<_> = self.within(mask).map(|z| z.socket).collect();
        sockets.len()
    }
}
