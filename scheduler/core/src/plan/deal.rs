//! Who gets what: the chosen devices dealt to the containers, and the NICs beside them.

use std::collections::BTreeMap;

use berth_model::{Gpu, GpuIndex, GpuSet, NicName, PcieLevel, PortState};

use super::{Chosen, ContainerPlan, PlannedDevice};
use crate::demand::ShareMemory;
use crate::demand::{ContainerDemand, Kind};
use crate::device::{Extent, Portion};
use crate::view::Hardware;

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
    let device = |gpu: &Gpu, extent| PlannedDevice { index: gpu.index, uuid: gpu.uuid.clone(), extent };
    let gpu = |index: GpuIndex| gpus.iter().find(|g| g.index == index);
    match kind {
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
        Kind::Mig(_) => Vec::new(),
    }
}

/// Active NICs under the same PCIe switch as one of the GPUs: for each GPU its nearest.
pub(super) fn rails(hardware: &Hardware, set: GpuSet) -> Vec<NicName> {
    let parts = hardware.topology.parts();
    let mut names = Vec::new();
    for gpu in set.iter() {
        let level =
            |n: usize| parts.links.link(usize::from(gpu.0), parts.gpus.len().saturating_add(n)).and_then(|l| l.pcie);
        let mut nearest: Option<(PcieLevel, &NicName)> = None;
        for (n, nic) in parts.nics.iter().enumerate().filter(|(_, nic)| nic.state == PortState::Active) {
            let Some(level) = level(n).filter(|l| *l >= PcieLevel::Pxb) else { continue };
            if nearest.is_none_or(|(best, _)| level > best) {
                nearest = Some((level, &nic.name));
            }
        }
        if let Some((_, name)) = nearest.filter(|(_, name)| !names.contains(*name)) {
            names.push(name.clone());
        }
    }
    names
}
