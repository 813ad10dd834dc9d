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

/// A pod of one container with this GPU by its plan, and so many CPUs of its own.
fn with_gpu(uid: &str, gpu: u8, cpus: u32, admitted_at: &str) -> Event {
    let requests = [("nvidia.com/gpu", "1".to_owned()), ("cpu", cpus.to_string()), ("memory", "1Gi".to_owned())];
    let requests = requests.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
    let request = PodRequest {
        containers: vec![ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false }],
        is_guaranteed: true,
        admitted_at: admitted_at.to_owned(),
        ..PodRequest::default()
    };
    Event::Pod(Box::new(PodFacts { totals: Totals::of(&request), ..pod(uid, "a", 1, Some(&[gpu])) }))
}

/// As [`strict_report`], with two GPUs in each zone.
fn strict_report_of_gpus() -> Event {
    let Event::Report(report) = strict_report("a") else { panic!("a report") };
    let mut parts = report.into_parts();
    for gpu in &mut parts.gpus {
        gpu.zone = Some(berth_model::ZoneId(u16::from(gpu.index.0 / 2)));
    }
    Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
}

#[test]
fn cpus_are_where_the_devices_of_their_pod_are_whoever_was_there_before() {
    // The first of all had the lower zone full, and has gone: from what is left alone the second would be reckoned there.
    let gone = cpus_only("u0", "a", 8, "2026-01-01T00:00:01Z");
    let index = with([strict_report_of_gpus(), facts("a"), gone, with_gpu("u1", 2, 5, "2026-01-01T00:00:02Z")]);
    assert_eq!(free_cpus(&index), [0, 3]);
    index.apply(Event::PodGone(PodUid::new("u0")));
    assert_eq!(free_cpus(&index), [8, 3]);
    // In whichever order two are gone through that were admitted within one second.
    for first in ["u4", "u5"] {
        let (second, at) = (if first == "u4" { "u5" } else { "u4" }, "2026-01-01T00:00:03Z");
        let index = with([strict_report_of_gpus(), facts("a"), with_gpu(first, 0, 7, at), with_gpu(second, 3, 2, at)]);
        assert_eq!(free_cpus(&index), [1, 6]);
    }
    // More than can be there by the reckoning still takes what there is.
    let index = with([strict_report_of_gpus(), facts("a"), with_gpu("u1", 0, 5, "1"), with_gpu("u2", 1, 5, "2")]);
    assert_eq!(free_cpus(&index), [0, 8]);
}

#[test]
fn a_kubelet_reckons_with_the_devices_that_it_counts_not_with_those_that_a_lease_gives() {
    let Event::Pod(mut enforced) = with_gpu("u1", 2, 5, "2026-01-01T00:00:01Z") else { panic!("a pod") };
    enforced.is_enforced = true;
    let site = |truth: &[&str]| {
        let mut pod = enforced.clone();
        pod.truth = [("nvidia.com/gpu".to_owned(), truth.iter().map(|id| (*id).to_owned()).collect())].into();
        let index = with([strict_report_of_gpus(), facts("a"), Event::Pod(pod)]);
        let view = index.snapshot().node("a").unwrap().view.clone();
        assert_eq!(view.held.bits(), 0b0100, "the container has what is planned");
        let site = view.site.unwrap();
        let free: Vec<bool> = site.devices["nvidia.com/gpu"].iter().map(|device| device.is_free).collect();
        (free, site.zones.iter().map(|zone| zone.free_cpu_count).collect::<Vec<_>>())
    };
    let as_planned = (vec![true, true, false, true], vec![8, 3]);
    assert_eq!(site(&["GPU-a-2"]), as_planned);
    assert_eq!(site(&["GPU-a-1"]), (vec![true, false, true, true], vec![3, 8]));
    // Nothing, too much, or what is not on the node says nothing.
    for said in [&[][..], &["GPU-a-0", "GPU-a-1"], &["GPU-b-1"]] {
        assert_eq!(site(said), as_planned, "{said:?}");
    }
}

#[test]
fn where_a_kubelet_aligns_zones_the_next_pod_waits_until_it_has_taken_the_one_before() {
    let said = |index: &Index| {
        let planned = index.plan_and_hold(&PodUid::new("new"), &name("a"), &demand(1), &[], &Policy::default(), 100);
        let is_awaited = index.awaits_kubelet(&PodUid::new("new"), &name("a"));
        assert_eq!(is_awaited, planned.is_err());
        planned.map(|_| ()).map_err(|unfit| (unfit.reason, unfit.detail))
    };
    let waiting =
        || Err((Reason::KubeletBusy, "pods sent there before that the kubelet has not taken yet: 1".to_owned()));
    let aligned = [strict_report_of_gpus(), facts("a"), with_gpu("u1", 0, 2, "2026-01-01T00:00:01Z")];
    let index = with(aligned.clone());
    assert_eq!(said(&index), Ok(()), "its own earlier hold is not before it");
    assert_eq!(said(&index), Ok(()));
    // Bound, and not taken.
    let index = with(aligned.clone());
    index.apply(with_gpu("u2", 1, 2, ""));
    assert_eq!(said(&index), waiting());
    index.apply(with_gpu("u2", 1, 2, "2026-01-01T00:00:02Z"));
    assert_eq!(said(&index), Ok(()));
    // About to be bound.
    let index = with(aligned);
    let other = index.plan_and_hold(&PodUid::new("u2"), &name("a"), &demand(1), &[], &Policy::default(), 100);
    assert_eq!(said(&index), waiting());
    index.apply(Event::HoldReleased(other.unwrap().1));
    assert_eq!(said(&index), Ok(()));
    // A node on which no kubelet ever took a pod, and one whose kubelet has no say.
    let index = with([strict_report_of_gpus(), facts("a"), with_gpu("u1", 0, 2, ""), with_gpu("u2", 1, 2, "")]);
    assert_eq!(said(&index), Ok(()));
    let free = [report("a", 1, None), facts("a"), with_gpu("u1", 0, 2, "1"), with_gpu("u2", 1, 2, "")];
    assert_eq!(said(&with(free)), Ok(()));
}

#[test]
fn a_pod_that_does_not_fit_the_reckoning_is_let_be() {
    let index = with([strict_report("a"), facts("a"), cpus_only("u1", "a", 9, ""), cpus_only("u2", "a", 8, "")]);
    assert_eq!(free_cpus(&index), [0, 8]);
}
