//! What a pod asks of the kubelet's managers, container by container.

use std::collections::BTreeMap;

use super::site::MemoryName;

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before the others; what it held is taken again by those after it.
    Init,
    /// From its turn among the init containers to the end.
    Sidecar,
    /// Beside the others.
    App,
}

/// One container, in the order in which the kubelet admits them: init containers and sidecars first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerAsk {
    /// When it runs.
    pub phase: Phase,
    /// CPUs for itself; zero where the pod is not Guaranteed, the amount is not whole, or the pod has resources of its own.
    pub exclusive_cpu_count: u32,
    /// Memory by kind in bytes; empty where the pod is not Guaranteed or has resources of its own.
    pub memory_bytes: BTreeMap<MemoryName, u64>,
    /// Devices of device plugins, by resource name.
    pub devices: BTreeMap<String, u32>,
}

impl ContainerAsk {
    /// Whether any of the kubelet's managers gives it something that others then lack.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.exclusive_cpu_count > 0 || !self.memory_bytes.is_empty() || self.devices.values().any(|count| *count > 0)
    }
}

/// All that the pod asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodAsk {
    /// Init containers and sidecars in their order, then app containers.
    pub containers: Vec<ContainerAsk>,
}

impl PodAsk {
    /// The effective request of one amount: the most that is held at once.
    fn peak(&self, amount: impl Fn(&ContainerAsk) -> u64) -> u64 {
        let (mut peak, mut sidecars, mut apps) = (0_u64, 0_u64, 0_u64);
        for container in &self.containers {
            let own = amount(container);
            match container.phase {
                Phase::Init => peak = peak.max(sidecars.saturating_add(own)),
                Phase::Sidecar => sidecars = sidecars.saturating_add(own),
                Phase::App => apps = apps.saturating_add(own),
            }
        }
        peak.max(sidecars.saturating_add(apps))
    }

    /// The pod as one container: how the pod scope looks at it. Memory of a kind that no app container names does not count there.
    #[must_use]
    pub fn whole(&self) -> ContainerAsk {
        let apps = || self.containers.iter().filter(|c| c.phase == Phase::App);
        let memory = apps().flat_map(|c| c.memory_bytes.keys());
        let devices = self.containers.iter().flat_map(|c| c.devices.keys());
        let small = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        let of = |map: &BTreeMap<String, u32>, name: &String| u64::from(map.get(name).copied().unwrap_or(0));
        ContainerAsk {
            phase: Phase::App,
            exclusive_cpu_count: small(self.peak(|c| u64::from(c.exclusive_cpu_count))),
            memory_bytes: memory
                .map(|name| (name.clone(), self.peak(|c| c.memory_bytes.get(name).copied().unwrap_or(0))))
                .collect(),
            devices: devices.map(|name| (name.clone(), small(self.peak(|c| of(&c.devices, name))))).collect(),
        }
    }
}
