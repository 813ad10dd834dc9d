//! The hardware of the made-up cluster: a few small machines of different kinds, and the reports that their agents can give.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_machine::{Machine, Salt};
use berth_model::{BootId, Generation, GpuSet, Health, NodeName, NodeTopology};

/// The nodes.
pub(crate) const NAMES: [&str; 4] = ["cut", "four", "mesh", "two"];

const CUT: &str = "
apiVersion: berth.dev/machine/v1
name: cut
source: made up
synthetic: true
driver: 550.54.15
zones: [{id: 0, cpus: 0-15, memoryMib: 257740}]
gpuFacts: {product: NVIDIA A100-SXM4-40GB, memoryMib: 40960, mig: true, migProfiles: a100-40}
pcie:
- {host: pci0000:00, zone: 0, below: [{via: [0000:00:01.1], gpu: 0, at: 0000:01:00.0, gpuFacts: {mig: false}}]}
- host: pci0000:20
  zone: 0
  below: [{via: [0000:20:01.1], gpu: 1, at: 0000:21:00.0, gpuFacts: {migInstances: 1g.5gb@0+1; 1g.5gb@1+1; 3g.20gb@4+4}}]
- host: pci0000:40
  zone: 0
  below: [{via: [0000:40:01.1], gpu: 2, at: 0000:41:00.0, gpuFacts: {migInstances: 1g.5gb@0+1; 1g.5gb@1+1; 1g.5gb@2+1; 3g.20gb@4+4}}]
";

const FOUR: &str = "
apiVersion: berth.dev/machine/v1
name: four
source: made up
synthetic: true
driver: 570.172.08
zones: [{id: 0, cpus: 0-31, memoryMib: 515680}]
gpuFacts: {product: NVIDIA A100 80GB PCIe, memoryMib: 81920, mig: false}
nvlink: {fabric: direct, pairs: [{gpus: [0, 1], links: 12}, {gpus: [2, 3], links: 12}]}
pcie:
- {host: pci0000:00, zone: 0, below: [{via: [0000:00:01.1], gpu: 0, at: 0000:01:00.0}]}
- {host: pci0000:20, zone: 0, below: [{via: [0000:20:01.1], gpu: 1, at: 0000:21:00.0}]}
- {host: pci0000:40, zone: 0, below: [{via: [0000:40:01.1], gpu: 2, at: 0000:41:00.0}]}
- {host: pci0000:60, zone: 0, below: [{via: [0000:60:01.1], gpu: 3, at: 0000:61:00.0}]}
";

const TWO: &str = "
apiVersion: berth.dev/machine/v1
name: two
source: made up
synthetic: true
driver: 570.172.08
zones: [{id: 0, cpus: 0-31, memoryMib: 515680}]
gpuFacts: {product: NVIDIA L4, memoryMib: 23034, mig: false}
pcie:
- {host: pci0000:00, zone: 0, below: [{via: [0000:00:01.1], gpu: 0, at: 0000:01:00.0}]}
- {host: pci0000:20, zone: 0, below: [{via: [0000:20:01.1], gpu: 1, at: 0000:21:00.0}]}
";

const MESH: &str = include_str!("../../machines/dgx-1v.yaml");

/// What one report says of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) generation: u32,
    pub(crate) boot: u32,
    /// GPUs that are lost, as bits.
    pub(crate) lost: u8,
    /// Whether it is a form that nobody can read.
    pub(crate) is_broken: bool,
}

struct Fleet {
    machines: Vec<NodeTopology>,
    statuses: BTreeMap<(usize, Content), Arc<str>>,
}

thread_local! {
    static FLEET: RefCell<Fleet> = RefCell::new(Fleet::new());
}

impl Fleet {
    fn new() -> Self {
        let machine = |(name, text): (&str, &str)| {
            let machine = Machine::parse(text).unwrap();
            berth_machine::topology(&machine, &NodeName::parse(name).unwrap(), &Salt::new(name)).unwrap()
        };
        let machines = NAMES.into_iter().zip([CUT, FOUR, MESH, TWO]).map(machine).collect();
        Self { machines, statuses: BTreeMap::new() }
    }
}

/// The machine of a node as it came from the factory.
pub(crate) fn with<T>(at: usize, read: impl FnOnce(&NodeTopology) -> T) -> T {
    FLEET.with_borrow(|fleet| read(&fleet.machines[at]))
}

pub(crate) fn position(name: &str) -> Option<usize> {
    NAMES.iter().position(|n| *n == name)
}

pub(crate) fn boot_id(at: usize, boot: u32) -> String {
    format!("boot-{at}-{boot}")
}

pub(crate) fn gpu_count(at: usize) -> u8 {
    with(at, |topology| u8::try_from(topology.parts().gpus.len()).unwrap())
}

/// What the kubelet offers: plain GPUs and MIG devices.
pub(crate) fn offered(at: usize) -> BTreeMap<String, u64> {
    with(at, |topology| {
        let mut offered: BTreeMap<String, u64> = BTreeMap::new();
        for gpu in &topology.parts().gpus {
            if gpu.mig_enabled == Some(true) {
                for instance in &gpu.detail.mig_instances {
                    *offered.entry(format!("nvidia.com/mig-{}", instance.profile)).or_default() += 1;
                }
            } else {
                *offered.entry("nvidia.com/gpu".to_owned()).or_default() += 1;
            }
        }
        offered
    })
}

/// The report as a value.
pub(crate) fn topology(at: usize, content: Content) -> NodeTopology {
    with(at, |topology| {
        let mut parts = topology.parts().clone();
        parts.generation = Generation(u64::from(content.generation));
        parts.boot_id = BootId::parse(&boot_id(at, content.boot)).unwrap();
        for (bit, gpu) in parts.gpus.iter_mut().enumerate() {
            if content.lost & (1 << bit) != 0 {
                gpu.health = Health::Unhealthy("lost".to_owned());
            }
        }
        NodeTopology::try_new(parts).unwrap()
    })
}

/// The status of a NodeTopology, as JSON.
pub(crate) fn status(at: usize, content: Content) -> Arc<str> {
    if content.is_broken {
        return Arc::from(r#"{"bootId":7,"gpus":"many"}"#);
    }
    if let Some(known) = FLEET.with_borrow(|fleet| fleet.statuses.get(&(at, content)).cloned()) {
        return known;
    }
    let status = berth_proto::encode(&topology(at, content), "sim");
    let text: Arc<str> = Arc::from(serde_json::to_string(&status).unwrap());
    FLEET.with_borrow_mut(|fleet| {
        // Runs of one thread say much the same; a few thousand reports are some megabytes.
        if fleet.statuses.len() > 4000 {
            fleet.statuses.clear();
        }
        fleet.statuses.insert((at, content), Arc::clone(&text));
    });
    text
}

/// GPUs of a node that are in order by a report, whether cut or not.
pub(crate) fn healthy(at: usize, content: Content) -> GpuSet {
    (0..gpu_count(at)).filter(|i| content.lost & (1 << i) == 0).map(berth_model::GpuIndex).collect()
}
