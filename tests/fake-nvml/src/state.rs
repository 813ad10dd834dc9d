//! The library's state: which machine, what is broken now, and which handles are ours.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_machine::faults::FaultEvent;
use berth_machine::machine::MachineGpu;
use berth_machine::{Faults, Machine, Salt, nvml};
use berth_probe::facts::{DRIVER_HUNG, DRIVER_NOT_LOADED, LIBRARY_INCOMPLETE, NvmlDevice, NvmlFacts, NvmlNode};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED, nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND,
};

use crate::Refusal;
use crate::changes::Changes;

/// A handle is the address of a byte, so that a stranger's handle is told apart. Every GPU has [`HANDLES_PER_GPU`]: its own, those of its
/// MIG devices, and those of its GPU instances.
static HANDLES: [u8; 64 * HANDLES_PER_GPU] = [0; 64 * HANDLES_PER_GPU];
const HANDLES_PER_GPU: usize = 32;
/// Where the handles of MIG devices begin, and those of GPU instances.
const MIG_DEVICES_AT: usize = 1;
const INSTANCES_AT: usize = 16;
static STATE: Mutex<State> = Mutex::new(State { session: None, init_count: 0, told: BTreeSet::new() });

/// What the library remembers between calls.
pub(crate) struct State {
    session: Option<Session>,
    init_count: u32,
    /// Ids of events that were told. They outlive the session: what a process was told is not news after a driver reload.
    told: BTreeSet<u64>,
}

impl State {
    pub(crate) fn lock() -> MutexGuard<'static, Self> {
        // A panic under the lock left a whole state: every change is one assignment.
        STATE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the machine. NVML counts initialisations: each one needs its shutdown.
    pub(crate) fn init(&mut self) -> Result<(), Refusal> {
        if self.session.is_none() {
            let session = Session::load().map_err(|why| {
                eprintln!("berth-fake-nvml: {why}");
                Refusal::UNKNOWN
            })?;
            session.node()?;
            pin();
            self.session = Some(session);
        }
        self.init_count = self.init_count.saturating_add(1);
        Ok(())
    }

    pub(crate) fn shutdown(&mut self) -> Result<(), Refusal> {
        if self.session.is_none() {
            return Err(Refusal::UNINITIALIZED);
        }
        self.init_count = self.init_count.saturating_sub(1);
        if self.init_count == 0 {
            self.session = None;
        }
        Ok(())
    }

    /// The session with the faults of now; `None` before init.
    pub(crate) fn session(&mut self) -> Option<&Session> {
        let session = self.session.as_mut()?;
        session.refresh();
        Some(&*session).filter(|session| session.faults.reloads == session.begun_after)
    }

    /// Reads the faults, changed or not.
    pub(crate) fn refresh(&mut self) {
        if let Some(session) = &mut self.session {
            session.read_faults();
        }
    }

    /// The next event that was not told, of a registered GPU or of none; `None` when there is none now.
    pub(crate) fn next_event(
        &mut self,
        registered: &BTreeSet<usize>,
    ) -> Result<Option<(nvmlDevice_t, FaultEvent)>, Refusal> {
        let session = self.session().ok_or(Refusal::UNINITIALIZED)?;
        session.node()?;
        let events = session.faults.events.clone();
        let is_heard = |e: &FaultEvent| e.gpu.is_none_or(|gpu| registered.contains(&usize::from(gpu)));
        let Some(event) = events.into_iter().find(|e| is_heard(e) && !self.told.contains(&e.id)) else {
            return Ok(None);
        };
        self.told.insert(event.id);
        let handle = event.gpu.and_then(|gpu| handle_at(usize::from(gpu).saturating_mul(HANDLES_PER_GPU)));
        Ok(Some((handle.map_or(std::ptr::null_mut(), |handle| handle.cast()), event)))
    }
}

/// A machine being served.
pub(crate) struct Session {
    machine: Machine,
    salt: Salt,
    faults_path: PathBuf,
    changes: Changes,
    faults_text: String,
    faults: Faults,
    answers: NvmlFacts,
    /// Reloads of the driver before this session.
    begun_after: u64,
}

impl Session {
    fn load() -> Result<Self, String> {
        let machine_path = configured("BERTH_FAKE_MACHINE", "machine.yaml")?;
        let text = std::fs::read_to_string(&machine_path).map_err(|e| format!("{}: {e}", machine_path.display()))?;
        let machine = Machine::parse(&text).map_err(|e| format!("{}: {e}", machine_path.display()))?;
        let salt = match std::env::var("BERTH_FAKE_NODE") {
            Ok(node) => Salt::new(node),
            Err(_) => {
                let path = beside_library("node")?;
                Salt::new(std::fs::read_to_string(path).unwrap_or_default().trim())
            }
        };
        let faults_path = configured("BERTH_FAKE_FAULTS", "faults.yaml")?;
        let faults = Faults::default();
        let answers = nvml::answers(&machine, &salt, &faults);
        // Before the file is read, so that no change falls in between.
        let changes = Changes::near(&faults_path);
        let faults_text = String::new();
        let mut session = Self { machine, salt, faults_path, changes, faults_text, faults, answers, begun_after: 0 };
        session.read_faults();
        session.begun_after = session.faults.reloads;
        Ok(session)
    }

    /// Reads the faults anew where they may have changed.
    fn refresh(&mut self) {
        if self.changes.any() {
            self.read_faults();
        }
    }

    /// Reads the faults anew. A file that is wrong leaves the last good ones, and says so.
    fn read_faults(&mut self) {
        let text = std::fs::read_to_string(&self.faults_path).unwrap_or_default();
        if text == self.faults_text {
            return;
        }
        let faults = if text.trim().is_empty() { Ok(Faults::default()) } else { Faults::parse(&text, &self.machine) };
        self.faults_text = text;
        match faults {
            Ok(faults) => {
                self.answers = nvml::answers(&self.machine, &self.salt, &faults);
                self.faults = faults;
            }
            Err(why) => eprintln!("berth-fake-nvml: {}: {why}", self.faults_path.display()),
        }
    }

    /// Whether the faults say that the library does not have this call.
    pub(crate) fn lacks(&self, symbol: &str) -> bool {
        self.faults.symbols_absent.contains(symbol)
    }

    /// How the faults say that the library refuses this call.
    pub(crate) fn refusal(&self, symbol: &str) -> Option<Refusal> {
        self.faults.refusal(symbol).as_ref().map(Refusal::from)
    }

    /// The machine's answers; a refusal where the driver does not start.
    pub(crate) fn node(&self) -> Result<&NvmlNode, Refusal> {
        match &self.answers {
            NvmlFacts::Read(node) => Ok(node),
            NvmlFacts::NoDriver(why) if why == DRIVER_NOT_LOADED => {
                Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED))
            }
            NvmlFacts::NoDriver(why) if why == LIBRARY_INCOMPLETE => {
                Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND))
            }
            NvmlFacts::NoDriver(why) if why == DRIVER_HUNG => Err(Refusal::HANGS),
            NvmlFacts::NoDriver(_) => Err(Refusal::code(nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH)),
        }
    }

    /// Where the faults are.
    pub(crate) fn faults_path(&self) -> &Path {
        &self.faults_path
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The device at an NVML index, with its handle. A lost GPU gives none.
    pub(crate) fn by_index(&self, index: usize) -> Result<(nvmlDevice_t, &NvmlDevice), Refusal> {
        let gpu = nvml::listed(&self.machine, &self.faults).nth(index).ok_or(Refusal::INVALID_ARGUMENT)?;
        let device =
            self.node()?.devices.get(index).ok_or(Refusal::INVALID_ARGUMENT)?.as_ref().map_err(Refusal::from)?;
        let handle = handle_at(usize::from(gpu).saturating_mul(HANDLES_PER_GPU)).ok_or(Refusal::INVALID_ARGUMENT)?;
        Ok((handle.cast(), device))
    }

    /// The position in the machine file of the GPU behind a handle.
    pub(crate) fn position(handle: nvmlDevice_t) -> Result<usize, Refusal> {
        place(handle.cast()).filter(|(_, part)| *part == 0).map(|(gpu, _)| gpu).ok_or(Refusal::INVALID_ARGUMENT)
    }

    /// What stands behind a handle: its NVML index now, its answers, and its GPU of the machine.
    pub(crate) fn by_handle(&self, handle: nvmlDevice_t) -> Result<(usize, &NvmlDevice, &MachineGpu), Refusal> {
        let offset = Self::position(handle)?;
        let mut listed = nvml::listed(&self.machine, &self.faults).enumerate();
        let found = listed.find(|(_, gpu)| usize::from(*gpu) == offset);
        let (index, gpu) = found.ok_or(Refusal::INVALID_ARGUMENT)?;
        let gpu = self.machine.gpus.get(usize::from(gpu)).ok_or(Refusal::INVALID_ARGUMENT)?;
        Ok((index, self.by_index(index)?.1, gpu))
    }

    /// The handle of the MIG device at a position among a GPU's instances.
    pub(crate) fn mig_handle(&self, gpu: nvmlDevice_t, position: usize) -> Option<*mut c_void> {
        part_handle(gpu, MIG_DEVICES_AT, position)
    }

    /// The GPU and position that a MIG device's handle stands for.
    pub(crate) fn of_mig_handle(&self, handle: nvmlDevice_t) -> Option<(nvmlDevice_t, usize)> {
        let (gpu, part) = place(handle.cast())?;
        let position = part.checked_sub(MIG_DEVICES_AT).filter(|_| part < INSTANCES_AT)?;
        Some((handle_at(gpu.checked_mul(HANDLES_PER_GPU)?)?.cast(), position))
    }

    /// The handle of the GPU instance at a position.
    pub(crate) fn instance_handle(&self, gpu: nvmlDevice_t, position: usize) -> Option<*mut c_void> {
        part_handle(gpu, INSTANCES_AT, position)
    }

    /// The GPU and position that a GPU instance's handle stands for.
    pub(crate) fn of_instance_handle(&self, handle: *mut c_void) -> Result<(nvmlDevice_t, usize), Refusal> {
        let found = place(handle).and_then(|(gpu, part)| {
            let position = part.checked_sub(INSTANCES_AT)?;
            Some((handle_at(gpu.checked_mul(HANDLES_PER_GPU)?)?.cast(), position))
        });
        found.ok_or(Refusal::INVALID_ARGUMENT)
    }
}

fn handle_at(offset: usize) -> Option<*mut c_void> {
    HANDLES.get(offset).map(|byte| std::ptr::from_ref(byte).cast_mut().cast())
}

/// GPU of the machine and number among its handles.
fn place(handle: *mut c_void) -> Option<(usize, usize)> {
    let offset = handle.addr().checked_sub(HANDLES.as_ptr().addr()).filter(|o| *o < HANDLES.len())?;
    Some((offset / HANDLES_PER_GPU, offset % HANDLES_PER_GPU))
}

fn part_handle(gpu: nvmlDevice_t, first: usize, position: usize) -> Option<*mut c_void> {
    let (gpu, _) = place(gpu.cast())?;
    let part = first.checked_add(position).filter(|_| position < INSTANCES_AT - MIG_DEVICES_AT)?;
    handle_at(gpu.checked_mul(HANDLES_PER_GPU)?.checked_add(part)?)
}

/// A path from the environment, or a file of that name beside the library.
fn configured(variable: &str, name: &str) -> Result<PathBuf, String> {
    match std::env::var_os(variable) {
        Some(path) => Ok(PathBuf::from(path)),
        None => beside_library(name),
    }
}

/// Keeps the library loaded when the program lets go of it: which events were told must outlive a driver session.
fn pin() {
    let Ok(path) = own_path() else { return };
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: a C string that lives over the call; the library is loaded already, so nothing of it runs.
    unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
}

/// A file beside the library.
pub(crate) fn beside_library(name: &str) -> Result<PathBuf, String> {
    Ok(own_path()?.with_file_name(name))
}

/// Where this library is: the loader knows where it took this code from.
fn own_path() -> Result<PathBuf, String> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here: *const c_void = std::ptr::from_ref(&HANDLES).cast();
    // SAFETY: `here` is an address of this library, and `info` a live record to fill.
    let found = unsafe { libc::dladdr(here, &raw mut info) } != 0 && !info.dli_fname.is_null();
    if !found {
        return Err("the loader does not know where this library is: set BERTH_FAKE_MACHINE".to_owned());
    }
    // SAFETY: dladdr succeeded, so the name is a C string that lives as long as the library is loaded.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()));
    Ok(path.to_owned())
}
