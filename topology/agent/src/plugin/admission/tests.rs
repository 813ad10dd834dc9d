//! Claims about whose turn it is: the pod that the kubelet lists without the devices that it asks for.

use berth_proto::kubelet::podresources::{ContainerDevices, ContainerResources};

use super::super::devices::{GPU, MigStrategy, offer};
use super::super::sample::{cut, node, pairs, plan};
use super::*;
use crate::pods::Container;

/// A pod of the API server with one container of GPUs per entry; `init` is a plain init container.
fn pod(name: &str, containers: &[(&str, usize)], plan: Option<String>) -> Pod {
    let container = |(name, count): &(&str, usize)| Container {
        name: (*name).to_owned(),
        kind: if *name == "init" { Kind::Init } else { Kind::Main },
        resources: BTreeMap::from([(GPU.to_owned(), *count)]),
    };
    Pod {
        uid: format!("uid-{name}"),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        is_ended: false,
        is_deleting: false,
        is_acknowledged: false,
        containers: containers.iter().map(container).collect(),
        running: BTreeSet::new(),
        plan,
    }
}

/// A pod of the kubelet's list, with what its containers hold.
fn listed(name: &str, containers: &[(&str, &[&str])]) -> PodResources {
    let container = |(name, ids): &(&str, &[&str])| ContainerResources {
        name: (*name).to_owned(),
        devices: ids
            .iter()
            .map(|id| ContainerDevices { resource_name: GPU.to_owned(), device_ids: vec![(*id).to_owned()] })
            .collect(),
    };
    let containers = containers.iter().map(container).collect();
    PodResources { name: name.to_owned(), namespace: "default".to_owned(), containers }
}

fn found(lists: Vec<PodResources>, pods: Vec<Pod>, available: &[&str], must: &[&str], size: usize) -> Found {
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let wanted = Wanted { available: set(available), must: set(must), size };
    let devices = offer(&pairs(), MigStrategy::Mixed).remove(GPU).unwrap();
    let lists = ListPodResourcesResponse { pod_resources: lists };
    planned(&lists, &OnNode::listed(pods), &node(), GPU, &wanted, &devices)
}

fn ids(found: &Found) -> String {
    found.ids.as_ref().map_or_else(|| "-".to_owned(), |ids| ids.iter().cloned().collect::<Vec<_>>().join(" "))
}

const ALL: [&str; 4] = ["GPU-0", "GPU-1", "GPU-2", "GPU-3"];

#[test]
fn the_plan_of_the_pod_without_its_devices_is_found_among_running_ones() {
    let running = pod("old", &[("main", 1)], Some(plan("uid-old", &[("main", GPU, &["GPU-0"])])));
    let admitted = pod("new", &[("main", 2)], Some(plan("uid-new", &[("main", GPU, &["GPU-3", "GPU-1"])])));
    let lists = vec![listed("old", &[("main", &["GPU-0"])]), listed("new", &[("main", &[])])];
    let found = found(lists, vec![running, admitted], &ALL[1..], &[], 2);
    assert_eq!((ids(&found).as_str(), found.is_sure), ("GPU-1 GPU-3", true));
}

#[test]
fn each_container_gets_its_own_part_of_the_plan_in_the_order_of_admission() {
    let text = plan("uid-p", &[("a", GPU, &["GPU-2"]), ("b", GPU, &["GPU-0"])]);
    let one = || vec![pod("p", &[("a", 1), ("b", 1)], Some(text.clone()))];
    let first = found(vec![listed("p", &[("a", &[]), ("b", &[])])], one(), &ALL, &[], 1);
    assert_eq!(ids(&first), "GPU-2");
    let second = found(vec![listed("p", &[("a", &["GPU-2"]), ("b", &[])])], one(), &["GPU-0", "GPU-1"], &[], 1);
    assert_eq!(ids(&second), "GPU-0");
}

#[test]
fn an_init_container_comes_first_and_what_it_left_is_part_of_the_next() {
    let text = plan("uid-p", &[("init", GPU, &["GPU-1"]), ("main", GPU, &["GPU-0", "GPU-1"])]);
    let one = || vec![pod("p", &[("init", 1), ("main", 2)], Some(text.clone()))];
    let lists = || vec![listed("p", &[("main", &[])])];
    assert_eq!(ids(&found(lists(), one(), &ALL, &[], 1)), "GPU-1");
    assert_eq!(ids(&found(lists(), one(), &ALL, &["GPU-1"], 2)), "GPU-0 GPU-1");
}

#[test]
fn a_pod_that_is_not_known_yet_may_be_the_one_and_so_may_the_next_of_a_name() {
    let new = || vec![listed("new", &[("main", &[])])];
    assert_eq!(found(new(), Vec::new(), &ALL, &[], 1), Found { ids: None, is_sure: false });
    let leaving = Pod { is_deleting: true, ..pod("new", &[("main", 1)], None) };
    assert_eq!(found(new(), vec![leaving], &ALL, &[], 1), Found { ids: None, is_sure: false });
    // One that holds devices is none that waits for them.
    let held = vec![listed("held", &[("main", &["GPU-0"])])];
    assert_eq!(found(held, Vec::new(), &ALL, &[], 1), Found { ids: None, is_sure: true });
}

#[test]
fn before_the_first_list_of_pods_nothing_is_sure() {
    let wanted = Wanted { available: BTreeSet::new(), must: BTreeSet::new(), size: 1 };
    let nothing = ListPodResourcesResponse::default();
    let found = planned(&nothing, &OnNode::default(), &node(), GPU, &wanted, &Devices::new());
    assert_eq!(found, Found { ids: None, is_sure: false });
}

#[test]
fn a_plan_of_another_pod_or_none_is_no_plan() {
    let of_another = plan("uid-other", &[("main", GPU, &["GPU-1"])]);
    for plan in [None, Some(of_another), Some("no JSON".to_owned())] {
        let found = found(vec![listed("p", &[("main", &[])])], vec![pod("p", &[("main", 1)], plan)], &ALL, &[], 1);
        assert_eq!(found, Found { ids: None, is_sure: true });
    }
}

#[test]
fn of_two_that_may_wait_the_one_whose_plan_is_free_is_meant() {
    // A pod whose init container has its devices for good is listed without them for ever.
    let hidden = pod("a", &[("init", 1)], Some(plan("uid-a", &[("init", GPU, &["GPU-0"])])));
    let admitted = pod("b", &[("main", 1)], Some(plan("uid-b", &[("main", GPU, &["GPU-1"])])));
    let lists = vec![listed("a", &[("main", &[])]), listed("b", &[("main", &[])])];
    assert_eq!(ids(&found(lists, vec![hidden, admitted], &ALL[1..], &[], 1)), "GPU-1");
}

#[test]
fn a_plan_that_is_not_free_is_told_all_the_same_once_nothing_better_can_come() {
    let one = pod("p", &[("main", 2)], Some(plan("uid-p", &[("main", GPU, &["GPU-0", "GPU-1"])])));
    let found = found(vec![listed("p", &[("main", &[])])], vec![one], &ALL[1..], &[], 2);
    assert_eq!((ids(&found).as_str(), found.is_sure), ("GPU-0 GPU-1", true));
}

#[test]
fn an_instance_is_found_by_its_place_where_the_plan_names_an_older_id() {
    let machine = cut(&[(0, &[("1g.10gb", 4)])]);
    let resource = "nvidia.com/mig-1g.10gb";
    let devices = offer(&machine, MigStrategy::Mixed).remove(resource).unwrap();
    let mut device = Device::whole("GPU-0");
    device.mig = Some(berth_core::annotation::Mig {
        uuid: Some("MIG-before".to_owned()),
        profile: "1g.10gb".to_owned(),
        start: 4,
        size: 1,
    });
    assert_eq!(id_of(&device, &devices).as_deref(), Some("MIG-0-4"));
    assert_eq!(id_of(&device, &Devices::new()), None);
}

#[test]
fn what_was_promised_to_others_is_not_what_the_pod_itself_was() {
    let devices = offer(&pairs(), MigStrategy::Mixed).remove(GPU).unwrap();
    let of =
        |name: &str, id: &str| pod(name, &[("main", 1)], Some(plan(&format!("uid-{name}"), &[("main", GPU, &[id])])));
    let ended = Pod { is_ended: true, ..of("c", "GPU-2") };
    let pods = OnNode::listed([of("a", "GPU-0"), of("b", "GPU-1"), ended]);
    let own = BTreeSet::from(["GPU-0".to_owned()]);
    assert_eq!(promised(&pods, &node(), Some(&own), &devices), BTreeSet::from(["GPU-1".to_owned()]));
    assert_eq!(promised(&pods, &node(), None, &devices).len(), 2);
}
