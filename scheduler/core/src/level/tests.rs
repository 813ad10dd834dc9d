//! Claims about levels: a pool gets what it demands or nothing, and a plan says what its node gives.

use super::*;
use crate::place::Afresh;
use crate::plan::{decide, plan};
use crate::policy::{self, API_VERSION};
use crate::testing::{Box8, idle};
use crate::view::{Hardware, Knowledge};
use crate::{Demand, demand};

const POOLS: &str = "levels:
- {nodeSelector: {pool: a, tier: gold}, level: enforced, evictAfterSeconds: 30}
- {nodeSelector: {pool: a}, level: preferred}
- {nodeSelector: {pool: b}, level: advice}
";

fn policy(lines: &str) -> Policy {
    policy::parse(&format!("apiVersion: {API_VERSION}\nkind: Policy\n{lines}")).unwrap()
}

fn one_gpu() -> Demand {
    let requests = BTreeMap::from([("nvidia.com/gpu".to_owned(), "1".to_owned())]);
    let container = demand::ContainerRequest { name: "main".to_owned(), requests, is_sidecar: false };
    let request = demand::PodRequest { containers: vec![container], ..demand::PodRequest::default() };
    Demand::parse(&request, &Policy::default()).unwrap()
}

fn node(labels: &[(&str, &str)], device_plugin: Option<(Level, bool)>) -> NodeView {
    let mut view = idle(Box8::Switched);
    view.labels = LabelSet::of(labels.iter().copied());
    let hardware = view.hardware.take().unwrap();
    let plugin = device_plugin.map(|(level, is_accepting)| DevicePlugin { level, is_accepting });
    let topology = Arc::new(hardware.topology.as_ref().clone().with_device_plugin(plugin));
    NodeView { hardware: Some(Hardware { topology, ..hardware }), ..view }
}

/// What filter and bind say: they must not differ.
fn verdict(view: &NodeView, policy: &Policy) -> Result<Level, Reason> {
    let demand = one_gpu();
    let planned = plan(view, &demand, policy).map(|plan| plan.level).map_err(|unfit| unfit.reason);
    let decided = decide(view, &demand.shape, policy, &mut Afresh).map(|_| ());
    assert_eq!(decided, planned.map(|_| ()));
    planned
}

#[test]
fn a_node_has_the_labels_that_it_has() {
    let labels = LabelSet::of([("pool", "a"), ("zone", "1"), ("empty", "")]);
    assert!(labels.has("pool", "a") && labels.has("empty", ""));
    for (key, value) in [("pool", "b"), ("poola", ""), ("zone", ""), ("", "pool"), ("a", "pool")] {
        assert!(!labels.has(key, value), "{key}={value}");
    }
    assert_eq!(labels, LabelSet::of([("empty", ""), ("zone", "1"), ("pool", "a")]));
}

#[test]
fn the_first_pool_that_holds_the_node_says_what_it_must_promise() {
    let policy_of_pools = policy(POOLS);
    let of = |labels: &[(&str, &str)]| {
        let pool = policy_of_pools.pool_of(&LabelSet::of(labels.iter().copied()));
        pool.map(|pool| (pool.level, pool.evict_after_seconds))
    };
    assert_eq!(of(&[("pool", "a"), ("tier", "gold"), ("x", "y")]), Some((Level::Enforced, Some(30))));
    assert_eq!(of(&[("pool", "a"), ("tier", "tin")]), Some((Level::Preferred, None)));
    assert_eq!(of(&[("pool", "b")]), Some((Level::Advice, None)));
    assert_eq!(of(&[]), None);
    let all = policy("levels: [{nodeSelector: {}, level: preferred}]\n");
    assert_eq!(all.pool_of(&LabelSet::default()).map(|pool| pool.level), Some(Level::Preferred));
}

#[test]
fn a_node_below_its_pools_demand_gets_no_pod_and_one_above_says_what_it_gives() {
    let policy = policy(POOLS);
    let (preferred, enforced) = (Some((Level::Preferred, true)), Some((Level::Enforced, true)));
    let gold = [("pool", "a"), ("tier", "gold")];
    for (labels, plugin, said) in [
        (&gold[..], None, Err(Reason::LevelUnmet)),
        (&gold, preferred, Err(Reason::LevelUnmet)),
        (&gold, enforced, Ok(Level::Enforced)),
        (&gold[..1], None, Err(Reason::LevelUnmet)),
        (&gold[..1], preferred, Ok(Level::Preferred)),
        (&gold[..1], enforced, Ok(Level::Enforced)),
        (&[("pool", "b")], None, Ok(Level::Advice)),
        (&[("pool", "b")], preferred, Ok(Level::Preferred)),
        (&[], None, Ok(Level::Advice)),
        (&[], enforced, Ok(Level::Enforced)),
    ] {
        assert_eq!(verdict(&node(labels, plugin), &policy), said, "{labels:?} {plugin:?}");
    }
    let unfit = plan(&node(&gold, preferred), &one_gpu(), &policy).unwrap_err();
    assert_eq!(unfit.detail, "enforced demanded, the report says preferred");
}

#[test]
fn a_plugin_that_accepts_nothing_takes_no_pod_whatever_its_level() {
    for level in [Level::Preferred, Level::Enforced] {
        assert_eq!(verdict(&node(&[], Some((level, false))), &Policy::default()), Err(Reason::PluginAway));
    }
    assert!(Reason::PluginAway.is_passing() && !Reason::PluginAway.helped_by_preemption());
}

#[test]
fn a_kubelet_that_may_take_leased_devices_for_free_chooses_none_until_the_pod_ends() {
    let of = |plugin, has_stray_lease| NodeView { has_stray_lease, ..node(&[], plugin) };
    let policy = Policy::default();
    for plugin in [None, Some((Level::Preferred, true))] {
        assert_eq!(verdict(&of(plugin, true), &policy), Err(Reason::LeaseStray), "{plugin:?}");
        assert!(verdict(&of(plugin, false), &policy).is_ok(), "{plugin:?}");
    }
    let enforced = Some((Level::Enforced, true));
    assert_eq!(verdict(&of(enforced, true), &policy), Ok(Level::Enforced), "leases keep them");
    assert!(Reason::LeaseStray.is_passing() && !Reason::LeaseStray.helped_by_preemption());
}

#[test]
fn without_a_report_only_a_pool_that_demands_nothing_places_by_count() {
    let policy = policy(&format!("topology: {{missing: byCount}}\n{POOLS}"));
    let missing = |labels| NodeView { hardware: None, knowledge: Knowledge::Missing, ..node(labels, None) };
    assert_eq!(verdict(&missing(&[("pool", "a")]), &policy), Err(Reason::LevelUnmet));
    assert_eq!(verdict(&missing(&[("pool", "b")]), &policy), Ok(Level::Advice));
}

#[test]
fn without_a_word_of_policy_the_label_of_a_level_demands_it_and_an_empty_list_demands_nothing() {
    let labels = |level: &'static str| [("berth.dev/level", level)];
    let preferred = Some((Level::Preferred, true));
    let (silent, empty) = (policy(""), policy("levels: []\n"));
    assert_eq!(verdict(&node(&labels("enforced"), preferred), &silent), Err(Reason::LevelUnmet));
    assert_eq!(verdict(&node(&labels("preferred"), None), &silent), Err(Reason::LevelUnmet));
    assert_eq!(verdict(&node(&labels("preferred"), preferred), &silent), Ok(Level::Preferred));
    assert_eq!(verdict(&node(&labels("advice"), None), &silent), Ok(Level::Advice));
    assert_eq!(verdict(&node(&[], None), &silent), Ok(Level::Advice));
    assert_eq!(verdict(&node(&labels("enforced"), None), &empty), Ok(Level::Advice));
}
