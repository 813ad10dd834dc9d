//! Claims about what doctor finds, over folded nodes.

use std::collections::BTreeMap;

use anstream::adapter::strip_str;
use berth_core::demand::Totals;
use berth_core::device::HeldDevice;
use berth_core::view::Compute;
use berth_index::{Event, NodeFacts, PlanNote, PodFacts, PodUid, Rank};
use berth_model::{DevicePlugin, GpuUuid, Health, Level, NodeName, NodeTopology, Parts, Refusal, RefusalReason};
use berth_probe::xid::{APPLICATION_XIDS, UNLISTED_ADVICE, XidVerdict};

use super::*;
use crate::nodes::Read;
use crate::render::sample::dgx_h100;

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn node(text: &str, offered: &[(&str, u64)]) -> Event {
    Event::Node(NodeFacts {
        name: name(text),
        boot_id: Some(dgx_h100().parts().boot_id.clone()),
        offered: offered.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        allocatable: Compute::default(),
        zone: None,
        is_avoided: false,
        labels: berth_core::level::LabelSet::default(),
    })
}

fn dgx(text: &str) -> NodeTopology {
    let parts = Parts { node: name(text), ..dgx_h100().into_parts() };
    NodeTopology::try_new(parts).unwrap()
}

fn report(text: &str, sick: &[(usize, &str)]) -> Event {
    let mut parts = dgx(text).into_parts();
    for (index, why) in sick {
        parts.gpus[*index].health = Health::Unhealthy((*why).to_owned());
    }
    Event::Report(Box::new(NodeTopology::try_new(parts).unwrap()))
}

fn pod(text: &str, node: &str, planned: &[u8], given: &[u8]) -> PodFacts {
    let gpu = "nvidia.com/gpu".to_owned();
    let whole = |g: &u8| HeldDevice::whole(GpuUuid::parse(&format!("GPU-{g}")).unwrap());
    let ids: Vec<String> = given.iter().map(|g| format!("GPU-{g}")).collect();
    let count = u64::try_from(planned.len()).unwrap();
    PodFacts {
        uid: PodUid::new(text),
        namespace: "team".to_owned(),
        name: text.to_owned(),
        node: Some(name(node)),
        is_ended: false,
        expects_devices: false,
        is_enforced: false,
        totals: Totals { extended: [(gpu.clone(), count)].into(), ..Totals::default() },
        rank: Rank::default(),
        note: PlanNote::Devices(planned.iter().map(whole).collect()),
        truth: if ids.is_empty() { BTreeMap::new() } else { [(gpu, ids)].into() },
    }
}

fn read(events: Vec<Event>) -> Read {
    let mut read = Read { gpu_resources: ["nvidia.com/gpu".to_owned()].into(), has_pods: true, ..Read::default() };
    for event in events {
        if let Event::Node(facts) = &event {
            read.conditions.insert(facts.name.to_string(), Vec::new());
        }
        read.index.apply(event);
    }
    read
}

fn told(read: &Read, is_asked: bool) -> String {
    strip_str(&examined(&examine(read), is_asked)).to_string()
}

const EIGHT: &[(&str, u64)] = &[("nvidia.com/gpu", 8)];

#[test]
fn a_well_cluster_is_one_line_and_a_node_that_is_asked_for_shows_every_check() {
    let read = read(vec![node("a", EIGHT), report("a", &[]), Event::Pod(Box::new(pod("p", "a", &[0, 1], &[1, 0])))]);
    assert_eq!(told(&read, false), "1 node: all in order\n");
    let expected =
        "a\n  ok    node\n  ok    agent\n  ok    gpus\n  ok    hardware\n  ok    pods\n1 node: all in order\n";
    assert_eq!(told(&read, true), expected);
}

#[test]
fn a_gpu_that_fell_off_the_bus_names_its_pods_and_what_its_xid_asks_for() {
    let sick = report("a", &[(3, "Xid 79: the GPU fell off the bus")]);
    let events = vec![
        node("a", EIGHT),
        sick,
        Event::Pod(Box::new(pod("train", "a", &[2, 3], &[]))),
        Event::Pod(Box::new(pod("well", "a", &[0], &[]))),
    ];
    let read = read(events);
    let complaints = &examine(&read)[0].complaints;
    assert_eq!(complaints.len(), 1);
    assert_eq!(
        (complaints[0].check, complaints[0].about.as_str(), complaints[0].severity),
        ("gpus", "GPU3", Severity::Error)
    );
    assert_eq!(complaints[0].pods, ["team/train"]);
    assert_eq!(complaints[0].advice, meaning(79).unwrap().advice);
    let text = told(&read, false);
    assert!(
        text.contains(
            "  FAIL  gpus      GPU3: Xid 79: the GPU fell off the bus\n                  held by team/train\n"
        ),
        "{text}"
    );
    assert!(text.ends_with("1 node: 0 in order, 1 with findings\n"), "{text}");
}

#[test]
fn what_no_xid_says_keeps_the_advice_of_lint_and_an_unlisted_xid_says_where_to_look() {
    let sick = report("a", &[(1, "drain and reset: bad pages"), (2, "Xid 4711")]);
    let read = read(vec![node("a", EIGHT), sick]);
    let advice: Vec<String> = examine(&read).remove(0).complaints.into_iter().map(|c| c.advice).collect();
    assert_eq!(advice, [crate::lint::entry("gpu-unhealthy").advice, UNLISTED_ADVICE]);
}

#[test]
fn drift_a_pod_without_a_device_and_a_node_without_a_report_are_each_found() {
    let starved = PodFacts { expects_devices: true, ..pod("starved", "bare", &[0], &[]) };
    let events = vec![
        node("a", EIGHT),
        report("a", &[]),
        Event::Pod(Box::new(pod("drifted", "a", &[0, 1], &[4, 5]))),
        node("bare", &[]),
        report("bare", &[]),
        Event::Pod(Box::new(starved)),
        node("silent", EIGHT),
    ];
    let all = examine(&read(events));
    let found: Vec<_> = all
        .iter()
        .flat_map(|node| node.complaints.iter().map(|c| (node.node.as_str(), c.check, c.severity, c.about.as_str())))
        .collect();
    let expected = [
        ("a", "pods", Severity::Warning, "team/drifted"),
        ("bare", "pods", Severity::Error, "team/starved"),
        ("silent", "agent", Severity::Error, ""),
    ];
    assert_eq!(found, expected);
    let silent = &all[2].checks;
    assert_eq!(
        silent.iter().map(|c| c.state).collect::<Vec<_>>(),
        [State::Ok, State::Error, State::Unknown, State::Unknown, State::Ok]
    );
}

#[test]
fn a_container_that_is_refused_its_devices_is_told_while_the_report_is_true() {
    let refusal = Refusal {
        pod: "team/train".to_owned(),
        pod_uid: "u".to_owned(),
        container: "main".to_owned(),
        reason: RefusalReason::DeviceLeased,
        text: "GPU-1 is leased to pod team/old".to_owned(),
    };
    let refused = dgx("a").with_refusals(vec![refusal]);
    let read = read(vec![node("a", EIGHT), Event::Report(Box::new(refused))]);
    let complaints = &examine(&read)[0].complaints;
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert_eq!((complaints[0].check, complaints[0].severity), ("pods", Severity::Error));
    assert_eq!(complaints[0].about, "team/train");
    let expected = "container main gets no devices: device-leased: GPU-1 is leased to pod team/old";
    assert_eq!(complaints[0].text, expected);
    assert_eq!(complaints[0].advice, RefusalReason::DeviceLeased.advice());

    read.index.apply(Event::Agent { node: name("a"), is_there: false });
    let checks: Vec<_> = examine(&read)[0].complaints.iter().map(|complaint| complaint.check).collect();
    assert_eq!(checks, ["agent"], "an absent agent's refusals are old");
}

#[test]
fn a_plugin_that_keeps_pods_away_and_a_level_below_the_pools_are_each_found() {
    let with = |level, is_accepting| dgx("a").with_device_plugin(Some(DevicePlugin { level, is_accepting }));
    let found = |policy: &str, report: NodeTopology| {
        let mut read = read(vec![node("a", EIGHT), Event::Report(Box::new(report))]);
        read.policy = berth_core::policy::parse(policy).unwrap();
        let complaints = examine(&read).remove(0).complaints;
        complaints.into_iter().map(|c| (c.check, c.severity, c.text)).collect::<Vec<_>>()
    };
    let head = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n";
    let demanding = format!("{head}levels: [{{nodeSelector: {{}}, level: enforced}}]\n");
    let away = "its device plugin accepts no pods now".to_owned();
    assert_eq!(found(head, with(Level::Preferred, false)), [("agent", Severity::Warning, away)]);
    assert_eq!(found(head, with(Level::Preferred, true)), []);
    assert_eq!(found(&demanding, with(Level::Enforced, true)), []);
    let low = |has: &str| format!("it promises level {has}, and its pool demands enforced");
    assert_eq!(
        found(&demanding, with(Level::Preferred, false)),
        [("agent", Severity::Error, low("preferred"))],
        "the level first: it does not heal"
    );
    assert_eq!(found(&demanding, dgx("a")), [("agent", Severity::Error, low("advice"))]);
}

#[test]
fn xid_0_is_a_number_like_any_other_and_none_asks_for_all() {
    let text = |asked| match table(asked, ReviewOutput::Text).unwrap() {
        Outcome::Text(text) => strip_str(&text).to_string(),
        _ => unreachable!("a table is text"),
    };
    assert!(text(Some(0)).starts_with("Xid 0 is not in the table"), "{}", text(Some(0)));
    assert_eq!(text(None).lines().count(), 2 * KNOWN.len());
}

#[test]
fn what_could_not_be_read_is_unknown_and_never_well() {
    let mut read = read(vec![node("a", EIGHT), report("a", &[])]);
    read.has_pods = false;
    let text = told(&read, true);
    assert!(text.contains("  ?     pods      not known\n"), "{text}");
    read.absent_agents.insert("a".to_owned());
    read.conditions.insert("a".to_owned(), vec!["not-ready", "cordoned"]);
    let found: Vec<_> =
        examine(&read).remove(0).complaints.into_iter().map(|c| (c.check, c.severity, c.text)).collect();
    assert_eq!(found[0], ("node", Severity::Error, "not-ready".to_owned()));
    assert_eq!(found[1], ("node", Severity::Warning, "cordoned".to_owned()));
    assert_eq!((found[2].0, found.len()), ("agent", 3));
}

#[test]
fn the_reference_has_every_check_and_every_xid_word_for_word() {
    let reference = include_str!("../../../../REFERENCE.md");
    for (name, meaning) in CHECKS {
        assert!(reference.contains(&format!("| `{name}` | {meaning} |")), "{name}");
    }
    for row in KNOWN {
        let is_ignored = APPLICATION_XIDS.contains(&row.xid);
        let verdict = match row.verdict {
            _ if is_ignored => "ignored",
            XidVerdict::Doubtful => "doubtful",
            _ => "broken",
        };
        let line = format!("| {} | {verdict} | {} | {} |", row.xid, row.text, row.advice);
        assert!(reference.contains(&line), "REFERENCE.md lacks\n{line}");
    }
}
