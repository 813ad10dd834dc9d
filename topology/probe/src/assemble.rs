//! Judges what was read and makes the report of it. Pure: the same facts and the same previous report give the same topology.
//!
//! Bad input never loses the rest: a device that cannot be taken becomes a finding, and what is unknown stays unknown. GPUs are in
//! [`gpus`], NICs in [`nics`], the link matrix in [`links`], the host around them in [`host`]; zones and findings are here.

mod detail;
mod gpus;
pub mod health;
mod host;
mod links;
mod nics;

use berth_model::{
    BootId, CpuSet, Driver, DriverVersions, Finding, Generation, NodeName, NodeTopology, Parts, TopologyError, Zone,
    ZoneId,
};

use crate::facts::{Answer, NvmlFacts, NvmlNode, RawFacts, SysfsFacts};
use crate::finding;

/// Boot id of a report whose kernel shows none. It equals no node's boot id, so the report counts as stale, never as fresh.
pub const BOOT_ID_UNKNOWN: &str = "unknown";

/// Most findings of a report. A broken node must not outgrow the object that carries its report.
pub const FINDINGS_MAX: usize = 48;

/// Longest text taken from a driver or kernel into the report, in characters. NVML's own product buffer has 96 bytes.
const TEXT_CHARS_MAX: usize = 160;

/// Makes the report of `node` from what was read. `previous` is the node's last report, of this boot or not: it lends a GPU that no
/// longer answers its identity.
///
/// # Errors
/// [`TopologyError`] when the parts contradict each other, which is an error of this function.
pub fn assemble(
    facts: &RawFacts,
    previous: Option<&NodeTopology>,
    node: NodeName,
) -> Result<NodeTopology, TopologyError> {
    let mut findings = Findings::default();
    let boot_id = boot_id(&facts.sysfs, &mut findings)?;
    let zones = Zones::take(&facts.sysfs, &mut findings);
    for fault in &facts.sysfs.faults {
        findings.add(finding::SYSFS_UNREADABLE, &fault.path, &fault.problem);
    }
    let (driver, gpus) = match &facts.nvml {
        NvmlFacts::NoDriver(why) => {
            gpus::note_driverless(&facts.sysfs, why, &mut findings);
            (Driver::Absent(clean(why)), Vec::new())
        }
        NvmlFacts::Read(nvml) => {
            (Driver::Loaded(versions(nvml)), gpus::take(nvml, &facts.sysfs, &zones, previous, &mut findings))
        }
    };
    let nics = nics::take(&facts.sysfs, &zones, &mut findings);
    let links = links::matrix(&facts.sysfs, &gpus, &nics, &mut findings);
    links::note_down(&gpus, previous, &mut findings);
    let host = host::take(&facts.sysfs, previous.filter(|p| p.parts().boot_id == boot_id));
    NodeTopology::try_new(Parts {
        node,
        boot_id,
        generation: Generation(0),
        driver,
        zones: zones.zones,
        gpus: gpus.into_iter().map(|g| g.gpu).collect(),
        nics: nics.into_iter().map(|n| n.nic).collect(),
        links,
        host,
        findings: findings.sorted(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
}

/// CUDA's version comes as 13010 for 13.1.
fn versions(nvml: &NvmlNode) -> DriverVersions {
    let text = |answer: &Answer<String>| answer.as_ref().ok().map(|v| clean(v)).filter(|v| !v.is_empty());
    let cuda = nvml.cuda_version.as_ref().ok().filter(|v| **v > 0);
    DriverVersions {
        driver: text(&nvml.driver_version).unwrap_or_default(),
        nvml: text(&nvml.nvml_version),
        cuda: cuda.map(|v| format!("{}.{}", v / 1000, v % 1000 / 10)),
    }
}

fn boot_id(sysfs: &SysfsFacts, findings: &mut Findings) -> Result<BootId, TopologyError> {
    if let Some(id) = sysfs.boot_id.as_deref().and_then(|text| BootId::parse(text).ok()) {
        return Ok(id);
    }
    findings.add(
        finding::BOOT_ID_UNKNOWN,
        "",
        "the kernel shows no boot id: whether this report is of the current boot is unknown",
    );
    BootId::parse(BOOT_ID_UNKNOWN)
        .map_err(|error| TopologyError { field: "bootId".to_owned(), problem: error.to_string() })
}

/// Findings as they come up.
#[derive(Debug, Default)]
struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, code: &str, device: &str, text: impl AsRef<str>) {
        self.list.push(Finding { code: code.to_owned(), device: clean(device), text: clean(text.as_ref()) });
    }

    fn sorted(mut self) -> Vec<Finding> {
        self.list.sort();
        self.list.dedup();
        self.list.truncate(FINDINGS_MAX);
        self.list
    }
}

/// The node's zones, with the questions that devices ask.
struct Zones {
    zones: Vec<Zone>,
}

impl Zones {
    fn take(sysfs: &SysfsFacts, findings: &mut Findings) -> Self {
        let taken = sysfs.zones.len().min(NodeTopology::ZONES_MAX);
        if taken < sysfs.zones.len() {
            let text = format!("{} zones, the first {taken} are reported", sysfs.zones.len());
            findings.add(finding::ZONE_REFUSED, "", text);
        }
        let zones = sysfs.zones.iter().take(taken).map(|facts| {
            let mut distances = facts.distances.clone().unwrap_or_default();
            if !distances.is_empty() && distances.len() != taken {
                let text = format!("{} distances for {taken} zones: left out", distances.len());
                findings.add(finding::ZONE_REFUSED, &format!("zone {}", facts.id), text);
                distances.clear();
            }
            let (cpus, huge_pages) = (facts.cpus.clone().unwrap_or_default(), facts.huge_pages.clone());
            Zone { id: facts.id, cpus, memory: facts.memory, huge_pages, distances }
        });
        Self { zones: zones.collect() }
    }

    fn get(&self, id: ZoneId) -> Option<&Zone> {
        self.zones.iter().find(|z| z.id == id)
    }

    /// The zone of a device from what the kernel says of it: a machine with one zone needs no answer.
    fn of_device(&self, claimed: Option<ZoneId>, device: &str, findings: &mut Findings) -> Option<ZoneId> {
        match (claimed, self.zones.as_slice()) {
            (Some(id), _) if self.get(id).is_some() => Some(id),
            (Some(id), _) => {
                let text = format!("the kernel places it in zone {id}, which the node does not have");
                findings.add(finding::ZONE_UNKNOWN, device, text);
                None
            }
            (None, [only]) => Some(only.id),
            (None, _) => None,
        }
    }

    /// The first of the given zones that has CPUs, else the first. On Grace the list starts with the CPU node and goes on with GPU memory.
    fn nearest(&self, ids: &[ZoneId]) -> Option<ZoneId> {
        let mut known = ids.iter().filter_map(|id| self.get(*id));
        let first = known.clone().next();
        known.find(|z| !z.cpus.is_empty()).or(first).map(|z| z.id)
    }

    fn cpus(&self, id: Option<ZoneId>) -> CpuSet {
        id.and_then(|id| self.get(id)).map(|z| z.cpus.clone()).unwrap_or_default()
    }
}

/// Foreign text as it may stand in a report: printable, bounded, without blanks at the ends.
fn clean(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(TEXT_CHARS_MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests;
