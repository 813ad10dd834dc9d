//! NVML's answers for a machine.
//!
//! [`answers`] is what a library with every call would say; the fake library serves it call by call. [`facts`] is what the probe gets to
//! see through a library that lacks some calls, and must equal what the probe reads through the fake: a test says so.

use berth_model::PciAddress;
use berth_probe::facts::gpu::{Refusals, refused_of};
use berth_probe::facts::{DeviceDetail, NvLinkFacts, NvmlDevice, NvmlFacts, NvmlFailure, NvmlNode, RemoteDevice};

use crate::faults::{DriverFault, Faults, GpuFault};
use crate::identity::Salt;
use crate::machine::{Machine, MachineDriver, MachineGpu, NvLinks, UuidSource};

const BYTES_PER_MIB: u64 = 1024 * 1024;

/// What the probe reads of the machine.
#[must_use]
pub fn facts(machine: &Machine, salt: &Salt, faults: &Faults) -> NvmlFacts {
    without_refused(answers(machine, salt, faults), &|symbol| faults.refusal(symbol))
}

/// What a library that has every call answers.
#[must_use]
pub fn answers(machine: &Machine, salt: &Salt, faults: &Faults) -> NvmlFacts {
    let refused = match (faults.driver, &machine.driver) {
        (Some(fault), _) => Some(fault),
        (None, MachineDriver::Absent) => Some(DriverFault::NotLoaded),
        (None, MachineDriver::Loaded(_)) => None,
    };
    if let Some(fault) = refused {
        return NvmlFacts::NoDriver(driver_text(fault).to_owned());
    }
    let driver_version = match &machine.driver {
        MachineDriver::Loaded(Some(version)) => Ok(version.clone()),
        MachineDriver::Loaded(None) | MachineDriver::Absent => Err(NvmlFailure::NotSupported),
    };
    let listed = listed(machine, faults).filter_map(|index| Some((index, machine.gpus.get(usize::from(index))?)));
    let devices = listed.map(|(index, gpu)| match faults.gpus.get(&index) {
        Some(GpuFault::Lost) => Err(NvmlFailure::Lost),
        Some(GpuFault::Hung) => Err(NvmlFailure::Hung),
        Some(GpuFault::ResetRequired) => Ok(silent(&NvmlFailure::ResetRequired)),
        Some(GpuFault::Unreadable) => Ok(silent(&unknown_error())),
        None => Ok(device(machine, gpu, index, salt, faults)),
    });
    NvmlFacts::Read(NvmlNode {
        driver_version,
        nvml_version: machine.nvml_version.clone().ok_or(NvmlFailure::NotSupported),
        cuda_version: machine.cuda_version.ok_or(NvmlFailure::NotSupported),
        devices: devices.collect(),
    })
}

/// The GPUs of the machine that NVML lists, in the order of their NVML index: later ones move up where one is missing.
pub fn listed<'a>(machine: &Machine, faults: &'a Faults) -> impl Iterator<Item = u8> + use<'a> {
    let gpu_count = u8::try_from(machine.gpus.len()).unwrap_or(u8::MAX);
    (0..gpu_count).filter(|index| !faults.unlisted.contains(index))
}

/// The text that the probe gives for a library that does not start.
fn driver_text(fault: DriverFault) -> &'static str {
    match fault {
        DriverFault::NotLoaded => berth_probe::facts::DRIVER_NOT_LOADED,
        DriverFault::LibraryNotFound => berth_probe::facts::LIBRARY_INCOMPLETE,
        DriverFault::VersionMismatch => berth_probe::facts::VERSION_MISMATCH,
        DriverFault::Hangs => berth_probe::facts::DRIVER_HUNG,
    }
}

pub(crate) fn unknown_error() -> NvmlFailure {
    NvmlFailure::Other(berth_probe::facts::UNKNOWN_ERROR.to_owned())
}

/// A device that answers every question with the same failure.
fn silent(why: &NvmlFailure) -> NvmlDevice {
    NvmlDevice {
        uuid: Err(why.clone()),
        pci: Err(why.clone()),
        product: Err(why.clone()),
        memory_bytes: Err(why.clone()),
        mig_enabled: Err(why.clone()),
        memory_affinity: Err(why.clone()),
        memory_zone: Err(why.clone()),
        nvlinks: Err(why.clone()),
        detail: DeviceDetail::silent(why),
    }
}

fn device(machine: &Machine, gpu: &MachineGpu, index: u8, salt: &Salt, faults: &Faults) -> NvmlDevice {
    fn or_unsupported<T>(known: Option<T>) -> Result<T, NvmlFailure> {
        known.ok_or(NvmlFailure::NotSupported)
    }
    let gpu = faults.changed.get(&index).unwrap_or(gpu);
    NvmlDevice {
        uuid: or_unsupported(uuid(machine, gpu, index, salt)),
        pci: Ok(gpu.path.device),
        product: or_unsupported(gpu.product.clone()),
        memory_bytes: or_unsupported(gpu.memory.map(|m| m.0.saturating_mul(BYTES_PER_MIB))),
        mig_enabled: or_unsupported(gpu.mig_enabled),
        memory_affinity: or_unsupported(gpu.memory_affinity.clone()),
        memory_zone: or_unsupported(gpu.memory_zone),
        nvlinks: nvlinks(machine, gpu, index, faults),
        detail: detail(machine, gpu, index, salt),
    }
}

/// The further answers, with a UUID for every MIG device: one compute instance in each GPU instance.
fn detail(machine: &Machine, gpu: &MachineGpu, index: u8, salt: &Salt) -> DeviceDetail {
    let mut detail = gpu.detail.clone();
    let own = uuid(machine, gpu, index, salt).unwrap_or_default();
    for instance in detail.parts.mig_instances.iter_mut().flatten() {
        // By its place: an instance keeps its name when others come and go.
        let place = format!("{}@{}+{}", instance.profile_id, instance.start, instance.size);
        instance.uuids = vec![format!("MIG-{}", salt.uuid(&["mig", &own, &place]))];
    }
    detail
}

/// The UUID of a GPU under a salt; `None` when the driver does not say.
fn uuid(machine: &Machine, gpu: &MachineGpu, index: u8, salt: &Salt) -> Option<String> {
    match &gpu.uuid {
        UuidSource::Unknown => None,
        UuidSource::Given(text) if salt.is_empty() => Some(text.clone()),
        UuidSource::Given(text) => Some(format!("GPU-{}", salt.uuid(&["gpu", text]))),
        UuidSource::Derived => Some(format!("GPU-{}", salt.uuid(&["gpu", machine.name.as_str(), &index.to_string()]))),
    }
}

/// The links of a GPU in the order of their numbers.
fn nvlinks(machine: &Machine, own: &MachineGpu, index: u8, faults: &Faults) -> Result<Vec<NvLinkFacts>, NvmlFailure> {
    match &machine.nvlinks {
        NvLinks::None => Ok(Vec::new()),
        NvLinks::Unknown => Err(unknown_error()),
        NvLinks::Switch { links, except } => {
            let count = except.get(&index).copied().unwrap_or(*links);
            Ok((0..count).map(|link| switch_link(machine, own, index, link, faults)).collect())
        }
        NvLinks::Direct(pairs) => {
            let ends = direct_ends(pairs);
            let from_here = ends.iter().filter(|(gpu, ..)| *gpu == index);
            let links = from_here.map(|(gpu, number, peer, peer_number)| {
                let up = is_up(faults, *gpu, *number) && is_up(faults, *peer, *peer_number);
                let address = machine.gpus.get(usize::from(*peer)).map(|g| g.path.device);
                link(own, *number, up, RemoteDevice::Gpu, address)
            });
            Ok(links.collect())
        }
    }
}

fn is_up(faults: &Faults, gpu: u8, link: u8) -> bool {
    // The other end of a GPU that is gone has nothing to talk to.
    let gone = faults.gpus.get(&gpu) == Some(&GpuFault::Lost) || faults.unlisted.contains(&gpu);
    !gone && !faults.nvlinks_down.contains(&(gpu, link))
}

fn switch_link(machine: &Machine, own: &MachineGpu, gpu: u8, number: u8, faults: &Faults) -> NvLinkFacts {
    // Links are spread over the switches in turns; without switches in the file the far address stays unsaid.
    let position = usize::from(number).checked_rem(machine.nvswitches.len());
    let address = position.and_then(|p| machine.nvswitches.get(p)).map(|path| path.device);
    link(own, number, is_up(faults, gpu, number), RemoteDevice::Switch, address)
}

fn link(gpu: &MachineGpu, number: u8, up: bool, remote: RemoteDevice, address: Option<PciAddress>) -> NvLinkFacts {
    if !up {
        // A link that is down knows nothing of its far end.
        return NvLinkFacts {
            number,
            active: Ok(false),
            remote: Err(NvmlFailure::NotSupported),
            remote_pci: Err(NvmlFailure::NotSupported),
            version: Err(NvmlFailure::NotSupported),
            errors: Err(NvmlFailure::NotSupported),
        };
    }
    let counted =
        |counts: &Vec<(u8, u64)>| counts.iter().find(|(link, _)| *link == number).map_or(0, |(_, count)| *count);
    NvLinkFacts {
        number,
        active: Ok(true),
        remote: Ok(remote),
        remote_pci: address.ok_or(NvmlFailure::NotSupported),
        version: gpu.nvlink_version.ok_or(NvmlFailure::NotSupported),
        errors: gpu.nvlink_errors.as_ref().map(counted).ok_or(NvmlFailure::NotSupported),
    }
}

/// Both ends of every direct link: GPU, link number, peer, the peer's link number. Numbers count up per GPU in the order of the file.
fn direct_ends(pairs: &[(u8, u8, u8)]) -> Vec<(u8, u8, u8, u8)> {
    let mut ends: Vec<(u8, u8, u8, u8)> = Vec::new();
    let next = |ends: &[(u8, u8, u8, u8)], gpu: u8| {
        u8::try_from(ends.iter().filter(|(g, ..)| *g == gpu).count()).unwrap_or(u8::MAX)
    };
    for (a, b, links) in pairs {
        for _ in 0..*links {
            let (number_a, number_b) = (next(&ends, *a), next(&ends, *b));
            ends.push((*a, number_a, *b, number_b));
            ends.push((*b, number_b, *a, number_a));
        }
    }
    ends
}

/// What is left of the answers when calls are refused. Follows the order in which the probe falls back.
fn without_refused(answers: NvmlFacts, refusals: Refusals<'_>) -> NvmlFacts {
    let NvmlFacts::Read(mut node) = answers else { return answers };
    if let Some(why) = refusals("nvmlDeviceGetCount_v2") {
        return NvmlFacts::NoDriver(format!("GPUs cannot be counted: {why}"));
    }
    hide(&mut node.driver_version, refusals("nvmlSystemGetDriverVersion"));
    hide(&mut node.nvml_version, refusals("nvmlSystemGetNVMLVersion"));
    hide(&mut node.cuda_version, refusals("nvmlSystemGetCudaDriverVersion_v2"));
    for device in &mut node.devices {
        hide(device, refusals("nvmlDeviceGetHandleByIndex_v2"));
        let Ok(device) = device else { continue };
        hide(&mut device.uuid, refusals("nvmlDeviceGetUUID"));
        hide(&mut device.pci, refusals("nvmlDeviceGetPciInfo_v3"));
        hide(&mut device.product, refusals("nvmlDeviceGetName"));
        hide(
            &mut device.memory_bytes,
            refused_of(refusals, &["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"]),
        );
        hide(&mut device.mig_enabled, refusals("nvmlDeviceGetMigMode"));
        hide(&mut device.memory_affinity, refusals("nvmlDeviceGetMemoryAffinity"));
        hide(&mut device.memory_zone, refusals("nvmlDeviceGetNumaNodeId"));
        hide(&mut device.nvlinks, refusals("nvmlDeviceGetNvLinkState"));
        device.detail.hide(refusals);
        for link in device.nvlinks.iter_mut().flatten().filter(|l| l.active == Ok(true)) {
            hide(&mut link.remote, refusals("nvmlDeviceGetNvLinkRemoteDeviceType"));
            hide(&mut link.remote_pci, refusals("nvmlDeviceGetNvLinkRemotePciInfo_v2"));
            hide(&mut link.version, refusals("nvmlDeviceGetNvLinkVersion"));
            hide(&mut link.errors, refusals("nvmlDeviceGetNvLinkErrorCounter"));
        }
    }
    NvmlFacts::Read(node)
}

fn hide<T>(answer: &mut Result<T, NvmlFailure>, refused: Option<NvmlFailure>) {
    if let Some(why) = refused {
        *answer = Err(why);
    }
}
