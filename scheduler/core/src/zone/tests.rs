//! The kubelet's own managers answered these pods; so must we.

use std::collections::BTreeMap;

use berth_model::kubelet::{TopologyManagerPolicy, TopologyManagerScope};
use berth_model::{Kubelet, ZoneId};
use serde::Deserialize;

use super::*;

/// One machine, and pods that come one after the other until one is refused. `tests/zones/README.md` says who answered.
#[derive(Debug, Deserialize)]
struct Case {
    machine: Machine,
    rules: CaseRules,
    pods: Vec<CasePod>,
    answers: Vec<Answer>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    threads: u32,
    zones: Vec<CaseZone>,
    devices: BTreeMap<String, Vec<CaseDevice>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseZone {
    socket: u16,
    cores: u32,
    distances: Vec<u16>,
    #[serde(rename = "memoryMiB")]
    memory_mib: u64,
    #[serde(rename = "hugeMiB")]
    huge_mib: u64,
    reserved_cores: u32,
}

#[derive(Debug, Deserialize)]
struct CaseDevice {
    zones: Vec<u16>,
    healthy: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseRules {
    policy: String,
    scope: String,
    closest: bool,
    cpu: bool,
    #[serde(default)]
    cpu_options: BTreeMap<String, String>,
    memory: bool,
}

#[derive(Debug, Deserialize)]
struct CasePod {
    guaranteed: bool,
    containers: Vec<CaseContainer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseContainer {
    phase: String,
    cpu_milli: u64,
    #[serde(rename = "memoryMiB")]
    memory_mib: u64,
    #[serde(rename = "hugeMiB", default)]
    huge_mib: u64,
    #[serde(default)]
    devices: BTreeMap<String, u32>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Answer {
    reason: String,
    #[serde(default)]
    hints: Vec<Option<u64>>,
}

/// Reserved for the system in every zone of the cases.
const RESERVED_MIB: u64 = 64;

fn site(case: &Case) -> Site {
    use berth_model::kubelet::{CpuManagerPolicy, MemoryManagerPolicy};
    let rules = &case.rules;
    let kubelet = Kubelet {
        cpu_manager: if rules.cpu { CpuManagerPolicy::Static } else { CpuManagerPolicy::None },
        cpu_manager_options: rules.cpu_options.clone(),
        memory_manager: if rules.memory { MemoryManagerPolicy::Static } else { MemoryManagerPolicy::None },
        topology_manager: TopologyManagerPolicy::parse(&rules.policy).unwrap(),
        topology_manager_scope: TopologyManagerScope::parse(&rules.scope).unwrap(),
        topology_manager_options: [("prefer-closest-numa-nodes".to_owned(), rules.closest.to_string())].into(),
        ..Kubelet::default()
    };
    let zones = case.machine.zones.iter().zip(0..).map(|(zone, id)| {
        let memory = |bytes: u64| Memory { allocatable_bytes: bytes, free_bytes: bytes };
        let own = (zone.memory_mib - RESERVED_MIB - zone.huge_mib) << 20;
        ZoneSite {
            id: ZoneId(id),
            socket: Some(zone.socket),
            cpu_count: zone.cores * case.machine.threads,
            free_cpu_count: (zone.cores - zone.reserved_cores) * case.machine.threads,
            distances: zone.distances.iter().zip(0..).map(|(d, to)| (ZoneId(to), *d)).collect(),
            memory: [("memory".to_owned(), memory(own)), ("hugepages-2Mi".to_owned(), memory(zone.huge_mib << 20))]
                .into(),
            block_count: 0,
            group: ZoneMask::single(ZoneId(id)).unwrap(),
        }
    });
    let device =
        |d: &CaseDevice| Device { zones: ZoneMask::of(d.zones.iter().map(|z| ZoneId(*z))), is_free: d.healthy };
    let devices = case.machine.devices.iter();
    Site {
        rules: Rules::of(&kubelet, case.machine.threads),
        zones: zones.collect(),
        devices: devices.map(|(name, all)| (name.clone(), all.iter().map(device).collect())).collect(),
        untaken_count: 0,
    }
}

fn ask(pod: &CasePod) -> PodAsk {
    let one = |c: &CaseContainer| {
        let phase = match c.phase.as_str() {
            "init" => Phase::Init,
            "sidecar" => Phase::Sidecar,
            _ => Phase::App,
        };
        let is_whole = pod.guaranteed && c.cpu_milli.is_multiple_of(1000);
        let mut memory = BTreeMap::new();
        if pod.guaranteed {
            memory.insert("memory".to_owned(), c.memory_mib << 20);
            if c.huge_mib > 0 {
                memory.insert("hugepages-2Mi".to_owned(), c.huge_mib << 20);
            }
        }
        ContainerAsk {
            phase,
            exclusive_cpu_count: if is_whole { u32::try_from(c.cpu_milli / 1000).unwrap() } else { 0 },
            memory_bytes: memory,
            devices: c.devices.clone(),
        }
    };
    let (apps, inits): (Vec<_>, Vec<_>) = pod.containers.iter().map(one).partition(|c| c.phase == Phase::App);
    PodAsk { containers: inits.into_iter().chain(apps).collect() }
}

fn answer(site: &mut Site, pod: &CasePod) -> Answer {
    match admit(site, &ask(pod), &mut FirstOnes) {
        Ok(admitted) => {
            let is_none = site.rules.policy == TopologyManagerPolicy::None;
            let hint = |a: &Admitted| a.hint.zones.filter(|_| !is_none);
            let bits = |mask: ZoneMask| mask.zones().fold(0_u64, |bits, z| bits | 1 << z.0);
            Answer { reason: String::new(), hints: admitted.iter().map(|a| hint(a).map(bits)).collect() }
        }
        Err((_, refusal)) => Answer { reason: refusal.api_reason().to_owned(), hints: Vec::new() },
    }
}

#[test]
fn every_verdict_and_hint_is_the_kubelets_own() {
    let table = include_str!("../../../../tests/zones/kubelet-1.36.3.jsonl");
    let (mut pods, mut refused) = (0, 0);
    for (number, line) in table.lines().enumerate() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut site = site(&case);
        for (pod, expected) in case.pods.iter().zip(&case.answers) {
            assert_eq!(&answer(&mut site, pod), expected, "line {}, pod {pod:?}\n{line}", number + 1);
            pods += 1;
            refused += u32::from(!expected.reason.is_empty());
        }
    }
    assert!(pods > 1_200 && refused > 350, "{pods} pods, {refused} refused");
}
