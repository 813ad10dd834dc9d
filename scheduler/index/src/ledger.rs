//! Who holds what on one node: the fold of its bound live pods and its holds over its last good report.

mod claims;
mod site;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::NodeView;
use berth_core::place::mig::name;
use berth_core::policy::Resources;
use berth_core::view::{Compute, Hardware, HeldInstance, Knowledge, SharedGpu};
use berth_model::{GpuSet, MiB, NicName, NicSet, NodeName};

use crate::event::{NodeFacts, PlanNote, PodFacts, PodUid};
use crate::hold::Hold;

use claims::Claims;
pub use claims::HeldShare;
use site::Admission;

/// One pod's part of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The pod.
    pub uid: PodUid,
    /// Its namespace; empty for a hold whose pod is not seen as bound yet.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When the kubelet took it, as its status says it, and with it gave it its devices; empty before.
    pub since: String,
    /// GPUs of the node of which it holds anything: those that the kubelet says, else those of its plan.
    pub set: GpuSet,
    /// The shares among them.
    pub shares: Vec<HeldShare>,
    /// The MIG instances among them.
    pub instances: Vec<HeldInstance>,
    /// GPUs of its plan that are on the node, where the kubelet gave it others: drift.
    pub drifted_from: Option<GpuSet>,
    /// Whether it runs though the kubelet gave it none of the devices that it asks for. Those of its plan still count as held.
    pub is_without_devices: bool,
    /// GPUs that it takes beyond those.
    pub unplanned_gpu_count: u32,
    /// GPUs among those of its set that another pod has too.
    pub twice: GpuSet,
    /// Whether its plan is enforced: it has its devices by leases.
    pub is_enforced: bool,
    /// What is wrong with its plan; empty when nothing is.
    pub problem: String,
}

/// What is kept of one node. An entry exists as soon as anything names the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeEntry {
    pub(crate) facts: Option<NodeFacts>,
    pub(crate) offered: Arc<BTreeMap<String, u64>>,
    pub(crate) report: Option<Hardware>,
    pub(crate) is_agent_away: bool,
    pub(crate) pods: BTreeMap<PodUid, Arc<PodFacts>>,
}

impl NodeEntry {
    pub(crate) fn is_empty(&self) -> bool {
        self.facts.is_none() && self.report.is_none() && self.pods.is_empty()
    }

    fn knowledge(&self) -> Knowledge {
        let Some(Hardware { topology, .. }) = &self.report else { return Knowledge::Missing };
        let boot_now = self.facts.as_ref().and_then(|f| f.boot_id.as_ref());
        let is_other_boot = boot_now.is_some_and(|b| *b != topology.parts().boot_id);
        if self.is_agent_away || is_other_boot { Knowledge::Stale } else { Knowledge::Current }
    }

    /// The pod with what the node's agent tells of it, where no status says what the kubelet gave it.
    fn as_held<'a>(&self, pod: &'a PodFacts) -> Cow<'a, PodFacts> {
        let drifts = self.report.as_ref().map_or(&[][..], |report| &report.topology.parts().drifts);
        if drifts.is_empty() || !pod.truth.is_empty() || pod.is_enforced {
            return Cow::Borrowed(pod);
        }
        let own = drifts.iter().filter(|drift| drift.pod_uid == pod.uid.as_str());
        let truth: BTreeMap<_, _> = own.map(|drift| (drift.resource.clone(), drift.devices.clone())).collect();
        if truth.is_empty() { Cow::Borrowed(pod) } else { Cow::Owned(PodFacts { truth, ..pod.clone() }) }
    }

    /// The holder, told as one without devices where it is known to be.
    fn examined(&self, holder: Holder, pod: &PodFacts, wanted: &Wanted, names: &Resources) -> Holder {
        match self.lacks(pod, wanted, names) {
            Some(problem) => Holder { is_without_devices: true, problem, ..holder },
            None => holder,
        }
    }

    /// Why the pod is known to run without a device. A kubelet drops extended resources that nobody registered with it, and starts
    /// the pod without them; it sets the amount of one that was registered before to zero. Where it tells of other pods what they
    /// hold, its silence on this one counts too.
    ///
    /// Source: k8s.io/kubernetes `pkg/kubelet/lifecycle/predicate.go`, `removeMissingExtendedResources`.
    fn lacks(&self, pod: &PodFacts, wanted: &Wanted, names: &Resources) -> Option<String> {
        let is_asking = wanted.gpu_count > 0 || !wanted.instances.is_empty();
        if !pod.expects_devices || !is_asking || !pod.truth.is_empty() || self.facts.is_none() {
            return None;
        }
        let is_ours = |name: &str| names.gpu.iter().any(|gpu| gpu == name) || names.mig_profile(name).is_some();
        let asked = pod.totals.extended.iter().filter(|(name, count)| **count > 0 && is_ours(name));
        let unknown = asked.map(|(name, _)| name.as_str()).find(|name| !self.offered.contains_key(*name));
        if let Some(name) = unknown {
            return Some(format!("runs without a device: no device plugin offers {name} on the node"));
        }
        let is_telling = self.pods.values().any(|other| !other.truth.is_empty());
        is_telling.then(|| "runs without a device: the kubelet names those of other pods and none of it".to_owned())
    }

    /// The view of the node and who holds what on it.
    pub(crate) fn fold<'a>(
        &self,
        name: &NodeName,
        names: &Resources,
        holds: impl Iterator<Item = (&'a PodUid, &'a Hold)>,
    ) -> (NodeView, Vec<Holder>) {
        self.fold_of(name, names, self.pods.values(), holds)
    }

    /// The same, as it would be with these of its pods alone.
    pub(crate) fn fold_of<'a, 'p>(
        &self,
        name: &NodeName,
        names: &Resources,
        pods: impl Iterator<Item = &'p Arc<PodFacts>>,
        holds: impl Iterator<Item = (&'a PodUid, &'a Hold)>,
    ) -> (NodeView, Vec<Holder>) {
        let mut view = NodeView {
            name: name.clone(),
            hardware: self.report.clone(),
            knowledge: self.knowledge(),
            held: GpuSet::EMPTY,
            shared: Vec::new(),
            instances: Vec::new(),
            nics_held: NicSet::EMPTY,
            unplanned_gpu_count: 0,
            unplanned_instances: BTreeMap::new(),
            is_imprecise: false,
            has_stray_lease: false,
            offered: Arc::clone(&self.offered),
            allocatable: self.facts.as_ref().map_or_else(Compute::default, |f| f.allocatable),
            requested: Compute::default(),
            labels: self.facts.as_ref().map(|facts| facts.labels.clone()).unwrap_or_default(),
            site: None,
        };
        let pods: Vec<Cow<'_, PodFacts>> = pods.map(|pod| self.as_held(pod)).collect();
        let mut holders = Vec::new();
        let mut admissions = Vec::new();
        for pod in &pods {
            add_compute(&mut view.requested, pod.totals.cpu_milli, pod.totals.memory);
            let wanted = Wanted::of(pod, names);
            let (uid, ask, admitted_at) = (&pod.uid, &pod.totals.ask, pod.totals.admitted_at.as_str());
            let admission = |set, instances| Admission { uid, ask, admitted_at, set, instances, planned: None };
            if wanted.gpu_count == 0 && wanted.instances.is_empty() && pod.note == PlanNote::Absent {
                admissions.push(admission(GpuSet::EMPTY, Vec::new()));
                continue;
            }
            if let PlanNote::Devices(holding) = &pod.note {
                take_nics(&mut view, &holding.nics);
            }
            let holder = self.examined(count_pod(&mut view, pod, &wanted, names), pod, &wanted, names);
            let admission = admission(holder.set, holder.instances.clone());
            let (planned, counted) = reckoned(&holder, &view, pod, names);
            view.has_stray_lease |= pod.is_enforced && counted.as_ref() != Some(&planned);
            admissions.push(match counted.filter(|counted| *counted != planned) {
                Some((set, instances)) => Admission { planned: Some(planned), set, instances, ..admission },
                None => admission,
            });
            holders.push(holder);
        }
        for (uid, hold) in holds.filter(|(uid, _)| !self.pods.contains_key(*uid)) {
            add_compute(&mut view.requested, hold.compute.cpu_milli, hold.compute.memory);
            let claims = Claims::of(&view, &hold.holding.devices);
            take_nics(&mut view, &hold.holding.nics);
            let set = claims.set();
            take(&mut view, &claims);
            admissions.push(Admission {
                uid,
                ask: &hold.ask,
                admitted_at: "",
                set,
                instances: claims.instances.clone(),
                planned: None,
            });
            let unplanned_gpu_count = claims.unknown.saturating_add(hold.unnamed_gpu_count);
            view.unplanned_gpu_count = view.unplanned_gpu_count.saturating_add(unplanned_gpu_count);
            add_instances(&mut view.unplanned_instances, &hold.unnamed_instances);
            holders.push(binding(uid, set, claims, unplanned_gpu_count));
        }
        view.site = site::site(&view, names, admissions);
        (view, holders)
    }
}

/// The holder that a hold stands for.
fn binding(uid: &PodUid, set: GpuSet, claims: Claims, unplanned_gpu_count: u32) -> Holder {
    Holder {
        uid: uid.clone(),
        namespace: String::new(),
        name: String::new(),
        since: String::new(),
        set,
        shares: claims.shares,
        instances: claims.instances,
        drifted_from: None,
        is_without_devices: false,
        unplanned_gpu_count,
        twice: GpuSet::EMPTY,
        is_enforced: false,
        problem: "binding".to_owned(),
    }
}

/// Whole GPUs and MIG instances.
type Devices = (GpuSet, Vec<HeldInstance>);

/// What the pod has by its plan, and what the kubelet counts as the pod's, where a lease may have given it other devices.
fn reckoned(holder: &Holder, view: &NodeView, pod: &PodFacts, names: &Resources) -> (Devices, Option<Devices>) {
    let cut = holder.instances.iter().map(|instance| instance.index).collect();
    let planned = (holder.set.minus(cut), holder.instances.clone());
    let counted = claims::counted(view, pod, names, (planned.0, &planned.1));
    (planned, counted)
}

fn add_compute(sum: &mut Compute, cpu_milli: u64, memory: MiB) {
    sum.cpu_milli = sum.cpu_milli.saturating_add(cpu_milli);
    sum.memory = MiB(sum.memory.0.saturating_add(memory.0));
}

/// NICs that are not on the node are held by nobody here.
fn take_nics(view: &mut NodeView, names: &[NicName]) {
    let nics = view.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().nics);
    let held = nics.iter().enumerate().filter(|(_, nic)| names.contains(&nic.name)).map(|(position, _)| position);
    view.nics_held = view.nics_held.or(held.collect());
}

fn add_instances(sum: &mut BTreeMap<String, u32>, more: &BTreeMap<String, u32>) {
    for (profile, count) in more {
        let known = sum.entry(profile.clone()).or_default();
        *known = known.saturating_add(*count);
    }
}

/// How many devices a pod takes, by what it asks for.
struct Wanted {
    /// Of resources that mean GPUs.
    gpu_count: u32,
    /// MIG devices by profile, as their resources name it.
    instances: BTreeMap<String, u32>,
}

impl Wanted {
    fn of(pod: &PodFacts, names: &Resources) -> Self {
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let gpus = names.gpu.iter().filter_map(|name| pod.totals.extended.get(name));
        let profile = |(name, count): (&String, &u64)| Some((names.mig_profile(name)?.to_owned(), small(*count)));
        Self {
            gpu_count: small(gpus.fold(0_u64, |sum, count| sum.saturating_add(*count))),
            instances: pod.totals.extended.iter().filter(|(_, count)| **count > 0).filter_map(profile).collect(),
        }
    }

    /// What of it the claims do not name: GPUs, and MIG devices by profile. Instances beyond the profiles asked for are devices of the
    /// plain GPU resource (strategy single).
    fn beyond(&self, gpus: u32, instances: &[&HeldInstance], device_count: u32) -> (u32, BTreeMap<String, u32>) {
        let mut spare: Vec<&str> = instances.iter().map(|held| held.slot.profile.as_str()).collect();
        let mut unnamed = BTreeMap::new();
        for (asked, count) in &self.instances {
            let mut missing = *count;
            spare.retain(|profile| {
                let is_it = missing > 0 && name::means(asked, profile);
                missing = missing.saturating_sub(u32::from(is_it));
                !is_it
            });
            if missing > 0 {
                unnamed.insert(asked.clone(), missing);
            }
        }
        let single = u32::try_from(spare.len()).unwrap_or(u32::MAX);
        let named = gpus.saturating_add(single);
        (self.gpu_count.max(device_count).saturating_sub(named), unnamed)
    }
}

/// Counts one bound pod into the view. What the kubelet says it has is held, and where it has not said all, what the plan names;
/// what the pod takes beyond that counts without a position.
fn count_pod(view: &mut NodeView, pod: &PodFacts, wanted: &Wanted, names: &Resources) -> Holder {
    let (planned, mut problem) = claims::planned(view, pod);
    // Where the plan is enforced the containers have the plan; the kubelet's ids are only its own count.
    let said = (!pod.is_enforced).then(|| claims::given(view, pod, names, &planned));
    let (given, id_count) = said.unwrap_or_default();
    let wanted_count = wanted.instances.values().fold(wanted.gpu_count, |sum, count| sum.saturating_add(*count));
    let is_all_said = id_count > 0 && id_count >= wanted_count;
    let drifted_from = (is_all_said && !planned.is_empty() && !planned.agrees_with(&given)).then(|| planned.set());
    if is_all_said {
        problem = match (drifted_from, given.unknown) {
            (Some(_), _) => format!("drift: planned {planned}, the kubelet gave {given}"),
            (None, 0) => String::new(),
            (None, unknown) => format!("{unknown} devices that the kubelet gave it are not on the node"),
        };
    }
    let device_count =
        if is_all_said { given.device_count() } else { planned.device_count().max(given.device_count()) };
    let claims = if is_all_said { given } else { given.joined(planned) };
    let set = claims.set();
    let (twice, named) = take(view, &claims);
    if !twice.is_empty() {
        let by = if is_all_said { "are held by another pod too" } else { "are in another plan too" };
        problem = format!("GPUs {twice} {by}");
    }
    // A device of two pods is one device, so the pod takes another that nobody can name.
    let (unplanned_gpu_count, unplanned) = wanted.beyond(claims.device_count_outside(twice), &named, device_count);
    view.unplanned_gpu_count = view.unplanned_gpu_count.saturating_add(unplanned_gpu_count);
    add_instances(&mut view.unplanned_instances, &unplanned);
    view.is_imprecise |= unplanned_gpu_count > 0 || !unplanned.is_empty();
    Holder {
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        since: pod.totals.admitted_at.clone(),
        set,
        shares: claims.shares,
        instances: claims.instances,
        drifted_from,
        is_without_devices: false,
        unplanned_gpu_count,
        twice,
        is_enforced: pod.is_enforced,
        problem,
    }
}

/// Puts claims into the view: says which GPUs were held in a way that leaves no room for them, and which instances were free.
fn take<'c>(view: &mut NodeView, claims: &'c Claims) -> (GpuSet, Vec<&'c HeldInstance>) {
    let shared: GpuSet = view.shared.iter().map(|gpu| gpu.index).collect();
    let cut: GpuSet = view.instances.iter().map(|instance| instance.index).collect();
    let mut twice = claims.whole.and(view.held.or(shared).or(cut));
    // Who has a GPU whole has it whole, whatever stood there before: no GPU is both.
    view.held = view.held.or(claims.whole);
    view.shared.retain(|gpu| !claims.whole.contains(gpu.index));
    for share in &claims.shares {
        if view.held.or(cut).contains(share.index) {
            twice = twice.with(share.index);
            continue;
        }
        match view.shared.iter_mut().find(|gpu| gpu.index == share.index) {
            Some(gpu) => {
                gpu.taken = gpu.taken.plus(share.portion);
                gpu.share_count = gpu.share_count.saturating_add(share.device_count);
            }
            None => {
                let gpu = SharedGpu { index: share.index, taken: share.portion, share_count: share.device_count };
                view.shared.push(gpu);
            }
        }
    }
    view.shared.sort_unstable();
    let mut free = Vec::new();
    for instance in &claims.instances {
        if view.held.contains(instance.index) || view.instances.contains(instance) {
            twice = twice.with(instance.index);
        } else {
            view.instances.push(instance.clone());
            free.push(instance);
        }
    }
    view.instances.sort_unstable();
    (twice, free)
}
