//! Board and further facts of a GPU on the wire, both ways.
//!
//! What GPUs have in common stands once, in their product. A healthy GPU adds its serial number and nothing else: the product's `read`
//! says which facts the driver tells, and a fact that is told and has no field is as usual.

use std::sync::Arc;

use berth_model::gpu::detail::{
    Architecture, Board, ComputeMode, Fabric, FabricClique, FabricHealth, FabricState, HostVgpu, NvLinkErrors,
    PcieLink, RowRemap, Virtualization, Wear,
};
use berth_model::mig::MigInstance;
use berth_model::{Gpu, GpuDetail, Link, MiB, MigCapability, MigProfile, SlotMask};

use crate::decode::{DecodeError, at_most, optional_text, outside, refusal, text, unsigned};
use crate::limit::{
    MIG_INSTANCES_MAX, MIG_PROFILES_MAX, NAME_BYTES_MAX, NVLINKS_MAX, SERIALS_BYTES_MAX, TEXT_BYTES_MAX, cut,
};
use crate::topology::v1alpha1 as wire;

/// A letter of `read` and whether a GPU's driver tells it.
type ReadLetter = (char, fn(&GpuDetail) -> bool);

const READ: [ReadLetter; 14] = [
    ('m', |d| d.minor.is_some()),
    ('e', |d| d.board.ecc.is_some()),
    ('d', |d| d.board.persistence.is_some()),
    ('c', |d| d.board.compute_mode.is_some()),
    ('v', |d| d.board.virtualization.is_some()),
    ('u', |d| d.wear.ecc_volatile.is_some()),
    ('U', |d| d.wear.ecc_aggregate.is_some()),
    ('p', |d| d.wear.retired_pages.is_some()),
    ('P', |d| d.wear.retirement_pending.is_some()),
    ('r', |d| d.wear.remap.is_some()),
    ('n', |d| d.nvlink_errors.is_some()),
    ('l', |d| d.pcie.is_some()),
    ('h', |d| d.board.fabric.as_ref().is_some_and(|f| f.health.is_some())),
    ('g', |d| d.board.fabric.as_ref().is_some_and(|f| f.degraded.is_some())),
];

fn read_letters(detail: &GpuDetail) -> String {
    READ.iter().filter(|(_, tells)| tells(detail)).map(|(letter, _)| *letter).collect()
}

/// Serial numbers in the order of the GPUs; empty where none has one.
pub(crate) fn serials(gpus: &[Gpu]) -> String {
    if gpus.iter().all(|g| g.detail.serial.is_none()) {
        return String::new();
    }
    let serial = |gpu: &Gpu| {
        let text = cut(gpu.detail.serial.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
        let one_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if one_word { text.to_owned() } else { NO_SERIAL.to_owned() }
    };
    gpus.iter().map(serial).collect::<Vec<_>>().join(" ")
}

/// The serial number at a position of the list.
pub(crate) fn decode_serials(report: &wire::Status) -> Result<Vec<Option<String>>, DecodeError> {
    let list = text("serials", &report.serials, SERIALS_BYTES_MAX)?;
    if list.is_empty() {
        return Ok(vec![None; report.gpus.len()]);
    }
    let words: Vec<Option<String>> =
        list.split(' ').map(|word| Some(word.to_owned()).filter(|w| w != NO_SERIAL && !w.is_empty())).collect();
    if words.len() != report.gpus.len() {
        return Err(refusal(
            "serials",
            format!("{} words, {} are right (one per GPU)", words.len(), report.gpus.len()),
        ));
    }
    Ok(words)
}

const NO_SERIAL: &str = "-";

/// NVML's version as it is written: it usually ends in the driver's, which then is a star.
pub(crate) fn nvml_version(driver: &str, nvml: &str) -> String {
    match nvml.strip_suffix(driver) {
        Some(rest) if !driver.is_empty() => cut(&format!("{rest}*"), NAME_BYTES_MAX).to_owned(),
        _ => cut(nvml, NAME_BYTES_MAX).to_owned(),
    }
}

/// The version that was written so.
pub(crate) fn decode_nvml_version(driver: &str, written: &str) -> Result<Option<String>, DecodeError> {
    let written = optional_text("driver.nvml", written)?;
    Ok(written.map(|text| text.strip_suffix('*').map_or_else(|| text.clone(), |rest| format!("{rest}{driver}"))))
}

/// Products of a node in the order in which GPUs show them first, so that one product, the usual case, is position 0.
pub(crate) struct Products {
    list: Vec<wire::Product>,
}

impl Products {
    pub(crate) fn of(gpus: &[Gpu]) -> Self {
        let mut list = Vec::new();
        for product in gpus.iter().map(product) {
            if !list.contains(&product) {
                list.push(product);
            }
        }
        Self { list }
    }

    pub(crate) fn position(&self, gpu: &Gpu) -> usize {
        let own = product(gpu);
        self.list.iter().position(|p| *p == own).unwrap_or_default()
    }

    pub(crate) fn into_wire(self) -> Vec<wire::Product> {
        self.list
    }
}

fn product(gpu: &Gpu) -> wire::Product {
    let board = &gpu.detail.board;
    let name = |text: &str| cut(text, NAME_BYTES_MAX).to_owned();
    let mode = board.compute_mode.filter(|m| *m != ComputeMode::Default);
    let virtualization = board.virtualization.filter(|v| *v != Virtualization::None);
    wire::Product {
        name: name(&gpu.product),
        part: name(board.part_number.as_deref().unwrap_or_default()),
        architecture: board.architecture.map_or("", Architecture::word).to_owned(),
        reserved_mib: board.memory_reserved.map(|m| m.0.try_into().unwrap_or(i64::MAX)),
        nvlinks: board.nvlink_count.map(|c| c.min(Link::NVLINKS_MAX).into()),
        nvlink_version: board.nvlink_version.map(i32::from),
        pcie_max: pcie(board.pcie_max),
        read: read_letters(&gpu.detail),
        memory_mib: gpu.memory.map(|m| m.0.try_into().unwrap_or(i64::MAX)),
        mig_enabled: gpu.mig_enabled,
        ecc_off: board.ecc == Some(false),
        persistence_off: board.persistence == Some(false),
        compute_mode: mode.map_or("", ComputeMode::word).to_owned(),
        virtualization: virtualization.map_or("", Virtualization::word).to_owned(),
        host_vgpu: board.host_vgpu.map_or("", HostVgpu::word).to_owned(),
        fabric: board.fabric.as_ref().map(fabric),
        mig_profiles: board.mig.profiles().iter().map(ToString::to_string).collect(),
    }
}

fn fabric(fabric: &Fabric) -> wire::Fabric {
    wire::Fabric {
        state: fabric.state.word().to_owned(),
        failed: fabric.failed,
        cluster: fabric.clique.as_ref().map(|c| cut(&c.cluster, NAME_BYTES_MAX).to_owned()).unwrap_or_default(),
        clique: fabric.clique.as_ref().map_or(0, |c| c.clique.try_into().unwrap_or(i32::MAX)),
        health: fabric.health.filter(|h| *h != FabricHealth::Healthy).map_or("", FabricHealth::word).to_owned(),
        degraded: fabric.degraded == Some(true),
    }
}

fn pcie(link: Option<PcieLink>) -> String {
    link.and_then(|l| PcieLink::new(l.generation, l.width)).map(|l| l.to_string()).unwrap_or_default()
}

/// Writes what a GPU does not share with its like.
pub(crate) fn encode(gpu: &Gpu, report: &mut wire::Gpu) {
    let detail = &gpu.detail;
    let small = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let wear = &detail.wear;
    let remap = wear.remap.unwrap_or_default();
    let errors = detail.nvlink_errors.as_deref().unwrap_or_default().iter().filter(|e| e.link < Link::NVLINKS_MAX);
    let capability = &detail.board.mig;
    // Instances that would not read back, or overlap, must not cost the node its report.
    let mut taken = SlotMask::EMPTY;
    let disjoint = detail.mig_instances.iter().filter(|instance| {
        let joined = taken.join_disjoint(instance.placement.mask());
        taken = joined.unwrap_or(taken);
        joined.is_some()
    });
    let rows = disjoint.map(ToString::to_string);
    let readable = rows.filter(|row| row.len() <= TEXT_BYTES_MAX && MigInstance::parse(row, capability).is_some());
    report.minor = detail.minor.filter(|m| *m != u32::from(gpu.index.0)).map(small);
    report.ecc_volatile = wear.ecc_volatile.unwrap_or(0).try_into().unwrap_or(i64::MAX);
    report.ecc_aggregate = wear.ecc_aggregate.unwrap_or(0).try_into().unwrap_or(i64::MAX);
    report.retired_pages = small(wear.retired_pages.unwrap_or(0));
    report.retirement_pending = wear.retirement_pending == Some(true);
    report.rows_correctable = small(remap.correctable);
    report.rows_uncorrectable = small(remap.uncorrectable);
    report.remap_pending = remap.pending;
    report.remap_failed = remap.failed;
    report.nvlinks_down =
        detail.nvlinks_down.iter().filter(|n| **n < Link::NVLINKS_MAX).take(NVLINKS_MAX).map(|n| (*n).into()).collect();
    report.nvlink_errors = errors.take(NVLINKS_MAX).map(|e| format!("{}:{}", e.link, e.at_least)).collect();
    report.pcie = pcie(detail.pcie.filter(|link| Some(*link) != detail.board.pcie_max));
    report.mig_pending = detail.mig_pending;
    report.mig_instances = readable.take(MIG_INSTANCES_MAX).collect();
}

/// A product as its GPUs refer to it.
pub(crate) struct Product {
    pub(crate) name: String,
    /// Frame buffer of each GPU.
    pub(crate) memory: Option<MiB>,
    /// Whether MIG is on.
    pub(crate) mig_enabled: Option<bool>,
    board: Arc<Board>,
    read: String,
}

impl Product {
    /// `value` where the driver tells this fact.
    fn told<T>(&self, letter: char, value: T) -> Option<T> {
        self.read.contains(letter).then_some(value)
    }
}

pub(crate) fn decode_product(product: &wire::Product) -> Result<Product, DecodeError> {
    let name = text("name", &product.name, NAME_BYTES_MAX)?;
    let read = text("read", &product.read, NAME_BYTES_MAX)?;
    let memory = product.memory_mib.map(|m| unsigned("memoryMiB", m)).transpose()?.map(MiB);
    let mut taken = Product { name, memory, mig_enabled: product.mig_enabled, board: Arc::default(), read };
    let count = product.nvlinks.map(|c| byte("nvlinks", c)).transpose()?;
    if let Some(count) = count.filter(|c| *c > Link::NVLINKS_MAX) {
        return Err(outside("nvlinks", count, Link::NVLINKS_MAX));
    }
    taken.board = Arc::new(Board {
        part_number: optional_text("part", &product.part)?,
        // A word of a newer agent is not known, here and below.
        architecture: Architecture::from_word(&product.architecture),
        memory_reserved: product.reserved_mib.map(|m| unsigned("reservedMiB", m)).transpose()?.map(MiB),
        nvlink_count: count,
        nvlink_version: product.nvlink_version.map(|v| byte("nvlinkVersion", v)).transpose()?,
        pcie_max: decode_pcie("pcieMax", &product.pcie_max)?,
        ecc: taken.told('e', !product.ecc_off),
        persistence: taken.told('d', !product.persistence_off),
        compute_mode: match product.compute_mode.as_str() {
            "" => taken.told('c', ComputeMode::Default),
            word => ComputeMode::from_word(word),
        },
        virtualization: match product.virtualization.as_str() {
            "" => taken.told('v', Virtualization::None),
            word => Virtualization::from_word(word),
        },
        host_vgpu: HostVgpu::from_word(&product.host_vgpu),
        fabric: product.fabric.as_ref().map(|f| decode_fabric(f, &taken)).transpose()?.flatten(),
        mig: decode_profiles(&product.mig_profiles)?,
    });
    Ok(taken)
}

fn decode_fabric(fabric: &wire::Fabric, product: &Product) -> Result<Option<Fabric>, DecodeError> {
    let cluster = optional_text("fabric.cluster", &fabric.cluster)?;
    let clique = u32::try_from(fabric.clique).map_err(|_| outside("fabric.clique", fabric.clique, i32::MAX))?;
    let Some(state) = FabricState::from_word(&fabric.state) else { return Ok(None) };
    Ok(Some(Fabric {
        state,
        failed: fabric.failed,
        clique: cluster.map(|cluster| FabricClique { cluster, clique }),
        health: match fabric.health.as_str() {
            "" => product.told('h', FabricHealth::Healthy),
            word => FabricHealth::from_word(word),
        },
        degraded: product.told('g', fabric.degraded),
    }))
}

fn decode_profiles(rows: &[String]) -> Result<MigCapability, DecodeError> {
    at_most("migProfiles", rows.len(), MIG_PROFILES_MAX)?;
    let mut profiles = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let field = format!("migProfiles[{i}]");
        let row = text(&field, row, TEXT_BYTES_MAX)?;
        profiles.push(MigProfile::parse(&row).map_err(|error| refusal(field, error))?);
    }
    MigCapability::try_new(profiles).map_err(|error| refusal("migProfiles", error))
}

fn decode_pcie(field: &str, link: &str) -> Result<Option<PcieLink>, DecodeError> {
    if link.is_empty() {
        return Ok(None);
    }
    let read = PcieLink::parse(link);
    read.map(Some).ok_or_else(|| refusal(field, format!("{:?} is no link like 5x16", cut(link, 32))))
}

pub(crate) fn decode(
    position: usize,
    gpu: &wire::Gpu,
    product: &Product,
    serial: Option<String>,
) -> Result<GpuDetail, DecodeError> {
    let count = |field: &str, value: i32| u32::try_from(value).map_err(|_| outside(field, value, i32::MAX));
    let remap = RowRemap {
        correctable: count("rowsCorrectable", gpu.rows_correctable)?,
        uncorrectable: count("rowsUncorrectable", gpu.rows_uncorrectable)?,
        pending: gpu.remap_pending,
        failed: gpu.remap_failed,
    };
    let minor = match gpu.minor {
        Some(minor) => Some(count("minor", minor)?),
        None => product.told('m', u32::try_from(position).unwrap_or(u32::MAX)),
    };
    Ok(GpuDetail {
        board: Arc::clone(&product.board),
        serial,
        minor,
        wear: Wear {
            ecc_volatile: product.told('u', unsigned("eccVolatile", gpu.ecc_volatile)?),
            ecc_aggregate: product.told('U', unsigned("eccAggregate", gpu.ecc_aggregate)?),
            retired_pages: product.told('p', count("retiredPages", gpu.retired_pages)?),
            retirement_pending: product.told('P', gpu.retirement_pending),
            remap: product.told('r', remap),
        },
        nvlinks_down: nvlinks_down(&gpu.nvlinks_down)?,
        nvlink_errors: product.told('n', nvlink_errors(&gpu.nvlink_errors)?),
        pcie: decode_pcie("pcie", &gpu.pcie)?.or_else(|| product.told('l', product.board.pcie_max).flatten()),
        mig_pending: gpu.mig_pending,
        mig_instances: mig_instances(&gpu.mig_instances, &product.board.mig)?,
    })
}

fn nvlinks_down(numbers: &[i32]) -> Result<Vec<u8>, DecodeError> {
    at_most("nvlinksDown", numbers.len(), NVLINKS_MAX)?;
    numbers.iter().map(|n| nvlink(*n).ok_or_else(|| outside("nvlinksDown", n, Link::NVLINKS_MAX - 1))).collect()
}

fn nvlink(number: i32) -> Option<u8> {
    u8::try_from(number).ok().filter(|n| *n < Link::NVLINKS_MAX)
}

fn nvlink_errors(rows: &[String]) -> Result<Vec<NvLinkErrors>, DecodeError> {
    at_most("nvlinkErrors", rows.len(), NVLINKS_MAX)?;
    let read = |row: &String| {
        let (link, count) = row.split_once(':')?;
        NvLinkErrors::of(nvlink(link.parse().ok()?)?, count.parse().ok()?)
    };
    let problem = |row: &str| refusal("nvlinkErrors", format!("{:?} is no link:count", cut(row, 32)));
    rows.iter().map(|row| read(row).ok_or_else(|| problem(row))).collect()
}

fn mig_instances(rows: &[String], capability: &MigCapability) -> Result<Vec<MigInstance>, DecodeError> {
    at_most("migInstances", rows.len(), MIG_INSTANCES_MAX)?;
    let mut instances = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let field = format!("migInstances[{i}]");
        let row = text(&field, row, TEXT_BYTES_MAX)?;
        let problem = || refusal(field.clone(), format!("{:?} is at no placement of migProfiles", cut(&row, 64)));
        instances.push(MigInstance::parse(&row, capability).ok_or_else(problem)?);
    }
    if MigInstance::slots(&instances).is_none() {
        return Err(refusal("migInstances", "two instances share a memory slot"));
    }
    Ok(instances)
}

fn byte(field: &str, value: i32) -> Result<u8, DecodeError> {
    u8::try_from(value).map_err(|_| outside(field, value, u8::MAX))
}
