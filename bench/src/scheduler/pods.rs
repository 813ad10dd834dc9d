//! The pods of a run: made, watched until each has a node, and taken away. One watch sees them all; nothing is polled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// GPUs of a pod; a node has eight.
const GPUS: u32 = 2;
/// How many of the pods a node has room for.
pub(super) const PODS_PER_NODE: usize = 4;
/// On every pod of the bench and on no other.
const LABEL: &str = "berth-bench=pod";
/// Pods under way to the API server at once.
const IN_FLIGHT: usize = 32;
/// For as many pods as anybody asks for, at the slowest rate that still says something.
const WITHIN: Duration = Duration::from_secs(600);

/// One change that the watch saw.
struct Seen {
    at: Instant,
    name: String,
    /// Whether it has a node; `None` when it is gone.
    is_bound: Option<bool>,
}

/// All pods of the bench.
pub(super) struct Crowd {
    api: Api<Pod>,
    seen: mpsc::UnboundedReceiver<Seen>,
    /// By pod: when it was first seen with a node.
    bound_at: BTreeMap<String, Option<Instant>>,
    watch: JoinHandle<()>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Crowd {
    /// Watches from now on.
    pub(super) fn watch(client: Client) -> Self {
        let api: Api<Pod> = Api::namespaced(client, "default");
        let (told, seen) = mpsc::unbounded_channel();
        let labelled = watcher::Config::default().labels(LABEL);
        let mut events = watcher(api.clone(), labelled).default_backoff().boxed();
        let watch = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let (pod, is_gone) = match event {
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => (pod, false),
                    Ok(Event::Delete(pod)) => (pod, true),
                    Ok(Event::Init | Event::InitDone) => continue,
                    Err(error) => {
                        eprintln!("the watch of pods failed and goes on: {error}");
                        continue;
                    }
                };
                let is_bound = pod.spec.is_some_and(|spec| spec.node_name.is_some());
                let name = pod.metadata.name.unwrap_or_default();
                let seen = Seen { at: Instant::now(), name, is_bound: (!is_gone).then_some(is_bound) };
                if told.send(seen).is_err() {
                    return;
                }
            }
        });
        Self { api, seen, bound_at: BTreeMap::new(), watch }
    }

    /// Makes one pod and returns it.
    pub(super) async fn make_one(&self, name: &str) -> Result<Pod> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"berth-bench": "pod"}},
            "spec": {"schedulerName": "berth", "containers": [{
                "name": "main", "image": "registry.invalid/main",
                "resources": {
                    "limits": {"nvidia.com/gpu": GPUS.to_string()},
                    "requests": {"cpu": "8", "memory": "64Gi"},
                },
            }]},
        }))?;
        self.api.create(&PostParams::default(), &pod).await.with_context(|| format!("create pod {name}"))
    }

    /// Makes pods `<prefix>-0` and so on.
    pub(super) async fn make(&self, prefix: &str, count: usize) -> Result<()> {
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        let made = stream::iter(&names).map(|name| self.make_one(name)).buffer_unordered(IN_FLIGHT);
        made.try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// Waits until so many pods whose names begin with `prefix` have nodes: the times of the first and the last.
    pub(super) async fn until_bound(&mut self, prefix: &str, count: usize) -> Result<(Instant, Instant)> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let times: Vec<Instant> =
                self.bound_at.iter().filter(|(name, _)| name.starts_with(prefix)).filter_map(|(_, at)| *at).collect();
            if times.len() >= count {
                let (first, last) = (times.iter().min(), times.iter().max());
                return Ok((*first.context("no pod")?, *last.context("no pod")?));
            }
            self.next(deadline).await.with_context(|| format!("{} of {count} pods have nodes", times.len()))?;
        }
    }

    /// Takes all pods away at once and waits until they are gone.
    pub(super) async fn clear(&mut self) -> Result<()> {
        let all = ListParams::default().labels(LABEL);
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.api.delete_collection(&at_once, &all).await.context("delete the pods")?;
        let deadline = Instant::now() + WITHIN;
        // What the watch has not told yet counts too.
        let mut left = self.api.list(&all).await?.items.len();
        while left > 0 || !self.bound_at.is_empty() {
            self.next(deadline).await.with_context(|| format!("{} pods are not gone", self.bound_at.len()))?;
            left = 0;
        }
        Ok(())
    }

    /// Takes in one change.
    async fn next(&mut self, deadline: Instant) -> Result<()> {
        let Ok(seen) = tokio::time::timeout_at(deadline.into(), self.seen.recv()).await else {
            bail!("after {WITHIN:?}");
        };
        let Seen { at, name, is_bound } = seen.context("the watch of pods ended")?;
        match is_bound {
            Some(is_bound) => {
                let bound_at = self.bound_at.entry(name).or_default();
                *bound_at = bound_at.or(is_bound.then_some(at));
            }
            None => {
                self.bound_at.remove(&name);
            }
        }
        Ok(())
    }
}
