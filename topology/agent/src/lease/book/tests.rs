//! Each rule by which a lease is given, refused, kept or ended, one by one.

use std::collections::BTreeSet;

use berth_core::annotation::{Mig, Share};
use berth_model::{Health, MigInstance, MigProfile};

use super::*;
use crate::lease::testing::{GPU, NODE, cards, gpu, gpus, plan, pod};

const CARDS: [&str; 4] = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"];
const MAIN: &[(&str, Kind, usize)] = &[("main", Kind::Main, 1)];

fn name(sequence: u64) -> LeaseName {
    LeaseName::parse(&format!("lease-{sequence:032x}")).unwrap()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn listed(pod: &str, container: &str, ids: &[&str]) -> Listed {
    let (pod, container) = (pod.to_owned(), container.to_owned());
    Listed { namespace: "n".to_owned(), pod, container, devices: [(GPU.to_owned(), set(ids))].into() }
}

/// Everything that a look sees.
struct Scene {
    book: Book,
    listing: Listing,
    witness: Witness,
    pods: OnNode,
    cards: Cards,
    unleased: Vec<Holder>,
}

impl Scene {
    /// One pod `p` of UID `u` whose container `main` was given `GPU-a`, and whose plan names `GPU-b`.
    fn new() -> Self {
        let mut scene = Self {
            book: Book::new(),
            listing: Listing { containers: vec![listed("p", "main", &["GPU-a"])], twice: BTreeSet::new() },
            witness: Witness::default(),
            pods: OnNode::default(),
            cards: cards(&CARDS),
            unleased: Vec::new(),
        };
        scene.pods([pod("p", "u", MAIN, Some(&plan("u", &[("main", Kind::Main, &["GPU-b"])])))]);
        scene.grant(&["GPU-a"]);
        scene.testify(&[(0, "u", "main")]);
        scene
    }

    fn pods(&mut self, pods: impl IntoIterator<Item = Pod>) {
        self.pods = OnNode::listed(pods);
    }

    fn grant(&mut self, ids: &[&str]) -> u64 {
        let sequence = u64::try_from(self.book.len()).unwrap();
        let ids = set(ids).into_iter().collect();
        let lease = Lease { name: name(sequence), sequence, resource: GPU.to_owned(), ids, holder: None };
        self.book.insert(lease.name.clone(), lease);
        sequence
    }

    fn testify(&mut self, holders: &[(u64, &str, &str)]) {
        let of =
            |(lease, uid, container): &(u64, &str, &str)| (name(*lease), ((*uid).to_owned(), (*container).to_owned()));
        self.witness = Witness::of_holders(holders.iter().map(of).collect());
    }

    fn asked_at(&self, asked_at: u64, lease: u64) -> Verdict {
        let (node, cards) = (NodeName::parse(NODE).unwrap(), Some(&self.cards));
        let Self { book, listing, witness, pods, .. } = self;
        let unleased = &self.unleased;
        let look = Look { node: &node, asked_at, listing, witness, pods, cards, unleased };
        judge(book, &book[&name(lease)], &look)
    }

    fn judge(&self, lease: u64) -> Verdict {
        self.asked_at(u64::MAX, lease)
    }

    /// Judges, and keeps what is given.
    fn give(&mut self, lease: u64) -> Vec<String> {
        let Verdict::Give(holder) = self.judge(lease) else { panic!("{:?}", self.judge(lease)) };
        let ids = holder.devices.iter().map(|device| cards::id(device).to_owned()).collect();
        self.book.get_mut(&name(lease)).unwrap().holder = Some(*holder);
        ids
    }

    fn refused(&self, lease: u64) -> (RefusalReason, String) {
        match self.judge(lease) {
            Verdict::Refuse(refusal) => (refusal.reason, refusal.text),
            other => panic!("{other:?}"),
        }
    }

    fn over(&self) -> Vec<String> {
        let node = NodeName::parse(NODE).unwrap();
        let Self { book, listing, witness, pods, .. } = self;
        let look = Look { node: &node, asked_at: u64::MAX, listing, witness, pods, cards: None, unleased: &[] };
        over(book, &look).into_iter().map(|(_, uid)| uid).collect()
    }
}

#[test]
fn a_lease_gives_what_the_plan_names_and_not_what_the_kubelet_gave() {
    let mut scene = Scene::new();
    assert_eq!(scene.give(0), ["GPU-b"]);
    let lease = &scene.book[&name(0)];
    let holder = lease.holder.as_ref().unwrap();
    assert!(is_permuted(lease, holder));
    assert_eq!((holder.pod_uid.as_str(), holder.pod.as_str(), holder.container.as_str()), ("u", "p", "main"));
}

#[test]
fn nothing_is_given_before_everything_is_known() {
    let mut scene = Scene::new();
    assert_eq!(scene.asked_at(0, 0), Verdict::Wait, "the kubelet was asked before the grant");
    let whole = std::mem::take(&mut scene.listing);
    assert_eq!(scene.judge(0), Verdict::Wait, "the list is older than the file");
    scene.testify(&[]);
    assert_eq!(scene.judge(0), Verdict::Unseen);
    scene.listing = whole;
    scene.testify(&[(0, "u", "main")]);
    let known = std::mem::take(&mut scene.pods);
    assert_eq!(scene.judge(0), Verdict::Wait, "no list of pods yet");
    scene.pods([]);
    assert_eq!(scene.judge(0), Verdict::Wait, "the watch is behind the kubelet");
    for pod in [Pod { is_deleting: true, ..known_pod(&known) }, Pod { is_ended: true, ..known_pod(&known) }] {
        scene.pods([pod]);
        assert_eq!(scene.judge(0), Verdict::Wait);
    }
}

#[test]
fn a_refused_container_that_runs_shows_a_runtime_without_cdi_unless_it_had_a_lease() {
    let mut scene = Scene::new();
    let running = |pod: Pod, names: &[&str]| Pod { running: set(names), ..pod };
    let planless = || pod("p", "u", MAIN, None);
    scene.pods([planless()]);
    let Verdict::Refuse(refusal) = scene.judge(0) else { panic!("{:?}", scene.judge(0)) };
    let mut is_ignored = |pod: Pod| {
        scene.pods([pod]);
        is_ignored(&scene.book, &refusal, &scene.pods)
    };
    assert!(!is_ignored(planless()) && !is_ignored(running(planless(), &["side"])), "it waits");
    assert!(!is_ignored(running(pod("p", "v", MAIN, None), &["main"])), "the next pod of the name");
    assert!(is_ignored(running(planless(), &["main"])));
    // The kubelet forgot its first lease, and its status is of the time when it had it.
    let mut scene = Scene::new();
    scene.give(0);
    scene.pods([running(planless(), &["main"])]);
    assert!(!super::is_ignored(&scene.book, &refusal, &scene.pods));
}

fn known_pod(pods: &OnNode) -> Pod {
    (**pods.named("n", "p").unwrap()).clone()
}

#[test]
fn a_plan_that_is_not_this_containers_gives_nothing_and_says_why() {
    let good = || plan("u", &[("main", Kind::Main, &["GPU-b"])]);
    let mut elsewhere = good();
    elsewhere.node = "node-2".to_owned();
    let mut newer = good();
    newer.v = 9;
    let mut whole = good();
    whole.containers[0].resource = "nvidia.com/mig-1g.10gb".to_owned();
    let twice = plan("u", &[("main", Kind::Main, &["GPU-b"]), ("main", Kind::Main, &["GPU-c"])]);
    use RefusalReason as R;
    let cases = [
        (None, R::NoPlan, "has no plan"),
        (Some(plan("v", &[("main", Kind::Main, &["GPU-b"])])), R::ForeignPlan, "podUID v is another pod's"),
        (Some(elsewhere), R::ForeignPlan, "node-2"),
        (Some(newer), R::BrokenPlan, "version 9"),
        (Some(plan("u", &[("other", Kind::Main, &["GPU-b"])])), R::OtherPlan, "container main"),
        (Some(whole), R::OtherPlan, "nvidia.com/gpu"),
        (Some(twice), R::OtherPlan, "once"),
        (
            Some(plan("u", &[("main", Kind::Main, &["GPU-b", "GPU-c"])])),
            R::OtherPlan,
            "2 devices for main, the kubelet gave 1",
        ),
        (Some(plan("u", &[("main", Kind::Main, &[])])), R::OtherPlan, "0 devices"),
        (Some(plan("u", &[("main", Kind::Init, &["GPU-b"])])), R::OtherPlan, "main"),
        (Some(plan("u", &[("main", Kind::Main, &["GPU-x"])])), R::UnknownDevice, "GPU-x is not on this node"),
    ];
    for (plan, reason, text) in cases {
        let mut scene = Scene::new();
        scene.pods([pod("p", "u", MAIN, plan.as_ref())]);
        let (found, said) = scene.refused(0);
        assert_eq!(found, reason, "{said}");
        assert!(said.contains(text), "{said}");
    }
    let mut scene = Scene::new();
    scene.pods([Pod { plan: Some("{".to_owned()), ..pod("p", "u", MAIN, None) }]);
    assert_eq!(scene.refused(0).0, R::BrokenPlan);
    let mut two = Scene::new();
    two.listing.containers = vec![listed("p", "main", &["GPU-a", "GPU-c"])];
    two.pods([pod("p", "u", MAIN, Some(&plan("u", &[("main", Kind::Main, &["GPU-b", "GPU-b"])])))]);
    let lease = two.grant(&["GPU-a", "GPU-c"]);
    two.testify(&[(lease, "u", "main")]);
    assert_eq!(two.refused(lease), (R::BrokenPlan, "the plan names GPU-b twice".to_owned()));
}

#[test]
fn a_sick_card_is_not_given_and_is_when_it_is_well() {
    let mut scene = Scene::new();
    let mut sick = gpus(&CARDS);
    sick[1].health = Health::Unhealthy("Xid 79".to_owned());
    scene.cards = Cards::of(&sick);
    assert_eq!(scene.refused(0), (RefusalReason::SickDevice, "GPU-b: Xid 79".to_owned()));
    scene.cards = cards(&CARDS);
    assert_eq!(scene.give(0), ["GPU-b"]);
}

#[test]
fn the_first_lease_wins_and_the_loser_gets_it_when_the_first_is_over() {
    let mut scene = Scene::new();
    let both = |uid| plan(uid, &[("main", Kind::Main, &["GPU-b"])]);
    scene.listing.containers.push(listed("q", "main", &["GPU-c"]));
    let second = scene.grant(&["GPU-c"]);
    scene.testify(&[(0, "u", "main"), (second, "w", "main")]);
    let pods = [pod("p", "u", MAIN, Some(&both("u"))), pod("q", "w", MAIN, Some(&both("w")))];
    scene.pods(pods.clone());
    scene.give(0);
    assert_eq!(scene.refused(second), (RefusalReason::DeviceLeased, "GPU-b is leased to pod n/p".to_owned()));
    let [first, loser] = pods;
    scene.pods([Pod { is_ended: true, ..first }, loser]);
    assert_eq!(scene.over(), ["u"]);
    scene.book.remove(&name(0));
    assert_eq!(scene.give(second), ["GPU-b"]);
}

#[test]
fn the_containers_of_a_pod_get_each_their_own_part_and_an_init_container_shares_it() {
    let containers = [("pull", Kind::Init, 1), ("side", Kind::Sidecar, 1), ("main", Kind::Main, 1)];
    let parts: [(&str, Kind, &[&str]); 3] =
        [("pull", Kind::Init, &["GPU-c"]), ("side", Kind::Sidecar, &["GPU-d"]), ("main", Kind::Main, &["GPU-c"])];
    let mut scene = Scene::new();
    scene.book.clear();
    scene.pods([pod("p", "u", &containers, Some(&plan("u", &parts)))]);
    let (pull, side, main) = (scene.grant(&["GPU-a"]), scene.grant(&["GPU-b"]), scene.grant(&["GPU-a"]));
    scene.listing.containers = vec![listed("p", "side", &["GPU-b"]), listed("p", "main", &["GPU-a"])];
    scene.testify(&[(pull, "u", "pull"), (side, "u", "side"), (main, "u", "main")]);
    assert_eq!(scene.give(pull), ["GPU-c"]);
    assert_eq!(scene.give(side), ["GPU-d"]);
    assert_eq!(scene.give(main), ["GPU-c"]);
}

#[test]
fn two_containers_that_run_side_by_side_never_share_a_device() {
    let mut scene = Scene::new();
    let parts: [(&str, Kind, &[&str]); 2] = [("main", Kind::Main, &["GPU-b"]), ("second", Kind::Main, &["GPU-b"])];
    scene.pods([pod("p", "u", &[("main", Kind::Main, 1), ("second", Kind::Main, 1)], Some(&plan("u", &parts)))]);
    scene.listing.containers.push(listed("p", "second", &["GPU-c"]));
    let second = scene.grant(&["GPU-c"]);
    scene.testify(&[(0, "u", "main"), (second, "u", "second")]);
    scene.give(0);
    assert_eq!(scene.refused(second).0, RefusalReason::DeviceLeased);
}

#[test]
fn the_list_alone_gives_nothing_and_says_so() {
    let mut scene = Scene::new();
    scene.testify(&[]);
    assert_eq!(
        scene.refused(0).1,
        "the kubelet lists the devices with it, but its file of devices does not name the lease"
    );
    scene.witness = Witness::default();
    assert_eq!(scene.refused(0).1, "the kubelet's file of devices cannot be read, and its list has no UIDs");
    scene.listing.containers.clear();
    assert_eq!(scene.judge(0), Verdict::Wait, "without the file nobody knows that it is nobody's");
}

#[test]
fn a_lease_whose_devices_went_to_somebody_else_is_dropped() {
    let mut scene = Scene::new();
    let second = scene.grant(&["GPU-a"]);
    scene.testify(&[(second, "u", "main")]);
    assert_eq!(scene.asked_at(second, 0), Verdict::Wait, "the later grant was not there when the kubelet was asked");
    assert_eq!(scene.judge(0), Verdict::Drop, "its answer was lost, or its pod went");
    assert_eq!(scene.give(second), ["GPU-b"]);
}

#[test]
fn what_the_kubelet_says_twice_or_against_itself_is_given_to_nobody() {
    let mut twice = Scene::new();
    twice.listing.twice.insert(("n".to_owned(), "p".to_owned()));
    assert_eq!(twice.refused(0), (RefusalReason::Ambiguous, "the kubelet has two pods of this name".to_owned()));
    let mut other = Scene::new();
    other.testify(&[(0, "u", "main")]);
    other.listing.containers = vec![listed("q", "main", &["GPU-a"])];
    assert_eq!(other.refused(0).0, RefusalReason::Ambiguous);
    other.listing.containers.push(listed("p", "main", &["GPU-a"]));
    assert_eq!(other.refused(0).0, RefusalReason::Ambiguous);
    other.listing.containers.clear();
    assert_eq!(other.judge(0), Verdict::Wait);
}

#[test]
fn the_uid_in_the_kubelets_file_beats_a_pod_that_has_the_name_now() {
    let mut scene = Scene::new();
    scene.testify(&[(0, "gone", "main")]);
    assert_eq!(scene.judge(0), Verdict::Wait, "the plan of the pod that came back is not for this lease");
    scene.testify(&[(0, "u", "main")]);
    assert_eq!(scene.give(0), ["GPU-b"]);
}

#[test]
fn a_lease_is_kept_while_its_pod_is_known_to_anybody() {
    let mut scene = Scene::new();
    scene.give(0);
    assert!(scene.over().is_empty());
    scene.pods([]);
    assert!(scene.over().is_empty(), "gone from the API, still listed by the kubelet");
    scene.listing = Listing::default();
    assert_eq!(scene.over(), ["u"]);
    scene.pods = OnNode::default();
    assert!(scene.over().is_empty(), "an API server that says nothing is no answer");
}

#[test]
fn a_pod_that_comes_back_under_its_name_neither_keeps_nor_renews_the_old_lease() {
    let mut scene = Scene::new();
    scene.give(0);
    scene.pods([pod("p", "u2", MAIN, Some(&plan("u2", &[("main", Kind::Main, &["GPU-b"])])))]);
    assert!(scene.over().is_empty(), "the kubelet still lists the old one");
    let second = scene.grant(&["GPU-a"]);
    assert!(scene.over().is_empty(), "nobody says yet whose the new answer is");
    scene.testify(&[(second, "u2", "main")]);
    assert_eq!(scene.over(), ["u"], "the kubelet gave its devices again");
    assert_eq!(scene.refused(second).0, RefusalReason::DeviceLeased, "its processes may still run");
    scene.book.remove(&name(0));
    assert_eq!(scene.give(second), ["GPU-b"]);
    assert_eq!(scene.book[&name(second)].holder.as_ref().unwrap().pod_uid, "u2");
}

#[test]
fn a_container_that_the_kubelet_asks_for_again_has_one_lease() {
    let mut scene = Scene::new();
    scene.give(0);
    let again = scene.grant(&["GPU-a"]);
    scene.testify(&[(again, "u", "main")]);
    assert_eq!(scene.give(again), ["GPU-b"]);
    let lease = &scene.book[&name(again)];
    assert_eq!(superseded(&scene.book, lease, lease.holder.as_ref().unwrap()), [name(0)]);
}

#[test]
fn instances_are_given_by_place_and_exclude_what_overlaps() {
    let mut made = gpus(&["GPU-a"]);
    made[0].mig_enabled = Some(true);
    let profile = MigProfile::parse("1g.10gb 19 1 9728 7 1@0,1,2,3,4,5,6").unwrap();
    let instance = |start: u8, uuid: &str| MigInstance {
        placement: profile.placement(start, 1).unwrap(),
        profile: "1g.10gb".to_owned(),
        uuids: vec![uuid.to_owned()],
    };
    made[0].detail.mig_instances = vec![instance(0, "MIG-0"), instance(1, "MIG-1")];
    let cards = Cards::of(&made);
    let planned = |start, uuid: Option<&str>| {
        let mig = Mig { uuid: uuid.map(str::to_owned), profile: "1g.10gb".to_owned(), start, size: 1 };
        Device { mig: Some(mig), ..gpu("GPU-a") }
    };
    assert_eq!(cards::id(&cards.find(&planned(1, None)).unwrap()), "MIG-1");
    assert!(matches!(cards.find(&planned(1, Some("MIG-0"))), Err(Ungiven::Unknown(_))), "it was cut anew");
    assert!(matches!(cards.find(&planned(2, None)), Err(Ungiven::Unknown(_))));
    assert!(matches!(cards.find(&gpu("GPU-a")), Err(Ungiven::Unknown(_))), "a cut card is not given as a whole");
    assert!(
        cards::exclude(&planned(0, None), &planned(0, None)) && !cards::exclude(&planned(0, None), &planned(1, None))
    );
    assert!(cards::exclude(&planned(0, None), &gpu("GPU-a")) && !cards::exclude(&planned(0, None), &gpu("GPU-b")));
}

#[test]
fn shares_of_a_card_are_given_up_to_all_of_it() {
    let share = |cores| Device { share: Some(Share { cores: Some(cores), memory_mib: None }), ..gpu("GPU-b") };
    let noted = |uid: &str, device: Device| {
        let mut note = plan(uid, &[("main", Kind::Main, &["GPU-b"])]);
        note.containers[0].devices = vec![device];
        note
    };
    let mut scene = Scene::new();
    let of = |uid: &str, device| pod(uid, uid, MAIN, Some(&noted(uid, device)));
    scene.pods([of("u", share(60)), of("v", share(40)), of("w", share(10)), of("x", gpu("GPU-b"))]);
    let holders = [("u", "GPU-a"), ("v", "GPU-b"), ("w", "GPU-c"), ("x", "GPU-d")];
    scene.listing.containers = holders.iter().map(|(pod, id)| listed(pod, "main", &[id])).collect();
    let leases: Vec<u64> = holders[1..].iter().map(|(_, id)| scene.grant(&[id])).collect();
    scene.testify(&[(0, "u", "main"), (leases[0], "v", "main"), (leases[1], "w", "main"), (leases[2], "x", "main")]);
    scene.give(0);
    scene.give(leases[0]);
    assert_eq!(scene.refused(leases[1]).1, "shares of GPU-b would be 110 percent of its cores");
    assert_eq!(scene.refused(leases[2]).0, RefusalReason::DeviceLeased, "whole and shared exclude each other");
}
