//! Calls about one GPU that answer with one value: identity, modes, wear, PCIe link.

use std::ffi::{c_char, c_uint, c_ulonglong};

use berth_model::gpu::detail::{Architecture, ComputeMode, HostVgpu, Virtualization};
use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_ARCH_ADA, NVML_DEVICE_ARCH_AMPERE, NVML_DEVICE_ARCH_BLACKWELL, NVML_DEVICE_ARCH_HOPPER,
    NVML_DEVICE_ARCH_KEPLER, NVML_DEVICE_ARCH_MAXWELL, NVML_DEVICE_ARCH_PASCAL, NVML_DEVICE_ARCH_TURING,
    NVML_DEVICE_ARCH_VOLTA, nvmlDevice_t, nvmlEccCounterType_enum_NVML_AGGREGATE_ECC,
    nvmlEccCounterType_enum_NVML_VOLATILE_ECC, nvmlEccCounterType_t,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvmlMemoryErrorType_t,
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR, nvmlPageRetirementCause_t,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED, nvmlReturn_t,
};

use crate::{Refusal, answered, out};

/// P8 of a GPU that is not in its fastest state.
const IDLE_STATE: c_uint = 8;

macro_rules! getters {
    ($($(#[$doc:meta])* $symbol:ident: $kind:ty = |$known:ident| $answer:expr;)+) => {
        $($(#[$doc])*
        ///
        /// # Safety
        /// `to` is null or valid for writing.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(device: nvmlDevice_t, to: *mut $kind) -> nvmlReturn_t {
            answered(stringify!($symbol), |session| {
                let (_, device, _) = session.by_handle(device)?;
                let $known = &device.detail;
                // SAFETY: the caller's promise.
                unsafe { out::value(to, $answer) }
            })
        })+
    };
}

getters! {
    /// The number of the GPU's device file.
    nvmlDeviceGetMinorNumber: c_uint = |known| *known.identity.minor.as_ref().map_err(Refusal::from)?;
    /// Architecture.
    nvmlDeviceGetArchitecture: c_uint = |known| match known.identity.architecture.as_ref().map_err(Refusal::from)? {
        Architecture::Kepler => NVML_DEVICE_ARCH_KEPLER,
        Architecture::Maxwell => NVML_DEVICE_ARCH_MAXWELL,
        Architecture::Pascal => NVML_DEVICE_ARCH_PASCAL,
        Architecture::Volta => NVML_DEVICE_ARCH_VOLTA,
        Architecture::Turing => NVML_DEVICE_ARCH_TURING,
        Architecture::Ampere => NVML_DEVICE_ARCH_AMPERE,
        Architecture::Ada => NVML_DEVICE_ARCH_ADA,
        Architecture::Hopper => NVML_DEVICE_ARCH_HOPPER,
        Architecture::Blackwell => NVML_DEVICE_ARCH_BLACKWELL,
    };
    /// Whether the driver keeps the GPU initialised.
    nvmlDeviceGetPersistenceMode: c_uint = |known|
        c_uint::from(*known.modes.persistence.as_ref().map_err(Refusal::from)?);
    /// Who may make contexts, by the numbers of `nvml.h`.
    nvmlDeviceGetComputeMode: c_uint = |known| match known.modes.compute.as_ref().map_err(Refusal::from)? {
        ComputeMode::Default => 0,
        ComputeMode::ExclusiveThread => 1,
        ComputeMode::Prohibited => 2,
        ComputeMode::ExclusiveProcess => 3,
    };
    /// Guest, host or bare metal, by the numbers of `nvml.h`.
    nvmlDeviceGetVirtualizationMode: c_uint = |known|
        match known.modes.virtualization.as_ref().map_err(Refusal::from)? {
            Virtualization::None => 0,
            Virtualization::Passthrough => 1,
            Virtualization::Vgpu => 2,
            Virtualization::HostVgpu => 3,
            Virtualization::HostVsga => 4,
        };
    /// How the GPU serves vGPUs.
    nvmlDeviceGetHostVgpuMode: c_uint = |known| match known.modes.host_vgpu.as_ref().map_err(Refusal::from)? {
        HostVgpu::NonSriov => 0,
        HostVgpu::Sriov => 1,
    };
    /// Performance state.
    nvmlDeviceGetPerformanceState: c_uint = |known|
        if *known.modes.fastest.as_ref().map_err(Refusal::from)? { 0 } else { IDLE_STATE };
    /// Whether pages wait for a reset.
    nvmlDeviceGetRetiredPagesPendingStatus: c_uint = |known|
        c_uint::from(*known.wear.retirement_pending.as_ref().map_err(Refusal::from)?);
    /// PCIe generation now.
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint = |known| *known.pcie.generation.as_ref().map_err(Refusal::from)?;
    /// Highest PCIe generation.
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = |known| *known.pcie.generation_max.as_ref().map_err(Refusal::from)?;
    /// PCIe lanes now.
    nvmlDeviceGetCurrPcieLinkWidth: c_uint = |known| *known.pcie.width.as_ref().map_err(Refusal::from)?;
    /// Most PCIe lanes.
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = |known| *known.pcie.width_max.as_ref().map_err(Refusal::from)?;
}

/// Serial number.
///
/// # Safety
/// `serial` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(
    device: nvmlDevice_t,
    serial: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetSerial", |session| {
        let (_, known, _) = session.by_handle(device)?;
        // SAFETY: the caller's promise.
        unsafe { out::text(serial, length, known.detail.identity.serial.as_ref().map_err(Refusal::from)?) }
    })
}

/// Part number of the board.
///
/// # Safety
/// `part` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetBoardPartNumber(
    device: nvmlDevice_t,
    part: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetBoardPartNumber", |session| {
        let (_, known, _) = session.by_handle(device)?;
        // SAFETY: the caller's promise.
        unsafe { out::text(part, length, known.detail.identity.part_number.as_ref().map_err(Refusal::from)?) }
    })
}

/// ECC mode, now and after the next reset.
///
/// # Safety
/// `current` and `pending` are null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetEccMode", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let ecc = known.detail.modes.ecc.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(current, ecc.now.into()).and_then(|()| out::value(pending, ecc.pending.into())) }
    })
}

/// ECC errors. Only uncorrectable ones are known.
///
/// # Safety
/// `count` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetTotalEccErrors", |session| {
        let (_, known, _) = session.by_handle(device)?;
        if kind != nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED {
            return Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED));
        }
        let counted = match counter {
            c if c == nvmlEccCounterType_enum_NVML_VOLATILE_ECC => &known.detail.wear.ecc_volatile,
            c if c == nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => &known.detail.wear.ecc_aggregate,
            _ => return Err(Refusal::INVALID_ARGUMENT),
        };
        // SAFETY: the caller's promise.
        unsafe { out::value(count, *counted.as_ref().map_err(Refusal::from)?) }
    })
}

/// Retired pages; all of them for double-bit errors, none for single-bit ones. Addresses and times stay as they are.
///
/// # Safety
/// `count` is null or valid for reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: *mut c_uint,
    _addresses: *mut c_ulonglong,
    _times: *mut c_ulonglong,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetRetiredPages_v2", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let pages = *known.detail.wear.retired_pages.as_ref().map_err(Refusal::from)?;
        let double = nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR;
        // SAFETY: the caller's promise.
        unsafe { out::count(count, if cause == double { pages } else { 0 }) }
    })
}

/// Row remapping.
///
/// # Safety
/// All four are null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetRemappedRows", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let remap = known.detail.wear.remap.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe {
            out::value(correctable, remap.correctable)?;
            out::value(uncorrectable, remap.uncorrectable)?;
            out::value(pending, remap.pending.into())?;
            out::value(failed, remap.failed.into())
        }
    })
}
