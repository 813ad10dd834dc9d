//! What a machine file says of functions: those of NICs and GPUs, GPUs that vfio has, IOMMU groups.

use std::collections::BTreeSet;

use berth_model::{PciAddress, VgpuCarrier};

use super::refuse;
use crate::machine::{MachineError, MachineFunction, MachineVgpu};
use crate::scalar::Fact;
use crate::scalar::function::Functions;
use crate::spec::{GpuSpec, GroupSpec, NicSpec};

/// Most IOMMU groups of a machine.
const GROUPS_MAX: usize = 256;

fn said<T: Clone>(fact: &Option<Fact<T>>) -> Option<T> {
    fact.clone().and_then(Fact::known)
}

/// The function of a NIC; its own facts alone, for no two NICs share them.
pub(super) fn of_nic(facts: &str, own: &NicSpec) -> Result<MachineFunction, MachineError> {
    let netdevs = said(&own.netdevs).map(|n| n.0).unwrap_or_default();
    let bond = said(&own.bond).map(|b| b.0);
    if bond.is_some() && netdevs.is_empty() {
        return refuse(format!("{facts}.bond"), "only right beside netdevs");
    }
    let virtual_functions = said(&own.virtual_functions).map(|Functions(f)| f).unwrap_or_default();
    let function_count_max = said(&own.vfs_max);
    let room = function_count_max.unwrap_or(0);
    if virtual_functions.len() > usize::from(room) {
        return refuse(format!("{facts}.virtualFunctions"), format!("more than vfsMax, {room}"));
    }
    Ok(MachineFunction { netdevs, bond, card: said(&own.card).map(|g| g.0), function_count_max, virtual_functions })
}

/// The vGPU types of a GPU. The vendor's own way has them at virtual functions, which must be there.
pub(super) fn vgpu(facts: &str, own: &GpuSpec) -> Result<Option<MachineVgpu>, MachineError> {
    let functions = said(&own.vgpu_functions).map(|Functions(f)| f).unwrap_or_default();
    let functions: Vec<PciAddress> = functions.into_iter().map(|(address, _)| address).collect();
    let (carrier, types) = match (said(&own.vgpu_mdev), said(&own.vgpu_vfio)) {
        (None, None) => return Ok(None),
        (Some(types), None) => (VgpuCarrier::Mdev, types),
        (None, Some(types)) if !functions.is_empty() => (VgpuCarrier::Vfio, types),
        (None, Some(_)) => {
            return refuse(format!("{facts}.vgpuFunctions"), "virtual functions are right beside vgpuVfio");
        }
        (Some(_), Some(_)) => return refuse(format!("{facts}.vgpuVfio"), "not right beside vgpuMdev"),
    };
    Ok(Some(MachineVgpu { carrier, types: types.0, functions }))
}

/// IOMMU groups of devices that the file has; a device is in one group.
pub(super) fn groups(
    specs: Vec<GroupSpec>,
    known: &BTreeSet<PciAddress>,
) -> Result<Vec<(u32, Vec<PciAddress>)>, MachineError> {
    if specs.len() > GROUPS_MAX {
        return refuse("iommuGroups", format!("at most {GROUPS_MAX} are taken"));
    }
    let (mut ids, mut grouped, mut groups) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (i, spec) in specs.into_iter().enumerate() {
        if !ids.insert(spec.id.0) {
            return refuse(format!("iommuGroups[{i}].id"), format!("{} stands twice", spec.id.0));
        }
        let devices: Vec<PciAddress> = spec.devices.into_iter().map(|d| d.0).collect();
        if let Some(stranger) = devices.iter().find(|d| !known.contains(*d) || !grouped.insert(**d)) {
            let problem = format!("{stranger} is no device of the file, or stands in another group");
            return refuse(format!("iommuGroups[{i}].devices"), problem);
        }
        groups.push((spec.id.0, devices));
    }
    Ok(groups)
}
