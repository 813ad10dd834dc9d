//! Raw NVML calls where `nvml-wrapper` 0.13.0 has no right form: the only unsafe code of the product.
//!
//! * `NvLink::remote_device_type` always answers `Unknown`: it passes a temporary and drops what the library wrote.
//! * There is no `nvmlDeviceGetMemoryInfo`, the form of the call that drivers before 510 have.
//! * `Device::possible_placements` is always empty, and the rest of MIG's placements, row remapping and the fabric have no wrapper.
//! * `Device::retired_pages` asks through an older call with a null pointer.
#![allow(unsafe_code, reason = "calls into the driver library's C interface")]

use std::ffi::{CStr, c_char, c_uint};

use berth_model::gpu::detail::{FabricHealth, FabricState, RowRemap};
use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_FALSE, NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_TRUE,
    NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY, NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY,
    NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY, NVML_GPU_FABRIC_STATE_COMPLETED, NVML_GPU_FABRIC_STATE_IN_PROGRESS,
    NVML_GPU_FABRIC_STATE_NOT_STARTED, nvmlEnableState_enum_NVML_FEATURE_ENABLED, nvmlGpuFabricInfo_t,
    nvmlGpuFabricInfo_v3_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t,
    nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH, nvmlMemory_t,
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
};

use crate::facts::gpu::{FabricFacts, MigInstanceFacts, MigProfileFacts};
use crate::facts::{NvmlFailure, RemoteDevice};

/// `sizeof(nvmlGpuFabricInfo_v3_t) | (3 << 24)` and the second form, which is the third without its last field.
const FABRIC_VERSIONS: [c_uint; 2] = [0x0300_0028, 0x0200_0024];
/// `sizeof(nvmlGpuInstanceProfileInfo_v2_t) | (2 << 24)`.
const PROFILE_V2_VERSION: c_uint = 0x0200_0098;
/// Room for placements and instances of one profile: more than any board has slots.
const PLACEMENTS_MAX: usize = 32;
/// Room for retired pages. A board retires 64 before it is replaced.
const RETIRED_PAGES_MAX: usize = 512;

/// `NVML_DEVICE_MIG_ENABLE`, which has the value of an enabled feature.
pub(super) const MIG_ENABLED: u32 = nvmlEnableState_enum_NVML_FEATURE_ENABLED;

/// What is at the far end of a link.
pub(super) fn remote_device_type(device: &Device<'_>, link: u32) -> Result<RemoteDevice, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref())?;
    let mut kind = u32::MAX;
    // SAFETY: the handle comes from the session that `device` borrows, so the library is loaded and initialised; `kind` is a live,
    // aligned u32, which is the C type of the enum.
    nvml_try(unsafe { call(device.handle(), link, &raw mut kind) })?;
    Ok(match kind {
        k if k == nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU => RemoteDevice::Gpu,
        k if k == nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH => RemoteDevice::Switch,
        _ => RemoteDevice::Other,
    })
}

/// Total memory in bytes, by the first form of the call.
pub(super) fn memory_total(device: &Device<'_>) -> Result<u64, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: as above; `memory` is a live struct of the layout that the first form fills, and all its bit patterns are valid.
    nvml_try(unsafe { call(device.handle(), &raw mut memory) })?;
    Ok(memory.total)
}

/// The handle of a device as a number: to tell devices apart, never to be followed.
pub(super) fn handle_address(device: &Device<'_>) -> usize {
    // SAFETY: the handle is not used after the session; it is not used at all.
    unsafe { device.handle() }.addr()
}

/// Pages retired for single-bit and double-bit errors together.
pub(super) fn retired_pages(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRetiredPages_v2.as_ref())?;
    let mut pages = 0_u32;
    for cause in [
        nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    ] {
        let (mut addresses, mut times) = ([0; RETIRED_PAGES_MAX], [0; RETIRED_PAGES_MAX]);
        let mut count = c_uint::try_from(RETIRED_PAGES_MAX).unwrap_or(0);
        // SAFETY: as above; both arrays are live and have as many entries as `count` says.
        nvml_try(unsafe { call(device.handle(), cause, &raw mut count, addresses.as_mut_ptr(), times.as_mut_ptr()) })?;
        pages = pages.saturating_add(count);
    }
    Ok(pages)
}

/// Row remapping.
pub(super) fn remapped_rows(device: &Device<'_>) -> Result<RowRemap, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut correctable, mut uncorrectable, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: as above; four live integers.
    nvml_try(unsafe {
        call(device.handle(), &raw mut correctable, &raw mut uncorrectable, &raw mut pending, &raw mut failed)
    })?;
    Ok(RowRemap { correctable, uncorrectable, pending: pending != 0, failed: failed != 0 })
}

/// The NVSwitch fabric: third form of the struct, second on error 25, then the first call.
pub(super) fn fabric(device: &Device<'_>) -> Result<FabricFacts, NvmlError> {
    match fabric_versioned(device) {
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => fabric_first(device),
        answer => answer,
    }
}

fn fabric_versioned(device: &Device<'_>) -> Result<FabricFacts, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    for version in FABRIC_VERSIONS {
        let mut info = nvmlGpuFabricInfo_v3_t {
            version,
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        // SAFETY: as above; the library writes at most the struct of the version that it was given, and the third is the longest.
        match nvml_try(unsafe { call(device.handle(), &raw mut info) }) {
            Ok(()) => return fabric_facts(&info),
            // The wrapper does not know the code.
            Err(NvmlError::UnexpectedVariant(VERSION_MISMATCH)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(NvmlError::NotSupported)
}

fn fabric_first(device: &Device<'_>) -> Result<FabricFacts, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfo.as_ref())?;
    let mut info = nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
    // SAFETY: as above; a live struct of the layout that this call fills.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    fabric_facts(&nvmlGpuFabricInfo_v3_t {
        version: 0,
        clusterUuid: info.clusterUuid,
        status: info.status,
        cliqueId: info.cliqueId,
        state: info.state,
        healthMask: 0,
        healthSummary: 0,
    })
}

fn fabric_facts(info: &nvmlGpuFabricInfo_v3_t) -> Result<FabricFacts, NvmlError> {
    let state = match c_uint::from(info.state) {
        NVML_GPU_FABRIC_STATE_NOT_STARTED => FabricState::NotStarted,
        NVML_GPU_FABRIC_STATE_IN_PROGRESS => FabricState::InProgress,
        NVML_GPU_FABRIC_STATE_COMPLETED => FabricState::Completed,
        _ => return Err(NvmlError::NotSupported),
    };
    Ok(FabricFacts {
        state,
        // The status means something only once registration is over.
        failed: state == FabricState::Completed && info.status != 0,
        cluster: info.clusterUuid,
        clique: info.cliqueId,
        // The lowest two bits of the mask.
        degraded: match info.healthMask & 3 {
            NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_TRUE => Some(true),
            NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_FALSE => Some(false),
            _ => None,
        },
        health: match c_uint::from(info.healthSummary) {
            NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY => Some(FabricHealth::Healthy),
            NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY => Some(FabricHealth::Unhealthy),
            NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY => Some(FabricHealth::LimitedCapacity),
            _ => None,
        },
    })
}

/// A GPU instance profile by its number in the catalogue, without its placements: by the second form, which has the name, else the first.
pub(super) fn mig_profile(device: &Device<'_>, number: u32) -> Result<MigProfileFacts, NvmlError> {
    match mig_profile_named(device, number) {
        Err(
            NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::UnexpectedVariant(VERSION_MISMATCH),
        ) => mig_profile_first(device, number),
        answer => answer,
    }
}

fn mig_profile_named(device: &Device<'_>, number: u32) -> Result<MigProfileFacts, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceProfileInfoV.as_ref())?;
    // SAFETY: integers and characters, for all of which zero is a value.
    let mut info: nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
    info.version = PROFILE_V2_VERSION;
    // SAFETY: as above; a live struct of the version that it says.
    nvml_try(unsafe { call(device.handle(), number, &raw mut info) })?;
    let name = text(&info.name);
    Ok(MigProfileFacts {
        id: info.id,
        // NVML says `MIG 1g.10gb`.
        name: Some(name.strip_prefix("MIG ").unwrap_or(&name).to_owned()).filter(|n| !n.is_empty()),
        slices: info.sliceCount,
        memory_mib: info.memorySizeMB,
        instances_max: info.instanceCount,
        placements: Err(NvmlFailure::NotSupported),
    })
}

fn mig_profile_first(device: &Device<'_>, number: u32) -> Result<MigProfileFacts, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceProfileInfo.as_ref())?;
    // SAFETY: integers, for all of which zero is a value.
    let mut info: nvmlGpuInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above; a live struct of the layout that this call fills.
    nvml_try(unsafe { call(device.handle(), number, &raw mut info) })?;
    Ok(MigProfileFacts {
        id: info.id,
        name: None,
        slices: info.sliceCount,
        memory_mib: info.memorySizeMB,
        instances_max: info.instanceCount,
        placements: Err(NvmlFailure::NotSupported),
    })
}

/// Where instances of a profile may lie.
pub(super) fn mig_placements(device: &Device<'_>, profile_id: u32) -> Result<Vec<(u32, u32)>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstancePossiblePlacements_v2.as_ref())?;
    let mut placements = [nvmlGpuInstancePlacement_t { start: 0, size: 0 }; PLACEMENTS_MAX];
    let mut count = c_uint::try_from(PLACEMENTS_MAX).unwrap_or(0);
    // SAFETY: as above; the array is live and has as many entries as `count` says.
    nvml_try(unsafe { call(device.handle(), profile_id, placements.as_mut_ptr(), &raw mut count) })?;
    Ok(placements.iter().take(usize::try_from(count).unwrap_or(0)).map(|p| (p.start, p.size)).collect())
}

/// The instances of a profile that exist, without their devices.
pub(super) fn mig_instances(
    device: &Device<'_>,
    profile: &MigProfileFacts,
) -> Result<Vec<MigInstanceFacts>, NvmlError> {
    let list = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstances.as_ref())?;
    let describe = nvml_sym(device.nvml().lib().nvmlGpuInstanceGetInfo.as_ref())?;
    // The caller's room is the profile's cap; NVML takes no count.
    let mut handles: [nvmlGpuInstance_t; PLACEMENTS_MAX] = [std::ptr::null_mut(); PLACEMENTS_MAX];
    let mut count = c_uint::try_from(PLACEMENTS_MAX).unwrap_or(0);
    // SAFETY: as above; the array is live and has more entries than any profile has instances.
    nvml_try(unsafe { list(device.handle(), profile.id, handles.as_mut_ptr(), &raw mut count) })?;
    let mut instances = Vec::new();
    for handle in handles.into_iter().take(usize::try_from(count).unwrap_or(0)) {
        // SAFETY: integers and a pointer, for all of which zero is a value.
        let mut info: nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the handle was just given by the library; `info` is a live struct of the layout that this call fills.
        nvml_try(unsafe { describe(handle, &raw mut info) })?;
        instances.push(MigInstanceFacts {
            id: info.id,
            profile_id: info.profileId,
            start: info.placement.start,
            size: info.placement.size,
            uuids: Vec::new(),
        });
    }
    Ok(instances)
}

/// The GPU instance that a MIG device is in.
pub(super) fn gpu_instance_id(mig: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(mig.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: as above; a live integer.
    nvml_try(unsafe { call(mig.handle(), &raw mut id) })?;
    Ok(id)
}

/// A text that the library wrote into a buffer, up to its zero; empty where there is none.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.to_ne_bytes()[0]).collect();
    CStr::from_bytes_until_nul(&bytes).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default()
}
