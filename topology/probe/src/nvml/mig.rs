//! NVSwitch fabric and MIG of a GPU: the calls that the wrapper lacks.
//!
//! Profiles and instances are asked for only where MIG is on or about to be: that is some dozens of calls for a table that nobody reads
//! otherwise.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::{failure, ffi};
use crate::facts::gpu::{FabricAndMigFacts, MigInstanceFacts, MigProfileFacts};
use crate::facts::{Answer, NvmlFailure};

/// Profile numbers tried. Source: `NVML_GPU_INSTANCE_PROFILE_COUNT` is 17 in API 13; a newer driver may have more.
const PROFILES_TRIED: u32 = 32;
/// Most MIG devices of a GPU asked for. NVML's own answer is 7 on all boards of today.
const DEVICES_MAX: u32 = 32;

pub(super) fn read(device: &Device<'_>) -> FabricAndMigFacts {
    let mode = device.mig_mode().map_err(failure);
    let wanted = match &mode {
        Ok(mode) if mode.current == ffi::MIG_ENABLED || mode.pending == ffi::MIG_ENABLED => Ok(()),
        Ok(_) => Err(NvmlFailure::NotSupported),
        Err(why) => Err(why.clone()),
    };
    let profiles = wanted.clone().and_then(|()| read_profiles(device));
    let instances = match &profiles {
        Ok(profiles) => read_instances(device, profiles),
        Err(why) => Err(why.clone()),
    };
    FabricAndMigFacts {
        fabric: ffi::fabric(device).map_err(failure),
        mig_pending: mode.map(|mode| mode.pending == ffi::MIG_ENABLED),
        mig_profiles: profiles,
        mig_instances: instances,
    }
}

fn read_profiles(device: &Device<'_>) -> Answer<Vec<MigProfileFacts>> {
    let mut profiles = Vec::new();
    for number in 0..PROFILES_TRIED {
        match ffi::mig_profile(device, number) {
            Ok(mut profile) => {
                profile.placements = ffi::mig_placements(device, profile.id).map_err(failure);
                profiles.push(profile);
            }
            // Gaps are usual, and beyond the library's last profile every number is an invalid argument.
            Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(profiles)
}

fn read_instances(device: &Device<'_>, profiles: &[MigProfileFacts]) -> Answer<Vec<MigInstanceFacts>> {
    let mut instances = Vec::new();
    for profile in profiles {
        match ffi::mig_instances(device, profile) {
            Ok(of_profile) => instances.extend(of_profile),
            Err(NvmlError::NotSupported) => {}
            Err(error) => return Err(failure(error)),
        }
    }
    add_devices(device, &mut instances);
    instances.sort_by_key(|i| (i.start, i.id));
    Ok(instances)
}

/// Gives the UUIDs of MIG devices to their instances. Without them placements hold all the same.
fn add_devices(device: &Device<'_>, instances: &mut [MigInstanceFacts]) {
    if instances.is_empty() {
        return;
    }
    let count = device.mig_device_count().unwrap_or(0).min(DEVICES_MAX);
    for index in 0..count {
        // Gaps answer "not found".
        let Ok(mig) = device.mig_device_by_index(index) else { continue };
        let (Ok(id), Ok(uuid)) = (ffi::gpu_instance_id(&mig), mig.uuid()) else { continue };
        if let Some(instance) = instances.iter_mut().find(|i| i.id == id) {
            instance.uuids.push(uuid);
        }
    }
}
