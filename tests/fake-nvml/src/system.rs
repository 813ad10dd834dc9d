//! Calls about the library and the driver as a whole.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::{Refusal, answered, calls, guarded, out, until_answered};

/// Starts the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    calls::count("nvmlInit_v2");
    until_answered(|| guarded(crate::state::State::init))
}

/// Starts the library; the flags change nothing here.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    calls::count("nvmlInitWithFlags");
    until_answered(|| guarded(crate::state::State::init))
}

/// Ends one initialisation.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    calls::count("nvmlShutdown");
    guarded(crate::state::State::shutdown)
}

/// A text for every code; it lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    let text = if result == 0 { c"Success" } else { c"Refused by the fake NVML" };
    text.as_ptr()
}

/// The driver's version.
///
/// # Safety
/// `version` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answered("nvmlSystemGetDriverVersion", |session| {
        let known = session.node()?.driver_version.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::text(version, length, known) }
    })
}

/// The library's version.
///
/// # Safety
/// `version` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answered("nvmlSystemGetNVMLVersion", |session| {
        let known = session.node()?.nvml_version.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::text(version, length, known) }
    })
}

/// The CUDA version of the driver.
///
/// # Safety
/// `version` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    answered("nvmlSystemGetCudaDriverVersion_v2", |session| {
        let known = *session.node()?.cuda_version.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(version, known) }
    })
}

/// How many GPUs are listed, those that do not answer among them.
///
/// # Safety
/// `count` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetCount_v2", |session| {
        let listed = c_uint::try_from(session.node()?.devices.len()).map_err(|_| Refusal::UNKNOWN)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(count, listed) }
    })
}
