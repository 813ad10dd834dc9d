//! Calls about the NVLinks of a GPU.

use std::ffi::{c_uint, c_ulonglong};

use berth_probe::facts::{NvLinkFacts, RemoteDevice};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEnableState_t, nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN, nvmlIntNvLinkDeviceType_t,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY, nvmlNvLinkErrorCounter_t, nvmlPciInfo_t,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED, nvmlReturn_t,
};

use crate::state::Session;
use crate::{Refusal, answered, out};

/// The link of a number; one that the board does not have is an invalid argument.
fn link(session: &Session, device: nvmlDevice_t, number: c_uint) -> Result<&NvLinkFacts, Refusal> {
    let (_, known, _) = session.by_handle(device)?;
    let links = known.nvlinks.as_ref().map_err(Refusal::from)?;
    usize::try_from(number).ok().and_then(|n| links.get(n)).ok_or(Refusal::INVALID_ARGUMENT)
}

/// Whether a link is up.
///
/// # Safety
/// `active` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    number: c_uint,
    active: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetNvLinkState", |session| {
        let up = link(session, device, number)?.active.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(active, nvmlEnableState_t::from(*up)) }
    })
}

/// Where the far end of a link is.
///
/// # Safety
/// `info` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: nvmlDevice_t,
    number: c_uint,
    info: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetNvLinkRemotePciInfo_v2", |session| {
        let address = link(session, device, number)?.remote_pci.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(info, out::pci_info(*address)) }
    })
}

/// What is at the far end of a link.
///
/// # Safety
/// `kind` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemoteDeviceType(
    device: nvmlDevice_t,
    number: c_uint,
    kind: *mut nvmlIntNvLinkDeviceType_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetNvLinkRemoteDeviceType", |session| {
        let answer = match link(session, device, number)?.remote.as_ref().map_err(Refusal::from)? {
            RemoteDevice::Gpu => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            RemoteDevice::Switch => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
            RemoteDevice::Other => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN,
        };
        // SAFETY: the caller's promise.
        unsafe { out::value(kind, answer) }
    })
}

/// The generation of a link.
///
/// # Safety
/// `version` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkVersion(
    device: nvmlDevice_t,
    number: c_uint,
    version: *mut c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetNvLinkVersion", |session| {
        let known = *link(session, device, number)?.version.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(version, known) }
    })
}

/// Errors of a link: all of them replays, the other counters are not supported.
///
/// # Safety
/// `count` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    number: c_uint,
    counter: nvmlNvLinkErrorCounter_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetNvLinkErrorCounter", |session| {
        let known = *link(session, device, number)?.errors.as_ref().map_err(Refusal::from)?;
        if counter != nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY {
            return Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED));
        }
        // SAFETY: the caller's promise.
        unsafe { out::value(count, known) }
    })
}
