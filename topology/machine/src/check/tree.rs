//! The PCIe tree of a machine file: each device with its way, each address and name once.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{CpuSet, GpuSet, GpuUuid, MiB, NicName, NodeTopology, PciAddress, PciPath, ZoneId};
use berth_probe::sysfs::pci::is_host_bridge;

use super::{detail, function, refuse};
use crate::machine::{MachineError, MachineFunction, MachineGpu, MachineNic, MachineVfioGpu, UuidSource};
use crate::scalar::{Fact, Value};
use crate::spec::{BranchSpec, GpuSpec, HostSpec, NicSpec};

/// Most memory of a GPU: 4 TiB, twenty times the largest of today.
const GPU_MIB_MAX: u64 = 4 << 20;
/// Highest rate of a port, ten times the fastest of today.
const RATE_GBPS_MAX: u32 = 16_000;
/// Most bridges above a device; three cascaded switches make seven.
const BRIDGES_MAX: usize = 24;

/// What holds for all devices unless a leaf says otherwise.
pub(super) struct Defaults<'a> {
    pub(super) gpu: GpuSpec,
    pub(super) nic: NicSpec,
    pub(super) zones: &'a BTreeSet<ZoneId>,
}

/// The devices of the tree.
#[derive(Default)]
pub(super) struct Devices {
    pub(super) gpus: Vec<MachineGpu>,
    pub(super) nics: Vec<MachineNic>,
    pub(super) nvswitches: Vec<PciPath>,
    pub(super) vfio_gpus: Vec<MachineVfioGpu>,
    /// Every address of the file.
    pub(super) addresses: BTreeSet<PciAddress>,
}

pub(super) fn devices(hosts: Vec<HostSpec>, defaults: &Defaults<'_>) -> Result<Devices, MachineError> {
    let mut walk = Walk {
        defaults,
        addresses: BTreeMap::new(),
        gpus: BTreeMap::new(),
        uuids: BTreeSet::new(),
        nics: Vec::new(),
        nvswitches: BTreeMap::new(),
        vfio_gpus: Vec::new(),
    };
    let mut names = BTreeSet::new();
    for (i, host) in hosts.into_iter().enumerate() {
        let field = format!("pcie[{i}]");
        let name = host.host.known();
        if let Some(wrong) = name.as_ref().filter(|name| !is_host_bridge(name) || !names.insert((*name).clone())) {
            let problem = format!("{wrong:?} must be of the form pci0000:15 and stand once, or be unknown");
            return refuse(format!("{field}.host"), problem);
        }
        let zone = walk.zone(&format!("{field}.zone"), Some(host.zone))?;
        let way = Way { host_bridge: name, zone, bridges: Vec::new() };
        for (j, branch) in host.below.into_iter().enumerate() {
            walk.branch(&format!("{field}.below[{j}]"), &way, branch)?;
        }
    }
    walk.finish()
}

/// The way from a host bridge down to where the walk stands.
#[derive(Clone)]
struct Way {
    /// `None` where the kernel does not show the devices below.
    host_bridge: Option<String>,
    zone: Option<ZoneId>,
    bridges: Vec<PciAddress>,
}

/// Whether a branch needs no host bridge: a GPU that the driver alone names, or a NIC that is not on PCI.
fn is_placeless(branch: &BranchSpec) -> bool {
    let off_pci = branch.nic.is_some() && branch.at == Some(Fact::Unknown);
    branch.via.is_empty() && (branch.gpu.is_some() || off_pci)
}

struct Walk<'a> {
    defaults: &'a Defaults<'a>,
    /// Every address of the file and the field that gave it.
    addresses: BTreeMap<PciAddress, String>,
    gpus: BTreeMap<u8, MachineGpu>,
    uuids: BTreeSet<String>,
    nics: Vec<MachineNic>,
    nvswitches: BTreeMap<u8, PciPath>,
    vfio_gpus: Vec<MachineVfioGpu>,
}

impl Walk<'_> {
    fn branch(&mut self, field: &str, above: &Way, branch: BranchSpec) -> Result<(), MachineError> {
        let mut way = above.clone();
        if way.host_bridge.is_none() && !is_placeless(&branch) {
            return refuse(field, "below an unknown host only GPUs and NICs off PCI are right, without bridges");
        }
        for (i, Value(bridge)) in branch.via.iter().enumerate() {
            self.claim(&format!("{field}.via[{i}]"), &way, *bridge)?;
            way.bridges.push(*bridge);
        }
        if way.bridges.len() > BRIDGES_MAX {
            return refuse(format!("{field}.via"), format!("more than {BRIDGES_MAX} bridges above one device"));
        }
        let BranchSpec { via: _, below, gpu, nic, nvswitch, vfio, at, gpu_facts, nic_facts } = branch;
        if gpu.is_none() && gpu_facts.is_some() {
            return refuse(format!("{field}.gpuFacts"), "only right beside gpu");
        }
        if nic.is_none() && nic_facts.is_some() {
            return refuse(format!("{field}.nicFacts"), "only right beside nic");
        }
        match (below, gpu, nic, nvswitch, vfio) {
            (Some(below), None, None, None, None) => {
                if at.is_some() {
                    return refuse(format!("{field}.at"), "only right beside gpu, nic, nvswitch or vfio");
                }
                let mut branches = below.into_iter().enumerate();
                branches.try_for_each(|(i, b)| self.branch(&format!("{field}.below[{i}]"), &way, b))
            }
            (None, Some(Value(index)), None, None, None) => {
                self.gpu(field, &way, index, at, &gpu_facts.unwrap_or_default())
            }
            (None, None, Some(name), None, None) => self.nic(field, &way, &name, at, &nic_facts.unwrap_or_default()),
            (None, None, None, Some(Value(index)), None) => self.nvswitch(field, &way, index, at),
            (None, None, None, None, Some(Value(driver))) => self.vfio(field, &way, driver, at),
            _ => refuse(field, "one of below, gpu, nic, nvswitch and vfio is right"),
        }
    }

    /// Takes an address, once and in the domain of its host bridge.
    fn claim(&mut self, field: &str, way: &Way, address: PciAddress) -> Result<(), MachineError> {
        let host = way.host_bridge.as_deref();
        let domain = host.and_then(|host| host.strip_prefix("pci")?.split_once(':')).map(|(domain, _)| domain);
        if let Some(host) = host.filter(|_| domain != Some(format!("{:04x}", address.domain).as_str())) {
            return refuse(field, format!("{address} is not in the domain of {host}"));
        }
        if let Some(first) = self.addresses.insert(address, field.to_owned()) {
            return refuse(field, format!("{address} stands at {first} already"));
        }
        Ok(())
    }

    /// The way to a device that must have an address.
    fn place(&mut self, field: &str, way: &Way, at: Option<Fact<PciAddress>>) -> Result<PciPath, MachineError> {
        let field = format!("{field}.at");
        let Some(Fact::Known(device)) = at else { return refuse(field, "an address is right") };
        self.claim(&field, way, device)?;
        Ok(PciPath { host_bridge: way.host_bridge.clone().unwrap_or_default(), bridges: way.bridges.clone(), device })
    }

    fn zone(&self, field: &str, given: Option<Fact<u16>>) -> Result<Option<ZoneId>, MachineError> {
        let zone = given.and_then(Fact::known).map(ZoneId);
        match zone.filter(|z| !self.defaults.zones.contains(z)) {
            Some(stranger) => refuse(field, format!("zone {stranger} is not among zones")),
            None => Ok(zone),
        }
    }

    fn gpu(
        &mut self,
        field: &str,
        way: &Way,
        index: u8,
        at: Option<Fact<PciAddress>>,
        own: &GpuSpec,
    ) -> Result<(), MachineError> {
        let path = self.place(field, way, at)?;
        let own = own.over(&self.defaults.gpu);
        let facts = format!("{field}.gpuFacts");
        let memory = own.memory_mib.and_then(Fact::known);
        if let Some(absurd) = memory.filter(|m| *m == 0 || *m > GPU_MIB_MAX) {
            let problem = format!("{absurd} MiB for GPU {index}, 1 to {GPU_MIB_MAX} are right");
            return refuse(format!("{facts}.memoryMib"), problem);
        }
        let zone = match own.zone {
            None => way.zone,
            given => self.zone(&format!("{facts}.zone"), given)?,
        };
        let memory_zone = self.zone(&format!("{facts}.memoryZone"), own.memory_zone)?;
        let affinity = self.affinity(&facts, zone, own.memory_affinity.clone())?;
        let uuid = self.uuid(&format!("{facts}.uuid"), own.uuid.clone())?;
        let gpu = MachineGpu {
            path,
            shown: way.host_bridge.is_some(),
            uuid,
            zone,
            product: own.product.clone().and_then(Fact::known),
            memory: memory.map(MiB),
            mig_enabled: own.mig.and_then(Fact::known),
            memory_affinity: affinity,
            memory_zone,
            detail: detail::detail(&facts, index, &own)?,
            slot: own.slot.and_then(Fact::known),
            nvlink_version: own.nvlink_version.and_then(Fact::known),
            nvlink_errors: own.nvlink_errors.clone().and_then(Fact::known).map(|counts| counts.0),
            vgpu: function::vgpu(&facts, &own)?,
            spec: own,
        };
        self.claim_functions(&format!("{facts}.vgpuFunctions"), way, gpu.vgpu.iter().flat_map(|v| &v.functions))?;
        if self.gpus.insert(index, gpu).is_some() {
            return refuse(format!("{field}.gpu"), format!("GPU {index} stands twice"));
        }
        Ok(())
    }

    /// The zones that NVML names; the device's own zone unless the file says otherwise.
    fn affinity(
        &self,
        facts: &str,
        zone: Option<ZoneId>,
        given: Option<Fact<CpuSet>>,
    ) -> Result<Option<Vec<ZoneId>>, MachineError> {
        let Some(given) = given else { return Ok(zone.map(|z| vec![z])) };
        let Fact::Known(ids) = given else { return Ok(None) };
        let ids = ids.cpus().filter_map(|id| u16::try_from(id).ok()).map(ZoneId).collect::<Vec<_>>();
        match ids.iter().find(|z| !self.defaults.zones.contains(z)) {
            Some(stranger) => refuse(format!("{facts}.memoryAffinity"), format!("zone {stranger} is not among zones")),
            None => Ok(Some(ids)),
        }
    }

    fn uuid(&mut self, field: &str, given: Option<Fact<String>>) -> Result<UuidSource, MachineError> {
        let text = match given {
            None => return Ok(UuidSource::Derived),
            Some(Fact::Unknown) => return Ok(UuidSource::Unknown),
            Some(Fact::Known(text)) => text,
        };
        if let Err(error) = GpuUuid::parse(&text) {
            return refuse(field, error.to_string());
        }
        // NVML's buffer has 96 bytes, and the last one is a zero.
        if text.len() >= 96 || !self.uuids.insert(text.clone()) {
            return refuse(field, format!("{text} must stand once and be shorter than 96 bytes"));
        }
        Ok(UuidSource::Given(text))
    }

    fn nic(
        &mut self,
        field: &str,
        way: &Way,
        name: &str,
        at: Option<Fact<PciAddress>>,
        own: &NicSpec,
    ) -> Result<(), MachineError> {
        let valid = NicName::parse(name).ok().filter(|_| !name.contains('/') && !name.starts_with('.'));
        let Some(name) = valid.filter(|n| self.nics.iter().all(|other| other.name != *n)) else {
            return refuse(format!("{field}.nic"), format!("{name:?} must be a device name that stands once"));
        };
        let path = if at == Some(Fact::Unknown) { None } else { Some(self.place(field, way, at)?) };
        let all = &self.defaults.nic;
        let facts = format!("{field}.nicFacts");
        let rate_gbps = own.rate_gbps.or(all.rate_gbps).and_then(Fact::known);
        if let Some(absurd) = rate_gbps.filter(|r| *r > RATE_GBPS_MAX) {
            return refuse(format!("{facts}.rateGbps"), format!("{absurd}, at most {RATE_GBPS_MAX} is taken"));
        }
        let zone = match own.zone.or(all.zone) {
            None => way.zone,
            given => self.zone(&format!("{facts}.zone"), given)?,
        };
        let state = own.state.or(all.state).and_then(Fact::known);
        let link_layer = own.link_layer.or(all.link_layer).and_then(Fact::known);
        let function = function::of_nic(&facts, own)?;
        if path.is_none() && function != MachineFunction::default() {
            return refuse(facts, "a NIC off PCI has no function");
        }
        let virtual_functions = function.virtual_functions.iter().map(|(address, _)| address);
        self.claim_functions(&format!("{facts}.virtualFunctions"), way, virtual_functions)?;
        self.nics.push(MachineNic { name, path, zone, state, link_layer, rate_gbps, function });
        Ok(())
    }

    fn claim_functions<'a>(
        &mut self,
        field: &str,
        way: &Way,
        functions: impl Iterator<Item = &'a PciAddress>,
    ) -> Result<(), MachineError> {
        functions.enumerate().try_for_each(|(i, function)| self.claim(&format!("{field}[{i}]"), way, *function))
    }

    fn vfio(
        &mut self,
        field: &str,
        way: &Way,
        driver: String,
        at: Option<Fact<PciAddress>>,
    ) -> Result<(), MachineError> {
        if !driver.contains("vfio") || driver.contains('/') {
            return refuse(format!("{field}.vfio"), format!("{driver:?} is no vfio driver like vfio-pci"));
        }
        let path = self.place(field, way, at)?;
        self.vfio_gpus.push(MachineVfioGpu { path, zone: way.zone, driver });
        Ok(())
    }

    fn nvswitch(
        &mut self,
        field: &str,
        way: &Way,
        index: u8,
        at: Option<Fact<PciAddress>>,
    ) -> Result<(), MachineError> {
        let path = self.place(field, way, at)?;
        if self.nvswitches.insert(index, path).is_some() {
            return refuse(format!("{field}.nvswitch"), format!("NVSwitch {index} stands twice"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Devices, MachineError> {
        if self.gpus.len() > GpuSet::GPUS_MAX || self.nics.len() > NodeTopology::NICS_MAX {
            let problem = format!("at most {} GPUs and {} NICs are taken", GpuSet::GPUS_MAX, NodeTopology::NICS_MAX);
            return refuse("pcie", problem);
        }
        let gap = self.gpus.keys().enumerate().find(|(position, index)| *position != usize::from(**index));
        if let Some((position, index)) = gap {
            return refuse("pcie", format!("GPU {index} without GPU {position}: indexes run from 0 without gaps"));
        }
        Ok(Devices {
            gpus: self.gpus.into_values().collect(),
            nics: self.nics,
            nvswitches: self.nvswitches.into_values().collect(),
            vfio_gpus: self.vfio_gpus,
            addresses: self.addresses.into_keys().collect(),
        })
    }
}
