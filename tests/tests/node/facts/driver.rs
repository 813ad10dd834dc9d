//! What the driver tells of itself and of what a GPU is, with the call that tells it. Links, fabric and MIG are in [`super::fabric`].

use berth_model::{Driver, DriverVersions, Gpu, Parts};

use super::Place::{Gpu as Gpu0, Top};
use super::Source::{Calls, Files};
use super::{Fact, say};

fn gpu(parts: &Parts) -> &Gpu {
    &parts.gpus[0]
}

fn versions(parts: &Parts) -> DriverVersions {
    match &parts.driver {
        Driver::Loaded(versions) => versions.clone(),
        Driver::Absent(why) => panic!("{why}"),
    }
}

const CURRENT: &[&str] = &["nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth"];
const MOST: &[&str] = &["nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetMaxPcieLinkWidth"];
const REMAP: &[&str] = &["nvmlDeviceGetRemappedRows"];
const SLOT: &[&str] = &["$switch/max_link_speed", "$switch/max_link_width"];

pub(super) const FACTS: &[Fact] = &[
    Fact::new(
        Top,
        "driver",
        ["580.1", "570.2"],
        |p| versions(p).driver,
        ["580.1", "570.2"],
        Calls(&["nvmlSystemGetDriverVersion"]),
    )
    .unknown(""),
    Fact::new(
        Top,
        "nvml",
        ["13.580", "12.570"],
        |p| say(versions(p).nvml),
        ["\"13.580\"", "\"12.570\""],
        Calls(&["nvmlSystemGetNVMLVersion"]),
    ),
    Fact::new(
        Top,
        "cuda",
        ["13010", "12080"],
        |p| say(versions(p).cuda),
        ["\"13.1\"", "\"12.8\""],
        Calls(&["nvmlSystemGetCudaDriverVersion_v2"]),
    ),
    Fact::new(
        Gpu0,
        "product",
        ["NVIDIA One", "NVIDIA Two"],
        |p| gpu(p).product.clone(),
        ["NVIDIA One", "NVIDIA Two"],
        Calls(&["nvmlDeviceGetName"]),
    )
    .unknown("unknown"),
    Fact::new(
        Gpu0,
        "serial",
        ["'1654'", "'1655'"],
        |p| say(gpu(p).detail.serial.as_ref()),
        ["\"1654\"", "\"1655\""],
        Calls(&["nvmlDeviceGetSerial"]),
    ),
    Fact::new(
        Gpu0,
        "boardPart",
        ["692-X", "693-Y"],
        |p| say(gpu(p).detail.board.part_number.as_ref()),
        ["\"692-X\"", "\"693-Y\""],
        Calls(&["nvmlDeviceGetBoardPartNumber"]),
    ),
    Fact::new(
        Gpu0,
        "minor",
        ["7", "8"],
        |p| say(gpu(p).detail.minor),
        ["7", "8"],
        Calls(&["nvmlDeviceGetMinorNumber"]),
    ),
    Fact::new(
        Gpu0,
        "architecture",
        ["hopper", "ampere"],
        |p| say(gpu(p).detail.board.architecture),
        ["Hopper", "Ampere"],
        Calls(&["nvmlDeviceGetArchitecture"]),
    ),
    Fact::new(
        Gpu0,
        "memoryMib",
        ["81559", "40960"],
        |p| say(gpu(p).memory.map(|m| m.0)),
        ["81559", "40960"],
        Calls(&["nvmlDeviceGetMemoryInfo_v2+nvmlDeviceGetMemoryInfo"]),
    ),
    Fact::new(
        Gpu0,
        "memoryReservedMib",
        ["551", "600"],
        |p| say(gpu(p).detail.board.memory_reserved.map(|m| m.0)),
        ["551", "600"],
        Calls(&["nvmlDeviceGetMemoryInfo_v2"]),
    ),
    Fact::new(
        Gpu0,
        "ecc",
        ["true", "false"],
        |p| say(gpu(p).detail.board.ecc),
        ["true", "false"],
        Calls(&["nvmlDeviceGetEccMode"]),
    )
    .with(&["eccPending"]),
    // Told by the call that tells the mode of now: a driver does not leave it out.
    Fact::new(
        Gpu0,
        "eccPending",
        ["false", "true"],
        pending,
        ["ECC is off after the next reset, and not now", "None"],
        Calls(&["nvmlDeviceGetEccMode"]),
    ),
    Fact::new(
        Gpu0,
        "eccVolatile",
        ["0", "3"],
        |p| say(gpu(p).detail.wear.ecc_volatile),
        ["0", "3"],
        Calls(&["nvmlDeviceGetTotalEccErrors"]),
    ),
    Fact::new(
        Gpu0,
        "eccAggregate",
        ["17", "18"],
        |p| say(gpu(p).detail.wear.ecc_aggregate),
        ["17", "18"],
        Calls(&["nvmlDeviceGetTotalEccErrors"]),
    ),
    Fact::new(
        Gpu0,
        "retiredPages",
        ["3", "4"],
        |p| say(gpu(p).detail.wear.retired_pages),
        ["3", "4"],
        Calls(&["nvmlDeviceGetRetiredPages_v2"]),
    ),
    Fact::new(
        Gpu0,
        "retirementPending",
        ["false", "true"],
        |p| say(gpu(p).detail.wear.retirement_pending),
        ["false", "true"],
        Calls(&["nvmlDeviceGetRetiredPagesPendingStatus"]),
    ),
    Fact::new(
        Gpu0,
        "rowsCorrectable",
        ["2", "3"],
        |p| say(gpu(p).detail.wear.remap.map(|r| r.correctable)),
        ["2", "3"],
        Calls(REMAP),
    )
    .untold(None),
    Fact::new(
        Gpu0,
        "rowsUncorrectable",
        ["5", "6"],
        |p| say(gpu(p).detail.wear.remap.map(|r| r.uncorrectable)),
        ["5", "6"],
        Calls(REMAP),
    )
    .untold(None),
    Fact::new(
        Gpu0,
        "remapPending",
        ["false", "true"],
        |p| say(gpu(p).detail.wear.remap.map(|r| r.pending)),
        ["false", "true"],
        Calls(REMAP),
    )
    .untold(None),
    Fact::new(
        Gpu0,
        "remapFailed",
        ["false", "true"],
        |p| say(gpu(p).detail.wear.remap.map(|r| r.failed)),
        ["false", "true"],
        Calls(REMAP),
    )
    .untold(None),
    Fact::new(
        Gpu0,
        "persistence",
        ["true", "false"],
        |p| say(gpu(p).detail.board.persistence),
        ["true", "false"],
        Calls(&["nvmlDeviceGetPersistenceMode"]),
    ),
    Fact::new(
        Gpu0,
        "computeMode",
        ["default", "exclusive-process"],
        |p| say(gpu(p).detail.board.compute_mode),
        ["Default", "ExclusiveProcess"],
        Calls(&["nvmlDeviceGetComputeMode"]),
    ),
    Fact::new(
        Gpu0,
        "virtualization",
        ["passthrough", "host-vgpu"],
        |p| say(gpu(p).detail.board.virtualization),
        ["Passthrough", "HostVgpu"],
        Calls(&["nvmlDeviceGetVirtualizationMode"]),
    ),
    Fact::new(
        Gpu0,
        "hostVgpu",
        ["sriov", "non-sriov"],
        |p| say(gpu(p).detail.board.host_vgpu),
        ["Sriov", "NonSriov"],
        Calls(&["nvmlDeviceGetHostVgpuMode"]),
    ),
    Fact::new(
        Gpu0,
        "pcieMax",
        ["6x16", "5x12"],
        |p| say(gpu(p).detail.board.pcie_max.map(|l| l.to_string())),
        ["\"5x16\"", "\"5x12\""],
        Calls(MOST),
    )
    .with(&["pcie", "slot", "fastest"]),
    // A slot that does not tell is taken to be as good as its card.
    Fact::new(
        Gpu0,
        "slot",
        ["5x16", "5x8"],
        |p| say(gpu(p).detail.board.pcie_max.map(|l| l.to_string())),
        ["\"5x16\"", "\"5x8\""],
        Files(SLOT),
    )
    .with(&["pcieMax", "fastest"])
    .unknown("\"6x16\""),
    Fact::new(
        Gpu0,
        "pcie",
        ["4x8", "3x4"],
        |p| say(gpu(p).detail.pcie.map(|l| l.to_string())),
        ["\"4x8\"", "\"3x4\""],
        Calls(CURRENT),
    )
    .with(&["fastest"]),
    // An idle GPU is taken at its word for the speed that it reaches: generation 4 under load would be a finding.
    Fact::new(
        Gpu0,
        "fastest",
        ["true", "false"],
        |p| say(gpu(p).detail.pcie.map(|l| l.generation)),
        ["4", "5"],
        Calls(&["nvmlDeviceGetPerformanceState"]),
    )
    .with(&["pcie"])
    .unknown("5"),
];

fn pending(parts: &Parts) -> String {
    let of = |f: &&berth_model::Finding| f.device == gpu(parts).pci.to_string() && f.text.starts_with("ECC");
    parts.findings.iter().find(of).map_or_else(|| say::<()>(None), |f| f.text.clone())
}
