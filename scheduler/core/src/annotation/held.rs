//! What a pod holds by its plan: the devices of all containers, folded by GPU.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{GpuUuid, MiB};

use super::{Container, Device};
use crate::device::{Extent, HeldDevice, MigSlot, Portion};

/// Most memory slots of a GPU. Source: as of `SlotMask`.
const SLOTS_MAX: u8 = 8;

/// What is held of one GPU, container by container.
#[derive(Default)]
struct Sum {
    is_whole: bool,
    instances: BTreeSet<MigSlot>,
    /// Of containers that run side by side, so far.
    running: (Portion, u32),
    /// The most at any moment.
    peak: (Portion, u32),
}

impl Sum {
    fn add_share(&mut self, portion: Portion, is_init: bool) {
        let with = (self.running.0.plus(portion), self.running.1.saturating_add(1));
        self.peak = (self.peak.0.max(with.0), self.peak.1.max(with.1));
        if !is_init {
            self.running = with;
        }
    }
}

/// Folds what containers get into what the pod holds.
pub(super) fn fold(containers: &[Container]) -> Result<Vec<HeldDevice>, String> {
    let mut sums: BTreeMap<GpuUuid, Sum> = BTreeMap::new();
    for container in containers {
        // The shares of one init container are on cards apart, so each card's peak is seen device by device.
        for device in &container.devices {
            let uuid = GpuUuid::parse(&device.uuid).map_err(|e| e.to_string())?;
            let sum = sums.entry(uuid).or_default();
            match extent(device)? {
                Extent::Whole => sum.is_whole = true,
                Extent::Share(portion) => sum.add_share(portion, container.init),
                Extent::Mig(slot) => {
                    sum.instances.insert(slot);
                }
            }
        }
    }
    let mut held = Vec::new();
    for (uuid, sum) in sums {
        let Sum { is_whole, instances, peak: (portion, count), .. } = sum;
        let kinds = [is_whole, !instances.is_empty(), count > 0];
        if kinds.iter().filter(|is| **is).count() > 1 {
            return Err(format!("{uuid} stands there in more than one of whole, shared and MIG"));
        }
        if is_whole {
            held.push(HeldDevice::whole(uuid));
            continue;
        }
        if count > 0 {
            held.push(HeldDevice { uuid: uuid.clone(), extent: Extent::Share(portion), device_count: count });
        }
        let one = |slot| HeldDevice { uuid: uuid.clone(), extent: Extent::Mig(slot), device_count: 1 };
        held.extend(instances.into_iter().map(one));
    }
    Ok(held)
}

fn extent(device: &Device) -> Result<Extent, String> {
    match (&device.mig, &device.share) {
        (None, None) => Ok(Extent::Whole),
        (Some(_), Some(_)) => Err(format!("{} is a share and a MIG instance", device.uuid)),
        (None, Some(share)) => {
            let (cores_percent, memory) = (share.cores.unwrap_or(0), share.memory_mib.unwrap_or(0));
            if cores_percent > 100 || (cores_percent == 0 && memory == 0) {
                return Err(format!("share of {}: cores 1 to 100, or memoryMiB, or both are right", device.uuid));
            }
            Ok(Extent::Share(Portion { cores_percent, memory: MiB(memory) }))
        }
        (Some(mig), None) => {
            let is_real = mig.size > 0 && mig.start.checked_add(mig.size).is_some_and(|end| end <= SLOTS_MAX);
            if !is_real || mig.profile.is_empty() {
                return Err(format!("mig of {}: start {}, size {} is no instance", device.uuid, mig.start, mig.size));
            }
            Ok(Extent::Mig(MigSlot { profile: mig.profile.clone(), start: mig.start, size: mig.size }))
        }
    }
}
