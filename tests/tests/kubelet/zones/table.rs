//! Owns the table of what a kubelet answers (`tests/zones/`) in the forms that a real node takes: machine file, kubelet configuration,
//! device plugins, pods; and the choice of a few cases that together have every pair of rules.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use berth_machine::Machine;
use berth_model::{CpuGroups, CpuSet};
use berth_tests::real_node::pod;
use berth_tests::stock_plugin::Offer;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("../../../zones/kubelet-1.36.3.jsonl");

/// Reserved for the system in every zone of the cases.
const RESERVED_MIB: u64 = 64;

/// One machine, and pods that come one after the other until one is refused.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Case {
    machine: CaseMachine,
    rules: CaseRules,
    pods: Vec<CasePod>,
    answers: Vec<Answer>,
    /// Its place in the table, from 1.
    #[serde(skip)]
    pub(super) line: usize,
}

#[derive(Debug, Clone, Deserialize)]
struct CaseMachine {
    threads: u32,
    zones: Vec<CaseZone>,
    devices: BTreeMap<String, Vec<CaseDevice>>,
}

#[derive(Debug, Clone, Deserialize)]
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

#[derive(Debug, Clone, Deserialize)]
struct CaseDevice {
    zones: Vec<u16>,
    healthy: bool,
}

#[derive(Debug, Clone, Deserialize)]
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

#[derive(Debug, Clone, Deserialize)]
struct CasePod {
    guaranteed: bool,
    containers: Vec<CaseContainer>,
}

#[derive(Debug, Clone, Deserialize)]
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

#[derive(Debug, Clone, Deserialize)]
struct Answer {
    reason: String,
}

/// The cases of the table with their pods that kube-scheduler would send: a pod that does not fit by count, and what comes after it, is
/// not asked. Nor is a kubelet with exclusive CPUs and none of its own, which does not start.
pub(super) fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (at, line) in TABLE.lines().enumerate() {
        let mut case: Case = serde_json::from_str(line)?;
        case.line = at + 1;
        case.pods.truncate(case.fitting());
        let is_startable = !case.rules.cpu || case.machine.zones.iter().any(|zone| zone.reserved_cores > 0);
        if is_startable && !case.pods.is_empty() {
            cases.push(case);
        }
    }
    Ok(cases)
}

/// One case for each pair of policies of the Topology and CPU Manager, and among those the ones with the most pairs of other rules that
/// no case before has; then with the most refusals and pods.
pub(super) fn pairwise(all: &[Case]) -> Vec<Case> {
    let mut seen = BTreeSet::new();
    let mut chosen: Vec<Case> = Vec::new();
    let configurations: BTreeSet<(String, String)> = all.iter().map(|case| case.configuration()).collect();
    for configuration in configurations {
        let of_it = all.iter().filter(|case| case.configuration() == configuration);
        let worth = |case: &&Case| (case.pairs().difference(&seen).count(), case.refusals(), case.pods.len());
        if let Some(best) = of_it.max_by_key(worth) {
            seen.extend(best.pairs());
            chosen.push(best.clone());
        }
    }
    let missing: BTreeSet<_> = all.iter().flat_map(Case::pairs).filter(|pair| !seen.contains(pair)).collect();
    assert!(missing.is_empty(), "pairs of rules that no chosen case has: {missing:?}");
    chosen
}

impl Case {
    fn configuration(&self) -> (String, String) {
        (self.rules.policy.clone(), self.cpu_manager())
    }

    fn cpu_manager(&self) -> String {
        match (self.rules.cpu, self.rules.cpu_options.is_empty()) {
            (false, _) => "none".to_owned(),
            (true, true) => "static".to_owned(),
            (true, false) => "static with options".to_owned(),
        }
    }

    fn pairs(&self) -> BTreeSet<[String; 2]> {
        let rules = &self.rules;
        let words = [
            format!("policy {}", rules.policy),
            format!("scope {}", rules.scope),
            format!("closest {}", rules.closest),
            format!("cpu {}", self.cpu_manager()),
            format!("memory {}", rules.memory),
        ];
        let from = |at: usize| words.iter().skip(at + 1).map(move |word| (at, word));
        let pairs = (0..words.len()).flat_map(from);
        pairs.map(|(at, word)| [words[at].clone(), word.clone()]).collect()
    }

    /// The rules in few words, for a person.
    pub(super) fn words(&self) -> String {
        let rules = &self.rules;
        let (closest, memory) =
            (if rules.closest { ", closest zones" } else { "" }, if rules.memory { ", static memory" } else { "" });
        format!("{}, scope {}, CPUs {}{closest}{memory}", rules.policy, rules.scope, self.cpu_manager())
    }

    /// The kubelet's answers to the pods that are asked.
    pub(super) fn answers(&self) -> impl Iterator<Item = &str> {
        self.answers.iter().take(self.pods.len()).map(|answer| answer.reason.as_str())
    }

    fn refusals(&self) -> usize {
        self.answers().filter(|reason| !reason.is_empty()).count()
    }

    /// How many pods from the first are answered and fit by count.
    fn fitting(&self) -> usize {
        let zones = &self.machine.zones;
        let own = |zone: &CaseZone| u64::from((zone.cores - zone.reserved_cores) * self.machine.threads) * 1000;
        let mut free: BTreeMap<&str, u64> = BTreeMap::from([
            ("cpu", zones.iter().map(own).sum()),
            ("memory", zones.iter().map(|zone| zone.memory_mib - zone.huge_mib - RESERVED_MIB).sum()),
            ("huge", zones.iter().map(|zone| zone.huge_mib).sum()),
        ]);
        for (name, devices) in &self.machine.devices {
            free.insert(name, devices.iter().filter(|device| device.healthy).count() as u64);
        }
        for (number, (pod, _)) in self.pods.iter().zip(&self.answers).enumerate() {
            for (name, free) in &mut free {
                match free.checked_sub(pod.need(name)) {
                    Some(rest) => *free = rest,
                    None => return number,
                }
            }
        }
        self.pods.len().min(self.answers.len())
    }

    /// CPUs by zone and core: threads of a core lie side by side.
    fn cpus(&self) -> Vec<Vec<CpuSet>> {
        let (threads, mut next) = (self.machine.threads, 0);
        let core = |first: u32| CpuSet::from_cpus(first..first + threads);
        let zones = self.machine.zones.iter().map(|zone| {
            let first = next;
            next += zone.cores * threads;
            (0..zone.cores).map(|number| core(first + number * threads)).collect()
        });
        zones.collect()
    }

    /// The machine as a machine file.
    pub(super) fn machine(&self) -> Result<Machine> {
        let cpus = self.cpus();
        let all_of = |cores: &[CpuSet]| CpuSet::from_cpus(cores.iter().flat_map(CpuSet::cpus));
        let zones = self.machine.zones.iter().zip(&cpus).enumerate().map(|(id, (zone, cores))| {
            let distances: Vec<String> = zone.distances.iter().map(ToString::to_string).collect();
            let mut value = json!({
                "id": id, "cpus": all_of(cores).to_string(), "memoryMib": zone.memory_mib, "distances": distances.join(" "),
            });
            if zone.huge_mib > 0 {
                value["hugePages"] = json!(format!("2048x{}", zone.huge_mib / 2));
            }
            value
        });
        let zones: Vec<Value> = zones.collect();
        let mut sockets: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for (zone, cores) in self.machine.zones.iter().zip(&cpus) {
            sockets.entry(zone.socket).or_default().extend(all_of(cores).cpus());
        }
        let sockets = CpuGroups::from_groups(sockets.into_values().map(CpuSet::from_cpus))?;
        let cores = CpuGroups::from_groups(cpus.into_iter().flatten())?;
        let file = json!({
            "apiVersion": "berth.dev/machine/v1", "name": "case", "source": "tests/zones", "synthetic": true,
            "driver": "absent", "zones": zones, "pcie": [],
            "host": {"cores": cores.to_string(), "sockets": sockets.to_string()},
        });
        Ok(Machine::parse(&file.to_string())?)
    }

    /// The rules as keys of the kubelet's configuration.
    pub(super) fn rules(&self) -> Value {
        let rules = &self.rules;
        let zones = &self.machine.zones;
        let reserved = zones.iter().zip(self.cpus()).flat_map(|(zone, cores)| {
            cores.into_iter().take(zone.reserved_cores as usize).flat_map(|core| core.cpus().collect::<Vec<_>>())
        });
        let reserved = CpuSet::from_cpus(reserved);
        let mut keys = json!({
            "topologyManagerPolicy": rules.policy,
            "topologyManagerScope": rules.scope,
            "cpuManagerPolicy": if rules.cpu { "static" } else { "none" },
            "cpuManagerPolicyOptions": rules.cpu_options,
            "memoryManagerPolicy": if rules.memory { "Static" } else { "None" },
            "systemReserved": {"memory": format!("{}Mi", RESERVED_MIB * zones.len() as u64)},
            "reservedSystemCPUs": reserved.to_string(),
        });
        if rules.closest {
            keys["topologyManagerPolicyOptions"] = json!({"prefer-closest-numa-nodes": "true"});
        }
        if rules.memory {
            let of = |zone: usize| json!({"numaNode": zone, "limits": {"memory": format!("{RESERVED_MIB}Mi")}});
            keys["reservedMemory"] = (0..zones.len()).map(of).collect();
        }
        keys
    }

    /// What is allocatable on the node then.
    pub(super) fn cpu_count(&self) -> usize {
        let own = self.machine.zones.iter().map(|zone| (zone.cores - zone.reserved_cores) * self.machine.threads);
        own.sum::<u32>() as usize
    }

    /// What device plugins offer, by resource.
    pub(super) fn offers(&self) -> BTreeMap<String, Vec<Offer>> {
        let offer = |name: &str, at: usize, device: &CaseDevice| Offer {
            id: format!("{}-{at}", name.replace('/', "-")),
            zones: device.zones.clone(),
            is_healthy: device.healthy,
            nodes: Vec::new(),
        };
        let devices = self.machine.devices.iter();
        let all = devices.map(|(name, all)| {
            (name.clone(), all.iter().enumerate().map(|(at, device)| offer(name, at, device)).collect())
        });
        all.collect()
    }

    /// The pods that are asked. Their image is nowhere: whether they are admitted is all that counts, and CPUs that this machine does
    /// not have could not be given to a container.
    pub(super) fn pods(&self) -> Vec<Value> {
        let pods = self.pods.iter().enumerate();
        pods.map(|(at, pod)| pod.object(&format!("case-{}-{at}", self.line))).collect()
    }
}

impl CasePod {
    /// So much of a resource it needs, as kube-scheduler counts.
    fn need(&self, name: &str) -> u64 {
        let (mut apps, mut sidecars, mut most) = (0, 0, 0);
        for container in &self.containers {
            let need = container.need(name);
            match container.phase.as_str() {
                "app" => apps += need,
                "sidecar" => sidecars += need,
                _ => most = most.max(sidecars + need),
            }
        }
        most.max(apps + sidecars)
    }

    fn object(&self, name: &str) -> Value {
        let mut object = pod(name, &json!({}));
        let (mut apps, mut inits) = (Vec::new(), Vec::new());
        for (at, container) in self.containers.iter().enumerate() {
            let value = container.object(&format!("c{at}"), self.guaranteed);
            if container.phase == "app" { &mut apps } else { &mut inits }.push(value);
        }
        object["spec"]["containers"] = json!(apps);
        object["spec"]["initContainers"] = json!(inits);
        object["spec"]["schedulerName"] = json!("nobody");
        object
    }
}

impl CaseContainer {
    fn need(&self, name: &str) -> u64 {
        match name {
            "cpu" => self.cpu_milli,
            "memory" => self.memory_mib,
            "huge" => self.huge_mib,
            device => self.devices.get(device).copied().unwrap_or_default().into(),
        }
    }

    fn object(&self, name: &str, is_guaranteed: bool) -> Value {
        let compute = Map::from_iter([
            ("cpu".to_owned(), json!(format!("{}m", self.cpu_milli))),
            ("memory".to_owned(), json!(format!("{}Mi", self.memory_mib))),
        ]);
        let mut limits = if is_guaranteed { compute.clone() } else { Map::new() };
        if self.huge_mib > 0 {
            limits.insert("hugepages-2Mi".to_owned(), json!(format!("{}Mi", self.huge_mib)));
        }
        limits.extend(self.devices.iter().map(|(name, count)| (name.clone(), json!(count.to_string()))));
        let mut object = json!({
            "name": name, "image": "nowhere", "imagePullPolicy": "Never",
            "resources": {"limits": limits, "requests": compute},
        });
        if self.phase == "sidecar" {
            object["restartPolicy"] = json!("Always");
        }
        object
    }
}
