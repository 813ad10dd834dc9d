//! Model to wire, the host in [`host`]. Total: every topology has a report, and decode takes each one.

pub(crate) mod host;

use berth_model::{
    CpuSet, DevicePlugin, Drift, Driver, Finding, Gpu, HugePages, LinkLayer, MiB, Nic, NodeTopology, Parts, PciAddress,
    PortState, Refusal, VirtualFunction, Zone, ZoneId,
};

use crate::detail::{self, Products};
use crate::limit::{
    DRIFT_DEVICES_MAX, DRIFTS_MAX, FINDINGS_MAX, ID_BYTES_MAX, NAME_BYTES_MAX, NETDEVS_MAX, POD_BYTES_MAX,
    REFUSALS_MAX, RESOURCE_BYTES_MAX, TEXT_BYTES_MAX, VIRTUAL_FUNCTIONS_MAX, cut,
};
use crate::topology::v1alpha1 as wire;

/// The report of a topology, written by an agent of the given version.
///
/// Texts meant for people are cut to their limits rather than refused: a long driver message must not cost the node its report.
#[must_use]
pub fn encode(topology: &NodeTopology, agent_version: &str) -> wire::Status {
    let parts = topology.parts();
    let products = Products::of(&parts.gpus);
    wire::Status {
        gpu_count: parts.gpus.len().try_into().unwrap_or(i32::MAX),
        product: cut(&topology.products(), TEXT_BYTES_MAX).to_owned(),
        link_class: topology.link_class(),
        health: health_word(parts).to_owned(),
        generation: parts.generation.0.try_into().unwrap_or(i64::MAX),
        boot_id: parts.boot_id.to_string(),
        agent_version: cut(agent_version, NAME_BYTES_MAX).to_owned(),
        driver: Some(driver(&parts.driver)),
        zones: parts.zones.iter().map(zone).collect(),
        gpus: parts.gpus.iter().map(|g| gpu(g, &parts.zones, &products)).collect(),
        products: products.into_wire(),
        serials: detail::serials(&parts.gpus),
        nics: parts.nics.iter().map(nic).collect(),
        links: parts.links.rows(),
        host: host::host(&parts.host),
        findings: parts.findings.iter().take(FINDINGS_MAX).map(finding).collect(),
        drifts: parts.drifts.iter().take(DRIFTS_MAX).map(drift).collect(),
        refusals: parts.refusals.iter().take(REFUSALS_MAX).map(refusal).collect(),
        device_plugin: parts.device_plugin.map(device_plugin),
    }
}

fn device_plugin(plugin: DevicePlugin) -> wire::DevicePlugin {
    wire::DevicePlugin { level: plugin.level.word().to_owned(), accepting: plugin.is_accepting }
}

fn drift(drift: &Drift) -> wire::Drift {
    wire::Drift {
        pod: cut(&drift.pod, POD_BYTES_MAX).to_owned(),
        pod_uid: cut(&drift.pod_uid, NAME_BYTES_MAX).to_owned(),
        resource: cut(&drift.resource, RESOURCE_BYTES_MAX).to_owned(),
        devices: drift.devices.iter().take(DRIFT_DEVICES_MAX).map(|id| cut(id, ID_BYTES_MAX).to_owned()).collect(),
    }
}

fn refusal(refusal: &Refusal) -> wire::Refusal {
    wire::Refusal {
        pod: cut(&refusal.pod, POD_BYTES_MAX).to_owned(),
        pod_uid: cut(&refusal.pod_uid, NAME_BYTES_MAX).to_owned(),
        container: cut(&refusal.container, NAME_BYTES_MAX).to_owned(),
        reason: refusal.reason.word().to_owned(),
        text: cut(&refusal.text, TEXT_BYTES_MAX).to_owned(),
    }
}

/// The word of the HEALTH column.
fn health_word(parts: &Parts) -> &'static str {
    let usable = parts.gpus.iter().filter(|g| g.health.is_usable()).count();
    match &parts.driver {
        Driver::Absent(_) => "no-driver",
        Driver::Loaded(_) if usable == 0 && !parts.gpus.is_empty() => "unhealthy",
        Driver::Loaded(_) if usable < parts.gpus.len() || !parts.findings.is_empty() => "degraded",
        Driver::Loaded(_) => "healthy",
    }
}

fn driver(driver: &Driver) -> wire::Driver {
    let name = |text: &str| cut(text, NAME_BYTES_MAX).to_owned();
    match driver {
        Driver::Loaded(versions) => wire::Driver {
            state: "loaded".to_owned(),
            version: name(&versions.driver),
            text: String::new(),
            nvml: detail::nvml_version(&versions.driver, versions.nvml.as_deref().unwrap_or_default()),
            cuda: name(versions.cuda.as_deref().unwrap_or_default()),
        },
        Driver::Absent(text) => wire::Driver {
            state: "absent".to_owned(),
            text: cut(text, TEXT_BYTES_MAX).to_owned(),
            ..wire::Driver::default()
        },
    }
}

fn zone(zone: &Zone) -> wire::Zone {
    wire::Zone {
        id: zone.id.0.into(),
        cpus: zone.cpus.to_string(),
        memory_mib: zone.memory.map(mib),
        huge_pages: zone.huge_pages.as_deref().map(HugePages::text),
        distances: zone.distances.iter().copied().map(i32::from).collect(),
    }
}

fn gpu(gpu: &Gpu, zones: &[Zone], products: &Products) -> wire::Gpu {
    let differs = gpu.cpus != cpus_of_zone(zones, gpu.zone);
    let mut report = wire::Gpu {
        uuid: gpu.uuid.to_string(),
        pci: pci(gpu.pci),
        product_index: products.position(gpu).try_into().unwrap_or(i32::MAX),
        zone: gpu.zone.map(|z| z.0.into()),
        cpus: differs.then(|| gpu.cpus.to_string()),
        memory_zone: gpu.memory_zone.map(|z| z.0.into()),
        nearest_zones: gpu.nearest_zones.as_deref().map(zone_list),
        health: gpu.health.word().to_owned(),
        health_reason: cut(gpu.health.reason(), TEXT_BYTES_MAX).to_owned(),
        ..wire::Gpu::default()
    };
    detail::encode(gpu, &mut report);
    report
}

/// A PCI address, without its domain where that is 0, as it is on nearly every machine.
fn pci(address: PciAddress) -> String {
    let whole = address.to_string();
    whole.strip_prefix("0000:").map(str::to_owned).unwrap_or(whole)
}

/// Zones in the kernel's list form.
fn zone_list(zones: &[ZoneId]) -> String {
    CpuSet::from_cpus(zones.iter().map(|z| u32::from(z.0))).to_string()
}

/// What a GPU's CPUs are where the report does not say: those of its zone.
pub(crate) fn cpus_of_zone(zones: &[Zone], zone: Option<ZoneId>) -> CpuSet {
    zones.iter().find(|z| Some(z.id) == zone).map(|z| z.cpus.clone()).unwrap_or_default()
}

fn nic(nic: &Nic) -> wire::Nic {
    wire::Nic {
        name: nic.name.to_string(),
        pci: nic.pci.map(pci).unwrap_or_default(),
        zone: nic.zone.map(|z| z.0.into()),
        link_layer: match nic.link_layer {
            LinkLayer::InfiniBand => "infiniband",
            LinkLayer::Ethernet => "ethernet",
            LinkLayer::Unknown => "unknown",
        }
        .to_owned(),
        state: match nic.state {
            PortState::Active => "active",
            PortState::Down => "down",
            PortState::Unknown => "unknown",
        }
        .to_owned(),
        rate_gbps: nic.rate_gbps.map(|r| r.try_into().unwrap_or(i32::MAX)),
        netdevs: nic.function.netdevs.iter().take(NETDEVS_MAX).map(String::as_str).collect::<Vec<_>>().join(" "),
        bond: nic.function.bond.as_ref().map(|bond| wire::Bond {
            name: bond.name.clone(),
            members: bond.members.iter().take(NETDEVS_MAX).cloned().collect(),
        }),
        card: nic.function.card.map(i32::from),
        vfs_max: nic.function.sriov.map(|s| s.function_count_max.into()),
        vfs: nic.function.sriov.map(|s| s.function_count.into()).unwrap_or_default(),
        virtual_functions: nic
            .function
            .virtual_functions
            .iter()
            .take(VIRTUAL_FUNCTIONS_MAX)
            .map(virtual_function)
            .collect(),
    }
}

fn virtual_function(function: &VirtualFunction) -> String {
    let name = function.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    format!("{}{name}", function.pci)
}

fn finding(finding: &Finding) -> wire::Finding {
    wire::Finding {
        code: cut(&finding.code, NAME_BYTES_MAX).to_owned(),
        device: cut(&finding.device, NAME_BYTES_MAX).to_owned(),
        text: cut(&finding.text, TEXT_BYTES_MAX).to_owned(),
    }
}

fn mib(size: MiB) -> i64 {
    size.0.try_into().unwrap_or(i64::MAX)
}
