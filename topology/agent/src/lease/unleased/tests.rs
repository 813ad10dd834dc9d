//! Who holds devices without a lease, what they are called, and when nobody holds them any more.

use berth_core::annotation::Share;
use berth_model::{MigInstance, MigProfile, RefusalReason};

use super::*;
use crate::lease::book::{self, Listed, Look, Verdict};
use crate::lease::record::{Lease, LeaseName};
use crate::lease::testing::{GPU, NODE, cards, gpu, gpus, plan, pod};

const MAIN: &[(&str, Kind, usize)] = &[("main", Kind::Main, 1)];

fn node() -> NodeName {
    NodeName::parse(NODE).unwrap()
}

fn entry(uid: &str, container: &str, ids: &[&str]) -> Entry {
    Entry {
        pod_uid: uid.to_owned(),
        container: container.to_owned(),
        resource: GPU.to_owned(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        leases: BTreeSet::new(),
    }
}

fn lease(digit: &str) -> LeaseName {
    LeaseName::parse(&format!("lease-{}", digit.repeat(32))).unwrap()
}

fn seen(entries: &[Entry]) -> Unleased {
    let mut unleased = Unleased::default();
    unleased.see(&Witness::of(entries.to_vec()), &Book::new());
    unleased
}

fn listing(pod: &str, ids: &[&str]) -> Listing {
    let devices = [(GPU.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())].into();
    let (namespace, pod, container) = ("n".to_owned(), pod.to_owned(), "main".to_owned());
    Listing { containers: vec![Listed { namespace, pod, container, devices }], twice: BTreeSet::new() }
}

/// What pod `new` of UID `v` gets, whose plan names GPU-b and whose kubelet says GPU-c.
fn judged(unleased: &Unleased, others: Vec<Pod>) -> Result<(), (RefusalReason, String)> {
    let own = pod("new", "v", MAIN, Some(&plan("v", &[("main", Kind::Main, &["GPU-b"])])));
    let pods = OnNode::listed(others.into_iter().chain([own]));
    let cards = cards(&["GPU-a", "GPU-b", "GPU-c"]);
    let (node, listing) = (node(), listing("new", &["GPU-c"]));
    let pending =
        Lease { name: lease("1"), sequence: 0, resource: GPU.to_owned(), ids: vec!["GPU-c".to_owned()], holder: None };
    let witness = Witness::of_holders([(lease("1"), ("v".to_owned(), "main".to_owned()))].into());
    let held = unleased.holders(&pods, &node, &cards);
    let look = Look {
        node: &node,
        asked_at: 1,
        listing: &listing,
        witness: &witness,
        pods: &pods,
        cards: Some(&cards),
        unleased: &held,
    };
    match book::judge(&Book::from([(lease("1"), pending.clone())]), &pending, &look) {
        Verdict::Give(_) => Ok(()),
        Verdict::Refuse(refusal) => Err((refusal.reason, refusal.text)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_that_somebody_holds_without_a_lease_is_given_to_nobody_else() {
    let old = || vec![pod("old", "u", MAIN, None)];
    assert_eq!(judged(&seen(&[entry("u", "main", &["GPU-a"])]), old()), Ok(()));
    let leased = |text: &str| Err((RefusalReason::DeviceLeased, text.to_owned()));
    let by_old = "GPU-b is held without a lease by pod n/old";
    // However its plugin called resource and device.
    for (resource, id) in
        [(GPU, "GPU-b"), ("nvidia.com/gpu.shared", "GPU-b::3"), ("example.com/a100", "GPU-b"), (GPU, "1")]
    {
        let renamed = Entry { resource: resource.to_owned(), ..entry("u", "main", &[id]) };
        assert_eq!(judged(&seen(&[renamed]), old()), leased(by_old), "{resource} {id}");
    }
    // A plain init container runs again when its pod's sandbox does.
    let init = pod("old", "u", &[("pull", Kind::Init, 1)], None);
    assert_eq!(judged(&seen(&[entry("u", "pull", &["GPU-b"])]), vec![init]), leased(by_old));
    assert_eq!(
        judged(&seen(&[entry("static", "main", &["GPU-b"])]), vec![]),
        leased("GPU-b is held without a lease by pod /static")
    );
    // What the kubelet counts for this very container, or did before its init containers came, is no other's.
    assert_eq!(judged(&seen(&[entry("v", "main", &["GPU-b"])]), old()), Ok(()));
    assert!(judged(&seen(&[entry("v", "second", &["GPU-b"])]), old()).is_err());
}

#[test]
fn ids_of_leases_are_no_devices_and_a_lease_that_is_lost_holds_what_its_plan_names() {
    let answered = Entry { leases: [lease("2")].into(), ..entry("u", "main", &["GPU-b"]) };
    let known = Lease { name: lease("2"), sequence: 0, resource: GPU.to_owned(), ids: Vec::new(), holder: None };
    let mut unleased = Unleased::default();
    unleased.see(&Witness::of(vec![answered.clone()]), &Book::from([(lease("2"), known)]));
    let old = |named: &str| pod("old", "u", MAIN, Some(&plan("u", &[("main", Kind::Main, &[named])])));
    assert_eq!(judged(&unleased, vec![old("GPU-b")]), Ok(()), "the lease says what it is");
    let unleased = seen(&[answered]);
    assert_eq!(judged(&unleased, vec![old("GPU-a")]), Ok(()));
    assert!(judged(&unleased, vec![old("GPU-b")]).is_err());
    assert_eq!(judged(&unleased, vec![Pod { is_ended: true, ..old("GPU-b") }]), Ok(()));
    assert_eq!(judged(&unleased, vec![]), Ok(()));
}

#[test]
fn who_is_gone_for_everybody_is_forgotten_and_nobody_else() {
    let uids = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect::<BTreeSet<_>>();
    let file = [entry("u", "main", &["GPU-b"])];
    let mut unleased = seen(&file);
    let live = OnNode::listed([pod("old", "u", MAIN, None)]);
    let (none, nobody) = (Listing::default(), OnNode::listed([]));
    assert_eq!(unleased.over(&live, &none), uids(&[]), "a kubelet that has just started lists nobody yet");
    assert_eq!(unleased.over(&OnNode::default(), &none), uids(&[]), "an API server that says nothing is no answer");
    assert_eq!(unleased.over(&nobody, &listing("old", &["GPU-b"])), uids(&[]), "the watch is behind the kubelet");
    assert_eq!(unleased.over(&nobody, &none), uids(&["u"]));
    let ended = OnNode::listed([Pod { is_ended: true, ..pod("old", "u", MAIN, None) }]);
    assert_eq!(unleased.over(&ended, &listing("old", &["GPU-b"])), uids(&["u"]));

    // The kubelet has forgotten it; its program may still run, and its ids may be somebody else's by now.
    unleased.see(&Witness::of(Vec::new()), &Book::new());
    assert_eq!(unleased.over(&live, &none), uids(&[]));
    assert_eq!(unleased.over(&nobody, &listing("new", &["GPU-b"])), uids(&["u"]));
    assert!(judged(&unleased, Vec::new()).is_err());
    unleased.see(&Witness::default(), &Book::new());
    assert!(judged(&unleased, Vec::new()).is_err(), "a file that cannot be read says nothing");
    unleased.forget(&uids(&["u"]));
    assert_eq!(judged(&unleased, Vec::new()), Ok(()));
}

#[test]
fn every_name_that_a_plugin_has_for_a_device_is_understood_and_no_other() {
    let mut made = gpus(&["GPU-a", "GPU-b"]);
    made[0].detail.minor = Some(7);
    made[1].mig_enabled = Some(true);
    let profile = MigProfile::parse("1g.10gb 19 1 9728 7 1@0,1,2,3,4,5,6").unwrap();
    made[1].detail.mig_instances = vec![MigInstance {
        placement: profile.placement(3, 1).unwrap(),
        profile: "1g.10gb".to_owned(),
        uuids: vec!["MIG-3".to_owned()],
    }];
    let cards = Cards::of(&made);
    let place = |device: Device| (device.uuid, device.mig.map(|mig| (mig.start, mig.size)));
    let named = |resource: &str, id: &str| cards.named(resource, id).map(place);
    let all_of = |uuid: &str| Some((uuid.to_owned(), None));
    for id in ["GPU-a", "GPU-a::0", "0", "nvidia7", "nvidia7/vgpu1", "MIG-GPU-a/5/0"] {
        assert_eq!(named(GPU, id), all_of("GPU-a"), "{id}");
    }
    for id in ["MIG-3", "MIG-3::1"] {
        assert_eq!(named("nvidia.com/mig-1g.10gb", id), Some(("GPU-b".to_owned(), Some((3, 1)))), "{id}");
    }
    for id in ["1:0", "nvidia1/gi3"] {
        assert_eq!(named(GPU, id), all_of("GPU-b"), "{id}: which instance is not known");
    }
    for id in ["GPU-c", "MIG-9", "2", "nvidia0", "", "0000:1b:00.0", "nvidia", "-1", "300", "00", "0:x"] {
        assert_eq!(named(GPU, id), None, "{id}");
    }
    assert_eq!(
        (named("nvidia.com/pgpu", "0"), named("rdma/hca", "0"), named("rdma/hca", "GPU-a")),
        (None, None, all_of("GPU-a"))
    );
}

#[test]
fn a_share_is_held_as_its_own_plan_says() {
    let share = |cores| Device { share: Some(Share { cores: Some(cores), memory_mib: None }), ..gpu("GPU-b") };
    let mut note = plan("u", &[("main", Kind::Main, &["GPU-b"])]);
    note.containers[0].devices = vec![share(40)];
    let pods = OnNode::listed([pod("old", "u", MAIN, Some(&note))]);
    let cards = cards(&["GPU-a", "GPU-b"]);
    let held = |id: &str| seen(&[entry("u", "main", &[id])]).holders(&pods, &node(), &cards)[0].devices.clone();
    assert_eq!(held("GPU-b"), [share(40)]);
    assert_eq!(held("GPU-a"), [gpu("GPU-a")], "what it holds beside its plan is all its own");
}
