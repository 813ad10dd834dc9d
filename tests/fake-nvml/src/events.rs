//! Calls about events: sets, and waiting for what the faults file says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_machine::faults::FaultEventKind;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventMigConfigChange, nvmlEventSet_t, nvmlEventTypeDoubleBitEccError,
    nvmlEventTypeSingleBitEccError, nvmlEventTypeXidCriticalError, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_TIMEOUT, nvmlReturn_t,
};

use crate::changes::Changes;
use crate::state::{Session, State};
use crate::{HANGS_POLL, Refusal, answered, calls, guarded, out};

/// What every GPU of the fake can tell.
const SUPPORTED: c_ulonglong = (nvmlEventTypeSingleBitEccError
    | nvmlEventTypeDoubleBitEccError
    | nvmlEventTypeXidCriticalError
    | nvmlEventMigConfigChange) as c_ulonglong;
/// NVML's word for "the whole GPU" where an instance could stand.
const WHOLE_GPU: c_uint = c_uint::MAX;

/// An event set.
#[derive(Debug)]
struct Set {
    /// Machine positions of its GPUs.
    gpus: BTreeSet<usize>,
    /// A watch of its own: what other calls have heard, a wait would miss.
    changes: Arc<Changes>,
}

/// Sets by number. A set's handle is its number, never an address.
static SETS: Mutex<BTreeMap<usize, Set>> = Mutex::new(BTreeMap::new());

fn sets() -> MutexGuard<'static, BTreeMap<usize, Set>> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kinds of events of a GPU.
///
/// # Safety
/// `types` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    answered("nvmlDeviceGetSupportedEventTypes", |session| {
        session.by_handle(device)?;
        // SAFETY: the caller's promise.
        unsafe { out::value(types, SUPPORTED) }
    })
}

/// Makes an empty set.
///
/// # Safety
/// `set` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    answered("nvmlEventSetCreate", |session| {
        session.node()?;
        let changes = Arc::new(Changes::near(session.faults_path()));
        let mut sets = sets();
        // Zero would be null.
        let number = sets.keys().next_back().map_or(1, |last| last.saturating_add(1));
        sets.insert(number, Set { gpus: BTreeSet::new(), changes });
        // SAFETY: the caller's promise.
        unsafe { out::value(set, std::ptr::without_provenance_mut(number)) }
    })
}

/// Adds a GPU to a set.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    answered("nvmlDeviceRegisterEvents", |session| {
        session.by_handle(device)?;
        if types & !SUPPORTED != 0 {
            return Err(Refusal::INVALID_ARGUMENT);
        }
        let mut sets = sets();
        sets.get_mut(&set.addr()).ok_or(Refusal::INVALID_ARGUMENT)?.gpus.insert(Session::position(device)?);
        Ok(())
    })
}

/// Waits for the next event of a set. Fails at once where the driver does.
///
/// # Safety
/// `data` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    calls::count("nvmlEventSetWait_v2");
    let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
    let Some(changes) = sets().get(&set.addr()).map(|set| Arc::clone(&set.changes)) else {
        return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    };
    loop {
        let mut found = false;
        let code = guarded(|state| {
            let registered = sets().get(&set.addr()).map(|set| set.gpus.clone()).ok_or(Refusal::INVALID_ARGUMENT)?;
            let Some((device, event)) = state.next_event(&registered)? else { return Ok(()) };
            found = true;
            let (kind, detail) = match event.kind {
                FaultEventKind::Xid(xid) => (nvmlEventTypeXidCriticalError, xid),
                FaultEventKind::MigConfig => (nvmlEventMigConfigChange, 0),
            };
            let told = nvmlEventData_t {
                device,
                eventType: c_ulonglong::from(kind),
                eventData: detail,
                gpuInstanceId: WHOLE_GPU,
                computeInstanceId: WHOLE_GPU,
            };
            // SAFETY: the caller's promise.
            unsafe { out::value(data, told) }
        });
        let hangs = Refusal::code(code) == Refusal::HANGS;
        if found || code != 0 && !hangs {
            return code;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && !hangs {
            return nvmlReturn_enum_NVML_ERROR_TIMEOUT;
        }
        changes.wait(if hangs { HANGS_POLL } else { left });
        // The other watch may hear of the same change a moment later.
        State::lock().refresh();
    }
}

/// Frees a set.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    calls::count("nvmlEventSetFree");
    guarded(|_| sets().remove(&set.addr()).map(|_| ()).ok_or(Refusal::INVALID_ARGUMENT))
}
