//! Berth as a policy of the replay: every offer is what [`berth_core::plan::decide`] answers for that node, as filter asks it.
//!
//! CPU and memory are kube-scheduler's to check, and the replay does that before it asks. The report of a host has no links and no
//! zones: the trace says nothing of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::Result;
use berth_core::demand::{Share, ShareMemory, ShareSlot};
use berth_core::device::Portion;
use berth_core::place::Afresh;
use berth_core::plan::{Rest, decide, rest};
use berth_core::value::Typical;
use berth_core::value::learned::{Ask, LOOK_PODS, Mix};
use berth_core::value::rooms::Rooms;
use berth_core::view::{Compute, Hardware, Knowledge, SharedGpu};
use berth_core::wish::Force;
use berth_core::zone::PodAsk;
use berth_core::{NodeView, Policy, Shape};
use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuDetail, GpuIndex, GpuSet, GpuUuid, Health, Link, LinkMatrix, MiB,
    NicSet, NodeName, NodeTopology, Parts, PciAddress,
};

use super::GPU_MILLI;
use super::host::{Cards, Host};
use super::judge::{Change, Judge, Offer};
use super::trace::{PodClass, Trace};

/// Its name on the command line.
pub const BERTH: &str = "berth";
/// The same, which knows nothing beforehand and learns from the pods that come.
pub const LEARNING: &str = "berth-learning";

const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// The judge.
#[derive(Debug)]
pub struct Berth {
    policy: Policy,
    models: Vec<String>,
    /// Idle nodes by model and GPU count.
    idle: BTreeMap<(usize, usize), NodeView>,
    learned: Option<Learned>,
    /// The room of all hosts for the pods of several GPUs that the policy expects.
    rooms: Rooms,
}

/// What was learned so far, as the scheduler does it of the pods that come to it: those without GPUs do not.
#[derive(Debug, Default)]
struct Learned {
    newest_first: VecDeque<Typical>,
    mix: Mix,
    unseen: u32,
}

impl Learned {
    /// Whether the pod makes a mix that is worth a change.
    fn take(&mut self, kind: Typical, window: usize) -> bool {
        self.newest_first.push_front(kind);
        self.newest_first.truncate(window);
        self.unseen += 1;
        if self.unseen < LOOK_PODS {
            return false;
        }
        self.unseen = 0;
        let mix = Mix::of(self.newest_first.iter().copied(), window, &[]);
        let is_new = mix.is_far_from(&self.mix);
        if is_new {
            self.mix = mix;
        }
        is_new
    }
}

impl Berth {
    /// The policy that expects what the trace holds; like FGD, it knows the mix beforehand.
    ///
    /// # Errors
    /// A host that the model cannot hold.
    pub fn of(trace: &Trace, policy: Policy) -> Result<Self> {
        let mut counts: BTreeMap<Typical, u64> = BTreeMap::new();
        for pod in &trace.pods {
            *counts.entry(typical(&trace.classes[*pod])).or_default() += 1;
        }
        let counts: Vec<(Typical, u64)> = counts.into_iter().collect();
        let mut idle = BTreeMap::new();
        for host in &trace.hosts {
            let key = (host.model, host.gpu_count);
            if let std::collections::btree_map::Entry::Vacant(entry) = idle.entry(key) {
                entry.insert(idle_node(&trace.models[host.model], host.gpu_count)?);
            }
        }
        Ok(Self {
            policy: policy.expecting(&counts),
            models: trace.models.clone(),
            idle,
            learned: None,
            rooms: Rooms::default(),
        })
    }

    /// The policy that expects nothing and learns.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn learning(trace: &Trace, policy: Policy) -> Result<Self> {
        let Self { policy, models, idle, .. } = Self::of(trace, policy)?;
        Ok(Self {
            policy: policy.expecting(&[]),
            models,
            idle,
            learned: Some(Learned::default()),
            rooms: Rooms::default(),
        })
    }

    /// The policy, with what it expects.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    fn view(&self, host: &Host) -> Option<NodeView> {
        let mut view = self.idle.get(&(host.capacity.model, host.capacity.gpu_count))?.clone();
        view.allocatable = compute(host.capacity.cpu_milli, host.capacity.memory_mib);
        view.requested = compute(host.capacity.cpu_milli - host.cpu_milli, host.capacity.memory_mib - host.memory_mib);
        for (at, free) in host.gpus().iter().enumerate().filter(|(_, free)| **free < GPU_MILLI) {
            let index = GpuIndex(u8::try_from(at).ok()?);
            if *free == 0 && host.pods_on[at] == 1 {
                view.held = view.held.with(index);
            } else {
                let taken = Portion { cores_percent: percent(GPU_MILLI - free), memory: MiB(0) };
                view.shared.push(SharedGpu { index, taken, share_count: host.pods_on[at] });
            }
        }
        Some(view)
    }

    /// Counts the room anew, for what is expected now.
    fn count_rooms(&mut self, hosts: &[Host]) {
        let large = self.policy.expected().map_or_else(|| Arc::from([]), |expected| Arc::clone(expected.large()));
        self.rooms = Rooms::of(large);
        for host in hosts {
            if let Some(rest) = self.rest(host) {
                self.rooms.add(rest.remainder());
            }
        }
        self.look_around();
    }

    /// Puts in force what the room makes scarce.
    fn look_around(&mut self) -> Change {
        let Some(policy) = self.policy.seeing(&self.rooms) else { return Change::None };
        self.policy = policy;
        Change::All
    }

    fn rest(&self, host: &Host) -> Option<Rest> {
        let view = self.view(host)?;
        Some(rest(&view, view.hardware.as_ref()?))
    }

    fn shape(&self, class: &PodClass) -> Shape {
        let share = Share { cores_percent: percent(class.gpu_milli), memory: ShareMemory::Nothing };
        let shares = if class.is_share() { vec![ShareSlot { share, apart_from: 0 }] } else { Vec::new() };
        let is_any = self.models.iter().enumerate().all(|(at, _)| class.takes_model(at));
        let named = self.models.iter().enumerate().filter(|(at, _)| !is_any && class.takes_model(*at));
        let asked = compute(class.cpu_milli, class.memory_mib);
        Shape {
            class: self.policy.default_class().to_owned(),
            gpu_count: if class.is_share() { 0 } else { u32::try_from(class.gpu_count).unwrap_or(u32::MAX) },
            shares,
            mig: BTreeMap::new(),
            ask: PodAsk::default(),
            cpu_milli: asked.cpu_milli,
            memory: asked.memory,
            link: None,
            rail: Force::Off,
            zone: Force::Off,
            products: named.map(|(_, model)| model.clone()).collect(),
            gpu_memory: None,
            named: Vec::new(),
        }
    }
}

impl Judge for Berth {
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer> {
        let view = self.view(host)?;
        let fit = decide(&view, &self.shape(class), &self.policy, &mut Afresh).ok()?;
        let cards = fit.set()?.iter().fold(0, |cards: Cards, index| cards | 1 << index.0);
        Some(Offer { score: i64::from(fit.score.value.0), cards })
    }

    fn opened(&mut self, hosts: &[Host]) {
        self.count_rooms(hosts);
    }

    fn changed(&mut self, before: &Host, after: &Host) -> Change {
        if let (Some(before), Some(after)) = (self.rest(before), self.rest(after)) {
            self.rooms.remove(before.remainder());
            self.rooms.add(after.remainder());
        }
        self.look_around()
    }

    fn arrived(&mut self, hosts: &[Host], class: &PodClass) -> Change {
        let kind = Ask::of(&self.shape(class)).and_then(|ask| ask.kind(None));
        let (Some(learned), Some(kind)) = (&mut self.learned, kind) else { return Change::None };
        if !learned.take(kind, self.policy.learned_pods()) {
            return Change::None;
        }
        self.policy = self.policy.clone().expecting(learned.mix.counts());
        self.count_rooms(hosts);
        Change::All
    }
}

/// A class as far as what is left behind looks at it.
fn typical(class: &PodClass) -> Typical {
    Typical {
        gpu_count: u32::try_from(class.gpu_count).unwrap_or(u32::MAX),
        gpu_milli: u32::try_from(class.gpu_milli).unwrap_or(0),
        cpu_milli: u64::try_from(class.cpu_milli).unwrap_or(0),
    }
}

/// Shares are asked for in percent of a GPU's compute; a part of one counts as all of it.
fn percent(milli: i64) -> u32 {
    u32::try_from((milli + 9) / 10).unwrap_or(0)
}

fn compute(cpu_milli: i64, memory_mib: i64) -> Compute {
    Compute { cpu_milli: u64::try_from(cpu_milli).unwrap_or(0), memory: MiB(u64::try_from(memory_mib).unwrap_or(0)) }
}

/// What an agent would report of a host of the trace, which knows no links and no zones.
///
/// # Errors
/// More GPUs than the model can hold.
pub fn report(node: &NodeName, model: &str, gpu_count: usize) -> Result<NodeTopology> {
    let gpu = |index: u8| -> Result<Gpu> {
        Ok(Gpu {
            index: GpuIndex(index),
            uuid: GpuUuid::parse(&format!("GPU-{node}-{index}"))?,
            pci: PciAddress { domain: 0, bus: index, device: 0, function: 0 },
            product: model.to_owned(),
            memory: None,
            zone: None,
            cpus: CpuSet::default(),
            memory_zone: None,
            nearest_zones: None,
            mig_enabled: Some(false),
            health: Health::Healthy,
            detail: GpuDetail::default(),
        })
    };
    Ok(NodeTopology::try_new(Parts {
        node: node.clone(),
        boot_id: BootId::parse("boot")?,
        generation: Generation(1),
        driver: Driver::Loaded("0".into()),
        zones: Vec::new(),
        gpus: (0..u8::try_from(gpu_count)?).map(gpu).collect::<Result<_>>()?,
        nics: Vec::new(),
        links: LinkMatrix::build(gpu_count, |_, _| Link::default()),
        host: berth_model::Host::default(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
        findings: Vec::new(),
    })?)
}

fn idle_node(model: &str, gpu_count: usize) -> Result<NodeView> {
    let topology = report(&NodeName::parse("host")?, model, gpu_count)?;
    Ok(NodeView {
        name: topology.parts().node.clone(),
        hardware: Some(Hardware::of(Arc::new(topology))),
        knowledge: Knowledge::Current,
        held: GpuSet::EMPTY,
        shared: Vec::new(),
        instances: Vec::new(),
        nics_held: NicSet::EMPTY,
        unplanned_gpu_count: 0,
        unplanned_instances: BTreeMap::new(),
        is_imprecise: false,
        has_stray_lease: false,
        offered: Arc::new(BTreeMap::from([(GPU_RESOURCE.to_owned(), u64::try_from(gpu_count)?)])),
        allocatable: Compute::default(),
        requested: Compute::default(),
        labels: berth_core::level::LabelSet::default(),
        site: None,
    })
}

#[cfg(test)]
mod tests;
