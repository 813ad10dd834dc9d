//! Claims about nodes whose kubelet may refuse a pod for its zones.

use std::collections::BTreeMap;

use berth_model::kubelet::{CpuManagerPolicy, TopologyManagerPolicy, TopologyManagerScope};
use berth_model::{CpuSet, Kubelet, MiB, NodeTopology, ZoneId};

use super::*;
use crate::view::Compute;
use crate::zone::{FirstOnes, Site, admit};

/// Two zones of 4 GPUs and 48 CPUs each, under the given policy.
fn machine(policy: TopologyManagerPolicy) -> NodeView {
    let mut parts = topology(Box8::Switched).into_parts();
    for (zone, cpus) in parts.zones.iter_mut().zip(["0-47", "48-95"]) {
        zone.cpus = CpuSet::parse(cpus).unwrap();
        zone.memory = Some(MiB(512 << 10));
    }
    parts.host.kubelet = Some(Kubelet {
        topology_manager: policy,
        topology_manager_scope: TopologyManagerScope::Pod,
        cpu_manager: CpuManagerPolicy::Static,
        ..Kubelet::default()
    });
    held(NodeTopology::try_new(parts).unwrap(), 0)
}

fn held(topology: NodeTopology, taken: u32) -> NodeView {
    let mut view = view_of(topology);
    view.held = bits(taken);
    let hardware = view.hardware.as_ref().unwrap();
    let mut site = Site::of_idle(&hardware.topology, view.allocatable, Policy::default().resources());
    for (at, device) in site.iter_mut().flat_map(|s| s.devices.values_mut()).flatten().enumerate() {
        device.is_free &= taken & (1 << at) == 0;
    }
    view.site = site.map(Arc::new);
    view
}

fn with_taken(view: &NodeView, taken: u32) -> NodeView {
    held(NodeTopology::clone(&view.hardware.as_ref().unwrap().topology), taken)
}

fn guaranteed(gpus: u32, cpus: u32) -> Demand {
    let requests = [("nvidia.com/gpu", gpus.to_string()), ("cpu", cpus.to_string()), ("memory", "32Gi".to_owned())];
    let requests: BTreeMap<String, String> = requests.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let container = ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false };
    let pod = PodRequest { containers: vec![container], is_guaranteed: true, ..PodRequest::default() };
    Demand::parse(&pod, &Policy::default()).unwrap()
}

#[test]
fn a_pod_that_the_kubelet_would_refuse_is_not_sent_there() {
    let single = machine(TopologyManagerPolicy::SingleNumaNode);
    let restricted = machine(TopologyManagerPolicy::Restricted);
    let free = machine(TopologyManagerPolicy::None);
    for (view, taken, gpus, cpus, expected) in [
        (&single, 0, 4, 48, Ok(4)),
        // Two zones' worth of GPUs or CPUs never goes into one.
        (&single, 0, 8, 8, Err(Reason::KubeletUnmet)),
        (&single, 0, 1, 49, Err(Reason::KubeletUnmet)),
        (&restricted, 0, 8, 96, Ok(8)),
        // Four would fit one zone of the idle machine, so two and two are refused.
        (&restricted, 0b0011_0011, 4, 4, Err(Reason::KubeletBusy)),
        (&restricted, 0b0000_0011, 4, 4, Ok(4)),
        (&free, 0b0011_0011, 4, 4, Ok(4)),
    ] {
        let view = with_taken(view, taken);
        let said = planned(&view, &guaranteed(gpus, cpus)).map(GpuSet::gpu_count);
        assert_eq!(
            said,
            expected,
            "{gpus} GPUs, {cpus} CPUs, taken {taken:b}, {:?}",
            view.site.map(|s| s.rules.policy)
        );
    }
}

#[test]
fn a_set_lies_in_the_zone_that_the_kubelet_will_hint() {
    let mut view = machine(TopologyManagerPolicy::BestEffort);
    let mut site = Site::clone(view.site.as_ref().unwrap());
    // No CPUs of its own are left in zone 0, where the set would lie otherwise.
    site.zones[0].free_cpu_count = 1;
    view.site = Some(Arc::new(site));
    assert_eq!(planned(&view, &demand(2, &[])), Ok(bits(0b11)), "who is not Guaranteed is hinted by its GPUs alone");
    assert_eq!(planned(&view, &guaranteed(2, 8)), Ok(bits(0b11_0000)));
}

#[test]
fn the_detail_says_what_each_zone_has() {
    let view = with_taken(&machine(TopologyManagerPolicy::Restricted), 0b0011_0011);
    let unfit = plan(&view, &guaranteed(4, 4), &Policy::default()).unwrap_err();
    assert_eq!(
        unfit.detail,
        "restricted, scope pod: TopologyAffinityError at container 0; zone 0: 48 CPUs, 512 GiB, 2 GPUs free; \
         zone 1: 48 CPUs, 512 GiB, 2 GPUs free"
    );
}

#[test]
fn what_a_node_keeps_for_itself_is_nobodys() {
    let view = machine(TopologyManagerPolicy::SingleNumaNode);
    let topology = &view.hardware.as_ref().unwrap().topology;
    let less = Compute { cpu_milli: 93_500, ..view.allocatable };
    let site = Site::of_idle(topology, less, Policy::default().resources()).unwrap();
    let free: Vec<u32> = site.zones.iter().map(|z| z.free_cpu_count).collect();
    assert_eq!(free, [45, 48], "the lowest CPUs are the system's");
    let mut site = site;
    assert!(
        admit(&mut site, &guaranteed(4, 48).shape.ask, &mut FirstOnes)
            .is_ok_and(|a| { a[0].hint.zones.is_some_and(|z| z.contains(ZoneId(1)) && z.zone_count() == 1) })
    );
}

/// The last GPU of zone 0 and all of zone 1 cut into halves, under a kubelet that wants one zone.
fn cut_machine() -> NodeView {
    let view = crate::testing::cut(3, &[("3g.40gb", 0), ("3g.40gb", 4)]);
    let mut parts = NodeTopology::clone(&view.hardware.as_ref().unwrap().topology).into_parts();
    let like = machine(TopologyManagerPolicy::SingleNumaNode).hardware.unwrap().topology.parts().clone();
    (parts.zones, parts.host.kubelet) = (like.zones, like.host.kubelet);
    NodeView { offered: Arc::clone(&view.offered), ..held(NodeTopology::try_new(parts).unwrap(), 0) }
}

fn halves(count: u32, cpus: u32) -> Demand {
    let amounts =
        [("nvidia.com/mig-3g.40gb", count.to_string()), ("cpu", cpus.to_string()), ("memory", "8Gi".to_owned())];
    let requests: BTreeMap<String, String> = amounts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let container = ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false };
    let pod = PodRequest { containers: vec![container], is_guaranteed: true, ..PodRequest::default() };
    Demand::parse(&pod, &Policy::default()).unwrap()
}

#[test]
fn instances_lie_in_the_zone_where_the_kubelet_finds_the_cpus() {
    let mut view = cut_machine();
    let zone = |view: &NodeView, demand: &Demand| plan(view, demand, &Policy::default()).map(|p| p.zone);
    // A card of zone 1 is in use already and would be filled up first; the kubelet takes the lower zone where both will do.
    let slot = crate::device::MigSlot { profile: "3g.40gb".to_owned(), start: 4, size: 4 };
    view.instances = vec![crate::view::HeldInstance { index: GpuIndex(5), slot }];
    assert_eq!(zone(&NodeView { site: None, ..view.clone() }, &halves(1, 4)).unwrap(), Some(ZoneId(1)));
    let left = |cpus: [u32; 2]| {
        let mut site = Site::clone(view.site.as_ref().unwrap());
        (site.zones[0].free_cpu_count, site.zones[1].free_cpu_count) = (cpus[0], cpus[1]);
        NodeView { site: Some(Arc::new(site)), ..view.clone() }
    };
    assert_eq!(zone(&view, &halves(1, 4)).unwrap(), Some(ZoneId(0)));
    assert_eq!(zone(&left([3, 48]), &halves(1, 4)).unwrap(), Some(ZoneId(1)));
    let view = left([48, 3]);
    assert_eq!(zone(&view, &halves(2, 4)).unwrap(), Some(ZoneId(0)));
    let unfit = zone(&view, &halves(3, 4)).unwrap_err();
    assert_eq!(unfit.reason, Reason::KubeletBusy);
    let zones = "zone 0: 48 CPUs, 512 GiB, 2 mig-3g.40gb free; zone 1: 3 CPUs, 512 GiB, 8 mig-3g.40gb free";
    let said = format!("single-numa-node, scope pod: TopologyAffinityError at container 0; {zones}");
    assert_eq!(unfit.detail, said);
    assert_eq!(zone(&cut_machine(), &halves(9, 4)).unwrap_err().reason, Reason::KubeletUnmet, "no zone has nine");
}

#[test]
fn devices_that_no_report_lists_refuse_nobody() {
    let view = machine(TopologyManagerPolicy::SingleNumaNode);
    let mut demand = guaranteed(2, 4);
    demand.shape.ask.containers[0].devices.insert("example.com/fpga".to_owned(), 1);
    assert_eq!(planned(&view, &demand).map(GpuSet::gpu_count), Ok(2));
}

#[test]
fn each_container_gets_the_instances_that_the_kubelet_would_deal_it() {
    let mut view = cut_machine();
    let mut site = Site::clone(view.site.as_ref().unwrap());
    site.rules.scope = TopologyManagerScope::Container;
    // Zone 0 has CPUs for one container only, so they cannot share the one card there.
    (site.zones[0].free_cpu_count, site.zones[1].free_cpu_count) = (4, 6);
    view.site = Some(Arc::new(site));
    let mut demand = halves(1, 4);
    let (first, small) = (demand.containers[0].clone(), demand.shape.ask.containers[0].clone());
    demand.containers.push(crate::demand::ContainerDemand { name: "side".to_owned(), ..first });
    demand.shape.ask.containers.push(small);
    demand.shape.mig.insert("3g.40gb".to_owned(), 2);
    let plan = plan(&view, &demand, &Policy::default()).unwrap();
    let gpus: Vec<u8> = plan.containers.iter().map(|c| c.devices[0].index.0).collect();
    assert!(gpus[0] == 3 && gpus[1] >= 4, "{gpus:?}: the kubelet takes the lower zone first");
}

/// The positions of the GPUs of each container, of a pod whose containers ask so many of them and so many CPUs.
fn dealt(view: &NodeView, asks: &[(u32, u32)]) -> Result<Vec<Vec<u8>>, Reason> {
    let container = |(at, (gpus, cpus)): (usize, &(u32, u32))| {
        let requests = [("nvidia.com/gpu", gpus.to_string()), ("cpu", cpus.to_string()), ("memory", "8Gi".to_owned())];
        let requests = requests.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
        ContainerRequest { name: format!("c{at}"), requests, is_sidecar: false }
    };
    let containers = asks.iter().enumerate().map(container).collect();
    let pod = PodRequest { containers, is_guaranteed: true, ..PodRequest::default() };
    let plan = plan(view, &Demand::parse(&pod, &Policy::default()).unwrap(), &Policy::default());
    let containers = plan.map_err(|unfit| unfit.reason)?.containers;
    Ok(containers.iter().map(|container| container.devices.iter().map(|device| device.index.0).collect()).collect())
}

#[test]
fn each_container_gets_the_gpus_that_the_kubelet_would_deal_it() {
    let mut view = machine(TopologyManagerPolicy::SingleNumaNode);
    let mut parts = NodeTopology::clone(&view.hardware.as_ref().unwrap().topology).into_parts();
    parts.host.kubelet.as_mut().unwrap().topology_manager_scope = TopologyManagerScope::Container;
    view = held(NodeTopology::try_new(parts).unwrap(), 0b0000_1110);
    // One GPU is left in zone 0, which the kubelet takes first: for whichever container it is enough.
    let zones = |asks: &[(u32, u32)]| -> Result<Vec<Vec<u8>>, Reason> {
        let dealt = dealt(&view, asks)?;
        Ok(dealt.into_iter().map(|gpus| gpus.into_iter().map(|gpu| gpu / 4).collect()).collect())
    };
    assert_eq!(zones(&[(1, 4), (1, 4)]), Ok(vec![vec![0], vec![1]]));
    assert_eq!(zones(&[(2, 4), (1, 4)]), Ok(vec![vec![1, 1], vec![0]]));
    assert_eq!(zones(&[(1, 4), (2, 4), (2, 4)]), Ok(vec![vec![0], vec![1, 1], vec![1, 1]]));
    assert_eq!(zones(&[(1, 47), (1, 47)]), Ok(vec![vec![0], vec![1]]));
    assert_eq!(zones(&[(2, 4), (2, 47)]), Err(Reason::KubeletBusy), "zone 1 has 48 CPUs");
}
