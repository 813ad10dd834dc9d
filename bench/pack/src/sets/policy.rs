//! Who chooses: Berth, parts of it, and the orders of peers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Result, bail};
use berth_core::demand::{ContainerRequest, PodRequest};
use berth_core::place::{Afresh, Free, Rule, choose};
use berth_core::plan::decide;
use berth_core::value::rooms::Rooms;
use berth_core::value::{GPU_MILLI, Remainder, Typical};
use berth_core::view::{Compute, Hardware, Knowledge};
use berth_core::wish::Force;
use berth_core::{Demand, Fabric, NodeView, Score};
use berth_model::{GpuSet, MiB, NicSet, NodeTopology};

use super::allocator::Allocator;
use super::machine::GPUS;
use super::replay::SIZES;

/// Chooses node and set for one job.
pub trait Policy {
    /// The node and the GPUs, of those that are free by node; `None` where no node has enough.
    fn place(&mut self, free: &[GpuSet], size: u32) -> Option<(usize, GpuSet)>;
}

/// Names of the policies.
pub const NAMES: [&str; 6] = ["berth", "berth-expecting", "table", "go-gpuallocator", "best-fit", "index"];

/// A policy by name, for nodes of one kind.
///
/// # Errors
/// A name that is none of [`NAMES`].
pub fn policy(name: &str, machine: &NodeTopology) -> Result<Box<dyn Policy>> {
    Ok(match name {
        "berth" => Box::new(Berth::of(machine, berth_core::Policy::default())),
        "berth-expecting" => Box::new(Berth::of(machine, expecting())),
        "table" => Box::new(BestFit(Inside::Table(Arc::new(Fabric::of(machine))))),
        "go-gpuallocator" => Box::new(BestFit(Inside::Allocator(Allocator::of(machine), HashMap::new()))),
        "best-fit" => Box::new(BestFit(Inside::Lowest)),
        "index" => Box::new(FirstFit),
        _ => bail!("policy {name:?} is none of {NAMES:?}"),
    })
}

/// The first node that has enough, its lowest GPUs.
struct FirstFit;

impl Policy for FirstFit {
    fn place(&mut self, free: &[GpuSet], size: u32) -> Option<(usize, GpuSet)> {
        free.iter().enumerate().find_map(|(node, free)| Some((node, free.lowest(size)?)))
    }
}

/// The node with the fewest free GPUs that has enough; the GPUs by a rule that sees this node alone.
struct BestFit(Inside);

enum Inside {
    Lowest,
    Table(Arc<Fabric>),
    Allocator(Allocator, HashMap<(GpuSet, u32), Option<GpuSet>>),
}

impl Policy for BestFit {
    fn place(&mut self, free: &[GpuSet], size: u32) -> Option<(usize, GpuSet)> {
        let fits = free.iter().enumerate().filter(|(_, free)| free.gpu_count() >= size);
        let (node, free) = fits.min_by_key(|(_, free)| free.gpu_count())?;
        let set = match &mut self.0 {
            Inside::Lowest => free.lowest(size),
            Inside::Table(fabric) => choose(fabric, Free { gpus: *free, nics: NicSet::EMPTY }, plain(size)),
            Inside::Allocator(allocator, known) => {
                *known.entry((*free, size)).or_insert_with(|| allocator.choose(*free, size).map(|(set, _)| set))
            }
        };
        Some((node, set?))
    }
}

/// A rule without any wish.
#[must_use]
pub fn plain(size: u32) -> Rule {
    Rule { size, link: None, rail: Force::Off, zone: Force::Off }
}

/// Cores that come with each GPU.
const CPU_MILLI_PER_GPU: u64 = 16_000;

/// The default policy once it has learned what comes.
fn expecting() -> berth_core::Policy {
    let kind = |(size, share): (u32, u32)| {
        let cpu_milli = CPU_MILLI_PER_GPU * u64::from(size);
        (Typical { gpu_count: size, gpu_milli: GPU_MILLI, cpu_milli }, u64::from(share))
    };
    berth_core::Policy::default().expecting(&SIZES.map(kind))
}

/// The scheduler's own decision: the best score of all nodes, of equal ones the first. Nodes in one state get one answer.
struct Berth {
    view: NodeView,
    policy: berth_core::Policy,
    known: HashMap<(GpuSet, u32), Option<(Score, GpuSet)>>,
}

impl Berth {
    fn of(machine: &NodeTopology, policy: berth_core::Policy) -> Self {
        let offered = u64::from(machine.all_gpus().gpu_count());
        let view = NodeView {
            name: machine.parts().node.clone(),
            hardware: Some(Hardware::of(Arc::new(machine.clone()))),
            knowledge: Knowledge::Current,
            held: GpuSet::EMPTY,
            shared: Vec::new(),
            instances: Vec::new(),
            unplanned_instances: BTreeMap::new(),
            nics_held: NicSet::EMPTY,
            unplanned_gpu_count: 0,
            is_imprecise: false,
            has_stray_lease: false,
            offered: Arc::new([("nvidia.com/gpu".to_owned(), offered)].into()),
            allocatable: Compute { cpu_milli: 128_000, memory: MiB(1 << 20) },
            requested: Compute::default(),
            labels: berth_core::level::LabelSet::default(),
            site: None,
        };
        Self { view, policy, known: HashMap::new() }
    }

    /// CPU and memory come with the GPUs in even parts, so that they decide nothing.
    fn decide(&self, free: GpuSet, size: u32) -> Option<(Score, GpuSet)> {
        let all = self.view.hardware.as_ref()?.topology.all_gpus();
        let compute = |gpus: u32| Compute {
            cpu_milli: CPU_MILLI_PER_GPU * u64::from(gpus),
            memory: MiB(131_072 * u64::from(gpus)),
        };
        let held = all.minus(free);
        let view = NodeView { held, requested: compute(held.gpu_count()), ..self.view.clone() };
        let text = |key: &str, value: String| (key.to_owned(), value);
        let Compute { cpu_milli, memory } = compute(size);
        let requests = [
            text("nvidia.com/gpu", size.to_string()),
            text("cpu", format!("{cpu_milli}m")),
            text("memory", format!("{}Mi", memory.0)),
        ];
        let container = ContainerRequest { name: "main".to_owned(), requests: requests.into(), is_sidecar: false };
        let pod = PodRequest { containers: vec![container], ..PodRequest::default() };
        let demand = Demand::parse(&pod, &self.policy).ok()?;
        let fit = decide(&view, &demand.shape, &self.policy, &mut Afresh).ok()?;
        Some((fit.score, fit.set()?))
    }
}

impl Berth {
    /// Looks at what room is left for jobs of several GPUs.
    fn look_around(&mut self, free: &[GpuSet]) {
        let Some(expected) = self.policy.expected() else { return };
        let mut rooms = Rooms::of(Arc::clone(expected.large()));
        for free in free {
            let gpus: Vec<u32> = free.iter().map(|_| GPU_MILLI).chain(std::iter::repeat(0)).take(GPUS).collect();
            rooms.add(Remainder { cpu_milli: CPU_MILLI_PER_GPU * u64::from(free.gpu_count()), gpus: &gpus });
        }
        if let Some(policy) = self.policy.seeing(&rooms) {
            self.policy = policy;
            self.known.clear();
        }
    }
}

impl Policy for Berth {
    fn place(&mut self, free: &[GpuSet], size: u32) -> Option<(usize, GpuSet)> {
        self.look_around(free);
        let mut best: Option<(Score, usize, GpuSet)> = None;
        for (node, free) in free.iter().enumerate() {
            let known = self.known.get(&(*free, size)).copied();
            let fit = known.unwrap_or_else(|| self.decide(*free, size));
            self.known.insert((*free, size), fit);
            if let Some((score, set)) = fit
                && best.is_none_or(|(most, _, _)| score > most)
            {
                best = Some((score, node, set));
            }
        }
        best.map(|(_, node, set)| (node, set))
    }
}
