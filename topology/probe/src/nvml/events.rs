//! Waits for the driver's events in a thread of its own and keeps them until the next reading. What an event means is not decided here.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;

use super::{failure, ffi};
use crate::facts::GpuEvent;

/// How long one wait lasts. The device plugin waits as long; a shorter one wakes a quiet node more often.
const WAIT_MS: u32 = 5_000;
/// A thread that was told to end gets this long: one wait and a little. It holds the session that is to be closed.
const END_WITHIN: Duration = Duration::from_millis(5_500);
/// How often the end of the thread is looked for.
const END_POLL: Duration = Duration::from_millis(5);
/// Most events kept until a reading takes them. A GPU that fails tells the same thing hundreds of times.
const EVENTS_MAX: usize = 256;
/// Is called when an event came in. Must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Events that no reading has taken yet.
pub(super) struct Inbox {
    events: Mutex<Vec<GpuEvent>>,
    wake: Wake,
}

impl Inbox {
    pub(super) fn new(wake: Wake) -> Self {
        Self { events: Mutex::default(), wake }
    }

    pub(super) fn take(&self) -> Vec<GpuEvent> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, event: GpuEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() < EVENTS_MAX && !events.contains(&event) {
            events.push(event);
        }
        drop(events);
        (self.wake)();
    }
}

/// A thread that waits for events of some GPUs.
pub(super) struct EventWatch {
    /// The GPUs that it was started for.
    uuids: Vec<String>,
    end: Arc<AtomicBool>,
    /// Whether waiting ended before it was told to, other than for want of events on this driver.
    failed: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for EventWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWatch").field("uuids", &self.uuids).finish_non_exhaustive()
    }
}

impl EventWatch {
    /// Starts to wait for events of the GPUs of these UUIDs; `None` when the machine has no thread to spare.
    pub(super) fn start(nvml: Arc<Nvml>, uuids: Vec<String>, inbox: Arc<Inbox>) -> Option<Self> {
        let (end, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (uuids, end, failed) = (uuids.clone(), Arc::clone(&end), Arc::clone(&failed));
            Builder::new().name("nvml-events".to_owned()).spawn(move || {
                match watch(&nvml, &uuids, &end, &failed, &inbox) {
                    // A driver without events is asked by the clock alone.
                    Ok(())
                    | Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
                    }
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        inbox.put(GpuEvent::WaitFailed(failure(error)));
                    }
                }
            })
        };
        Some(Self { uuids, end, failed, thread: thread.ok()? })
    }

    /// Whether it was started for just these GPUs.
    pub(super) fn is_for(&self, uuids: &[String]) -> bool {
        self.uuids == uuids
    }

    /// Tells it to end, without waiting for it.
    pub(super) fn tell_to_end(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Whether waiting failed. A thread that ended without failing has nothing to wait for.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has ended, so that the session can be closed; false when its call hangs.
    pub(super) fn end(self) -> bool {
        self.tell_to_end();
        let deadline = Instant::now() + END_WITHIN;
        while !self.has_ended() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(END_POLL);
        }
        true
    }
}

fn watch(nvml: &Nvml, uuids: &[String], end: &AtomicBool, failed: &AtomicBool, inbox: &Inbox) -> Result<(), NvmlError> {
    let (set, watched) = register(nvml, uuids)?;
    if watched.is_empty() {
        return Ok(());
    }
    while !end.load(Ordering::Relaxed) {
        let event = match set.wait(WAIT_MS) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => continue,
            Err(error) => return Err(error),
        };
        // Asked for its UUID, a GPU that was lost just now would not answer; its handle is that of its registration.
        let handle = ffi::handle_address(&event.device);
        let uuid = watched.iter().find(|(known, _)| *known == handle).map(|(_, uuid)| uuid.clone());
        if uuid.is_none() {
            // The GPUs will be counted anew, in a session that this one must not keep waiting.
            failed.store(true, Ordering::Relaxed);
            end.store(true, Ordering::Relaxed);
        }
        inbox.put(match event.event_data {
            Some(XidError::Value(xid)) => GpuEvent::Xid { uuid, xid },
            // NVML says 999 for an Xid that it cannot tell.
            Some(XidError::Unknown) => GpuEvent::Xid { uuid, xid: 999 },
            None => GpuEvent::Other { uuid },
        });
    }
    Ok(())
}

/// Makes a set with the GPUs that can be watched. The wrapper frees a set in which a GPU could not be registered, so that GPU is left out
/// and the others are registered anew.
fn register<'n>(nvml: &'n Nvml, uuids: &[String]) -> Result<(EventSet<'n>, Vec<(usize, String)>), NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR | EventTypes::MIG_CONFIG_CHANGE;
    let mut refused: Vec<String> = Vec::new();
    'anew: loop {
        let mut set = nvml.create_event_set()?;
        let mut watched = Vec::new();
        for uuid in uuids.iter().filter(|uuid| !refused.contains(uuid)).cloned().collect::<Vec<_>>() {
            let Ok(device) = nvml.device_by_uuid(uuid.as_str()) else { continue };
            let Ok(types) = device.supported_event_types() else { continue };
            let types = types & wanted;
            if types.is_empty() {
                continue;
            }
            set = match device.register_events(types, set) {
                Ok(set) => set,
                Err(_) => {
                    refused.push(uuid);
                    continue 'anew;
                }
            };
            watched.push((ffi::handle_address(&device), uuid.clone()));
        }
        return Ok((set, watched));
    }
}
