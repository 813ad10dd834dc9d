//! Asks NVML, the driver's library, and keeps each answer or its failure. The only place that knows `nvml-wrapper`.
//!
//! One GPU that does not answer costs its own answers only. What the answers mean is decided in [`crate::assemble`]. Some calls go to the
//! raw table ([`ffi`]) because the wrapper has no right form of them. One module per topic: [`identity`] (and modes), [`health`] (and the
//! PCIe link), [`links`], [`mig`] (and the fabric).

mod events;
mod ffi;
mod glance;
mod health;
mod identity;
mod links;
mod mig;
mod patience;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_model::{PciAddress, ZoneId};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use events::{EventWatch, Inbox};
use patience::{DevicePatience, Outcome, Patience};

use crate::facts::{
    Answer, DRIVER_HUNG, DRIVER_NOT_LOADED, DeviceDetail, GpuEvent, LIBRARY_INCOMPLETE, NvmlDevice, NvmlFacts,
    NvmlFailure, NvmlNode, UNKNOWN_ERROR, VERSION_MISMATCH,
};

/// Most devices asked for. NVML's own limit on x86 is 64.
const DEVICES_MAX: u32 = 64;
/// Words of a zone mask asked for: 1024 zones, the kernel's own limit.
const ZONE_MASK_WORDS: usize = 1024 / ZONE_MASK_WORD_BITS;
const ZONE_MASK_WORD_BITS: usize = 64;
/// `NVML_AFFINITY_SCOPE_NODE` of `nvml.h`.
const SCOPE_NODE: u32 = 0;

/// How long one GPU may take to answer all questions. A GPU that was asleep takes some seconds.
pub const GPU_WITHIN: Duration = Duration::from_secs(10);
/// The driver as a whole, which may have to wake every GPU at its first start, gets this many times longer.
const DRIVER_PATIENCE: u32 = 3;
/// Event threads that fail this often in a row are not started again in the same session: the clock alone must do.
const EVENT_FAILURES_MAX: u32 = 5;

pub use events::Wake;
pub use glance::{DeviceGlance, Glance};

/// Which GPUs a reading asks about their NVLinks: dozens of calls each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// All.
    Asked,
    /// Those that are not as they were. The links of the others are those of the last reading.
    Kept,
}

/// A driver library and, once it was opened, the session with it.
pub struct NvmlSource {
    library: Option<PathBuf>,
    gpu_within: Duration,
    session: Option<Arc<Nvml>>,
    driver: Patience,
    devices: DevicePatience,
    /// What the driver last said of itself, and how many GPUs it counted.
    last: Option<(u32, NvmlNode)>,
    /// What the GPUs last said, by index.
    known: Vec<Answer<NvmlDevice>>,
    /// Whether the last reading found that the driver had let the session go.
    renewed: bool,
    /// Absent when nobody wants events.
    inbox: Option<Arc<Inbox>>,
    watch: Option<EventWatch>,
    event_failures: u32,
}

impl fmt::Debug for NvmlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvmlSource").field("library", &self.library).field("open", &self.session.is_some()).finish()
    }
}

impl NvmlSource {
    /// A source that was not opened yet. `None` takes `libnvidia-ml.so.1` from the loader's search path. A GPU that does not answer
    /// `gpu_within` counts as hung until its call returns.
    #[must_use]
    pub fn new(library: Option<PathBuf>, gpu_within: Duration) -> Self {
        Self {
            library,
            gpu_within,
            session: None,
            driver: Patience::default(),
            devices: DevicePatience::default(),
            last: None,
            known: Vec::new(),
            renewed: false,
            inbox: None,
            watch: None,
            event_failures: 0,
        }
    }

    /// Also waits for events from the next reading on, in a thread that calls `wake` at each.
    #[must_use]
    pub fn with_events(mut self, wake: Wake) -> Self {
        self.inbox = Some(Arc::new(Inbox::new(wake)));
        self
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<GpuEvent> {
        let events = self.inbox.as_ref().map(|inbox| inbox.take()).unwrap_or_default();
        if events.iter().any(|event| matches!(event, GpuEvent::WaitFailed(_))) {
            self.event_failures = self.event_failures.saturating_add(1);
        } else if !events.is_empty() {
            self.event_failures = 0;
        }
        events
    }

    /// Whether the last reading found that the driver had let the session go, as it does when it is loaded anew.
    #[must_use]
    pub fn was_renewed(&self) -> bool {
        self.renewed
    }

    /// Closes the session, so that the next reading counts the GPUs in a new one.
    pub fn close(&mut self) {
        if let Some(watch) = self.watch.take() {
            // A thread that hangs keeps its part of the session. The library then counts one user more and stays as it is.
            let _ended = watch.end();
        }
        self.session = None;
    }

    /// Looks whether the driver says anything new.
    pub fn glance(&mut self) -> Glance {
        let nvml = match self.session.clone() {
            Some(nvml) => nvml,
            None => match self.open_session() {
                Outcome::Answered(Ok(nvml)) => Arc::clone(self.session.insert(nvml)),
                Outcome::Answered(Err(why)) => return Glance::NoDriver(why),
                Outcome::Hung => return Glance::Hung,
            },
        };
        let session = Arc::clone(&nvml);
        let gpu_count = match self.driver.ask(self.driver_within(), move || session.device_count()) {
            Outcome::Answered(Ok(gpu_count)) => gpu_count.min(DEVICES_MAX),
            Outcome::Answered(Err(_)) => return Glance::Broken,
            Outcome::Hung => return Glance::Hung,
        };
        let looks = self.devices.ask(gpu_count, self.gpu_within, move |index| {
            let device = nvml.device_by_index(index).map_err(failure)?;
            Ok(glance::look_at(&device))
        });
        Glance::Counted(looks.into_iter().map(or_hung).collect())
    }

    /// Asks everything once, of links what is said. A session that no longer counts its GPUs (driver reloaded) is opened anew, once.
    pub fn read(&mut self, links: Links) -> NvmlFacts {
        if links == Links::Asked {
            self.known.clear();
        }
        self.renewed = false;
        if let Some(nvml) = self.session.clone() {
            match self.read_node(&nvml) {
                Outcome::Answered(Ok(node)) => return NvmlFacts::Read(node),
                Outcome::Answered(Err(_)) => {
                    drop(nvml);
                    self.close();
                    self.renewed = true;
                    self.event_failures = 0;
                }
                Outcome::Hung => return self.hung(),
            }
        }
        let nvml = match self.open_session() {
            Outcome::Answered(Ok(nvml)) => nvml,
            Outcome::Answered(Err(why)) => return NvmlFacts::NoDriver(why),
            Outcome::Hung => return self.hung(),
        };
        match self.read_node(&nvml) {
            Outcome::Answered(Ok(node)) => {
                self.session = Some(nvml);
                NvmlFacts::Read(node)
            }
            Outcome::Answered(Err(error)) => NvmlFacts::NoDriver(format!("GPUs cannot be counted: {}", failure(error))),
            Outcome::Hung => self.hung(),
        }
    }

    /// A new session, or why there is none.
    fn open_session(&mut self) -> Outcome<Result<Arc<Nvml>, String>> {
        let library = self.library.clone();
        let open = move || open(library.as_deref()).map(Arc::new).map_err(|error| no_driver_text(&error));
        self.driver.ask(self.driver_within(), open)
    }

    fn driver_within(&self) -> Duration {
        self.gpu_within.saturating_mul(DRIVER_PATIENCE)
    }

    fn read_node(&mut self, nvml: &Arc<Nvml>) -> Outcome<Result<NvmlNode, NvmlError>> {
        let session = Arc::clone(nvml);
        let (gpu_count, mut node) = match self.driver.ask(self.driver_within(), move || read_driver(&session)) {
            Outcome::Answered(Ok(said)) => self.last.insert(said).clone(),
            Outcome::Answered(Err(error)) => return Outcome::Answered(Err(error)),
            Outcome::Hung => return Outcome::Hung,
        };
        let session = Arc::clone(nvml);
        let known: Vec<_> = std::mem::take(&mut self.known).into_iter().map(Result::ok).collect();
        let answers = self.devices.ask(gpu_count, self.gpu_within, move |index| {
            let device = session.device_by_index(index).map_err(failure)?;
            let known = usize::try_from(index).ok().and_then(|index| known.get(index)?.as_ref());
            Ok(read_device(&device, known))
        });
        node.devices = answers.into_iter().map(or_hung).collect();
        self.known.clone_from(&node.devices);
        self.watch_events(nvml, &node);
        Outcome::Answered(Ok(node))
    }

    /// A driver that does not even count: every GPU of the last count is silent.
    fn hung(&self) -> NvmlFacts {
        let Some((gpu_count, said)) = &self.last else { return NvmlFacts::NoDriver(DRIVER_HUNG.to_owned()) };
        let devices = (0..*gpu_count).map(|_| Err(NvmlFailure::Hung)).collect();
        NvmlFacts::Read(NvmlNode { devices, ..said.clone() })
    }

    /// Sees to it that a thread waits for events of just the GPUs that answer. A thread for others is told to end, and the next reading
    /// starts a new one: a reading does not wait for it.
    fn watch_events(&mut self, nvml: &Arc<Nvml>, node: &NvmlNode) {
        let Some(inbox) = &self.inbox else { return };
        let answering = node.devices.iter().flatten().filter_map(|device| device.uuid.clone().ok());
        let mut uuids: Vec<String> = answering.collect();
        uuids.sort();
        if let Some(watch) = &self.watch {
            if !watch.is_for(&uuids) {
                watch.tell_to_end();
            }
            if watch.is_for(&uuids) && !watch.failed() || !watch.has_ended() {
                return;
            }
        }
        self.watch = None;
        if !uuids.is_empty() && self.event_failures < EVENT_FAILURES_MAX {
            self.watch = EventWatch::start(Arc::clone(nvml), uuids, Arc::clone(inbox));
        }
    }
}

fn or_hung<T>(answer: Outcome<Answer<T>>) -> Answer<T> {
    match answer {
        Outcome::Answered(answer) => answer,
        Outcome::Hung => Err(NvmlFailure::Hung),
    }
}

fn open(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    let mut builder = Nvml::builder();
    if let Some(library) = library {
        builder.lib_path(library.as_os_str());
    }
    builder.init()
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
        // A value newer than the wrapper says nothing against the device.
        NvmlError::NotSupported | NvmlError::UnexpectedVariant(_) => NvmlFailure::NotSupported,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => NvmlFailure::NoSymbol,
        NvmlError::GpuLost => NvmlFailure::Lost,
        NvmlError::ResetRequired => NvmlFailure::ResetRequired,
        NvmlError::NoPermission => NvmlFailure::NoPermission,
        NvmlError::Unknown => NvmlFailure::Other(UNKNOWN_ERROR.to_owned()),
        other => NvmlFailure::Other(other.to_string()),
    }
}

/// Counts the GPUs and asks what is not about one of them.
fn read_driver(nvml: &Nvml) -> Result<(u32, NvmlNode), NvmlError> {
    let gpu_count = nvml.device_count()?.min(DEVICES_MAX);
    let node = NvmlNode {
        driver_version: nvml.sys_driver_version().map_err(failure),
        nvml_version: nvml.sys_nvml_version().map_err(failure),
        cuda_version: nvml.sys_cuda_driver_version().map_err(failure),
        devices: Vec::new(),
    };
    Ok((gpu_count, node))
}

/// Asks about a GPU; its links are those of `known` while nothing speaks for a change.
fn read_device(device: &Device<'_>, known: Option<&NvmlDevice>) -> NvmlDevice {
    let mut read = NvmlDevice {
        uuid: device.uuid().map_err(failure),
        pci: device.pci_info().map_err(failure).and_then(|info| parse_address(&info.bus_id)),
        product: device.name().map_err(failure),
        memory_bytes: read_memory(device),
        mig_enabled: device.mig_mode().map(|mode| mode.current == ffi::MIG_ENABLED).map_err(failure),
        memory_affinity: device.memory_affinity(ZONE_MASK_WORDS, SCOPE_NODE).map(|mask| zones(&mask)).map_err(failure),
        memory_zone: device.numa_node_id().map_err(failure).and_then(parse_zone),
        nvlinks: Ok(Vec::new()),
        detail: DeviceDetail {
            identity: identity::read_identity(device),
            modes: identity::read_modes(device),
            wear: health::read_wear(device),
            pcie: health::read_pcie(device),
            parts: mig::read(device),
        },
    };
    let holds = |known: &&NvmlDevice| {
        known.nvlinks.is_ok()
            && known.uuid == read.uuid
            && known.mig_enabled == read.mig_enabled
            && known.detail.parts.fabric == read.detail.parts.fabric
    };
    read.nvlinks = known.filter(holds).map_or_else(|| links::read(device), |known| known.nvlinks.clone());
    read
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
