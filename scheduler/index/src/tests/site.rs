//! Claims about what is left to a kubelet's managers.

use berth_core::demand::{ContainerRequest, PodRequest, Totals};
use berth_model::kubelet::{CpuManagerPolicy, TopologyManagerPolicy};
use berth_model::{CpuSet, Kubelet};

use super::*;

/// A node of two zones with 8 CPUs each, whose kubelet wants one zone for each container.
fn strict_report(node: &str) -> Event {
    let mut parts = topology(node, 1, None).into_parts();
    let zone = |id: u16, cpus: &str| berth_model::Zone {
        id: berth_model::ZoneId(id),
        cpus: CpuSet::parse(cpus).unwrap(),
        memory: None,
        huge_pages: None,
        distances: Vec::new(),
    };
    parts.zones = vec![zone(0, "0-7"), zone(1, "8-15")];
    parts.host.kubelet = Some(Kubelet {
        topology_manager: TopologyManagerPolicy::SingleNumaNode,
        cpu_manager: CpuManagerPolicy::Static,
        ..Kubelet::default()
    });
    Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
}

fn facts(node: &str) -> Event {
    Event::Node(NodeFacts {
        name: name(node),
        boot_id: None,
        offered: [("nvidia.com/gpu".to_owned(), 8)].into(),
        allocatable: Compute { cpu_milli: 16_000, memory: MiB(1 << 20) },
        zone: None,
        is_avoided: false,
        labels: berth_core::level::LabelSet::default(),
    })
}

fn cpus_only(uid: &str, node: &str, cpus: u32, admitted_at: &str) -> Event {
    let requests = [("cpu".to_owned(), cpus.to_string()), ("memory".to_owned(), "1Gi".to_owned())].into();
    let request = PodRequest {
        containers: vec![ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false }],
        is_guaranteed: true,
        admitted_at: admitted_at.to_owned(),
        ..PodRequest::default()
    };
    Event::Pod(Box::new(PodFacts { totals: Totals::of(&request), ..pod(uid, node, 0, None) }))
}

fn free_cpus(index: &Index) -> Vec<u32> {
    let snapshot = index.snapshot();
    let site = snapshot.node("a").unwrap().view.site.clone().unwrap();
    site.zones.iter().map(|z| z.free_cpu_count).collect()
}

#[test]
fn pods_with_cpus_of_their_own_leave_fewer_and_give_them_back() {
    let index = with([strict_report("a"), facts("a"), cpus_only("u1", "a", 6, "2026-01-01T00:00:02Z")]);
    assert_eq!(free_cpus(&index), [2, 8]);
    // It started before, so it had the first choice.
    index.apply(cpus_only("u2", "a", 4, "2026-01-01T00:00:01Z"));
    assert_eq!(free_cpus(&index), [4, 2]);
    index.apply(Event::PodGone(PodUid::new("u2")));
    assert_eq!(free_cpus(&index), [2, 8]);
}

#[test]
fn a_pod_that_does_not_fit_the_reckoning_is_let_be() {
    let index = with([strict_report("a"), facts("a"), cpus_only("u1", "a", 9, ""), cpus_only("u2", "a", 8, "")]);
    assert_eq!(free_cpus(&index), [0, 8]);
}
