//! What one pod asks for, typed and bounded.

mod ask;
mod kubelet;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use berth_model::MiB;

use crate::group::Group;
use crate::policy::Policy;
use crate::quantity;
use crate::unfit::{Reason, Unfit};
use crate::wish::{Force, LinkWish, NamedGpu, Wishes};
use crate::zone::PodAsk;

pub use ask::{ContainerDemand, Kind, Share, ShareMemory, ShareSlot};

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
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// App containers.
    pub containers: Vec<ContainerRequest>,
    /// Init containers, sidecars among them, in order.
    pub init_containers: Vec<ContainerRequest>,
    /// Pod overhead.
    pub overhead: BTreeMap<String, String>,
    /// Whether kube-scheduler has a say of its own: soft affinity, a `ScheduleAnyway` spread, or an owner whose pods it spreads by default.
    pub has_soft_wishes: bool,
    /// Whether its QoS class is Guaranteed and no resources stand at the pod itself: only then its containers can have CPUs and memory of
    /// their own.
    pub is_guaranteed: bool,
    /// When its kubelet took it, as the API writes times; empty before.
    pub admitted_at: String,
    /// Its priority; a pod without one has 0.
    pub priority: i32,
    /// The node on which kube-scheduler keeps room for it; empty mostly.
    pub nominated_node: String,
}

/// What decides where a pod fits and how well: equal shapes get equal answers on equal nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Class of the policy.
    pub class: String,
    /// Whole GPUs.
    pub gpu_count: u32,
    /// Shares of cards, in the order in which containers take them.
    pub shares: Vec<ShareSlot>,
    /// MIG devices by profile.
    pub mig: BTreeMap<String, u32>,
    /// What it asks of the kubelet's managers, container by container.
    pub ask: PodAsk,
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

impl Shape {
    /// Whether the pod asks for any device: others are none of our business.
    #[must_use]
    pub fn asks_for_devices(&self) -> bool {
        self.gpu_count > 0 || !self.shares.is_empty() || !self.mig.is_empty()
    }

    /// Devices that the kubelet counts as GPUs: whole ones and shares.
    #[must_use]
    pub fn device_count(&self) -> u32 {
        self.gpu_count.saturating_add(u32::try_from(self.shares.len()).unwrap_or(u32::MAX))
    }

    /// The fewest cards, MIG ones apart, on which the pod fits.
    #[must_use]
    pub fn card_count_min(&self) -> u32 {
        let apart = self.shares.iter().map(|slot| slot.apart_from.saturating_add(1)).max().unwrap_or(0);
        self.gpu_count.saturating_add(apart)
    }
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
    /// The pods that it belongs to.
    pub group: Option<Group>,
}

/// Most containers a pod may have here: bounds a hostile pod. The kubelet starts fewer.
const CONTAINERS_MAX: usize = 256;
/// Most shares of one pod: bounds the search for cards.
const SHARES_MAX: usize = 32;

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
        let containers = ask::containers(pod, policy)?;
        let needs = ask::needs(&containers);
        if needs.shares.len() > SHARES_MAX {
            return Err(Unfit::new(Reason::BadWish, format!("spec.containers: more than {SHARES_MAX} shares of GPUs")));
        }
        Ok(Self {
            shape: Shape {
                class: class_name,
                gpu_count: needs.gpu_count,
                shares: needs.shares,
                mig: needs.mig,
                ask: kubelet::ask(pod),
                cpu_milli,
                memory: MiB(memory_bytes.div_ceil(1 << 20)),
                link: wishes.link.or(class.link),
                rail: wishes.rail.unwrap_or_else(|| class.rail.max(rail_by_resource(pod, policy))),
                zone: wishes.zone.unwrap_or(class.zone),
                products: wishes.products,
                gpu_memory: wishes.memory,
                named: wishes.named,
            },
            containers,
            has_soft_wishes: pod.has_soft_wishes,
            group: Group::of(&pod.namespace, &pod.labels, policy),
        })
    }
}

/// Who asks for an RDMA device means to use it: it prefers a NIC under the switch of every GPU, unless its annotation says otherwise.
fn rail_by_resource(pod: &PodRequest, policy: &Policy) -> Force {
    let names = &policy.resources().rdma;
    let asks = |container: &ContainerRequest| names.iter().any(|name| container.requests.contains_key(name));
    let is_asked = pod.containers.iter().chain(&pod.init_containers).any(asks);
    if is_asked { Force::Preferred } else { Force::Off }
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
    /// What it asks of the kubelet's managers, container by container.
    pub ask: PodAsk,
    /// When its kubelet took it, as the API writes times; empty before.
    pub admitted_at: String,
    /// The pods that it belongs to.
    pub group: Option<Group>,
}

impl Totals {
    /// Adds up a pod that the API server accepted; amounts that cannot be read count as none. Groups are policy, which is not asked here.
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
            ask: kubelet::ask(pod),
            admitted_at: pod.admitted_at.clone(),
            group: None,
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
