//! Owns what the pods of a churn ask for, and how many of them the two nodes hold at once.

use berth_tests::real_cluster::GPU;
use berth_tests::real_node::{container, pod};
use serde_json::{Value, json};

pub(super) const SMALL: &str = "nvidia.com/mig-1g.5gb";
pub(super) const HALF: &str = "nvidia.com/mig-3g.20gb";

/// What the nodes have together; of whole GPUs one less, so that four always fit on the node that has eight.
pub(super) const CAPACITY: [(&str, u32); 3] = [(GPU, 8), (SMALL, 9), (HALF, 1)];

/// What each container of a pod asks for.
pub(super) type Kind = &'static [(&'static str, u32)];

const KINDS: [Kind; 10] = [
    &[(GPU, 1)],
    &[(GPU, 2)],
    &[(SMALL, 1), (SMALL, 1), (SMALL, 1)],
    &[(GPU, 1), (GPU, 1)],
    &[(GPU, 1), (GPU, 2)],
    &[(SMALL, 1), (SMALL, 1)],
    &[(GPU, 4)],
    &[(HALF, 1)],
    &[(GPU, 2), (GPU, 1)],
    &[(SMALL, 2), (SMALL, 1), (SMALL, 1)],
];

/// All whole GPUs of the larger node, four in each of its zones.
pub(super) const LARGEST: Kind = &[(GPU, 4), (GPU, 4)];

pub(super) fn kind(number: usize) -> Kind {
    KINDS.get(number % KINDS.len()).copied().unwrap_or_default()
}

/// A pod of this kind. With `has_own_cpus` its containers ask for whole CPUs that nobody shares.
pub(super) fn churned(name: &str, kind: Kind, has_own_cpus: bool) -> Value {
    let mut pod = pod(name, &json!({}));
    let containers = kind.iter().enumerate().map(|(at, (resource, count))| {
        let cpu = if has_own_cpus { (own_cpus(resource) * count).to_string() } else { "100m".to_owned() };
        container(&format!("c{at}"), &json!({*resource: count.to_string(), "cpu": cpu, "memory": "64Mi"}))
    });
    pod["spec"]["containers"] = containers.collect();
    pod["spec"]["schedulerName"] = json!("berth");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod
}

/// So many that the CPUs of a zone are scarce when its devices are.
fn own_cpus(resource: &str) -> u32 {
    match resource {
        GPU => 20,
        SMALL => 3,
        _ => 9,
    }
}

/// Whether pods of all these kinds have room together, by count.
pub(super) fn fit(kinds: &[Kind]) -> bool {
    CAPACITY.iter().all(|(name, capacity)| {
        let asks = kinds.iter().flat_map(|kind| kind.iter()).filter(|(resource, _)| resource == name);
        asks.map(|(_, count)| count).sum::<u32>() <= *capacity
    })
}
