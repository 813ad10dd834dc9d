//! Pods come and go on two real nodes while kubelets, agents and the schedulers are killed: what was planned is what containers see,
//! always where the level enforces it, and by a share that is told where it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod faults;
mod look;
mod pods;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_tests::real_cluster::{GPU, RealCluster, SOON, stock_offers};
use berth_tests::real_node::can_run;
use berth_tests::stock_plugin::{StockPlugin, Wish};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

use faults::{Fault, Faults};
use look::{Entry, Holders, Phase};
use pods::{HALF, LARGEST, SMALL, churned, fit, kind};
use tally::Tally;

const NODES: [(&str, &str); 2] = [("dgx-h100", "kn1"), ("mig-a100", "kn2")];

/// Most pods that are created and not looked at yet.
const BURST: usize = 8;

/// Room is made for so many pods before they are created.
const AHEAD: usize = 4;

/// Pods between two faults.
const FAULT_EVERY: usize = 8;

/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A pod that has no node for so long waits for devices that others hold: room by count is not always room in one zone.
const ROOM_AFTER: Duration = Duration::from_secs(4);

/// When a churn is over.
#[derive(Debug, Clone, Copy)]
struct Goal {
    pods: usize,
    leases: usize,
}

struct Churn {
    cluster: RealCluster,
    plugins: Vec<StockPlugin>,
    level: &'static str,
    /// Whether two of three pods have CPUs of their own.
    has_own_cpus: bool,
    created_count: usize,
    live: VecDeque<Entry>,
    holders: Holders,
    fault: Option<(Fault, Instant)>,
    fault_count: usize,
    last_fault: &'static str,
    room_made_at: Instant,
    tally: Tally,
}

impl Churn {
    /// A cluster at this level, with these rules of the kubelets; with any, pods want CPUs of their own.
    async fn start(level: &'static str, rules: Option<[Value; 2]>) -> Result<Self> {
        let has_own_cpus = rules.is_some();
        let nodes: Vec<_> = NODES
            .into_iter()
            .zip(rules.unwrap_or_default())
            .map(|((machine, name), rules)| (machine, name, rules))
            .collect();
        let cluster = RealCluster::start_each(&nodes, &["--level", level]).await?;
        let mut churn = Self {
            cluster,
            plugins: Vec::new(),
            level,
            has_own_cpus,
            created_count: 0,
            live: VecDeque::new(),
            holders: Holders::default(),
            fault: None,
            fault_count: 0,
            last_fault: "nothing",
            room_made_at: Instant::now(),
            tally: Tally::new(level),
        };
        for at in 0..NODES.len() {
            churn.plug_in(at).await?;
        }
        churn.cluster.until_offered("kn1", GPU, 8).await?;
        churn.cluster.until_offered("kn2", SMALL, 9).await?;
        churn.cluster.until_offered("kn2", HALF, 1).await?;
        Ok(churn)
    }

    /// Gives a node the stock device plugin, where Berth is not the plugin.
    async fn plug_in(&mut self, at: usize) -> Result<()> {
        if self.level != "advice" {
            return Ok(());
        }
        let node = &self.cluster.nodes[at];
        let folder = node.kubelet_folder().join("device-plugins");
        for (resource, offers) in stock_offers(node)? {
            self.plugins.push(StockPlugin::start(&folder, &resource, &offers, Wish::LastFirst).await?);
        }
        Ok(())
    }

    /// So many pods, and more where fewer leases than wanted came of them, as quickly as there is room, with something killed again and
    /// again while they start.
    async fn run(&mut self, goal: Goal) -> Result<()> {
        let mut next = 0;
        loop {
            let is_short = self.tally.leases < goal.leases && next < goal.pods.saturating_mul(2);
            let last = if is_short { next.saturating_add(AHEAD).max(goal.pods) } else { goal.pods };
            if next >= last && self.live.iter().all(Entry::is_over) {
                break;
            }
            while next < last && self.has_room(kind(next)) {
                self.create(&format!("pod-{next}"), kind(next)).await?;
                next += 1;
                self.strike(next).await?;
            }
            self.mend().await?;
            self.look().await?;
            self.make_room((next..last).take(AHEAD).map(kind).collect()).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        while self.fault.is_some() {
            self.mend().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn has_room(&self, kind: pods::Kind) -> bool {
        let fresh = self.live.iter().filter(|entry| entry.phase == Phase::Fresh).count();
        fresh < BURST && fit(&self.live.iter().map(|entry| entry.kind).chain([kind]).collect::<Vec<_>>())
    }

    async fn create(&mut self, name: &str, kind: pods::Kind) -> Result<()> {
        self.created_count += 1;
        let has_own_cpus = self.has_own_cpus && !self.created_count.is_multiple_of(3);
        self.cluster.create(&churned(name, kind, has_own_cpus)).await?;
        self.live.push_back(Entry::new(name, kind));
        Ok(())
    }

    /// The next fault, when its time has come and the one before is over.
    async fn strike(&mut self, created: usize) -> Result<()> {
        if self.fault.is_some() || created / FAULT_EVERY <= self.fault_count {
            return Ok(());
        }
        let faults = if self.has_own_cpus { Faults::WithPlugins } else { Faults::All };
        let fault = Fault::number(faults, self.fault_count, NODES.len());
        self.fault_count += 1;
        self.fault = Some((fault, Instant::now()));
        self.last_fault = fault.words();
        self.tally.fault(self.last_fault);
        fault.strike(&mut self.cluster).await.with_context(|| fault.words())?;
        if let Fault::KubeletKilled(at) = fault {
            self.ask_again(NODES[at].1);
        }
        Ok(())
    }

    async fn mend(&mut self) -> Result<()> {
        let Some((fault, since)) = self.fault else { return Ok(()) };
        if !fault.mend(since, &mut self.cluster).await.with_context(|| fault.words())? {
            return Ok(());
        }
        self.fault = None;
        if let Fault::KubeletKilled(at) = fault {
            self.plug_in(at).await?;
        }
        Ok(())
    }

    /// Deletes the oldest pods that were looked at until pods of these kinds will fit, and one more where a pod waits in vain.
    async fn make_room(&mut self, mut kinds: Vec<pods::Kind>) -> Result<()> {
        let waits = |entry: &Entry| !entry.is_bound && entry.since.elapsed() > ROOM_AFTER;
        let mut wanted = self.room_made_at.elapsed() > ROOM_AFTER && self.live.iter().any(waits);
        loop {
            let staying = self.live.iter().filter(|entry| entry.phase != Phase::Deleted).map(|entry| entry.kind);
            if !wanted && fit(&staying.chain(kinds.iter().copied()).collect::<Vec<_>>()) {
                return Ok(());
            }
            let Some(at) = self.live.iter().position(Entry::is_done) else { return Ok(()) };
            if std::mem::take(&mut wanted) {
                self.room_made_at = Instant::now();
                kinds.clear();
            }
            self.delete(at).await?;
        }
    }

    async fn delete(&mut self, at: usize) -> Result<()> {
        self.look_back(at)?;
        let entry = &mut self.live[at];
        (entry.phase, entry.since) = (Phase::Deleted, Instant::now());
        match self.cluster.running.pods().delete(&entry.name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()).map_err(Into::into),
        }
    }

    /// Deletes all and waits until nobody holds anything: then the largest pod there is finds its place.
    async fn end(mut self, began: Instant) -> Result<Tally> {
        self.tally.took(began.elapsed());
        self.cluster.running.pods().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        self.cluster.until_empty().await?;
        let free = || async {
            let mut left = 0;
            for node in &self.cluster.nodes {
                left += node.held().await?.iter().flat_map(|p| &p.containers).flat_map(|c| &c.devices).count();
                let leases = std::fs::read_dir(node.inside("/var/lib/berth/leases")).into_iter().flatten().flatten();
                left += leases.filter(|entry| entry.path().extension().is_some_and(|e| e == "json")).count();
                let specs = std::fs::read_dir(node.inside("/run/cdi"))?.flatten();
                left += specs.filter(|entry| entry.file_name().to_string_lossy().starts_with("berth")).count();
            }
            Ok((left == 0).then_some(()))
        };
        self.cluster.running.until(SOON, "end of every holding and lease", free).await?;
        for node in &self.cluster.nodes {
            self.tally.leased(&std::fs::read_to_string(node.agent.as_ref().context("an agent")?.log_path())?);
        }
        let tries = self.tries().await?;
        self.tally.refused(&tries);
        self.live.clear();
        self.create("last", LARGEST).await?;
        while !self.live[0].is_done() {
            self.look().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.cluster.delete("last").await?;
        Ok(self.tally)
    }

    /// How often a kubelet tried to create a container whose lease had no spec, by container.
    async fn tries(&self) -> Result<BTreeMap<String, usize>> {
        let events: Api<Event> = Api::default_namespaced(self.cluster.running.plane.client());
        let mut tries: BTreeMap<String, usize> = BTreeMap::new();
        for event in events.list(&ListParams::default().fields("reason=Failed")).await? {
            if event.message.as_deref().is_some_and(|text| text.contains("unresolvable CDI")) {
                let of = event.involved_object;
                let container = format!("{}/{}", of.name.unwrap_or_default(), of.field_path.unwrap_or_default());
                *tries.entry(container).or_default() += usize::try_from(event.count.unwrap_or(1))?;
            }
        }
        Ok(tries)
    }
}

async fn churn(level: &'static str, goal: Goal, rules: Option<[Value; 2]>) -> Result<Tally> {
    let mut churn = Churn::start(level, rules).await?;
    let began = Instant::now();
    churn.run(goal).await?;
    let tally = churn.end(began).await?;
    eprintln!("{tally}{}", tally.line()?);
    assert_eq!(tally.doubly_held, Vec::<String>::new());
    Ok(tally)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_advice_no_two_containers_hold_a_device_and_the_planned_share_is_told() -> Result<()> {
    if can_run("churn at level advice")? {
        churn("advice", goal(60, 0)?, None).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_preferred_pods_hold_what_was_planned_but_for_races_that_are_counted() -> Result<()> {
    if can_run("churn at level preferred")? {
        let tally = churn("preferred", goal(60, 0)?, None).await?;
        assert!(tally.planned * 10 >= tally.ran * 9, "{tally}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_enforced_every_container_sees_what_was_planned_for_it() -> Result<()> {
    if can_run("churn at level enforced")? {
        let goal = goal(300, 500)?;
        let tally = churn("enforced", goal, None).await?;
        assert_eq!((tally.planned, &tally.changed), (tally.ran, &Vec::new()), "{tally}");
        assert!(tally.leases >= goal.leases, "{tally}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_that_berth_sent_is_refused_by_a_kubelet_that_aligns_zones() -> Result<()> {
    if can_run("churn over kubelets that align zones")? {
        let tally = churn("enforced", goal(60, 0)?, Some(aligned())).await?;
        assert_eq!(tally.failed.get("TopologyAffinityError"), None, "{tally}");
        assert_eq!((tally.planned, &tally.changed), (tally.ran, &Vec::new()), "{tally}");
    }
    Ok(())
}

/// Rules of two kubelets that give a container, or a pod, all it has from one zone, or refuse it.
fn aligned() -> [Value; 2] {
    let cpus = json!({"cpuManagerPolicy": "static", "reservedSystemCPUs": "0-1"});
    let memory = json!({
        "memoryManagerPolicy": "Static",
        "systemReserved": {"memory": "128Mi"},
        "reservedMemory": [{"numaNode": 0, "limits": {"memory": "128Mi"}}],
    });
    let by_container = json!({"topologyManagerPolicy": "single-numa-node", "topologyManagerScope": "container"});
    let by_pod = json!({"topologyManagerPolicy": "restricted", "topologyManagerScope": "pod"});
    let all = |parts: &[&Value]| {
        let keys = parts.iter().filter_map(|part| part.as_object()).flatten();
        Value::Object(keys.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    [all(&[&cpus, &memory, &by_container]), all(&[&cpus, &by_pod])]
}

/// So many pods and leases, unless `BERTH_CHURN_PODS` says another number of pods, whatever leases come of them.
fn goal(pods: usize, leases: usize) -> Result<Goal> {
    let Some(count) = std::env::var_os("BERTH_CHURN_PODS") else { return Ok(Goal { pods, leases }) };
    let count = count.to_str().and_then(|count| count.parse().ok()).filter(|count| *count > 0);
    let pods = count.context("BERTH_CHURN_PODS must be a number of pods, 1 or more")?;
    Ok(Goal { pods, leases: 0 })
}
