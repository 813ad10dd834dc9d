//! Pods come and go on two real nodes while kubelets, agents and the scheduler are killed: what was planned is what containers see, always
//! where the level enforces it, and by a share that is told where it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod tally;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result};
use berth_tests::real_cluster::{GPU, RealCluster, SOON, phase, stock_offers};
use berth_tests::real_node::{SHARED, can_run, container, files, pod};
use berth_tests::running::plan_of;
use berth_tests::stock_plugin::{StockPlugin, Wish};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use tally::Tally;

const NODES: [(&str, &str); 2] = [("dgx-h100", "kn1"), ("mig-a100", "kn2")];
const SMALL: &str = "nvidia.com/mig-1g.5gb";
const HALF: &str = "nvidia.com/mig-3g.20gb";

/// What the nodes have together; of whole GPUs one less, so that four always fit on the node that has eight.
const CAPACITY: [(&str, u32); 3] = [(GPU, 8), (SMALL, 9), (HALF, 1)];

/// Pods under way at once.
const BURST: usize = 6;

/// What each container of a pod asks for.
const KINDS: [&[(&str, u32)]; 10] = [
    &[(GPU, 1)],
    &[(GPU, 2)],
    &[(SMALL, 1)],
    &[(GPU, 1), (GPU, 1)],
    &[(GPU, 3)],
    &[(SMALL, 1), (SMALL, 1)],
    &[(GPU, 4)],
    &[(HALF, 1)],
    &[(GPU, 2), (GPU, 1)],
    &[(SMALL, 2)],
];

fn churned(name: &str, kind: &[(&str, u32)]) -> Value {
    let mut pod = pod(name, &json!({}));
    let containers = kind.iter().enumerate().map(|(at, (resource, count))| {
        container(&format!("c{at}"), &json!({*resource: count.to_string(), "cpu": "100m", "memory": "64Mi"}))
    });
    pod["spec"]["containers"] = containers.collect();
    pod["spec"]["schedulerName"] = json!("berth");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod
}

/// Device files that belong to a device, of those that a container sees.
fn own(paths: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    paths.into_iter().filter(|path| !SHARED.contains(&path.as_str())).collect()
}

struct Churn {
    cluster: RealCluster,
    plugins: Vec<StockPlugin>,
    level: &'static str,
    live: VecDeque<(String, &'static [(&'static str, u32)])>,
    /// Those of the live ones that nobody has looked at yet.
    fresh: Vec<String>,
    tally: Tally,
}

impl Churn {
    async fn start(level: &'static str) -> Result<Self> {
        let cluster = RealCluster::start(&NODES, &json!({}), &["--level", level]).await?;
        let mut churn = Self {
            cluster,
            plugins: Vec::new(),
            level,
            live: VecDeque::new(),
            fresh: Vec::new(),
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

    /// So many pods, in bursts, with something killed in each.
    async fn run(&mut self, pod_count: usize) -> Result<()> {
        for (burst, numbers) in (0..pod_count).collect::<Vec<_>>().chunks(BURST).enumerate() {
            for number in numbers {
                let (name, kind) = (format!("pod-{number}"), KINDS[number % KINDS.len()]);
                self.make_room(kind).await?;
                self.cluster.create(&churned(&name, kind)).await?;
                self.live.push_back((name.clone(), kind));
                self.fresh.push(name);
            }
            self.disturb(burst).await?;
            self.settle_all().await?;
        }
        Ok(())
    }

    async fn disturb(&mut self, burst: usize) -> Result<()> {
        let at = (burst / 6) % NODES.len();
        let plane = &self.cluster.running.plane;
        match burst % 6 {
            1 => self.cluster.nodes[at].agent.as_mut().context("an agent")?.restart()?,
            3 => {
                self.cluster.nodes[at].restart_kubelet(plane).await?;
                self.plug_in(at).await?;
            }
            5 => self.cluster.running.scheduler.restart()?,
            _ => {}
        }
        Ok(())
    }

    /// Deletes the oldest pods until one of this kind fits.
    async fn make_room(&mut self, kind: &[(&str, u32)]) -> Result<()> {
        loop {
            let of = |kind: &[(&str, u32)], name: &str| -> u32 {
                kind.iter().filter(|(resource, _)| *resource == name).map(|(_, count)| count).sum()
            };
            let used = |name: &str| -> u32 { self.live.iter().map(|(_, live)| of(live, name)).sum() };
            if CAPACITY.iter().all(|(name, capacity)| used(name) + of(kind, name) <= *capacity) {
                return Ok(());
            }
            if self.live.front().is_some_and(|(oldest, _)| self.fresh.contains(oldest)) {
                self.settle_all().await?;
            }
            let Some((oldest, _)) = self.live.pop_front() else { continue };
            self.delete(&oldest).await?;
        }
    }

    async fn delete(&self, name: &str) -> Result<()> {
        if self.cluster.running.pods().get_opt(name).await?.is_some() {
            self.cluster.delete(name).await?;
        }
        Ok(())
    }

    async fn settle_all(&mut self) -> Result<()> {
        for name in std::mem::take(&mut self.fresh) {
            self.settle(&name).await?;
        }
        self.check_exclusive().await
    }

    /// Waits until the pod runs, and compares; or until it failed, and remembers why.
    async fn settle(&mut self, name: &str) -> Result<()> {
        let look = || async {
            let pod = self.cluster.running.pods().get(name).await?;
            if phase(&pod) == "Failed" {
                return Ok(Some((pod, BTreeMap::new())));
            }
            let mut seen = BTreeMap::new();
            for container in &pod.spec.as_ref().context("a pod without spec")?.containers {
                let Some(said) = self.cluster.said(&pod, &container.name)? else { return Ok(None) };
                seen.insert(container.name.clone(), own(said.nodes));
            }
            Ok(Some((pod, seen)))
        };
        let settled = self.cluster.running.until(SOON, &format!("end or start of {name}"), look).await;
        let (pod, seen) = match settled {
            Ok(settled) => settled,
            Err(error) => {
                let told = self.cluster.running.plane.kubectl(&["describe", "pod", name]).await.unwrap_or_default();
                return Err(error.context(told));
            }
        };
        if phase(&pod) == "Failed" {
            let status = pod.status.unwrap_or_default();
            self.tally.failed(status.reason.unwrap_or_default());
            self.live.retain(|(live, _)| live != name);
            return self.delete(name).await;
        }
        self.compare(&pod, &seen).await
    }

    async fn compare(&mut self, pod: &Pod, seen: &BTreeMap<String, BTreeSet<String>>) -> Result<()> {
        let (name, node_name) = (pod.metadata.name.clone().unwrap(), pod.spec.as_ref().unwrap().node_name.clone());
        let node = self.cluster.nodes.iter().find(|node| Some(node.name()) == node_name.as_deref()).unwrap();
        let files = files(&node.made().topology(None)?);
        let of = |ids: Vec<String>| own(ids.iter().flat_map(|id| files.get(id).cloned().unwrap_or_default()));
        let mut planned: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in plan_of(pod)?.containers {
            let devices = container.devices.into_iter();
            let ids = devices.map(|d| d.mig.and_then(|mig| mig.uuid).unwrap_or(d.uuid)).collect();
            planned.entry(container.name).or_default().extend(of(ids));
        }
        let held = node.held().await?.into_iter().filter(|p| p.name == name).flat_map(|p| p.containers);
        let held = held.map(|c| (c.name, of(c.devices.into_iter().flat_map(|d| d.device_ids).collect()))).collect();
        self.tally.ran(&name, &planned, &held, seen);
        Ok(())
    }

    /// No device is seen by two containers of pods that are there.
    async fn check_exclusive(&mut self) -> Result<()> {
        let mut holders: BTreeMap<(String, String), String> = BTreeMap::new();
        for pod in self.cluster.running.pods().list(&ListParams::default()).await? {
            let (name, spec) = (pod.metadata.name.clone().unwrap(), pod.spec.as_ref().unwrap());
            let node = spec.node_name.clone().unwrap_or_default();
            for container in &spec.containers {
                let seen = self.cluster.said(&pod, &container.name)?.map(|said| own(said.nodes)).unwrap_or_default();
                // The file of a card that is cut is its instances'.
                let is_instance = seen.iter().any(|path| path.contains("nvidia-caps"));
                for path in seen.into_iter().filter(|path| !is_instance || path.contains("nvidia-caps")) {
                    let holder = format!("{name}/{}", container.name);
                    if let Some(other) = holders.insert((node.clone(), path.clone()), holder.clone()) {
                        self.tally.doubly_held(format!("{path} of {node}: {other} and {holder}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes all and waits until nobody holds anything: then the largest pod there is finds its place.
    async fn end(mut self) -> Result<Tally> {
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
        self.cluster.create(&churned("last", &[(GPU, 8)])).await?;
        self.settle("last").await?;
        self.cluster.delete("last").await?;
        Ok(self.tally)
    }
}

async fn churn(level: &'static str, pod_count: usize) -> Result<Tally> {
    let mut churn = Churn::start(level).await?;
    churn.run(pod_count).await?;
    let tally = churn.end().await?;
    eprintln!("{tally}");
    assert_eq!(tally.doubly_held, Vec::<String>::new());
    Ok(tally)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_advice_no_two_containers_hold_a_device_and_the_planned_share_is_told() -> Result<()> {
    if can_run("churn at level advice")? {
        churn("advice", pod_count(30)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_preferred_pods_hold_what_was_planned_but_for_races_that_are_counted() -> Result<()> {
    if can_run("churn at level preferred")? {
        let tally = churn("preferred", pod_count(60)).await?;
        assert!(tally.planned * 10 >= tally.ran * 9, "{tally}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_enforced_every_container_sees_what_was_planned_for_it() -> Result<()> {
    if can_run("churn at level enforced")? {
        let tally = churn("enforced", pod_count(60)).await?;
        assert_eq!(tally.planned, tally.ran, "{tally}");
    }
    Ok(())
}

/// How many pods are churned: what a busy machine does in two minutes, unless `BERTH_CHURN_PODS` says otherwise.
fn pod_count(default: usize) -> usize {
    std::env::var("BERTH_CHURN_PODS").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}
