//! Wire to model. Everything from outside is checked here, once; the error names the field and what would be right.

mod host;
mod nic;

use std::fmt::Display;

use berth_model::link::MatrixError;
use berth_model::{
    BootId, CpuSet, DevicePlugin, Drift, Driver, DriverVersions, Finding, Generation, Gpu, GpuIndex, GpuUuid, Health,
    HugePages, Level, LinkMatrix, MiB, NodeName, NodeTopology, Parts, PciAddress, Refusal, RefusalReason,
    TopologyError, Zone, ZoneId,
};

use crate::detail::{self, Product};
use crate::encode::cpus_of_zone;
use crate::limit::{
    CPU_LIST_BYTES_MAX, DEVICES_MAX, DRIFT_DEVICES_MAX, DRIFTS_MAX, FINDINGS_MAX, GPUS_MAX, ID_BYTES_MAX,
    NAME_BYTES_MAX, NICS_MAX, POD_BYTES_MAX, REFUSALS_MAX, RESOURCE_BYTES_MAX, ROW_BYTES_MAX, TEXT_BYTES_MAX,
    ZONES_MAX, cut,
};
use crate::topology::v1alpha1 as wire;

/// Why a report is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct DecodeError {
    /// Path of the field in the report, e.g. `gpus[3].uuid`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl DecodeError {
    /// The same error seen from one level further out.
    fn within(mut self, list: &str, position: usize) -> Self {
        self.field = format!("{list}[{position}].{}", self.field);
        self
    }
}

impl From<TopologyError> for DecodeError {
    fn from(error: TopologyError) -> Self {
        Self { field: error.field, problem: error.problem }
    }
}

/// The topology that a report tells of a node.
///
/// A word that this version does not know, from a newer agent, becomes `unknown` where the model has such a value: one new word must
/// not cost a cluster under upgrade its reports. Summary fields are not read.
///
/// # Errors
/// [`DecodeError`] for the first field that is missing, malformed, outside its limit, or contradicts another.
pub fn decode(node: &str, report: &wire::Status) -> Result<NodeTopology, DecodeError> {
    let zones = each("zones", &report.zones, ZONES_MAX, |_, z| zone(z))?;
    let products = each("products", &report.products, GPUS_MAX, |_, p| detail::decode_product(p))?;
    at_most("gpus", report.gpus.len(), GPUS_MAX)?;
    let serials = detail::decode_serials(report)?;
    let topology = NodeTopology::try_new(Parts {
        node: NodeName::parse(node).map_err(|e| refusal("metadata.name", e))?,
        boot_id: BootId::parse(&report.boot_id).map_err(|e| refusal("bootID", e))?,
        generation: Generation(unsigned("generation", report.generation)?),
        driver: driver(report.driver.as_ref())?,
        gpus: each("gpus", &report.gpus, GPUS_MAX, |i, g| {
            gpu(i, g, &zones, &products, serials.get(i).cloned().flatten())
        })?,
        nics: each("nics", &report.nics, NICS_MAX, |_, n| nic::nic(n))?,
        links: links(&report.links)?,
        host: host::host(report.host.as_ref())?,
        findings: each("findings", &report.findings, FINDINGS_MAX, |_, f| finding(f))?,
        drifts: each("drifts", &report.drifts, DRIFTS_MAX, |_, d| drift(d))?,
        refusals: each("refusals", &report.refusals, REFUSALS_MAX, |_, r| refused(r))?.into_iter().flatten().collect(),
        device_plugin: report.device_plugin.as_ref().and_then(device_plugin),
        zones,
    })?;
    Ok(topology)
}

/// Decodes a list of bounded length; an error gets the item's place.
fn each<W, M>(
    list: &str,
    items: &[W],
    count_max: usize,
    decode_one: impl Fn(usize, &W) -> Result<M, DecodeError>,
) -> Result<Vec<M>, DecodeError> {
    at_most(list, items.len(), count_max)?;
    items.iter().enumerate().map(|(i, item)| decode_one(i, item).map_err(|e| e.within(list, i))).collect()
}

fn driver(driver: Option<&wire::Driver>) -> Result<Driver, DecodeError> {
    let Some(driver) = driver else {
        return Err(refusal("driver", "missing, an object with a state is right"));
    };
    match driver.state.as_str() {
        "loaded" => Ok(Driver::Loaded(DriverVersions {
            driver: text("driver.version", &driver.version, NAME_BYTES_MAX)?,
            nvml: detail::decode_nvml_version(&driver.version, &driver.nvml)?,
            cuda: optional_text("driver.cuda", &driver.cuda)?,
        })),
        "absent" => Ok(Driver::Absent(text("driver.text", &driver.text, TEXT_BYTES_MAX)?)),
        other => Err(refusal("driver.state", format!("{:?} is neither loaded nor absent", cut(other, NAME_BYTES_MAX)))),
    }
}

fn zone(zone: &wire::Zone) -> Result<Zone, DecodeError> {
    at_most("distances", zone.distances.len(), ZONES_MAX)?;
    let distance = |d: &i32| u16::try_from(*d).map_err(|_| outside("distances", *d, u16::MAX));
    Ok(Zone {
        id: zone_id("id", zone.id)?,
        cpus: cpus(&zone.cpus)?,
        memory: zone.memory_mib.map(|m| unsigned("memoryMiB", m)).transpose()?.map(MiB),
        huge_pages: zone.huge_pages.as_deref().map(huge_pages).transpose()?,
        distances: zone.distances.iter().map(distance).collect::<Result<_, _>>()?,
    })
}

fn huge_pages(text: &str) -> Result<Vec<HugePages>, DecodeError> {
    let wrong =
        || refusal("hugePages", format!("{:?}, none or a text like 2048x1024 is right", cut(text, NAME_BYTES_MAX)));
    HugePages::parse(text).ok_or_else(wrong)
}

fn gpu(
    position: usize,
    gpu: &wire::Gpu,
    zones: &[Zone],
    products: &[Product],
    serial: Option<String>,
) -> Result<Gpu, DecodeError> {
    let product = usize::try_from(gpu.product_index).ok().and_then(|p| products.get(p)).ok_or_else(|| {
        let problem = format!("{} is no position in products, which has {}", gpu.product_index, products.len());
        refusal("productIndex", problem)
    })?;
    let zone = optional_zone_id("zone", gpu.zone)?;
    Ok(Gpu {
        index: GpuIndex(u8::try_from(position).map_err(|_| outside("index", position, u8::MAX))?),
        uuid: GpuUuid::parse(&gpu.uuid).map_err(|e| refusal("uuid", e))?,
        pci: pci(&gpu.pci)?,
        product: product.name.clone(),
        memory: gpu.memory_mib.map(|m| unsigned("memoryMiB", m)).transpose()?.map(MiB).or(product.memory),
        zone,
        cpus: gpu.cpus.as_deref().map_or_else(|| Ok(cpus_of_zone(zones, zone)), cpus)?,
        memory_zone: optional_zone_id("memoryZone", gpu.memory_zone)?,
        nearest_zones: gpu.nearest_zones.as_deref().map(nearest_zones).transpose()?,
        mig_enabled: gpu.mig_enabled.or(product.mig_enabled),
        health: health(gpu)?,
        detail: detail::decode(position, gpu, product, serial)?,
    })
}

/// A PCI address with its domain, or without where that is 0.
fn pci(text: &str) -> Result<PciAddress, DecodeError> {
    let whole = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    PciAddress::parse(&whole).map_err(|e| refusal("pci", e))
}

/// A list of zone ids in the kernel's form of a list of CPUs.
fn nearest_zones(list: &str) -> Result<Vec<ZoneId>, DecodeError> {
    let ids = CpuSet::parse(list).map_err(|e| refusal("nearestZones", e))?;
    ids.cpus().map(|id| u16::try_from(id).map(ZoneId).map_err(|_| outside("nearestZones", id, u16::MAX))).collect()
}

fn health(gpu: &wire::Gpu) -> Result<Health, DecodeError> {
    let reason = text("healthReason", &gpu.health_reason, TEXT_BYTES_MAX)?;
    match gpu.health.as_str() {
        "healthy" => Ok(Health::Healthy),
        "unhealthy" => Ok(Health::Unhealthy(reason)),
        "unknown" => Ok(Health::Unknown(reason)),
        "" => Err(refusal("health", "missing, one of healthy, unhealthy, unknown is right")),
        other => Ok(Health::Unknown(format!("reported as {:?}, a word of a newer agent", cut(other, NAME_BYTES_MAX)))),
    }
}

fn links(rows: &[String]) -> Result<LinkMatrix, DecodeError> {
    at_most("links", rows.len(), DEVICES_MAX)?;
    if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.len() > ROW_BYTES_MAX) {
        return Err(refusal(format!("links[{i}]"), format!("{} bytes, at most {ROW_BYTES_MAX} are taken", row.len())));
    }
    LinkMatrix::parse(rows).map_err(|error| {
        let (MatrixError::Shape { row, .. } | MatrixError::Cell { row, .. } | MatrixError::Asymmetric { row, .. }) =
            &error;
        refusal(format!("links[{row}]"), &error)
    })
}

fn finding(finding: &wire::Finding) -> Result<Finding, DecodeError> {
    Ok(Finding {
        code: text("code", &finding.code, NAME_BYTES_MAX)?,
        device: text("device", &finding.device, NAME_BYTES_MAX)?,
        text: text("text", &finding.text, TEXT_BYTES_MAX)?,
    })
}

/// A level that this version does not know promises nothing that it could tell.
fn device_plugin(plugin: &wire::DevicePlugin) -> Option<DevicePlugin> {
    let level = Level::parse(&plugin.level).filter(|level| *level > Level::Advice)?;
    Some(DevicePlugin { level, is_accepting: plugin.accepting })
}

fn drift(drift: &wire::Drift) -> Result<Drift, DecodeError> {
    at_most("devices", drift.devices.len(), DRIFT_DEVICES_MAX)?;
    if drift.pod_uid.is_empty() {
        return Err(refusal("podUID", "missing, the UID of a pod is right"));
    }
    Ok(Drift {
        pod: text("pod", &drift.pod, POD_BYTES_MAX)?,
        pod_uid: text("podUID", &drift.pod_uid, NAME_BYTES_MAX)?,
        resource: text("resource", &drift.resource, RESOURCE_BYTES_MAX)?,
        devices: drift.devices.iter().map(|id| text("devices", id, ID_BYTES_MAX)).collect::<Result<_, _>>()?,
    })
}

/// A refusal; `None` where its reason is a word of a newer agent.
fn refused(refused: &wire::Refusal) -> Result<Option<Refusal>, DecodeError> {
    if refused.pod_uid.is_empty() {
        return Err(refusal("podUID", "missing, the UID of a pod is right"));
    }
    let Some(reason) = RefusalReason::from_word(&refused.reason) else { return Ok(None) };
    Ok(Some(Refusal {
        pod: text("pod", &refused.pod, POD_BYTES_MAX)?,
        pod_uid: text("podUID", &refused.pod_uid, NAME_BYTES_MAX)?,
        container: text("container", &refused.container, NAME_BYTES_MAX)?,
        reason,
        text: text("text", &refused.text, TEXT_BYTES_MAX)?,
    }))
}

fn cpus(list: &str) -> Result<CpuSet, DecodeError> {
    cpus_at("cpus", list)
}

fn cpus_at(field: &str, list: &str) -> Result<CpuSet, DecodeError> {
    let list = text(field, list, CPU_LIST_BYTES_MAX)?;
    CpuSet::parse(&list).map_err(|e| refusal(field, e))
}

fn zone_id(field: &str, id: i32) -> Result<ZoneId, DecodeError> {
    u16::try_from(id).map(ZoneId).map_err(|_| outside(field, id, u16::MAX))
}

fn optional_zone_id(field: &str, id: Option<i32>) -> Result<Option<ZoneId>, DecodeError> {
    id.map(|id| zone_id(field, id)).transpose()
}

pub(crate) fn unsigned(field: &str, value: i64) -> Result<u64, DecodeError> {
    u64::try_from(value).map_err(|_| outside(field, value, i64::MAX))
}

pub(crate) fn text(field: &str, given: &str, bytes_max: usize) -> Result<String, DecodeError> {
    if given.len() > bytes_max {
        return Err(refusal(field, format!("{} bytes, at most {bytes_max} are taken", given.len())));
    }
    Ok(given.to_owned())
}

/// A name that is absent where it is empty.
pub(crate) fn optional_text(field: &str, given: &str) -> Result<Option<String>, DecodeError> {
    text(field, given, NAME_BYTES_MAX).map(|t| Some(t).filter(|t| !t.is_empty()))
}

pub(crate) fn at_most(field: &str, count: usize, count_max: usize) -> Result<(), DecodeError> {
    if count > count_max {
        return Err(refusal(field, format!("{count} entries, at most {count_max} are taken")));
    }
    Ok(())
}

pub(crate) fn outside(field: &str, value: impl Display, max: impl Display) -> DecodeError {
    refusal(field, format!("{value} is not within 0 to {max}"))
}

pub(crate) fn refusal(field: impl Into<String>, problem: impl Display) -> DecodeError {
    DecodeError { field: field.into(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests;
