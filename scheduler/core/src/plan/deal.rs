//! Who gets what: the chosen devices dealt to the containers, and the NICs beside them.

use std::collections::BTreeMap;

use berth_model::{Gpu, GpuIndex, GpuSet, NicName};

use super::{Chosen, ChosenInstance, ContainerPlan, PlannedDevice};
use crate::demand::ShareMemory;
use crate::demand::{ContainerDemand, Kind};
use crate::device::{Extent, Portion};
use crate::place::{Judge, Rule};
use crate::view::{Hardware, NodeView};

/// Deals the devices to the containers in order, each kind by itself. Plain init containers take from the front and give back.
pub(super) fn deal(demands: &[ContainerDemand], chosen: Option<(&Chosen, &Hardware)>) -> Vec<ContainerPlan> {
    let mut dealt: BTreeMap<&str, usize> = BTreeMap::new();
    let mut plans = Vec::with_capacity(demands.len());
    for demand in demands {
        let count = usize::try_from(demand.device_count).unwrap_or(usize::MAX);
        let kind = match &demand.kind {
            Kind::Whole => "whole",
            Kind::Share(_) => "share",
            Kind::Mig(_) => demand.resource.as_str(),
        };
        let first = dealt.entry(kind).or_default();
        let devices = chosen.map_or_else(Vec::new, |(chosen, hardware)| {
            part(&demand.kind, chosen, hardware).into_iter().skip(*first).take(count).collect()
        });
        if !demand.reuses {
            *first = first.saturating_add(count);
        }
        plans.push(ContainerPlan {
            name: demand.name.clone(),
            resource: demand.resource.clone(),
            reuses: demand.reuses,
            devices,
        });
    }
    plans
}

/// All devices of a kind, with what a container that asks this takes of each.
fn part(kind: &Kind, chosen: &Chosen, hardware: &Hardware) -> Vec<PlannedDevice> {
    let gpus = &hardware.topology.parts().gpus;
    let device = |gpu: &Gpu, extent| PlannedDevice { index: gpu.index, uuid: gpu.uuid.clone(), extent, instance: None };
    let gpu = |index: GpuIndex| gpus.iter().find(|g| g.index == index);
    match kind {
        Kind::Whole if chosen.whole.is_empty() => instances(None, chosen, hardware),
        Kind::Whole if !chosen.order.is_empty() => {
            chosen.order.iter().copied().filter_map(gpu).map(|g| device(g, Extent::Whole)).collect()
        }
        Kind::Whole => chosen.whole.iter().filter_map(gpu).map(|g| device(g, Extent::Whole)).collect(),
        Kind::Share(share) => {
            let own = |(index, slot): &(GpuIndex, Portion)| {
                let memory = match share.memory {
                    ShareMemory::Nothing => berth_model::MiB(0),
                    ShareMemory::Exactly(memory) => memory,
                    ShareMemory::All => slot.memory,
                };
                let portion = Portion { cores_percent: share.cores_percent, memory };
                gpu(*index).map(|g| device(g, Extent::Share(portion)))
            };
            chosen.shares.iter().filter_map(own).collect()
        }
        Kind::Mig(profile) => instances(Some(profile), chosen, hardware),
    }
}

fn instances(asked: Option<&String>, chosen: &Chosen, hardware: &Hardware) -> Vec<PlannedDevice> {
    let gpus = &hardware.topology.parts().gpus;
    let same = chosen.instances.iter().filter(|instance| instance.asked.as_ref() == asked);
    let device = |instance: &ChosenInstance| {
        let gpu = gpus.iter().find(|g| g.index == instance.index)?;
        let extent = Extent::Mig(instance.slot.clone());
        let uuid = instance.uuid.clone();
        Some(PlannedDevice { index: gpu.index, uuid: gpu.uuid.clone(), extent, instance: Some(uuid) })
    };
    same.filter_map(device).collect()
}

/// The NICs of the GPUs, one for each that can have one; none where the pod wishes no rails.
pub(super) fn rails(view: &NodeView, hardware: &Hardware, set: GpuSet, rule: Rule) -> Vec<NicName> {
    let nics = &hardware.topology.parts().nics;
    let judge = Judge::of(&hardware.fabric, rule, view.nics_free());
    let name = |(_, nic): (GpuIndex, usize)| nics.get(nic).map(|nic| nic.name.clone());
    judge.nics(set).into_iter().filter_map(name).collect()
}
