//! Claims about what `berth nodes` says of folded nodes, as tables.

use std::collections::{BTreeMap, BTreeSet};

use anstream::adapter::strip_str;
use berth_core::demand::Totals as PodTotals;
use berth_core::device::HeldDevice;
use berth_core::view::Compute;
use berth_index::{Event, NodeFacts, PlanNote, PodFacts, PodUid, Rank};
use berth_model::{BootId, DevicePlugin, GpuUuid, Health, Level, NodeName};

use super::*;
use crate::render::nodes::{Table, names, table};
use crate::render::sample::dgx_h100;

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn offers(node: &str, gpus: u64, boot: &str) -> Event {
    Event::Node(NodeFacts {
        name: name(node),
        boot_id: BootId::parse(boot).ok(),
        offered: [("nvidia.com/gpu".to_owned(), gpus)].into(),
        allocatable: Compute::default(),
        zone: None,
        is_avoided: false,
        labels: level::LabelSet::default(),
    })
}

fn pod(text: &str, node: &str, count: u64, note: PlanNote) -> Event {
    let totals = PodTotals { extended: [("nvidia.com/gpu".to_owned(), count)].into(), ..PodTotals::default() };
    Event::Pod(Box::new(PodFacts {
        uid: PodUid::new(text),
        namespace: "team".to_owned(),
        name: text.to_owned(),
        node: Some(name(node)),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals,
        rank: Rank::default(),
        note,
        truth: BTreeMap::new(),
    }))
}

fn planned(gpus: &[u8]) -> PlanNote {
    let whole = |g: &u8| HeldDevice::whole(GpuUuid::parse(&format!("GPU-{g}")).unwrap());
    PlanNote::Devices(gpus.iter().map(whole).collect())
}

fn report(node: &str, sick: Option<usize>) -> Event {
    let mut parts = dgx_h100().into_parts();
    parts.node = name(node);
    if let Some(sick) = sick {
        parts.gpus[sick].health = Health::Unhealthy("Xid 79".to_owned());
    }
    Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
}

fn read(events: Vec<Event>) -> Read {
    let read = Read { gpu_resources: ["nvidia.com/gpu".to_owned()].into(), has_pods: true, ..Read::default() };
    let (mut conditions, mut absent_agents) = (BTreeMap::new(), BTreeSet::new());
    for event in events {
        if let Event::Node(facts) = &event {
            conditions.insert(facts.name.to_string(), Vec::new());
        }
        if let Event::Agent { node, .. } = &event {
            absent_agents.insert(node.to_string());
        }
        read.index.apply(event);
    }
    Read { conditions, absent_agents, ..read }
}

fn wide(read: &Read) -> String {
    let form = Table { is_wide: true, has_headers: true };
    strip_str(&table(&inventory(read, |_| true), form)).to_string()
}

#[test]
fn every_node_says_what_is_free_who_holds_the_rest_and_what_is_not_known() {
    let read = read(vec![
        offers("dgx-1", 8, "boot"),
        report("dgx-1", Some(7)),
        pod("train", "dgx-1", 4, planned(&[0, 1, 2, 3])),
        offers("dgx-2", 8, "boot"),
        report("dgx-2", None),
        pod("stray", "dgx-2", 2, PlanNote::Absent),
        offers("dgx-3", 8, "later-boot"),
        report("dgx-3", None),
        offers("dgx-4", 8, "boot"),
        report("dgx-4", None),
        Event::Agent { node: name("dgx-4"), is_there: false },
        offers("pcie-1", 4, "boot"),
        offers("cpu-1", 0, "boot"),
    ]);
    let expected = "\
NAME     GPUS   FREE   UNHEALTHY   LINK   FREE-ISLAND   STATUS             LEVEL    PRODUCT       HOLDERS
*        36     29     1           -      8             2/6-ok             -        6 nodes       2 pods
cpu-1    0      0      0           -      -             ok                 -        -             -
dgx-1    8      3      1           NV18   3             ok                 advice   NVIDIA-Test   team/train:0-3
dgx-2    8      6      0           NV18   ?             imprecise          advice   NVIDIA-Test   team/stray:+2?
dgx-3    8      8      0           NV18   8             stale:rebooted     advice   NVIDIA-Test   -
dgx-4    8      8      0           NV18   8             stale:agent-away   advice   NVIDIA-Test   -
pcie-1   4      4      0           -      -             no-report          -        -             -
";
    assert_eq!(wide(&read), expected);
}

#[test]
fn without_a_list_of_pods_nothing_is_called_free() {
    let mut read = read(vec![offers("dgx-1", 8, "boot"), report("dgx-1", None)]);
    read.has_pods = false;
    let form = Table { is_wide: true, has_headers: false };
    let text = strip_str(&table(&inventory(&read, |_| true), form)).to_string();
    let expected = "\
*       8   ?   0   -      -   1/1-ok   -        1 node        ?
dgx-1   8   ?   0   NV18   ?   ok       advice   NVIDIA-Test   ?
";
    assert_eq!(text, expected);
}

#[test]
fn a_node_says_the_level_that_it_has_and_whether_its_plugin_is_away() {
    let of = |level, is_accepting| {
        let Event::Report(topology) = report("dgx-1", None) else { panic!("no report") };
        let plugin = Some(DevicePlugin { level, is_accepting });
        let read = read(vec![offers("dgx-1", 8, "boot"), Event::Report(Box::new(topology.with_device_plugin(plugin)))]);
        let row = inventory(&read, |_| true).items.remove(0);
        (row.level, row.status)
    };
    assert_eq!(of(Level::Preferred, true), ("preferred", vec![]));
    assert_eq!(of(Level::Enforced, false), ("enforced", vec!["plugin-away"]));
}

#[test]
fn what_the_kubelet_does_not_offer_is_not_free() {
    let read = read(vec![offers("dgx-1", 5, "boot"), report("dgx-1", None), pod("a", "dgx-1", 1, planned(&[0]))]);
    assert_eq!(inventory(&read, |_| true).items[0].free_gpu_count, Some(4));
}

#[test]
fn json_carries_its_kind_and_names_hold_nodes_only() {
    let read = read(vec![offers("dgx-1", 8, "boot"), report("dgx-1", None)]);
    let inventory = inventory(&read, |_| true);
    let value = serde_json::to_value(&inventory).unwrap();
    assert_eq!((&value["kind"], &value["apiVersion"]), (&"NodeInventory".into(), &"cli.berth.dev/v1alpha1".into()));
    assert_eq!(value["items"][0]["freeIsland"].as_array().unwrap().len(), 8);
    assert_eq!(names(&inventory), "node/dgx-1\n");
}

#[test]
fn the_largest_island_is_found_in_a_mesh() {
    // A ring of four with one chord: 0-1-2-3-0 and 0-2.
    let pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)];
    let near = |a: u8| -> GpuSet {
        let other = |(x, y): &(u8, u8)| if *x == a { Some(*y) } else { (*y == a).then_some(*x) };
        pairs.iter().filter_map(other).map(GpuIndex).collect()
    };
    let neighbours: Vec<GpuSet> = (0..4).map(near).collect();
    let mut best = GpuSet::EMPTY;
    largest(&neighbours, GpuSet::EMPTY, GpuSet::first(4), &mut best);
    assert_eq!(best, GpuSet::from_bits(0b0111));
}
