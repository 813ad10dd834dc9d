//! Raw NVML calls where `nvml-wrapper` 0.13.0 has no right form: the only unsafe code of the product.
//!
//! * `NvLink::remote_device_type` always answers `Unknown`: it passes a temporary and drops what the library wrote.
//! * There is no `nvmlDeviceGetMemoryInfo`, the form of the call that drivers before 510 have.
#![allow(unsafe_code, reason = "calls into the driver library's C interface")]

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlEnableState_enum_NVML_FEATURE_ENABLED, nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH, nvmlMemory_t,
};

use crate::facts::RemoteDevice;

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
