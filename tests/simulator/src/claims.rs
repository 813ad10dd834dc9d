//! Who owns what, as the pods of the API server say: read from the plans' JSON, with no code of the scheduler.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api::Api;
use crate::fleet;
use crate::objects::Pod;

/// One device of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) uuid: String,
    pub(crate) part: Part,
}

/// How much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Share { cores: u64, memory_mib: u64 },
    Slots { profile: String, start: u64, size: u64 },
}

/// A plan, as far as it can be checked from outside.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) generation: u64,
    pub(crate) claims: Vec<Claim>,
}

impl Claims {
    pub(crate) fn parse(plan: &str) -> Result<Self, String> {
        let plan: Value = serde_json::from_str(plan).map_err(|error| error.to_string())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let containers = plan["containers"].as_array().cloned().unwrap_or_default();
        let devices = containers.iter().flat_map(|c| c["devices"].as_array().cloned().unwrap_or_default());
        let claim = |device: Value| {
            let part = if device["mig"].is_object() {
                let mig = &device["mig"];
                Part::Slots { profile: text(&mig["profile"]), start: number(&mig["start"]), size: number(&mig["size"]) }
            } else if device["share"].is_object() {
                let share = &device["share"];
                Part::Share { cores: number(&share["cores"]), memory_mib: number(&share["memoryMiB"]) }
            } else {
                Part::Whole
            };
            Claim { uuid: text(&device["uuid"]), part }
        };
        Ok(Self {
            uid: text(&plan["podUID"]),
            node: text(&plan["node"]),
            generation: number(&plan["topologyGeneration"]),
            claims: devices.map(claim).collect(),
        })
    }
}

/// Everything that the live pods of a node own of one GPU.
#[derive(Debug, Default, Clone)]
pub(crate) struct Owned {
    pub(crate) whole: u32,
    pub(crate) cores: u64,
    pub(crate) memory_mib: u64,
    pub(crate) share_count: u32,
    /// Memory slots, as bits.
    pub(crate) slots: u64,
    pub(crate) is_double: bool,
}

impl Owned {
    fn add(&mut self, part: &Part) {
        match part {
            Part::Whole => self.whole += 1,
            Part::Share { cores, memory_mib } => {
                self.cores += cores;
                self.memory_mib += memory_mib;
                self.share_count += 1;
            }
            Part::Slots { start, size, .. } => {
                let mask = ((1 << size) - 1) << start;
                self.is_double |= self.slots & mask != 0;
                self.slots |= mask;
            }
        }
    }

    /// Whether it is more than a GPU has.
    pub(crate) fn is_too_much(&self, memory_mib: u64) -> bool {
        let kinds = u32::from(self.whole > 0) + u32::from(self.share_count > 0) + u32::from(self.slots > 0);
        self.is_double || self.whole > 1 || kinds > 1 || self.cores > 100 || self.memory_mib > memory_mib
    }

    pub(crate) fn is_free(&self) -> bool {
        self.whole == 0 && self.share_count == 0 && self.slots == 0
    }
}

impl Api {
    /// Live pods that are bound to a node.
    pub(crate) fn on_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods.values().filter(move |pod| pod.is_live() && pod.node.as_deref() == Some(node))
    }

    /// What the plans of a node's live pods own, by the GPU's UUID.
    pub(crate) fn owned(&self, node: &str) -> BTreeMap<String, Owned> {
        let mut owned: BTreeMap<String, Owned> = BTreeMap::new();
        for pod in self.on_node(node) {
            let Some(Ok(claims)) = pod.plan.as_deref().map(Claims::parse) else { continue };
            for claim in claims.claims {
                owned.entry(claim.uuid).or_default().add(&claim.part);
            }
        }
        owned
    }

    /// I1: no device has two owners beyond its share.
    pub(crate) fn check_owners(&self, node: &str) -> Result<(), String> {
        let Some(at) = fleet::position(node) else { return Ok(()) };
        for (uuid, owned) in self.owned(node) {
            let memory = fleet::with(at, |topology| {
                let gpu = topology.parts().gpus.iter().find(|gpu| gpu.uuid.as_str() == uuid);
                gpu.map(|gpu| gpu.memory.map_or(0, |memory| memory.0))
            });
            let Some(memory) = memory else { return Err(format!("I7: {uuid} of a plan is not on node {node}")) };
            if owned.is_too_much(memory) {
                let plans: Vec<_> = self.on_node(node).map(|pod| (&pod.uid, &pod.plan)).collect();
                return Err(format!("I1: {uuid} on node {node} has too many owners: {owned:?} in {plans:?}"));
            }
        }
        Ok(())
    }

    /// I1, I6 and I7 for a pod that has just been bound by a scheduler of ours.
    pub(crate) fn check_bound(&self, name: &Arc<str>) -> Result<(), String> {
        let Some(pod) = self.pods.get(name) else { return Ok(()) };
        let Some(node) = &pod.node else { return Ok(()) };
        let Some(plan) = &pod.plan else {
            return if pod.shape().asks_for_devices() {
                Err(format!("I6: {name} is bound without a plan"))
            } else {
                Ok(())
            };
        };
        let claims = Claims::parse(plan)?;
        if claims.uid != *pod.uid || claims.node != **node {
            return Err(format!("I6: {name} ({}) on {node} carries the plan of another: {plan}", pod.uid));
        }
        let at = fleet::position(node).ok_or_else(|| format!("I7: {name} is bound to {node}, which is no node"))?;
        let made_from = |content: &&(usize, fleet::Content)| {
            content.0 == at && u64::from(content.1.generation) == claims.generation
        };
        let is_sound = |(_, content): &(usize, fleet::Content)| claims.claims.iter().all(|c| exists(at, *content, c));
        if !self.published.iter().filter(made_from).any(is_sound) {
            return Err(format!("I7: no report of {node} has what {name} was given: {plan}"));
        }
        check_amounts(pod, &claims).map_err(|why| format!("I7: {name} asks otherwise ({why}): {plan}"))?;
        self.check_owners(node)
    }
}

/// Whether a report has the device, in order and of that kind.
fn exists(at: usize, content: fleet::Content, claim: &Claim) -> bool {
    let healthy = fleet::healthy(at, content);
    fleet::with(at, |topology| {
        topology.parts().gpus.iter().any(|gpu| {
            let is_it = gpu.uuid.as_str() == claim.uuid && healthy.contains(gpu.index);
            let is_cut = gpu.mig_enabled == Some(true);
            is_it
                && match &claim.part {
                    Part::Whole | Part::Share { .. } => !is_cut,
                    Part::Slots { profile, start, size } => gpu.detail.mig_instances.iter().any(|instance| {
                        let place = (u64::from(instance.placement.start()), u64::from(instance.placement.size()));
                        instance.profile == *profile && place == (*start, *size)
                    }),
                }
        })
    })
}

fn check_amounts(pod: &Pod, claims: &Claims) -> Result<(), String> {
    let shape = pod.shape();
    let count = |is: fn(&Part) -> bool| u32::try_from(claims.claims.iter().filter(|c| is(&c.part)).count()).unwrap();
    let (whole, shares) = (count(|p| *p == Part::Whole), count(|p| matches!(p, Part::Share { .. })));
    let slots = count(|p| matches!(p, Part::Slots { .. }));
    let wanted = if shape.is_share() { (0, shape.gpu_count()) } else { (shape.gpu_count(), 0) };
    if (whole, shares) != wanted || slots != shape.mig().map_or(0, |(_, count)| count) {
        return Err(format!("{whole} GPUs, {shares} shares, {slots} instances"));
    }
    let is_linked = shape.wishes.contains(&("berth.dev/link", "nvlink:required"));
    if is_linked && let [a, b] = claims.claims.as_slice() {
        let at = fleet::position(&claims.node).unwrap();
        let linked = fleet::with(at, |topology| {
            let index = |uuid: &str| topology.parts().gpus.iter().find(|g| g.uuid.as_str() == uuid).map(|g| g.index);
            let (a, b) = (index(&a.uuid).unwrap(), index(&b.uuid).unwrap());
            topology.parts().links.link(a.0.into(), b.0.into()).is_some_and(|link| link.nvlinks > 0)
        });
        if !linked {
            return Err("no NVLink between them".to_owned());
        }
    }
    Ok(())
}
