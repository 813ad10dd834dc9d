//! Nodes, reports and pods for this crate's tests, as objects of the API and as values.

use std::sync::Arc;

use berth_core::view::Compute;
use berth_index::NodeFacts;
use berth_model::gpu::detail::{Board, Fabric, FabricClique, FabricState};
use berth_model::{
    BootId, CpuSet, Driver, Generation, Gpu, GpuIndex, GpuUuid, Health, Link, LinkMatrix, MiB, NodeName, NodeTopology,
    Parts, PciAddress, PcieLevel,
};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::metrics::Metrics;

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

pub(crate) fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster::new(Arc::new(Metrics::new("test"))))
}

/// A node that offers four GPUs.
pub(crate) fn node_facts(node: &str) -> NodeFacts {
    NodeFacts {
        name: name(node),
        boot_id: Some(BootId::parse("boot").unwrap()),
        offered: [("nvidia.com/gpu".to_owned(), 4)].into(),
        allocatable: Compute { cpu_milli: 64_000, memory: MiB(512 << 10) },
        zone: None,
        is_avoided: false,
        labels: berth_core::level::LabelSet::default(),
    }
}

/// A report of four GPUs; `sick` of them from the end are unhealthy.
pub(crate) fn topology(node: &str, generation: u64, sick: u8) -> NodeTopology {
    let gpu = |i: u8| Gpu {
        index: GpuIndex(i),
        uuid: GpuUuid::parse(&format!("GPU-{node}-{i}")).unwrap(),
        pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
        product: "X".to_owned(),
        memory: None,
        zone: None,
        cpus: CpuSet::default(),
        memory_zone: None,
        nearest_zones: None,
        mig_enabled: None,
        health: if i >= 4 - sick { Health::Unhealthy("lost".to_owned()) } else { Health::Healthy },
        detail: berth_model::GpuDetail::default(),
    };
    NodeTopology::try_new(Parts {
        node: name(node),
        boot_id: BootId::parse("boot").unwrap(),
        generation: Generation(generation),
        driver: Driver::Loaded("580".into()),
        zones: Vec::new(),
        gpus: (0..4).map(gpu).collect(),
        nics: Vec::new(),
        links: LinkMatrix::build(4, |a, b| Link { nvlinks: u8::from(a / 2 == b / 2), pcie: Some(PcieLevel::Sys) }),
        host: berth_model::Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
    .unwrap()
}

/// The same in an NVLink clique that spans nodes.
pub(crate) fn racked(node: &str, generation: u64, rack: u32) -> NodeTopology {
    let mut parts = topology(node, generation, 0).into_parts();
    let clique = Some(FabricClique { cluster: "5a0f5c70-0000-4000-8000-000000000001".to_owned(), clique: rack });
    let fabric = Fabric { state: FabricState::Completed, failed: false, clique, health: None, degraded: None };
    let board = Arc::new(Board { fabric: Some(fabric), ..Board::default() });
    for gpu in &mut parts.gpus {
        gpu.detail.board = Arc::clone(&board);
    }
    NodeTopology::try_new(parts).unwrap()
}

pub(crate) fn node_path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

pub(crate) fn node_object(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "uid": format!("node-{node}")},
        "status": {
            "allocatable": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "4"},
            "nodeInfo": {"bootID": "boot"},
        },
    })
}

pub(crate) fn report_path(node: &str) -> String {
    format!("/apis/topology.berth.dev/v1alpha1/nodetopologies/{node}")
}

pub(crate) fn report_object(topology: &NodeTopology) -> Value {
    let node = topology.parts().node.as_str();
    let mut object = berth_proto::NodeTopology::new(node, Some(berth_proto::encode(topology, "test")));
    object.metadata.uid = Some(format!("report-{node}"));
    serde_json::to_value(object).unwrap()
}

pub(crate) fn pod_path(pod: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{pod}")
}

/// A pending pod; its UID is its name with `uid-` before.
pub(crate) fn pod_object(pod: &str, gpus: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "name": pod, "uid": format!("uid-{pod}")},
        "spec": {"schedulerName": "berth", "containers": [
            {"name": "main", "resources": {"limits": {"nvidia.com/gpu": gpus.to_string()}}},
        ]},
        "status": {"phase": "Pending"},
    })
}

/// The pod, bound to a node without a plan, as another scheduler does it.
pub(crate) fn bound_object(pod: &str, gpus: u32, node: &str) -> Value {
    let mut object = pod_object(pod, gpus);
    object["spec"]["nodeName"] = json!(node);
    object
}
