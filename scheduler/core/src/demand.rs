//! What one pod asks for, typed and bounded.

use std::collections::BTreeMap;

use berth_model::MiB;

use crate::policy::Policy;
use crate::quantity;
use crate::unfit::{Reason, Unfit};
use crate::wish::{Force, LinkWish, NamedGpu, Wishes};

/// One container as the API has it. Requests include limits of resources that name no request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerRequest {
    /// Container name.
    pub name: String,
    /// Resource name to quantity text.
    pub requests: BTreeMap<String, String>,
    /// Whether an init container goes on running (`restartPolicy: Always`).
    pub is_sidecar: bool,
}

/// The part of a pod that decisions look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodRequest {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// App containers.
    pub containers: Vec<ContainerRequest>,
    /// Init containers, sidecars among them, in order.
    pub init_containers: Vec<ContainerRequest>,
    /// Pod overhead.
    pub overhead: BTreeMap<String, String>,
    /// Whether kube-scheduler has a say of its own: soft affinity, a `ScheduleAnyway` spread, or an owner whose pods it spreads by default.
    pub has_soft_wishes: bool,
}

/// How many whole GPUs one container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDemand {
    /// Container name.
    pub name: String,
    /// Extended resource asked for.
    pub resource: String,
    /// Whole GPUs.
    pub gpu_count: u32,
    /// App containers and sidecars hold their GPUs side by side; plain init containers reuse them.
    pub reuses: bool,
}

/// What decides where a pod fits and how well: equal shapes get equal answers on equal nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Class of the policy.
    pub class: String,
    /// Whole GPUs.
    pub gpu_count: u32,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory.
    pub memory: MiB,
    /// Worst link inside the set.
    pub link: Option<LinkWish>,
    /// A NIC under the same PCIe switch for every GPU.
    pub rail: Force,
    /// All GPUs of one zone.
    pub zone: Force,
    /// Product globs; empty for any.
    pub products: Vec<String>,
    /// Least memory of every GPU.
    pub gpu_memory: Option<MiB>,
    /// Exactly among these; empty for any.
    pub named: Vec<NamedGpu>,
}

/// What one pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// What decides.
    pub shape: Shape,
    /// Who gets which part of the set.
    pub containers: Vec<ContainerDemand>,
    /// Whether kube-scheduler has a say of its own.
    pub has_soft_wishes: bool,
}

/// Most containers a pod may have here: bounds a hostile pod. The kubelet starts fewer.
const CONTAINERS_MAX: usize = 256;
/// Most GPUs a pod may ask for on one node.
const GPUS_MAX: u64 = 32;

impl Demand {
    /// Reads a pod. Resources that the policy does not name are not ours.
    ///
    /// # Errors
    /// [`Reason::BadWish`] names the annotation or the container and resource that cannot be read.
    pub fn parse(pod: &PodRequest, policy: &Policy) -> Result<Self, Unfit> {
        let wishes = Wishes::parse(&pod.annotations)?;
        let class_name = wishes.class.clone().unwrap_or_else(|| policy.default_class().to_owned());
        let class = policy.class(&class_name).ok_or_else(|| {
            let known: Vec<&str> = policy.class_names().collect();
            let known = known.join(", ");
            Unfit::new(Reason::BadWish, format!("annotation berth.dev/class: {class_name:?} is none of {known}"))
        })?;
        if pod.containers.len().saturating_add(pod.init_containers.len()) > CONTAINERS_MAX {
            return Err(Unfit::new(Reason::BadWish, format!("spec.containers: more than {CONTAINERS_MAX}")));
        }
        let cpu_milli = effective(pod, |r| quantity_of(r, "cpu", quantity::parse_milli))?;
        let memory_bytes = effective(pod, |r| quantity_of(r, "memory", quantity::parse_units))?;
        let gpus = |r: &BTreeMap<String, String>| gpus_of(r, policy).map(|(_, count)| count);
        let gpu_count = effective(pod, gpus)?;
        let gpu_count = u32::try_from(gpu_count).unwrap_or(u32::MAX);
        Ok(Self {
            shape: Shape {
                class: class_name,
                gpu_count,
                cpu_milli,
                memory: MiB(memory_bytes.div_ceil(1 << 20)),
                link: wishes.link.or(class.link),
                rail: wishes.rail.unwrap_or(class.rail),
                zone: wishes.zone.unwrap_or(class.zone),
                products: wishes.products,
                gpu_memory: wishes.memory,
                named: wishes.named,
            },
            containers: containers(pod, policy)?,
            has_soft_wishes: pod.has_soft_wishes,
        })
    }
}

/// What a pod takes of a node, of every resource it names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory.
    pub memory: MiB,
    /// Extended resources by name.
    pub extended: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds up a pod that the API server accepted; amounts that cannot be read count as none.
    #[must_use]
    pub fn of(pod: &PodRequest) -> Self {
        let all = pod.containers.iter().chain(&pod.init_containers);
        let extended = |name: &&String| name.contains('/') && !name.starts_with("kubernetes.io/");
        let names: std::collections::BTreeSet<&String> =
            all.take(CONTAINERS_MAX).flat_map(|c| c.requests.keys()).filter(extended).collect();
        let amount = |name: &str| effective(pod, |r| quantity_of(r, name, quantity::parse_units)).unwrap_or(0);
        Self {
            cpu_milli: effective(pod, |r| quantity_of(r, "cpu", quantity::parse_milli)).unwrap_or(0),
            memory: MiB(amount("memory").div_ceil(1 << 20)),
            extended: names.into_iter().map(|n| (n.clone(), amount(n))).collect(),
        }
    }
}

/// The pod's effective request: what app containers and sidecars hold together, or more where an init container needs more.
///
/// Source: k8s.io/component-helpers `resource.PodRequests`.
fn effective(
    pod: &PodRequest,
    amount: impl Fn(&BTreeMap<String, String>) -> Result<u64, String>,
) -> Result<u64, Unfit> {
    let of = |kind: &str, c: &ContainerRequest| {
        amount(&c.requests)
            .map_err(|e| Unfit::new(Reason::BadWish, format!("spec.{kind}[{}].resources.requests: {e}", c.name)))
    };
    let mut peak = 0_u64;
    let mut sidecars = 0_u64;
    for init in &pod.init_containers {
        let own = of("initContainers", init)?;
        peak = peak.max(sidecars.saturating_add(own));
        if init.is_sidecar {
            sidecars = sidecars.saturating_add(own);
        }
    }
    let mut running = sidecars;
    for app in &pod.containers {
        running = running.saturating_add(of("containers", app)?);
    }
    let overhead = amount(&pod.overhead).map_err(|e| Unfit::new(Reason::BadWish, format!("spec.overhead: {e}")))?;
    Ok(peak.max(running).saturating_add(overhead))
}

fn quantity_of(
    requests: &BTreeMap<String, String>,
    name: &str,
    parse: impl Fn(&str) -> Result<u64, quantity::QuantityError>,
) -> Result<u64, String> {
    requests.get(name).map_or(Ok(0), |text| parse(text).map_err(|e| format!("{name}: {e}")))
}

/// The GPU resource a container names, and how many it wants.
fn gpus_of(requests: &BTreeMap<String, String>, policy: &Policy) -> Result<(String, u64), String> {
    let mut found = (String::new(), 0_u64);
    for name in policy.gpu_resources() {
        let count = quantity_of(requests, name, quantity::parse_units)?;
        if count == 0 {
            continue;
        }
        if count > GPUS_MAX {
            return Err(format!("{name}: {count}, at most {GPUS_MAX} GPUs fit on any node"));
        }
        if found.1 > 0 {
            return Err(format!("{name}: one container may name one GPU resource, {} is another", found.0));
        }
        found = (name.to_owned(), count);
    }
    Ok(found)
}

fn containers(pod: &PodRequest, policy: &Policy) -> Result<Vec<ContainerDemand>, Unfit> {
    let inits = pod.init_containers.iter().map(|c| (c, !c.is_sidecar));
    let apps = pod.containers.iter().map(|c| (c, false));
    let mut wanted = Vec::new();
    for (container, reuses) in inits.chain(apps) {
        let (resource, count) = gpus_of(&container.requests, policy).map_err(|e| Unfit::new(Reason::BadWish, e))?;
        let gpu_count = u32::try_from(count).unwrap_or(u32::MAX);
        if gpu_count > 0 {
            wanted.push(ContainerDemand { name: container.name.clone(), resource, gpu_count, reuses });
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, gpus: &str, is_sidecar: bool) -> ContainerRequest {
        let pairs = [("nvidia.com/gpu", gpus), ("cpu", "500m"), ("memory", "1Gi")];
        let requests = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ContainerRequest { name: name.to_owned(), requests, is_sidecar }
    }

    #[test]
    fn the_effective_request_is_the_peak_of_init_and_the_sum_of_app_containers() {
        let pod = PodRequest {
            containers: vec![container("a", "2", false), container("b", "1", false)],
            init_containers: vec![container("side", "1", true), container("init", "4", false)],
            ..PodRequest::default()
        };
        let demand = Demand::parse(&pod, &Policy::default()).unwrap();
        assert_eq!(demand.shape.gpu_count, 5, "sidecar 1 + init 4 is more than 1 + 2 + 1");
        assert_eq!(demand.shape.cpu_milli, 1500);
        assert_eq!(demand.shape.memory, MiB(3 * 1024));
        let names: Vec<_> = demand.containers.iter().map(|c| (c.name.as_str(), c.gpu_count, c.reuses)).collect();
        assert_eq!(names, [("side", 1, false), ("init", 4, true), ("a", 2, false), ("b", 1, false)]);
    }

    #[test]
    fn what_cannot_be_read_names_container_and_resource() {
        for (gpus, said) in [("many", "\"many\" is not a quantity"), ("33", "at most 32 GPUs")] {
            let pod = PodRequest { containers: vec![container("a", gpus, false)], ..PodRequest::default() };
            let unfit = Demand::parse(&pod, &Policy::default()).unwrap_err();
            assert_eq!(unfit.reason, Reason::BadWish);
            assert!(unfit.detail.contains("spec.containers[a]") && unfit.detail.contains(said), "{}", unfit.detail);
        }
    }

    #[test]
    fn a_class_that_the_policy_does_not_know_is_refused_with_the_known_ones() {
        let annotations = [("berth.dev/class".to_owned(), "trainig".to_owned())].into();
        let pod = PodRequest { annotations, ..PodRequest::default() };
        let unfit = Demand::parse(&pod, &Policy::default()).unwrap_err();
        assert!(unfit.detail.contains("\"trainig\"") && unfit.detail.contains("training"), "{}", unfit.detail);
    }
}
