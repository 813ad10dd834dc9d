//! Turns the written form into a [`Machine`], or says which field is wrong.
//!
//! Zones, driver and NVLinks are checked here; the PCIe tree with its devices in [`tree`], the host in [`host`], a
//! GPU's further facts in [`detail`].

mod detail;
mod function;
mod host;
mod tree;

pub(crate) use detail::with_facts;

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{BootId, Link, MiB, NodeName, ZoneId};

use crate::contradiction;
use crate::machine::{BootIdSource, Machine, MachineDriver, MachineError, MachineZone, NvLinks};
use crate::scalar::{Fact, Value};
use crate::spec::{MachineSpec, NicSpec, NvLinkSpec, PairSpec, SwitchedSpec, ZoneSpec};

/// Most zones of a machine. Grace-class machines show 34.
const ZONES_MAX: usize = 64;
/// Most memory of a zone: 64 TiB.
const ZONE_MIB_MAX: u64 = 64 << 20;

/// A refusal with the path of the field.
pub(crate) fn refuse<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, MachineError> {
    Err(MachineError::Field { field: field.into(), problem: problem.into() })
}

pub(crate) fn machine(spec: MachineSpec) -> Result<Machine, MachineError> {
    if spec.api_version != Machine::API_VERSION {
        return refuse("apiVersion", format!("{:?}, {:?} is right", spec.api_version, Machine::API_VERSION));
    }
    let name = match NodeName::parse(&spec.name) {
        Ok(name) if is_dns_name(&spec.name) => name,
        _ => return refuse("name", format!("{:?} is no node name: lower case letters, digits, - and .", spec.name)),
    };
    let boot_id = boot_id(spec.boot_id)?;
    let driver = match spec.driver {
        Fact::Unknown => MachineDriver::Loaded(None),
        Fact::Known(text) if text == "absent" => MachineDriver::Absent,
        Fact::Known(version) => MachineDriver::Loaded(Some(version)),
    };
    let of_one = |f: &NicSpec| f.netdevs.is_some() || f.bond.is_some() || f.virtual_functions.is_some();
    if spec.nic_facts.as_ref().is_some_and(|facts| of_one(facts) || facts.card.is_some() || facts.vfs_max.is_some()) {
        return refuse("nicFacts", "network devices, bond, card and virtual functions are only right at a leaf");
    }
    if spec.gpu_facts.as_ref().is_some_and(|facts| facts.vgpu_functions.is_some()) {
        return refuse("gpuFacts.vgpuFunctions", "only right at a leaf: no two GPUs share one");
    }
    if spec.gpu_facts.as_ref().is_some_and(|facts| facts.uuid.is_some()) {
        return refuse("gpuFacts.uuid", "only right at a leaf: no two GPUs share one");
    }
    let zones = zones(spec.zones.0.unwrap_or_default())?;
    let host = host::host(spec.host.unwrap_or_default(), &zones)?;
    let zone_ids: BTreeSet<ZoneId> = zones.iter().map(|z| z.id).collect();
    let defaults = tree::Defaults {
        gpu: spec.gpu_facts.unwrap_or_default(),
        nic: spec.nic_facts.unwrap_or_default(),
        zones: &zone_ids,
    };
    let devices = tree::devices(spec.pcie.0.unwrap_or_default(), &defaults)?;
    let nvlinks = nvlinks(spec.nvlink, devices.gpus.len())?;
    let contradicted = contradiction::check(spec.contradicted)?;
    let Value(source) = spec.source;
    Ok(Machine {
        name,
        source,
        synthetic: spec.synthetic,
        boot_id,
        driver,
        nvml_version: spec.nvml.and_then(Fact::known),
        cuda_version: spec.cuda.and_then(Fact::known).and_then(|v| i32::try_from(v).ok()),
        zones,
        host,
        gpus: devices.gpus,
        nics: devices.nics,
        nvswitches: devices.nvswitches,
        vfio_gpus: devices.vfio_gpus,
        iommu_groups: function::groups(spec.iommu_groups, &devices.addresses)?,
        nvlinks,
        contradicted,
    })
}

/// The rule of Kubernetes for object names, shortly: RFC 1123 labels joined by dots.
fn is_dns_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last())
}

fn boot_id(given: Option<Fact<String>>) -> Result<Option<BootIdSource>, MachineError> {
    match given {
        None => Ok(Some(BootIdSource::Derived)),
        Some(Fact::Unknown) => Ok(None),
        Some(Fact::Known(text)) => match BootId::parse(&text) {
            Ok(_) => Ok(Some(BootIdSource::Given(text))),
            Err(error) => refuse("bootId", error.to_string()),
        },
    }
}

fn zones(specs: Vec<ZoneSpec>) -> Result<Vec<MachineZone>, MachineError> {
    if specs.len() > ZONES_MAX {
        return refuse("zones", format!("{} zones, at most {ZONES_MAX} are taken", specs.len()));
    }
    let zone_count = specs.len();
    let mut owners: BTreeMap<u32, u16> = BTreeMap::new();
    let mut before: Option<u16> = None;
    let mut zones = Vec::with_capacity(zone_count);
    for (i, spec) in specs.into_iter().enumerate() {
        let Value(id) = spec.id;
        if before.is_some_and(|b| b >= id) {
            return refuse(format!("zones[{i}].id"), format!("{id} must be above the id before it"));
        }
        before = Some(id);
        let cpus = spec.cpus.known();
        for cpu in cpus.iter().flat_map(berth_model::CpuSet::cpus) {
            if let Some(owner) = owners.insert(cpu, id) {
                return refuse(format!("zones[{i}].cpus"), format!("CPU {cpu} is in zone {owner} too"));
            }
        }
        let memory = spec.memory_mib.known();
        if let Some(absurd) = memory.filter(|m| *m > ZONE_MIB_MAX) {
            return refuse(format!("zones[{i}].memoryMib"), format!("{absurd} MiB, at most {ZONE_MIB_MAX} are taken"));
        }
        let distances = spec.distances.and_then(Fact::known).map(|d| d.0);
        if let Some(wrong) = distances.as_ref().filter(|d| d.len() != zone_count) {
            let field = format!("zones[{i}].distances");
            return refuse(field, format!("{} values, one per zone ({zone_count}) is right", wrong.len()));
        }
        let huge_pages = spec.huge_pages.and_then(Fact::known).map(|p| p.0);
        zones.push(MachineZone { id: ZoneId(id), cpus, memory: memory.map(MiB), huge_pages, distances });
    }
    Ok(zones)
}

fn nvlinks(spec: Option<NvLinkSpec>, gpu_count: usize) -> Result<NvLinks, MachineError> {
    match spec {
        None => Ok(NvLinks::None),
        Some(NvLinkSpec::Unknown {}) => Ok(NvLinks::Unknown),
        Some(NvLinkSpec::Switch { links, except }) => {
            check_link_count("nvlink.links", links)?;
            Ok(NvLinks::Switch { links, except: switched(except, links, gpu_count)? })
        }
        Some(NvLinkSpec::Direct { pairs }) => direct_links(pairs, gpu_count),
    }
}

fn check_link_count(field: &str, links: u8) -> Result<(), MachineError> {
    if (1..=Link::NVLINKS_MAX).contains(&links) {
        return Ok(());
    }
    refuse(field, format!("{links} links, 1 to {} are right", Link::NVLINKS_MAX))
}

fn switched(specs: Vec<SwitchedSpec>, all: u8, gpu_count: usize) -> Result<BTreeMap<u8, u8>, MachineError> {
    let mut except = BTreeMap::new();
    for (i, SwitchedSpec { gpu, links }) in specs.into_iter().enumerate() {
        let field = format!("nvlink.except[{i}]");
        if links >= all {
            return refuse(
                format!("{field}.links"),
                format!("{links} links, fewer than the {all} of all GPUs are right"),
            );
        }
        if usize::from(gpu) >= gpu_count || except.insert(gpu, links).is_some() {
            return refuse(format!("{field}.gpu"), format!("{gpu} must be a GPU that stands once"));
        }
    }
    Ok(except)
}

fn direct_links(specs: Vec<PairSpec>, gpu_count: usize) -> Result<NvLinks, MachineError> {
    let mut totals: BTreeMap<u8, u8> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut pairs = Vec::with_capacity(specs.len());
    for (i, PairSpec { gpus: [a, b], links }) in specs.into_iter().enumerate() {
        let field = format!("nvlink.pairs[{i}]");
        check_link_count(&format!("{field}.links"), links)?;
        if let Some(stranger) = [a, b].into_iter().find(|g| usize::from(*g) >= gpu_count) {
            return refuse(format!("{field}.gpus"), format!("there is no GPU {stranger}"));
        }
        if a == b || !seen.insert((a.min(b), a.max(b))) {
            return refuse(format!("{field}.gpus"), format!("{a} and {b} must be two GPUs that no other entry joins"));
        }
        for gpu in [a, b] {
            let total = totals.entry(gpu).or_default();
            *total = total.saturating_add(links);
            if *total > Link::NVLINKS_MAX {
                return refuse(field, format!("GPU {gpu} has more than {} links", Link::NVLINKS_MAX));
            }
        }
        pairs.push((a, b, links));
    }
    Ok(NvLinks::Direct(pairs))
}
