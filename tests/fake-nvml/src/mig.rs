//! Calls about the NVSwitch fabric and MIG.

use std::ffi::c_uint;

use berth_model::gpu::detail::{FabricHealth, FabricState};
use berth_probe::facts::NvmlDevice;
use berth_probe::facts::gpu::{FabricFacts, MigInstanceFacts, MigProfileFacts};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v3_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t,
    nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND, nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED, nvmlReturn_t,
};

use crate::{Refusal, answered, out};

/// `sizeof | (version << 24)` of the structs that are taken.
const FABRIC_V2: c_uint = 0x0200_0024;
const FABRIC_V3: c_uint = 0x0300_0028;
const PROFILE_V2: c_uint = 0x0200_0098;
/// Status of a registration that failed.
const FABRIC_FAILED: c_uint = 999;
/// MIG devices of a GPU at most, as on the boards of today.
const MIG_DEVICES_MAX: c_uint = 7;

fn not_supported() -> Refusal {
    Refusal::code(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)
}

fn state(fabric: &FabricFacts) -> u8 {
    match fabric.state {
        FabricState::NotStarted => 1,
        FabricState::InProgress => 2,
        FabricState::Completed => 3,
    }
}

fn status(fabric: &FabricFacts) -> c_uint {
    if fabric.failed { FABRIC_FAILED } else { 0 }
}

/// The fabric by the first form of the call.
///
/// # Safety
/// `to` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: nvmlDevice_t,
    to: *mut nvmlGpuFabricInfo_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuFabricInfo", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let fabric = known.detail.parts.fabric.as_ref().map_err(Refusal::from)?;
        let info = nvmlGpuFabricInfo_t {
            clusterUuid: fabric.cluster,
            status: status(fabric),
            cliqueId: fabric.clique,
            state: state(fabric),
        };
        // SAFETY: the caller's promise.
        unsafe { out::value(to, info) }
    })
}

/// The fabric by the form with a version. `nvmlDeviceGetGpuFabricInfoV/v3` among the absent calls stands for a driver that knows the
/// second struct only.
///
/// # Safety
/// `to` is null, or valid for reading its version and for writing the struct of that version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    to: *mut nvmlGpuFabricInfo_v3_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuFabricInfoV", |session| {
        let (_, known, _) = session.by_handle(device)?;
        if to.is_null() {
            return Err(Refusal::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller vouches for the rest.
        let version = unsafe { (*to).version };
        let old = session.lacks("nvmlDeviceGetGpuFabricInfoV/v3");
        if version != FABRIC_V2 && (version != FABRIC_V3 || old) {
            return Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH));
        }
        let fabric = known.detail.parts.fabric.as_ref().map_err(Refusal::from)?;
        // SAFETY: as above; the second struct ends before `healthSummary`.
        unsafe {
            (*to).clusterUuid = fabric.cluster;
            (*to).status = status(fabric);
            (*to).cliqueId = fabric.clique;
            (*to).state = state(fabric);
            (*to).healthMask = match fabric.degraded {
                None => 0,
                Some(true) => 1,
                Some(false) => 2,
            };
            if version == FABRIC_V3 {
                (*to).healthSummary = match fabric.health {
                    None => 0,
                    Some(FabricHealth::Healthy) => 1,
                    Some(FabricHealth::Unhealthy) => 2,
                    Some(FabricHealth::LimitedCapacity) => 3,
                };
            }
        }
        Ok(())
    })
}

/// Profiles are numbered as the machine file lists them; a real library's numbers have gaps.
fn profile(known: &NvmlDevice, number: c_uint) -> Result<&MigProfileFacts, Refusal> {
    let profiles = known.detail.parts.mig_profiles.as_ref().map_err(Refusal::from)?;
    usize::try_from(number).ok().and_then(|n| profiles.get(n)).ok_or(not_supported())
}

fn profile_by_id(known: &NvmlDevice, id: c_uint) -> Result<&MigProfileFacts, Refusal> {
    let profiles = known.detail.parts.mig_profiles.as_ref().map_err(Refusal::from)?;
    profiles.iter().find(|p| p.id == id).ok_or(Refusal::INVALID_ARGUMENT)
}

fn instances(known: &NvmlDevice) -> Result<&[MigInstanceFacts], Refusal> {
    known.detail.parts.mig_instances.as_deref().map_err(Refusal::from)
}

/// A profile by the first form of the call.
///
/// # Safety
/// `to` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: nvmlDevice_t,
    number: c_uint,
    to: *mut nvmlGpuInstanceProfileInfo_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuInstanceProfileInfo", |session| {
        let profile = profile(session.by_handle(device)?.1, number)?;
        let info = nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.instances_max,
            multiprocessorCount: 0,
            copyEngineCount: 0,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: profile.memory_mib,
        };
        // SAFETY: the caller's promise.
        unsafe { out::value(to, info) }
    })
}

/// A profile by the form that has its name.
///
/// # Safety
/// `to` is null, or valid for reading its version and for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: nvmlDevice_t,
    number: c_uint,
    to: *mut nvmlGpuInstanceProfileInfo_v2_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuInstanceProfileInfoV", |session| {
        let profile = profile(session.by_handle(device)?.1, number)?;
        if to.is_null() {
            return Err(Refusal::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller vouches for the rest.
        let version = unsafe { (*to).version };
        if version != PROFILE_V2 {
            return Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH));
        }
        let mut info = nvmlGpuInstanceProfileInfo_v2_t {
            version,
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.instances_max,
            multiprocessorCount: 0,
            copyEngineCount: 0,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: profile.memory_mib,
            name: [0; 96],
        };
        out::fill(&mut info.name, &format!("MIG {}", profile.name.as_deref().unwrap_or_default()));
        // SAFETY: as above.
        unsafe { out::value(to, info) }
    })
}

/// Where instances of a profile may lie.
///
/// # Safety
/// `count` is null or valid for reading and writing; `to` is null or has room for as many as `count` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    device: nvmlDevice_t,
    profile_id: c_uint,
    to: *mut nvmlGpuInstancePlacement_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuInstancePossiblePlacements_v2", |session| {
        let profile = profile_by_id(session.by_handle(device)?.1, profile_id)?;
        let known = profile.placements.as_ref().map_err(Refusal::from)?;
        let placements = known.iter().map(|(start, size)| nvmlGpuInstancePlacement_t { start: *start, size: *size });
        // SAFETY: the caller's promise.
        unsafe { out::list(to, count, placements) }
    })
}

/// The GPU instances of a profile. The count is written only: real NVML takes no size here.
///
/// # Safety
/// `to` is null or has room for as many as the profile has instances; `count` is null or valid for reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: nvmlDevice_t,
    profile_id: c_uint,
    to: *mut nvmlGpuInstance_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuInstances", |session| {
        let (_, known, _) = session.by_handle(device)?;
        profile_by_id(known, profile_id)?;
        let of_profile = instances(known)?.iter().enumerate().filter(|(_, i)| i.profile_id == profile_id);
        let handles = of_profile.filter_map(|(position, _)| session.instance_handle(device, position));
        // SAFETY: the caller's promise.
        unsafe { out::list(to, count, handles.map(<*mut std::ffi::c_void>::cast)) }
    })
}

/// What a GPU instance is.
///
/// # Safety
/// `to` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpuInstanceGetInfo(
    instance: nvmlGpuInstance_t,
    to: *mut nvmlGpuInstanceInfo_t,
) -> nvmlReturn_t {
    answered("nvmlGpuInstanceGetInfo", |session| {
        let (device, position) = session.of_instance_handle(instance.cast())?;
        let (_, known, _) = session.by_handle(device)?;
        let instance = instances(known)?.get(position).ok_or(Refusal::INVALID_ARGUMENT)?;
        let placement = nvmlGpuInstancePlacement_t { start: instance.start, size: instance.size };
        let info = nvmlGpuInstanceInfo_t { device, id: instance.id, profileId: instance.profile_id, placement };
        // SAFETY: the caller's promise.
        unsafe { out::value(to, info) }
    })
}

/// How many MIG devices a GPU has at most.
///
/// # Safety
/// `count` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetMaxMigDeviceCount", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let most = if known.mig_enabled == Ok(true) { MIG_DEVICES_MAX } else { 0 };
        // SAFETY: the caller's promise.
        unsafe { out::value(count, most) }
    })
}

/// The handle of a MIG device. Numbers have gaps: the first stays free here.
///
/// # Safety
/// `to` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    to: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetMigDeviceHandleByIndex", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let instances = instances(known)?;
        // A full GPU has no gap.
        let gap = usize::from(instances.len() < usize::try_from(MIG_DEVICES_MAX).unwrap_or(0));
        let position = usize::try_from(index).ok().and_then(|i| i.checked_sub(gap));
        let handle = position.filter(|p| *p < instances.len()).and_then(|p| session.mig_handle(device, p));
        let handle = handle.ok_or(Refusal::code(nvmlReturn_enum_NVML_ERROR_NOT_FOUND))?;
        // SAFETY: the caller's promise.
        unsafe { out::value(to, handle.cast()) }
    })
}

/// The GPU instance that a MIG device is in.
///
/// # Safety
/// `id` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetGpuInstanceId", |session| {
        let (gpu, position) = session.of_mig_handle(device).ok_or(not_supported())?;
        let (_, known, _) = session.by_handle(gpu)?;
        let instance = instances(known)?.get(position).ok_or(Refusal::INVALID_ARGUMENT)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(id, instance.id) }
    })
}

/// The UUID of a MIG device; `None` for a handle that is none.
pub(crate) fn uuid(session: &crate::state::Session, device: nvmlDevice_t) -> Option<String> {
    let (gpu, position) = session.of_mig_handle(device)?;
    let (_, known, _) = session.by_handle(gpu).ok()?;
    instances(known).ok()?.get(position)?.uuids.first().cloned()
}

/// A list that is longer than the caller's room.
pub(crate) fn too_long() -> Refusal {
    Refusal::code(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE)
}
