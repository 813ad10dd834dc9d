//! What a placement leaves behind on a node, as a part of the node's score and as the choice of cards for shares.

use berth_model::{Gpu, GpuIndex};

use super::Chosen;
use crate::demand::Shape;
use crate::device::Portion;
use crate::fabric::Fabric;
use crate::place::share::Offer;
use crate::policy::{Class, Placement, Policy};
use crate::score::{Part, Ppm};
use crate::value::{Expected, GPU_MILLI, Remainder, Taker, Worth};
use crate::view::{Hardware, NodeView};

/// One step of worth in the score. A node that is 250 steps better than nothing changed has all of it.
const STEP_PPM: i64 = 2000;
const MIDDLE_PPM: i64 = 500_000;

/// The node before the placement, and who is expected on it.
pub(super) struct Left<'a> {
    expected: &'a Expected,
    fabric: &'a Fabric,
    gpus: &'a [Gpu],
    /// By position in `gpus`.
    free: Vec<u32>,
    cpu_after: u64,
    taker: Taker,
    before: Worth,
}

impl<'a> Left<'a> {
    /// `None` where it does not count: nothing is expected, the class spreads or gives it no weight, or the pod asks for MIG devices,
    /// for which the cards' own tables say what is left.
    pub(super) fn of(
        view: &NodeView,
        hardware: &'a Hardware,
        shape: &Shape,
        class: &Class,
        policy: &'a Policy,
    ) -> Option<Self> {
        let expected = policy.expected()?;
        let is_out = class.weights.left == 0 || class.placement == Placement::Spread;
        if is_out || super::mig::is_asked(view, hardware, shape, policy) {
            return None;
        }
        let gpus = hardware.topology.parts().gpus.as_slice();
        let Rest { cpu_milli: cpu_before, gpus: free } = rest(view, hardware);
        let before = expected.worth(Remainder { cpu_milli: cpu_before, gpus: &free });
        let cpu_after = cpu_before.saturating_sub(shape.cpu_milli);
        let taker = if shape.shares.is_empty() { Taker::Whole } else { Taker::Share };
        Some(Self { expected, fabric: &hardware.fabric, gpus, free, cpu_after, taker, before })
    }

    fn steps(&self, free: &[u32]) -> i64 {
        let after = self.expected.worth(Remainder { cpu_milli: self.cpu_after, gpus: free });
        self.expected.steps(self.taker, self.before, after)
    }

    fn position(&self, index: GpuIndex) -> Option<usize> {
        self.gpus.iter().position(|gpu| gpu.index == index)
    }

    /// How good a card is for a share, others of the same pod apart.
    pub(super) fn card_worth(&self, offer: &Offer) -> i64 {
        let mut free = self.free.clone();
        let at = self.position(offer.after.index);
        if let Some((gpu, cell)) = at.and_then(|at| Some((self.gpus.get(at)?, free.get_mut(at)?))) {
            *cell = GPU_MILLI.saturating_sub(milli(gpu, offer.after.taken));
        }
        self.steps(&free)
    }

    /// The parts of a score where what is left counts: it stands instead of the use of GPUs, CPU and memory. How many GPUs stay free
    /// is its business too, so that of the sets that are kept only their links count.
    pub(super) fn instead(&self, view: &NodeView, mut parts: [Part; 6], chosen: &Chosen, weight: u32) -> [Part; 6] {
        let mut free = self.free.clone();
        // Which of the free GPUs stand for pods without a plan does not matter: any whole one is as good as the chosen.
        for cell in free.iter_mut().rev().filter(|f| **f == GPU_MILLI).take(count_of(chosen)) {
            *cell = 0;
        }
        for (gpu, cell) in self.gpus.iter().zip(&mut free) {
            for (_, portion) in chosen.shares.iter().filter(|(index, _)| *index == gpu.index) {
                *cell = cell.saturating_sub(milli(gpu, *portion));
            }
        }
        let ppm = MIDDLE_PPM.saturating_add(self.steps(&free).saturating_mul(STEP_PPM)).clamp(0, 1_000_000);
        for part in &mut parts {
            match part.name {
                "gpu" | "cpu" | "memory" => part.weight = 0,
                "kept" => part.value = super::kept(view, chosen.gpus(), |free| self.fabric.wholeness(free)),
                "left" => (part.value, part.weight) = (Ppm(u32::try_from(ppm).unwrap_or(0)), weight),
                _ => {}
            }
        }
        parts
    }
}

/// The parts of a score of a pod that gets MIG instances and nothing else: the cards' own tables say what they lose, and nothing else of
/// the node matters. The same rule chooses among the cards of one node.
pub(super) fn of_instances(
    view: &NodeView,
    hardware: &Hardware,
    class: &Class,
    chosen: &Chosen,
    mut parts: [Part; 6],
) -> [Part; 6] {
    let is_out = class.weights.left == 0 || class.placement == Placement::Spread || !chosen.gpus().is_empty();
    let gain = if is_out { None } else { super::mig::gain(view, hardware, &chosen.instances) };
    let Some(gain) = gain else { return parts };
    for part in &mut parts {
        match part.name {
            "gpu" | "cpu" | "memory" | "kept" => part.weight = 0,
            "left" => (part.value, part.weight) = (Ppm(gain), class.weights.left),
            _ => {}
        }
    }
    parts
}

/// What is free on a node, as what is left behind counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Free milli of every GPU, in the order of the report; 0 for one that cannot be used.
    pub gpus: Vec<u32>,
}

impl Rest {
    /// The same, to look at.
    #[must_use]
    pub fn remainder(&self) -> Remainder<'_> {
        Remainder { cpu_milli: self.cpu_milli, gpus: &self.gpus }
    }
}

/// What is free on a node with this hardware.
#[must_use]
pub fn rest(view: &NodeView, hardware: &Hardware) -> Rest {
    let gpus = hardware.topology.parts().gpus.as_slice();
    let usable = hardware.topology.usable_gpus();
    let whole_free = view.unheld(usable);
    // Nobody knows where the pods without a plan are: the last free GPUs stand for theirs.
    let known = whole_free.gpu_count().saturating_sub(view.unplanned_gpu_count);
    let mut counted = 0_u32;
    let mut free = Vec::with_capacity(gpus.len());
    for gpu in gpus {
        free.push(if whole_free.contains(gpu.index) {
            counted = counted.saturating_add(1);
            if counted <= known { GPU_MILLI } else { 0 }
        } else {
            let shared = view.shared_on(gpu.index).filter(|_| usable.contains(gpu.index));
            shared.map_or(0, |shared| GPU_MILLI.saturating_sub(milli(gpu, shared.taken)))
        });
    }
    Rest { cpu_milli: view.allocatable.cpu_milli.saturating_sub(view.requested.cpu_milli), gpus: free }
}

fn count_of(chosen: &Chosen) -> usize {
    usize::try_from(chosen.whole.gpu_count()).unwrap_or(usize::MAX)
}

/// What a portion takes of a card: of cores and memory whichever is more, in thousandths, rounded up.
fn milli(gpu: &Gpu, portion: Portion) -> u32 {
    let cores = u64::from(portion.cores_percent).saturating_mul(10);
    let memory = gpu.memory.filter(|all| all.0 > 0);
    let memory = memory.map_or(0, |all| portion.memory.0.saturating_mul(1000).div_ceil(all.0));
    u32::try_from(cores.max(memory)).unwrap_or(u32::MAX).min(GPU_MILLI)
}
