//! Machine files: a node's hardware written down, and what its kernel and driver would say of it.
//!
//! One YAML file describes a machine ([`Machine::parse`]); a second, optional one says what is broken ([`Faults::parse`]). From both come
//! a kernel tree ([`render::tree`]) and NVML's answers ([`nvml::facts`]), and through the probe's own parsers a report ([`topology`]).
//! So a demo, a test and an agent over the fake driver library see the same node: there is no second way to invent one.
//!
//! # The machine file
//!
//! Every fact may be the word `unknown`: the kernel then shows no such file, or the driver answers "not supported". What a machine file
//! says of all GPUs or NICs (`gpuFacts`, `nicFacts`) a leaf may say otherwise for itself.
//!
//! ```
//! let machine = berth_machine::Machine::parse(r#"
//! apiVersion: berth.dev/machine/v1
//! name: example                 # also a node name
//! source: "made up"             # or where the capture is from
//! synthetic: true
//! bootId: 9b0c-42               # made from the name unless said
//! driver: 580.126.20            # or absent, or unknown
//! zones:                        # or unknown; distances as the kernel prints them
//! - {id: 0, cpus: "0-31,64-95", memoryMib: 515680, hugePages: "2048x1024,1048576x16", distances: 10 21}
//! - {id: 1, cpus: "32-63,96-127", memoryMib: unknown, distances: 21 10}
//! host:                         # all of it may be left out: the kernel then shows nothing
//!   cpuVendor: GenuineIntel
//!   cpuModel: Intel(R) Xeon(R) Platinum 8480C
//!   cpuFlags: avx2 avx512f amx_tile
//!   cores: 0,64x64+1            # CPUs 0 and 64, then 63 more such pairs, each one CPU further
//!   sockets: 0-31,64-95x2+32
//!   l3Caches: 0-31,64-95x2+32
//!   isolated: 2-7
//!   nohzFull: unknown
//!   governor: performance
//!   transparentHugePages: madvise
//!   samepageMerging: "off"
//!   kubeletConfig: |            # the file, word for word
//!     kind: KubeletConfiguration
//!     topologyManagerPolicy: restricted
//! gpuFacts:                     # zone, memoryAffinity and memoryZone may stand here too, and uuid at a leaf
//!   {product: NVIDIA H100 80GB HBM3, memoryMib: 81559, mig: false}
//! nicFacts: {state: active, linkLayer: InfiniBand, rateGbps: 400}
//! nvlink: {fabric: direct, pairs: [{gpus: [0, 1], links: 12}]}   # or nothing, or
//! ## {fabric: nvswitch, links: 18, except: [{gpu: 2, links: 0}]}
//! pcie:
//! - host: pci0000:15            # a host bridge as sysfs names it
//!   zone: 0
//!   below:
//!   - via: [0000:15:01.0, 0000:16:00.0]     # bridges from top to bottom: here a root port and a switch
//!     below:
//!     - {via: [0000:17:00.0], nic: mlx5_0, at: 0000:18:00.0}
//!     - {via: [0000:17:01.0], gpu: 0, at: 0000:19:00.0}
//!     - {via: [0000:17:03.0], vfio: vfio-pci, at: 0000:1c:00.0}   # a GPU for virtual machines: NVML does not see it
//!     - {via: [0000:17:02.0], nvswitch: 0, at: 0000:1a:00.0}
//! - host: pci0000:97
//!   zone: unknown
//!   below:
//!   - {via: [0000:97:01.0], gpu: 1, at: 0000:98:00.0, gpuFacts: {memoryMib: 40960, memoryAffinity: 1, vgpuMdev: GRID A100-4C; GRID A100-8C}}
//!   - via: [0000:97:02.0]       # facts of functions stand at leaves only
//!     nic: mlx5_1
//!     at: 0000:9b:00.0
//!     nicFacts: {netdevs: ens1f0, bond: bond0, card: "9803:9b03:0067:ab58", vfsMax: 16, virtualFunctions: "0000:9b:00.1=mlx5_2"}
//!   - {nic: rxe0, at: unknown}              # not on PCI: software, or of the chip itself where it has a zone
//! - host: unknown               # for GPUs that the driver names and the kernel does not show, and NICs off PCI
//!   zone: unknown
//!   below: [{gpu: 2, at: 0000:99:00.0}]
//! contradicted:                 # by import: what the capture printed of pairs whose zones say otherwise
//! - {captured: SYS, pairs: "GPU0-GPU1"}
//! iommuGroups: [{id: 7, devices: [0000:18:00.0, 0000:19:00.0]}]
//! "#)?;
//! # assert_eq!((machine.gpus.len(), machine.nics.len(), machine.nvswitches.len()), (3, 3, 1));
//! # Ok::<(), berth_machine::MachineError>(())
//! ```
//!
//! # The faults file
//!
//! ```
//! # let machine = include_str!("../../../tests/machines/dgx-h100.yaml");
//! # let machine = berth_machine::Machine::parse(machine)?;
//! let faults = berth_machine::Faults::parse(r#"
//! apiVersion: berth.dev/faults/v1
//! lost: [0]                     # NVML gives no handle
//! resetRequired: [2]            # a handle, and "reset required" to every question
//! unreadable: [3]               # a handle, and "unknown error" to every question
//! hangs: [6]                    # no call about it returns until it is taken off this list
//! unlisted: [1]                 # NVML does not count it; later indexes move up
//! changed: [{gpu: 7, facts: {mig: true, remapPending: true}}]   # what the driver says of a GPU now instead
//! events: [{id: 1, gpu: 4, xid: 74}, {id: 2, xid: 79}, {id: 3, gpu: 7, migConfig: true}]   # each told once; no gpu: of none
//! nvlinksDown: [{gpu: 4, links: [0, 5]}, {gpu: 5}]   # the far ends are down too; no links means all
//! portsDown: [mlx5_0]
//! symbolsAbsent: [nvmlDeviceGetNvLinkRemoteDeviceType]
//! callsFailing: [nvmlDeviceGetSerial]   # "unknown error", whatever they are asked about
//! reloads: 1                    # the driver was loaded anew so often; sessions of before answer "uninitialized"
//! driver: notLoaded             # or libraryNotFound, versionMismatch, hangs; nothing for a driver that works
//! "#, &machine)?;
//! # assert_eq!((faults.gpus.len(), faults.unlisted.len(), faults.ports_down.len()), (4, 1, 1));
//! # Ok::<(), berth_machine::MachineError>(())
//! ```
#![forbid(unsafe_code)]

mod check;
mod contradiction;
pub mod faults;
pub mod identity;
pub mod import;
pub mod machine;
pub mod nvml;
pub mod render;
mod scalar;
mod spec;

use berth_model::{NodeName, NodeTopology};
use berth_probe::{ProbeError, probe_facts};

pub use contradiction::Contradiction;
pub use faults::Faults;
pub use identity::Salt;
pub use import::{ImportError, Imported, import, is_capture};
pub use machine::{Machine, MachineError, MachineZone};

/// The report that an agent on this machine would publish, before it has a generation.
///
/// `salt` tells the nodes made from one file apart: another salt gives other GPU UUIDs and another boot id.
///
/// # Errors
/// [`ProbeError`] as the probe gives it; a checked machine without faults has none.
pub fn topology(machine: &Machine, node: &NodeName, salt: &Salt) -> Result<NodeTopology, ProbeError> {
    topology_with(machine, node, salt, &Faults::default(), None)
}

/// As [`topology`], of a machine with faults, given the node's last report.
///
/// # Errors
/// As [`topology`].
pub fn topology_with(
    machine: &Machine,
    node: &NodeName,
    salt: &Salt,
    faults: &Faults,
    previous: Option<&NodeTopology>,
) -> Result<NodeTopology, ProbeError> {
    let tree = render::tree(machine, salt, faults);
    probe_facts(nvml::facts(machine, salt, faults), &tree, previous, node.clone())
}

#[cfg(test)]
mod tests;
