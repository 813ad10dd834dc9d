//! What a pod asks of its kubelet's managers: which of its amounts become CPUs, memory and devices of its own.
//!
//! Source: `guaranteedCPUs` of `cpumanager/policy_static.go` and `getRequestedResources` of `memorymanager/policy_static.go` below
//! `pkg/kubelet/cm` of Kubernetes 1.36.3.

use std::collections::BTreeMap;

use super::{CONTAINERS_MAX, ContainerRequest, PodRequest, quantity_of};
use crate::quantity;
use crate::zone::{ContainerAsk, Phase, PodAsk};

/// The ask of a pod. Amounts that cannot be read count as none: the demand has refused them.
pub(super) fn ask(pod: &PodRequest) -> PodAsk {
    let inits = pod.init_containers.iter().map(|c| (c, if c.is_sidecar { Phase::Sidecar } else { Phase::Init }));
    let apps = pod.containers.iter().map(|c| (c, Phase::App));
    let all = inits.chain(apps).take(CONTAINERS_MAX);
    PodAsk { containers: all.map(|(container, phase)| of_container(container, phase, pod.is_guaranteed)).collect() }
}

fn of_container(container: &ContainerRequest, phase: Phase, is_guaranteed: bool) -> ContainerAsk {
    let requests = &container.requests;
    let units = |name: &str| quantity_of(requests, name, quantity::parse_units).unwrap_or(0);
    let cpu_milli = quantity_of(requests, "cpu", quantity::parse_milli).unwrap_or(0);
    let is_whole = is_guaranteed && cpu_milli.is_multiple_of(1000);
    let is_memory = |name: &&String| *name == "memory" || name.starts_with("hugepages-");
    let memory = requests.keys().filter(|name| is_guaranteed && is_memory(name));
    let is_device = |name: &&String| name.contains('/') && !name.starts_with("kubernetes.io/");
    let devices = requests.keys().filter(is_device).map(|name| (name.clone(), small(units(name))));
    ContainerAsk {
        phase,
        exclusive_cpu_count: if is_whole { small(cpu_milli / 1000) } else { 0 },
        memory_bytes: memory.map(|name| (name.clone(), units(name))).collect(),
        devices: devices.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>(),
    }
}

fn small(amount: u64) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}
