//! What the driver tells of NVLinks, of the NVSwitch fabric, of MIG and of zones, with the call that tells it.

use berth_model::{Gpu, Parts};

use super::Place::{Gpu as Gpu0, OtherGpu};
use super::Source::Calls;
use super::{Fact, say};

fn gpu(parts: &Parts) -> &Gpu {
    &parts.gpus[0]
}

const FABRIC: &[&str] = &["nvmlDeviceGetGpuFabricInfoV+nvmlDeviceGetGpuFabricInfo"];
const FABRIC_V: &[&str] = &["nvmlDeviceGetGpuFabricInfoV"];
const PROFILES: &[&str] = &[
    "nvmlDeviceGetGpuInstanceProfileInfoV+nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
    "nvmlDeviceGetMigMode",
];

pub(super) const FACTS: &[Fact] = &[
    Fact::new(
        Gpu0,
        "nvlinkVersion",
        ["4", "3"],
        |p| say(gpu(p).detail.board.nvlink_version),
        ["4", "3"],
        Calls(&["nvmlDeviceGetNvLinkVersion"]),
    ),
    Fact::new(
        Gpu0,
        "nvlinkErrors",
        ["'2:1234'", "'3:12'"],
        |p| say(gpu(p).detail.nvlink_errors.as_ref().map(|e| (e[0].link, e[0].at_least))),
        ["(2, 1000)", "(3, 10)"],
        Calls(&["nvmlDeviceGetNvLinkErrorCounter"]),
    ),
    Fact::new(
        Gpu0,
        "fabric",
        ["completed", "in-progress"],
        |p| say(gpu(p).detail.board.fabric.as_ref().map(|f| f.state)),
        ["Completed", "InProgress"],
        Calls(FABRIC),
    )
    .with(&["fabricFailed", "fabricCluster", "fabricClique", "fabricHealth", "fabricDegraded"]),
    Fact::new(
        Gpu0,
        "fabricFailed",
        ["false", "true"],
        |p| say(gpu(p).detail.board.fabric.as_ref().map(|f| f.failed)),
        ["false", "true"],
        Calls(FABRIC),
    )
    .untold(None),
    Fact::new(
        Gpu0,
        "fabricCluster",
        ["01020304-0506-0708-090a-0b0c0d0e0f10", "01020304-0506-0708-090a-0b0c0d0e0f11"],
        |p| say(gpu(p).detail.board.fabric.as_ref().and_then(|f| f.clique.as_ref()).map(|c| c.cluster.clone())),
        ["\"01020304-0506-0708-090a-0b0c0d0e0f10\"", "\"01020304-0506-0708-090a-0b0c0d0e0f11\""],
        Calls(FABRIC),
    )
    .with(&["fabricClique"]),
    Fact::new(
        Gpu0,
        "fabricClique",
        ["2", "3"],
        |p| say(gpu(p).detail.board.fabric.as_ref().and_then(|f| f.clique.as_ref()).map(|c| c.clique)),
        ["2", "3"],
        Calls(FABRIC),
    )
    .untold(None),
    Fact::new(
        Gpu0,
        "fabricHealth",
        ["healthy", "limited-capacity"],
        |p| say(gpu(p).detail.board.fabric.as_ref().and_then(|f| f.health)),
        ["Healthy", "LimitedCapacity"],
        Calls(FABRIC_V),
    ),
    Fact::new(
        Gpu0,
        "fabricDegraded",
        ["false", "true"],
        |p| say(gpu(p).detail.board.fabric.as_ref().and_then(|f| f.degraded)),
        ["false", "true"],
        Calls(FABRIC_V),
    ),
    Fact::new(
        OtherGpu,
        "mig",
        ["false", "true"],
        |p| say(p.gpus[1].mig_enabled),
        ["false", "true"],
        Calls(&["nvmlDeviceGetMigMode"]),
    )
    .with(&["migInstances"]),
    // Told by the call that tells the mode of now: a driver does not leave it out.
    Fact::new(
        Gpu0,
        "migPending",
        ["false", "true"],
        |p| say(gpu(p).detail.mig_pending),
        ["false", "None"],
        Calls(&["nvmlDeviceGetMigMode"]),
    )
    .with(&["migInstances"]),
    Fact::new(
        Gpu0,
        "migProfiles",
        [
            "'1g.10gb 19 1 9984 7 1@0,1; 3g.40gb 9 3 40448 2 4@0,4'",
            "'1g.10gb 19 1 9984 7 1@0,1,2; 3g.40gb 9 3 40448 2 4@0,4'",
        ],
        profiles,
        [
            "1g.10gb 19 1 9984 7 1@0,1; 3g.40gb 9 3 40448 2 4@0,4",
            "1g.10gb 19 1 9984 7 1@0,1,2; 3g.40gb 9 3 40448 2 4@0,4",
        ],
        Calls(PROFILES),
    )
    .with(&["migInstances"])
    .unknown("")
    .untold(None),
    Fact::new(
        Gpu0,
        "migInstances",
        ["3g.40gb@4+4; 1g.10gb@0+1", "1g.10gb@1+1"],
        instances,
        ["1g.10gb@0+1 3g.40gb@4+4", "1g.10gb@1+1"],
        Calls(&["nvmlDeviceGetGpuInstances", "nvmlGpuInstanceGetInfo"]),
    )
    .unknown(""),
    Fact::new(
        Gpu0,
        "memoryZone",
        ["1", "0"],
        |p| say(gpu(p).memory_zone.map(|z| z.0)),
        ["1", "0"],
        Calls(&["nvmlDeviceGetNumaNodeId"]),
    ),
    // Said only where it is another zone than the kernel's.
    Fact::new(
        Gpu0,
        "memoryAffinity",
        ["1", "0-1"],
        nearest,
        ["[1]", "[0, 1]"],
        Calls(&["nvmlDeviceGetMemoryAffinity"]),
    )
    .unknown("[]"),
];

fn profiles(parts: &Parts) -> String {
    gpu(parts).detail.board.mig.profiles().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Places of the instances, without their UUIDs.
fn instances(parts: &Parts) -> String {
    let place = |i: &berth_model::mig::MigInstance| i.to_string().split(' ').next().unwrap_or_default().to_owned();
    gpu(parts).detail.mig_instances.iter().map(place).collect::<Vec<_>>().join(" ")
}

fn nearest(parts: &Parts) -> String {
    let zones = gpu(parts).nearest_zones.iter().flatten().map(|zone| zone.0).collect::<Vec<_>>();
    format!("{zones:?}")
}
