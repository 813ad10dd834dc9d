//! Claims about the one decision path.

mod examples;
mod kubelet;
mod left;
mod mig;
mod shares;

use super::*;
use crate::demand::{ContainerRequest, PodRequest};
use crate::testing::{Box8, idle, topology, view_of};
use berth_model::{Health, MiB};

fn demand(gpus: u32, annotations: &[(&str, &str)]) -> Demand {
    let policy = Policy::default();
    let requests = [("nvidia.com/gpu", gpus.to_string()), ("cpu", "4".to_owned()), ("memory", "32Gi".to_owned())];
    let container = ContainerRequest {
        name: "main".to_owned(),
        requests: requests.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        ..ContainerRequest::default()
    };
    let pod = PodRequest {
        annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        containers: vec![container],
        ..PodRequest::default()
    };
    Demand::parse(&pod, &policy).unwrap()
}

fn planned(view: &NodeView, demand: &Demand) -> Result<GpuSet, Reason> {
    let outcome = plan(view, demand, &Policy::default());
    let decided = decide(view, &demand.shape, &Policy::default(), &mut Afresh);
    assert_eq!(decided.as_ref().map(Fit::set).map_err(|r| *r), outcome.as_ref().map(|p| p.set).map_err(|u| u.reason));
    outcome.map(|p| p.set.unwrap()).map_err(|u| u.reason)
}

fn bits(bits: u32) -> GpuSet {
    GpuSet::from_bits(bits)
}

#[test]
fn four_gpus_on_a_hybrid_mesh_are_one_quad() {
    let view = idle(Box8::HybridMesh);
    assert_eq!(planned(&view, &demand(4, &[])), Ok(bits(0b1111)));
    let half = NodeView { held: bits(0b1), ..view };
    assert_eq!(planned(&half, &demand(4, &[])), Ok(bits(0b1111_0000)));
}

#[test]
fn two_gpus_on_a_hybrid_mesh_are_a_double_link() {
    let view = idle(Box8::HybridMesh);
    let set = planned(&view, &demand(2, &[])).unwrap();
    assert_eq!(view.hardware.as_ref().unwrap().fabric.weakest(set), Some(LinkClass::NvLink(2)));
}

#[test]
fn a_plan_names_devices_rails_zone_and_link() {
    let wish = [("berth.dev/rail", "preferred")];
    let plan = plan(&idle(Box8::Switched), &demand(2, &wish), &Policy::default()).unwrap();
    let uuids: Vec<&str> = plan.containers[0].devices.iter().map(|g| g.uuid.as_str()).collect();
    assert_eq!(uuids, ["GPU-4", "GPU-5"], "the other zone still has four GPUs with a rail each");
    let nics: Vec<&str> = plan.nics.iter().map(NicName::as_str).collect();
    assert_eq!(nics, ["mlx5_4", "mlx5_5"]);
    assert_eq!((plan.zone, plan.weakest), (Some(ZoneId(1)), Some(LinkClass::NvLink(18))));
    assert_eq!(plan.generation, Generation(7));
}

#[test]
fn each_wish_narrows_the_set_or_refuses() {
    let view = idle(Box8::Switched);
    for (gpus, annotations, expected) in [
        (2, vec![("berth.dev/gpu-product", "*H100*")], Ok(bits(0b0011_0000))),
        (5, vec![("berth.dev/gpu-product", "*h100*")], Err(Reason::ProductUnmet)),
        (1, vec![("berth.dev/gpu-memory", "80Gi")], Ok(bits(0b100))),
        (7, vec![("berth.dev/gpu-memory", "80Gi")], Err(Reason::MemoryUnmet)),
        (2, vec![("berth.dev/gpus", "6,GPU-1")], Ok(bits(0b0100_0010))),
        (2, vec![("berth.dev/gpus", "6")], Err(Reason::NamedGpusAbsent)),
        (6, vec![("berth.dev/rail", "required")], Ok(bits(0b0011_1111))),
        (7, vec![("berth.dev/rail", "required")], Err(Reason::RailUnmet)),
        (4, vec![("berth.dev/zone", "required")], Ok(bits(0b1111))),
        (5, vec![("berth.dev/zone", "required")], Err(Reason::ZoneUnmet)),
        (9, vec![], Err(Reason::TooFewGpus)),
    ] {
        assert_eq!(planned(&view, &demand(gpus, &annotations)), expected, "{gpus} {annotations:?}");
    }
}

#[test]
fn a_passing_reason_is_not_a_lasting_one() {
    let pairs = idle(Box8::PciePairs);
    assert_eq!(planned(&pairs, &demand(3, &[("berth.dev/link", "nvlink")])), Err(Reason::LinkUnmet));
    // One GPU of every pair is taken: two are free in number, none are a pair.
    let split = NodeView { held: bits(0b0101_0101), ..pairs.clone() };
    assert_eq!(planned(&split, &demand(2, &[("berth.dev/link", "nvlink")])), Err(Reason::LinkBusy));
    assert_eq!(planned(&split, &demand(2, &[("berth.dev/link", "nvlink:preferred")])).map(GpuSet::gpu_count), Ok(2));
    assert_eq!(planned(&split, &demand(5, &[])), Err(Reason::GpusBusy));
    let zones = NodeView { held: bits(0b0011_0011), ..pairs.clone() };
    assert_eq!(planned(&zones, &demand(3, &[("berth.dev/zone", "required")])), Err(Reason::ZoneBusy));
    let railless = NodeView { held: bits(0b0011_1111), ..pairs };
    assert_eq!(planned(&railless, &demand(2, &[("berth.dev/rail", "required")])), Err(Reason::RailBusy));
    assert!(Reason::GpusBusy.helped_by_preemption() && !Reason::LinkBusy.helped_by_preemption());
}

#[test]
fn sick_gpus_are_never_planned() {
    let mut parts = topology(Box8::Switched).into_parts();
    parts.gpus[0].health = Health::Unhealthy("xid 79".to_owned());
    let view = view_of(berth_model::NodeTopology::try_new(parts).unwrap());
    assert_eq!(planned(&view, &demand(2, &[])), Ok(bits(0b110)));
    assert_eq!(planned(&view, &demand(8, &[])), Err(Reason::GpusUnhealthy));
}

#[test]
fn a_node_whose_kubelet_offers_no_gpu_is_refused() {
    let mut view = idle(Box8::Switched);
    view.offered = Arc::new(std::collections::BTreeMap::new());
    assert_eq!(planned(&view, &demand(1, &[])), Err(Reason::NotOffered), "such a pod would run without any GPU");
    view.offered = Arc::new([("nvidia.com/gpu".to_owned(), 3)].into());
    assert_eq!(planned(&view, &demand(4, &[])), Err(Reason::NotOffered));
}

#[test]
fn gpus_of_pods_without_a_plan_count_against_the_whole_node() {
    let view = NodeView { held: bits(0b11), unplanned_gpu_count: 4, is_imprecise: true, ..idle(Box8::Switched) };
    assert_eq!(planned(&view, &demand(3, &[])), Err(Reason::GpusBusy));
    assert_eq!(planned(&view, &demand(2, &[])).map(GpuSet::gpu_count), Ok(2));
    assert!(plan(&view, &demand(2, &[]), &Policy::default()).unwrap().is_imprecise);
}

#[test]
fn a_stale_or_missing_report_is_a_decision_of_policy() {
    let stale = NodeView { knowledge: Knowledge::Stale, ..idle(Box8::Switched) };
    let missing = NodeView { knowledge: Knowledge::Missing, hardware: None, ..idle(Box8::Switched) };
    let with = |lines: &str| {
        crate::policy::parse(&format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n{lines}\n")).unwrap()
    };
    let one = demand(1, &[]);
    let trusted =
        |view: &NodeView, lines: &str| plan(view, &one, &with(lines)).map(|p| p.score.is_trusted).map_err(|u| u.reason);
    assert_eq!(trusted(&stale, ""), Ok(false));
    assert_eq!(trusted(&stale, "topology: {stale: ignore}"), Ok(true));
    assert_eq!(trusted(&stale, "topology: {stale: reject}"), Err(Reason::StaleTopology));
    assert_eq!(trusted(&missing, ""), Err(Reason::NoTopology));
    assert_eq!(trusted(&missing, "topology: {missing: byCount}"), Ok(false));
    let by_count = plan(&missing, &one, &with("topology: {missing: byCount}")).unwrap();
    assert!(by_count.set.is_none() && by_count.containers[0].devices.is_empty() && by_count.is_imprecise);
    let wished = demand(1, &[("berth.dev/gpu-product", "*")]);
    let refused = plan(&missing, &wished, &with("topology: {missing: byCount}")).unwrap_err();
    assert_eq!(refused.reason, Reason::NoTopology, "no hard wish is met by data that nobody has");
}

#[test]
fn most_allocated_fills_the_used_node_first_and_spread_the_empty_one() {
    let empty = idle(Box8::Switched);
    let mut used = NodeView { held: bits(0b111), ..empty.clone() };
    used.requested = crate::view::Compute { cpu_milli: 24_000, memory: MiB(96 << 10) };
    let one = demand(1, &[]);
    let policy = Policy::default();
    let value = |view: &NodeView, policy: &Policy| plan(view, &one, policy).unwrap().score;
    assert!(value(&used, &policy) > value(&empty, &policy));
    let spread = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\nclasses: {default: {placement: spread}}\n";
    let spread = crate::policy::parse(spread).unwrap();
    assert!(value(&used, &spread) < value(&empty, &spread));
    // gpu 3 x 4/8, cpu 1 x 28/96, memory 1 x 128Gi/1Ti, link 4 x 1, kept 2 x what the set leaves, over 11.
    let planned = plan(&used, &one, &policy).unwrap();
    let kept = |set| used.hardware.as_ref().unwrap().fabric.kept(set).0;
    let kept = 1_000_000 - kept(bits(0b1111_1000)) + kept(bits(0b1111_1000).minus(planned.set.unwrap()));
    assert_eq!(planned.score.value, Ppm((3 * 500_000 + 291_666 + 125_000 + 4 * 1_000_000 + 2 * kept) / 11));
}

#[test]
fn containers_get_disjoint_parts_and_init_containers_reuse_them() {
    let container = |name: &str, gpus: &str| ContainerRequest {
        name: name.to_owned(),
        requests: [("nvidia.com/gpu".to_owned(), gpus.to_owned())].into(),
        ..ContainerRequest::default()
    };
    let pod = PodRequest {
        init_containers: vec![container("init", "2")],
        containers: vec![container("a", "1"), container("b", "2")],
        ..PodRequest::default()
    };
    let demand = Demand::parse(&pod, &Policy::default()).unwrap();
    let plan = plan(&idle(Box8::Switched), &demand, &Policy::default()).unwrap();
    let dealt: Vec<Vec<u8>> = plan.containers.iter().map(|c| c.devices.iter().map(|g| g.index.0).collect()).collect();
    assert_eq!(dealt, [vec![0, 1], vec![0], vec![1, 2]]);
}

#[test]
fn a_pod_that_prefers_nvlink_goes_where_there_is_some() {
    let policy = Policy::default();
    let wish = demand(2, &[("berth.dev/link", "nvlink:preferred")]);
    let mut parts = topology(Box8::PciePairs).into_parts();
    parts.links = berth_model::LinkMatrix::build(parts.links.device_count(), |a, b| {
        let link = topology(Box8::PciePairs).parts().links.link(a, b).unwrap();
        berth_model::Link { nvlinks: 0, ..link }
    });
    let without = view_of(berth_model::NodeTopology::try_new(parts).unwrap());
    let with = idle(Box8::PciePairs);
    let score = |view: &NodeView, demand: &Demand| plan(view, demand, &policy).unwrap().score;
    assert!(score(&with, &wish) > score(&without, &wish));
}

#[test]
fn a_nic_is_one_pods_while_it_holds_it() {
    let view = idle(Box8::Switched);
    let required = demand(2, &[("berth.dev/rail", "required")]);
    let nics = |plan: &Plan| plan.nics.iter().map(|n| n.as_str().to_owned()).collect::<Vec<_>>();
    // GPUs 4 and 5 are free, but somebody holds the NIC of GPU 4.
    let held = NodeView { nics_held: berth_model::NicSet::EMPTY.with(4), ..view.clone() };
    let other = plan(&held, &required, &Policy::default()).unwrap();
    assert!(!nics(&other).contains(&"mlx5_4".to_owned()) && nics(&other).len() == 2, "{:?}", nics(&other));
    let nearly_all = NodeView { nics_held: (0..5).collect(), ..view.clone() };
    assert_eq!(planned(&nearly_all, &required), Err(Reason::RailBusy));
    let preferred = demand(2, &[("berth.dev/rail", "preferred")]);
    let one = plan(&nearly_all, &preferred, &Policy::default()).unwrap();
    assert_eq!(nics(&one), ["mlx5_5"], "what can be had is had");
    assert!(
        plan(&view, &demand(2, &[]), &Policy::default()).unwrap().nics.is_empty(),
        "who wishes no rail holds no NIC"
    );
}

#[test]
fn who_asks_for_an_rdma_device_prefers_a_rail() {
    let lines = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\nresources: {rdma: [rdma/hca]}\n";
    let policy = crate::policy::parse(lines).unwrap();
    let with = |annotations: &[(&str, &str)]| {
        let requests = [("nvidia.com/gpu", "1"), ("rdma/hca", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let container = ContainerRequest { requests: requests.into(), ..ContainerRequest::default() };
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let pod = PodRequest { containers: vec![container], annotations, ..PodRequest::default() };
        Demand::parse(&pod, &policy).unwrap().shape.rail
    };
    assert_eq!(with(&[]), wish::Force::Preferred);
    assert_eq!(with(&[("berth.dev/rail", "off")]), wish::Force::Off);
}
