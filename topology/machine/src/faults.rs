//! What is broken on a machine: an overlay file that may change while an agent runs.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{Link, NicName};
use berth_probe::facts::NvmlFailure;

use crate::check::{self, refuse};
use crate::machine::{Machine, MachineError, MachineGpu};
use crate::nvml;
use crate::spec::{self, ChangedSpec, DriverFaultSpec, EventSpec, FaultsSpec};

/// What is broken. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// GPUs that NVML lists and that do not answer, by index.
    pub gpus: BTreeMap<u8, GpuFault>,
    /// GPUs that NVML no longer lists; later indexes move up.
    pub unlisted: BTreeSet<u8>,
    /// GPUs of which the driver says something else than the machine file, by index: as they are now.
    pub changed: BTreeMap<u8, MachineGpu>,
    /// What the driver tells unasked, each once in the life of a process.
    pub events: Vec<FaultEvent>,
    /// NVLinks that are down, as GPU index and link number. Their other ends are down too.
    pub nvlinks_down: BTreeSet<(u8, u8)>,
    /// NICs whose port is down.
    pub ports_down: BTreeSet<NicName>,
    /// NVML calls that the library does not have.
    pub symbols_absent: BTreeSet<String>,
    /// NVML calls that answer "unknown error", whatever they are asked about.
    pub calls_failing: BTreeSet<String>,
    /// How often the driver was loaded anew: sessions of before answer "uninitialized".
    pub reloads: u64,
    /// Why the library does not start.
    pub driver: Option<DriverFault>,
}

/// How a GPU fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuFault {
    /// It fell off the bus: not even a handle is given.
    Lost,
    /// A handle is given, and every question is answered with "reset required".
    ResetRequired,
    /// A handle is given, and every question is answered with "unknown error".
    Unreadable,
    /// No call about it returns as long as it hangs.
    Hung,
}

/// Something that the driver tells unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultEvent {
    /// Tells events of one file apart; one that was told is not told again under its number.
    pub id: u64,
    /// The GPU; `None` when the driver names none.
    pub gpu: Option<u8>,
    /// What happened.
    pub kind: FaultEventKind,
}

/// Kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEventKind {
    /// An error of this number.
    Xid(u64),
    /// The MIG configuration changed.
    MigConfig,
}

/// Why the library does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverFault {
    /// The kernel module is not loaded.
    NotLoaded,
    /// A library that NVML needs is not there.
    LibraryNotFound,
    /// Library and kernel module are of different versions.
    VersionMismatch,
    /// No call returns, not even the one that counts the GPUs.
    Hangs,
}

impl Faults {
    /// The `apiVersion` of faults files.
    pub const API_VERSION: &'static str = "berth.dev/faults/v1";

    /// Reads a faults file for a machine. Unknown keys are refused, and so are devices that the machine does not have.
    ///
    /// # Errors
    /// [`MachineError`] names line and column, or the field.
    pub fn parse(text: &str, machine: &Machine) -> Result<Self, MachineError> {
        let spec: FaultsSpec = spec::parse(text).map_err(MachineError::Form)?;
        if spec.api_version != Self::API_VERSION {
            return refuse("apiVersion", format!("{:?}, {:?} is right", spec.api_version, Self::API_VERSION));
        }
        let mut faults = Self { driver: spec.driver.map(DriverFault::from), reloads: spec.reloads, ..Self::default() };
        let kinds = [
            ("lost", spec.lost, GpuFault::Lost),
            ("resetRequired", spec.reset_required, GpuFault::ResetRequired),
            ("unreadable", spec.unreadable, GpuFault::Unreadable),
            ("hangs", spec.hangs, GpuFault::Hung),
        ];
        for (field, indexes, fault) in kinds {
            check_indexes(field, &indexes, machine)?;
            faults.gpus.extend(indexes.into_iter().map(|i| (i, fault)));
        }
        check_indexes("unlisted", &spec.unlisted, machine)?;
        faults.unlisted.extend(spec.unlisted);
        for (i, changed) in spec.changed.iter().enumerate() {
            let gpu = change(&format!("changed[{i}]"), changed, machine)?;
            faults.changed.insert(changed.gpu, gpu);
        }
        for (i, event) in spec.events.into_iter().enumerate() {
            faults.events.push(FaultEvent::check(i, &event, machine)?);
        }
        for (i, down) in spec.nvlinks_down.into_iter().enumerate() {
            check_indexes(&format!("nvlinksDown[{i}].gpu"), &[down.gpu], machine)?;
            let links = down.links.unwrap_or_else(|| (0..Link::NVLINKS_MAX).collect());
            faults.nvlinks_down.extend(links.into_iter().map(|link| (down.gpu, link)));
        }
        for (i, name) in spec.ports_down.iter().enumerate() {
            let Some(nic) = machine.nics.iter().find(|n| n.name.as_str() == name) else {
                return refuse(format!("portsDown[{i}]"), format!("{name:?} is no NIC of {}", machine.name));
            };
            faults.ports_down.insert(nic.name.clone());
        }
        faults.symbols_absent = calls("symbolsAbsent", spec.symbols_absent)?;
        faults.calls_failing = calls("callsFailing", spec.calls_failing)?;
        Ok(faults)
    }

    /// How the library refuses a call whatever it is asked about; `None` where it does not.
    #[must_use]
    pub fn refusal(&self, symbol: &str) -> Option<NvmlFailure> {
        let lacks = self.symbols_absent.contains(symbol).then_some(NvmlFailure::NoSymbol);
        lacks.or_else(|| self.calls_failing.contains(symbol).then(nvml::unknown_error))
    }
}

impl FaultEvent {
    fn check(position: usize, spec: &EventSpec, machine: &Machine) -> Result<Self, MachineError> {
        check_indexes(&format!("events[{position}].gpu"), spec.gpu.as_slice(), machine)?;
        let kind = match (spec.xid, spec.mig_config) {
            (Some(xid), false) => FaultEventKind::Xid(xid),
            (None, true) => FaultEventKind::MigConfig,
            _ => {
                return refuse(
                    format!("events[{position}]"),
                    "xid or migConfig: true, and not both, is right".to_owned(),
                );
            }
        };
        Ok(Self { id: spec.id, gpu: spec.gpu, kind })
    }
}

/// A GPU with other facts. What it is and where it sits does not change under a running driver.
fn change(field: &str, changed: &ChangedSpec, machine: &Machine) -> Result<MachineGpu, MachineError> {
    check_indexes(&format!("{field}.gpu"), &[changed.gpu], machine)?;
    let Some(gpu) = machine.gpus.get(usize::from(changed.gpu)) else { return refuse(field, "no such GPU") };
    let facts = &changed.facts;
    let fixed = [
        ("uuid", facts.uuid.is_some()),
        ("product", facts.product.is_some()),
        ("memoryMib", facts.memory_mib.is_some()),
        ("zone", facts.zone.is_some()),
        ("memoryAffinity", facts.memory_affinity.is_some()),
        ("memoryZone", facts.memory_zone.is_some()),
        ("slot", facts.slot.is_some()),
        ("vgpuMdev", facts.vgpu_mdev.is_some()),
        ("vgpuVfio", facts.vgpu_vfio.is_some()),
        ("vgpuFunctions", facts.vgpu_functions.is_some()),
    ];
    if let Some((name, _)) = fixed.into_iter().find(|(_, is_said)| *is_said) {
        return refuse(format!("{field}.facts.{name}"), "what a GPU is and where it sits does not change");
    }
    check::with_facts(&format!("{field}.facts"), changed.gpu, gpu, &facts.over(&gpu.spec))
}

fn calls(field: &str, names: Vec<String>) -> Result<BTreeSet<String>, MachineError> {
    match names.iter().position(|name| !name.starts_with("nvml")) {
        Some(i) => refuse(
            format!("{field}[{i}]"),
            format!("{:?} is no name of an NVML call", names.get(i).map_or("", String::as_str)),
        ),
        None => Ok(names.into_iter().collect()),
    }
}

fn check_indexes(field: &str, indexes: &[u8], machine: &Machine) -> Result<(), MachineError> {
    match indexes.iter().find(|i| usize::from(**i) >= machine.gpus.len()) {
        Some(stranger) => refuse(field, format!("{} has no GPU {stranger}", machine.name)),
        None => Ok(()),
    }
}

impl From<DriverFaultSpec> for DriverFault {
    fn from(spec: DriverFaultSpec) -> Self {
        match spec {
            DriverFaultSpec::NotLoaded => Self::NotLoaded,
            DriverFaultSpec::LibraryNotFound => Self::LibraryNotFound,
            DriverFaultSpec::VersionMismatch => Self::VersionMismatch,
            DriverFaultSpec::Hangs => Self::Hangs,
        }
    }
}
