//! Asks NVML, the driver's library, and keeps each answer or its failure. The only place that knows `nvml-wrapper`.
//!
//! One GPU that does not answer costs its own answers only. What the answers mean is decided in [`crate::assemble`]. Two calls go to the
//! raw table ([`ffi`]) because the wrapper has no right form of them.

mod ffi;

use std::fmt;
use std::path::PathBuf;

use berth_model::{Link, PciAddress, ZoneId};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::facts::{
    Answer, DRIVER_NOT_LOADED, LIBRARY_INCOMPLETE, NvLinkFacts, NvmlDevice, NvmlFacts, NvmlFailure, NvmlNode,
    UNKNOWN_ERROR, VERSION_MISMATCH,
};

/// Most devices asked for. NVML's own limit on x86 is 64.
const DEVICES_MAX: u32 = 64;
/// Words of a zone mask asked for: 1024 zones, the kernel's own limit.
const ZONE_MASK_WORDS: usize = 1024 / ZONE_MASK_WORD_BITS;
const ZONE_MASK_WORD_BITS: usize = 64;
/// `NVML_AFFINITY_SCOPE_NODE` of `nvml.h`.
const SCOPE_NODE: u32 = 0;

/// A driver library and, once it was opened, the session with it.
pub struct NvmlSource {
    library: Option<PathBuf>,
    session: Option<Nvml>,
}

impl fmt::Debug for NvmlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvmlSource").field("library", &self.library).field("open", &self.session.is_some()).finish()
    }
}

impl NvmlSource {
    /// A source that was not opened yet. `None` takes `libnvidia-ml.so.1` from the loader's search path.
    #[must_use]
    pub fn new(library: Option<PathBuf>) -> Self {
        Self { library, session: None }
    }

    /// Asks everything once. A session that no longer counts its GPUs (driver reloaded) is opened anew, once.
    pub fn read(&mut self) -> NvmlFacts {
        if let Some(nvml) = &self.session {
            if let Ok(node) = read_node(nvml) {
                return NvmlFacts::Read(node);
            }
            self.session = None;
        }
        let nvml = match self.open() {
            Ok(nvml) => nvml,
            Err(error) => return NvmlFacts::NoDriver(no_driver_text(&error)),
        };
        match read_node(&nvml) {
            Ok(node) => {
                self.session = Some(nvml);
                NvmlFacts::Read(node)
            }
            Err(error) => NvmlFacts::NoDriver(format!("GPUs cannot be counted: {}", failure(error))),
        }
    }

    fn open(&self) -> Result<Nvml, NvmlError> {
        let mut builder = Nvml::builder();
        if let Some(library) = &self.library {
            builder.lib_path(library.as_os_str());
        }
        builder.init()
    }
}

/// Why there is no session, in words that stay the same for the same cause.
fn no_driver_text(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(cause) => format!("the NVIDIA driver library cannot be loaded: {cause}"),
        NvmlError::DriverNotLoaded => DRIVER_NOT_LOADED.to_owned(),
        NvmlError::LibraryNotFound => LIBRARY_INCOMPLETE.to_owned(),
        NvmlError::LibRmVersionMismatch => VERSION_MISMATCH.to_owned(),
        NvmlError::FailedToLoadSymbol(_) => "the NVIDIA driver library lacks nvmlInit_v2".to_owned(),
        other => format!("NVML does not start: {other}"),
    }
}

fn failure(error: NvmlError) -> NvmlFailure {
    match error {
        NvmlError::NotSupported => NvmlFailure::NotSupported,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => NvmlFailure::NoSymbol,
        NvmlError::GpuLost => NvmlFailure::Lost,
        NvmlError::ResetRequired => NvmlFailure::ResetRequired,
        NvmlError::NoPermission => NvmlFailure::NoPermission,
        NvmlError::Unknown => NvmlFailure::Other(UNKNOWN_ERROR.to_owned()),
        other => NvmlFailure::Other(other.to_string()),
    }
}

fn read_node(nvml: &Nvml) -> Result<NvmlNode, NvmlError> {
    let count = nvml.device_count()?.min(DEVICES_MAX);
    let devices = (0..count).map(|index| {
        let device = nvml.device_by_index(index).map_err(failure)?;
        Ok(read_device(&device))
    });
    let devices = devices.collect();
    Ok(NvmlNode { driver_version: nvml.sys_driver_version().map_err(failure), devices })
}

fn read_device(device: &Device<'_>) -> NvmlDevice {
    NvmlDevice {
        uuid: device.uuid().map_err(failure),
        pci: device.pci_info().map_err(failure).and_then(|info| parse_address(&info.bus_id)),
        product: device.name().map_err(failure),
        memory_bytes: read_memory(device),
        mig_enabled: device.mig_mode().map(|mode| mode.current == ffi::MIG_ENABLED).map_err(failure),
        memory_affinity: device.memory_affinity(ZONE_MASK_WORDS, SCOPE_NODE).map(|mask| zones(&mask)).map_err(failure),
        memory_zone: device.numa_node_id().map_err(failure).and_then(parse_zone),
        nvlinks: read_nvlinks(device),
    }
}

/// The second form of the call also counts reserved memory; drivers before 510 have the first one only, with the same total.
fn read_memory(device: &Device<'_>) -> Answer<u64> {
    match device.memory_info().map_err(failure) {
        Ok(info) => Ok(info.total),
        Err(NvmlFailure::NoSymbol) => ffi::memory_total(device).map_err(failure),
        Err(why) => Err(why),
    }
}

fn parse_address(bus_id: &str) -> Answer<PciAddress> {
    PciAddress::parse(bus_id).map_err(|error| NvmlFailure::Other(error.to_string()))
}

fn parse_zone(id: u32) -> Answer<ZoneId> {
    // -1 in unsigned dress: NVML's word for "none" on some drivers.
    u16::try_from(id).map(ZoneId).map_err(|_| NvmlFailure::NotSupported)
}

fn zones(mask: &[std::ffi::c_ulong]) -> Vec<ZoneId> {
    let words = (0_u16..).step_by(ZONE_MASK_WORD_BITS).zip(mask);
    let zones = words.flat_map(|(first, word)| {
        let bits = (0_u16..).zip(0..u64::BITS).filter(move |(_, bit)| (word >> bit) & 1 == 1);
        bits.map(move |(offset, _)| ZoneId(first.saturating_add(offset)))
    });
    zones.collect()
}

/// Every link number is tried: boards have gaps. A refusal of number 0 that is not "no such link" stands for all.
fn read_nvlinks(device: &Device<'_>) -> Answer<Vec<NvLinkFacts>> {
    let mut links = Vec::new();
    for number in 0..u32::from(Link::NVLINKS_MAX) {
        let active = match device.link_wrapper_for(number).is_active() {
            Err(NvmlError::InvalidArg | NvmlError::NotSupported) => continue,
            answer => answer.map_err(failure),
        };
        match active {
            Err(why) if number == 0 => return Err(why),
            active => links.push(read_nvlink(device, number, active)),
        }
    }
    Ok(links)
}

/// A link that is down knows nothing of its far end.
fn read_nvlink(device: &Device<'_>, number: u32, active: Answer<bool>) -> NvLinkFacts {
    if active != Ok(true) {
        return NvLinkFacts {
            active,
            remote: Err(NvmlFailure::NotSupported),
            remote_pci: Err(NvmlFailure::NotSupported),
        };
    }
    let remote_pci = device.link_wrapper_for(number).remote_pci_info().map_err(failure);
    NvLinkFacts {
        active,
        remote: ffi::remote_device_type(device, number).map_err(failure),
        remote_pci: remote_pci.and_then(|info| parse_address(&info.bus_id)),
    }
}
