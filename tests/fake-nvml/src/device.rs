//! Calls about one GPU: handles, identity, memory, locality.

use std::ffi::{CStr, c_char, c_uint, c_ulong};

use berth_model::{CpuSet, PciAddress, PcieLevel};
use berth_probe::facts::NvmlDevice;
use nvml_wrapper_sys::bindings::{
    nvmlAffinityScope_t, nvmlDevice_t, nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE,
    nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL, nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE,
    nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE, nvmlGpuLevel_enum_NVML_TOPOLOGY_SINGLE,
    nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM, nvmlGpuTopologyLevel_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH, nvmlReturn_enum_NVML_ERROR_NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED, nvmlReturn_t,
};

use crate::state::Session;
use crate::{Refusal, answered, out};

/// Size of the name buffer that every caller has. Source: `NVML_DEVICE_NAME_V2_BUFFER_SIZE` and `NVML_DEVICE_UUID_BUFFER_SIZE` in `nvml.h`.
const SEARCH_TEXT_BYTES_MAX: usize = 96;
/// `sizeof(nvmlMemory_v2_t) | (2 << 24)`.
const MEMORY_V2_VERSION: c_uint = 40 | (2 << 24);

/// The handle of the GPU at an index.
///
/// # Safety
/// `device` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    answered("nvmlDeviceGetHandleByIndex_v2", |session| {
        let index = usize::try_from(index).map_err(|_| Refusal::INVALID_ARGUMENT)?;
        let (handle, _) = session.by_index(index)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(device, handle) }
    })
}

/// The handle of the GPU with a UUID.
///
/// # Safety
/// `uuid` is null or a C string; `device` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    answered("nvmlDeviceGetHandleByUUID", |session| {
        // SAFETY: the caller's promise.
        let wanted = unsafe { search_text(uuid) }?;
        let handle = find(session, |d| d.uuid.as_deref() == Ok(wanted.as_str()))?;
        // SAFETY: the caller's promise.
        unsafe { out::value(device, handle) }
    })
}

/// The handle of the GPU at a PCI address.
///
/// # Safety
/// `bus_id` is null or a C string; `device` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetHandleByPciBusId_v2", |session| {
        // SAFETY: the caller's promise.
        let wanted = unsafe { search_text(bus_id) }?;
        let wanted = PciAddress::parse(&wanted).map_err(|_| Refusal::INVALID_ARGUMENT)?;
        let handle = find(session, |d| d.pci == Ok(wanted))?;
        // SAFETY: the caller's promise.
        unsafe { out::value(device, handle) }
    })
}

/// # Safety
/// `text` is null or a C string.
unsafe fn search_text(text: *const c_char) -> Result<String, Refusal> {
    if text.is_null() {
        return Err(Refusal::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Refusal::INVALID_ARGUMENT)?;
    if text.len() >= SEARCH_TEXT_BYTES_MAX { Err(Refusal::INVALID_ARGUMENT) } else { Ok(text.to_owned()) }
}

fn find(session: &Session, is_it: impl Fn(&NvmlDevice) -> bool) -> Result<nvmlDevice_t, Refusal> {
    let devices = (0..session.node()?.devices.len()).filter_map(|index| session.by_index(index).ok());
    let mut found = devices.filter(|(_, device)| is_it(device));
    found.next().map(|(handle, _)| handle).ok_or(Refusal::code(nvmlReturn_enum_NVML_ERROR_NOT_FOUND))
}

/// The product's name.
///
/// # Safety
/// `name` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetName", |session| {
        let (_, known, _) = session.by_handle(device)?;
        // SAFETY: the caller's promise.
        unsafe { out::text(name, length, known.product.as_ref().map_err(Refusal::from)?) }
    })
}

/// The GPU's UUID.
///
/// # Safety
/// `uuid` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetUUID", |session| {
        if let Some(mig) = crate::mig::uuid(session, device) {
            // SAFETY: the caller's promise.
            return unsafe { out::text(uuid, length, &mig) };
        }
        let (_, known, _) = session.by_handle(device)?;
        // SAFETY: the caller's promise.
        unsafe { out::text(uuid, length, known.uuid.as_ref().map_err(Refusal::from)?) }
    })
}

/// The GPU's NVML index.
///
/// # Safety
/// `index` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetIndex", |session| {
        let (position, ..) = session.by_handle(device)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(index, c_uint::try_from(position).map_err(|_| Refusal::UNKNOWN)?) }
    })
}

/// The GPU's place on the PCI bus.
///
/// # Safety
/// `info` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, info: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    answered("nvmlDeviceGetPciInfo_v3", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let address = known.pci.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(info, out::pci_info(*address)) }
    })
}

/// Memory by the first form of the call.
///
/// # Safety
/// `memory` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: *mut nvmlMemory_t) -> nvmlReturn_t {
    answered("nvmlDeviceGetMemoryInfo", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let total = *known.memory_bytes.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(memory, nvmlMemory_t { total, free: total, used: 0 }) }
    })
}

/// Memory by the second form of the call.
///
/// # Safety
/// `memory` is null, or valid for reading its version and for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetMemoryInfo_v2", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let total = *known.memory_bytes.as_ref().map_err(Refusal::from)?;
        if memory.is_null() {
            return Err(Refusal::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller vouches for the rest.
        let version = unsafe { (*memory).version };
        if version != MEMORY_V2_VERSION {
            return Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH));
        }
        let reserved = *known.detail.identity.memory_reserved_bytes.as_ref().map_err(Refusal::from)?;
        let free = total.saturating_sub(reserved);
        // SAFETY: as above.
        unsafe { out::value(memory, nvmlMemory_v2_t { version, total, reserved, free, used: 0 }) }
    })
}

/// MIG mode, now and after the next reset.
///
/// # Safety
/// `current` and `pending` are null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetMigMode", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let enabled = c_uint::from(*known.mig_enabled.as_ref().map_err(Refusal::from)?);
        let later = c_uint::from(*known.detail.parts.mig_pending.as_ref().map_err(Refusal::from)?);
        // SAFETY: the caller's promise.
        unsafe { out::value(current, enabled).and_then(|()| out::value(pending, later)) }
    })
}

/// CPUs near the GPU.
///
/// # Safety
/// `cpus` is null or valid for `words` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCpuAffinity(
    device: nvmlDevice_t,
    words: c_uint,
    cpus: *mut c_ulong,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetCpuAffinity", |session| {
        let near = cpus_near(session, device)?;
        // SAFETY: the caller's promise.
        unsafe { out::mask(cpus, words, near.cpus()) }
    })
}

/// CPUs near the GPU; both scopes give those of its zone.
///
/// # Safety
/// `cpus` is null or valid for `words` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCpuAffinityWithinScope(
    device: nvmlDevice_t,
    words: c_uint,
    cpus: *mut c_ulong,
    _scope: nvmlAffinityScope_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetCpuAffinityWithinScope", |session| {
        let near = cpus_near(session, device)?;
        // SAFETY: the caller's promise.
        unsafe { out::mask(cpus, words, near.cpus()) }
    })
}

fn cpus_near(session: &Session, device: nvmlDevice_t) -> Result<CpuSet, Refusal> {
    let (_, _, gpu) = session.by_handle(device)?;
    let zone = session.machine().zones.iter().find(|z| Some(z.id) == gpu.zone);
    zone.and_then(|z| z.cpus.clone()).ok_or(Refusal::code(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED))
}

/// Zones near the GPU.
///
/// # Safety
/// `zones` is null or valid for `words` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryAffinity(
    device: nvmlDevice_t,
    words: c_uint,
    zones: *mut c_ulong,
    _scope: nvmlAffinityScope_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetMemoryAffinity", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let near = known.memory_affinity.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::mask(zones, words, near.iter().map(|z| u32::from(z.0))) }
    })
}

/// The zone that the GPU's own memory is.
///
/// # Safety
/// `zone` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNumaNodeId(device: nvmlDevice_t, zone: *mut c_uint) -> nvmlReturn_t {
    answered("nvmlDeviceGetNumaNodeId", |session| {
        let (_, known, _) = session.by_handle(device)?;
        let own = known.memory_zone.as_ref().map_err(Refusal::from)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(zone, c_uint::from(own.0)) }
    })
}

/// The PCIe level between two GPUs.
///
/// # Safety
/// `level` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    device: nvmlDevice_t,
    other: nvmlDevice_t,
    level: *mut nvmlGpuTopologyLevel_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetTopologyCommonAncestor", |session| {
        let ((_, _, a), (_, _, b)) = (session.by_handle(device)?, session.by_handle(other)?);
        let between = if a.path == b.path { None } else { Some(a.path.level(a.zone, &b.path, b.zone)) };
        let answer = match between {
            None => nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL,
            Some(Some(PcieLevel::Pix)) => nvmlGpuLevel_enum_NVML_TOPOLOGY_SINGLE,
            Some(Some(PcieLevel::Pxb)) => nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE,
            Some(Some(PcieLevel::Phb)) => nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE,
            Some(Some(PcieLevel::Node)) => nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE,
            // NVML has no word for unknown and calls it the rest.
            Some(Some(PcieLevel::Sys) | None) => nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM,
        };
        // SAFETY: the caller's promise.
        unsafe { out::value(level, answer) }
    })
}
