//! Owns looking: what containers say that they see, what was planned for them, what the kubelet names, and whether any device is seen by
//! two containers that live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_proto::kubelet::podresources::PodResources;
use berth_tests::real_cluster::{SOON, phase};
use berth_tests::real_node::{RealNode, SHARED, files};
use berth_tests::running::plan_of;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;

use super::Churn;
use super::pods::Kind;
use super::tally::{ByContainer, Tally};

/// A kubelet that was just started names the pods that it had only when it has taken each of them again.
const NAMED_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does not run yet.
    Fresh,
    /// It runs, and was compared with its plan.
    Done,
    /// It was asked to go, and holds its devices until it is gone.
    Deleted,
}

/// A pod of the churn that is there.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    /// When it was created, or deleted.
    pub(super) since: Instant,
    pub(super) is_bound: bool,
    /// As it was when it ran.
    pod: Option<Pod>,
    /// What its containers said first, once all have.
    seen: ByContainer,
    /// When its kubelet first answered who holds what after that, or after a start of its own.
    asked_at: Option<Instant>,
    /// Whether its kubelet was started since.
    is_asked_again: bool,
    /// Whether it named what its containers see, or never will.
    is_answered: bool,
    has_failed: bool,
}

impl Entry {
    pub(super) fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            phase: Phase::Fresh,
            since: Instant::now(),
            is_bound: false,
            pod: None,
            seen: BTreeMap::new(),
            asked_at: None,
            is_asked_again: false,
            is_answered: false,
            has_failed: false,
        }
    }

    /// Whether it runs and nothing more is to be learned of it.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done && self.is_answered
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_done() || self.phase == Phase::Deleted
    }
}

/// What the kubelets name, by node; each is asked once in a look, and one that does not answer not again.
type Held = BTreeMap<String, Option<Vec<PodResources>>>;

/// Who saw each device last: node and path; pod and container, and its id.
pub(super) type Holders = BTreeMap<(String, String), (String, String)>;

/// Device files that belong to a device, of those that a container sees.
fn own(paths: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    paths.into_iter().filter(|path| !SHARED.contains(&path.as_str())).collect()
}

/// Ids of a node's devices as the files of those devices.
fn files_of(node: &RealNode, ids: impl IntoIterator<Item = String>) -> Result<BTreeSet<String>> {
    let files = files(&node.made().topology(None)?);
    Ok(own(ids.into_iter().flat_map(|id| files.get(&id).cloned().unwrap_or_default())))
}

fn planned(node: &RealNode, pod: &Pod) -> Result<ByContainer> {
    let mut planned = ByContainer::new();
    for container in plan_of(pod)?.containers {
        let devices = container.devices.into_iter();
        let ids = devices.map(|device| device.mig.and_then(|mig| mig.uuid).unwrap_or(device.uuid));
        planned.entry(container.name).or_default().extend(files_of(node, ids)?);
    }
    Ok(planned)
}

fn named(node: &RealNode, held: &[PodResources], name: &str) -> Result<ByContainer> {
    let containers = held.iter().filter(|pod| pod.name == name).flat_map(|pod| &pod.containers);
    let ids = |devices: &[berth_proto::kubelet::podresources::ContainerDevices]| -> Vec<String> {
        devices.iter().flat_map(|device| device.device_ids.clone()).collect()
    };
    containers.map(|container| Ok((container.name.clone(), files_of(node, ids(&container.devices))?))).collect()
}

/// The ids of the pod's containers, as the runtime names them.
fn container_ids(pod: &Pod) -> BTreeMap<String, String> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let id = |full: &String| full.rsplit('/').next().map(str::to_owned);
    statuses.filter_map(|status| Some((status.name.clone(), status.container_id.as_ref().and_then(id)?))).collect()
}

impl Churn {
    /// Looks at every pod once, and remembers what became of it.
    pub(super) async fn look(&mut self) -> Result<()> {
        let pods = self.cluster.running.pods().list(&ListParams::default()).await?;
        let mut pods: BTreeMap<String, Pod> =
            pods.into_iter().filter_map(|pod| Some((pod.metadata.name.clone()?, pod))).collect();
        let mut held = Held::new();
        for mut entry in std::mem::take(&mut self.live) {
            match pods.remove(&entry.name) {
                Some(pod) => self.look_at(&mut entry, &pod, &mut held).await?,
                None if entry.phase == Phase::Deleted => continue,
                None => bail!("pod {} is gone, and nobody here deleted it", entry.name),
            }
            self.live.push_back(entry);
        }
        for at in (0..self.live.len()).rev() {
            if self.live[at].has_failed && self.live[at].phase != Phase::Deleted {
                self.delete(at).await?;
            }
        }
        Ok(())
    }

    async fn look_at(&mut self, entry: &mut Entry, pod: &Pod, held: &mut Held) -> Result<()> {
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        entry.is_bound = node_name.is_some();
        if matches!(entry.phase, Phase::Fresh | Phase::Deleted) && entry.since.elapsed() > SOON {
            let told = self.cluster.running.plane.kubectl(&["describe", "pod", &entry.name]).await?;
            bail!("pod {} is {:?} for {SOON:?}\n{told}", entry.name, entry.phase);
        }
        if phase(pod) == "Failed" && entry.phase != Phase::Deleted && !entry.has_failed {
            let status = pod.status.clone().unwrap_or_default();
            let when = if entry.pod.is_none() { "" } else { " after it ran" };
            let reason = format!("{}{when}", status.reason.unwrap_or_default());
            self.tally.failed(reason, self.last_fault, &status.message.unwrap_or_default());
            entry.has_failed = true;
        }
        let node = self.cluster.nodes.iter().find(|node| Some(node.name()) == node_name.as_deref());
        let Some(node) = node.filter(|_| !entry.has_failed && entry.phase != Phase::Deleted) else { return Ok(()) };
        if entry.seen.is_empty() {
            let Some(seen) = seen(node, pod)? else { return Ok(()) };
            entry.seen = seen;
        }
        let ids = container_ids(pod);
        if entry.pod.is_none() && phase(pod) == "Running" && ids.len() == entry.seen.len() {
            self.tally.ran(&entry.name, &planned(node, pod)?, &entry.seen);
            let doubles = hold(&mut self.holders, node, &entry.name, &ids, &entry.seen);
            doubles.into_iter().for_each(|double| self.tally.doubly_held(double));
            entry.pod = Some(pod.clone());
        }
        if !entry.is_answered && !entry.seen.is_empty() {
            entry.is_answered = is_named(&mut self.tally, entry, node, held).await?;
        }
        if entry.pod.is_some() {
            entry.phase = Phase::Done;
        }
        Ok(())
    }

    /// Has a kubelet that is killed now asked again of every pod that runs there, once it answers.
    pub(super) fn ask_again(&mut self, node: &str) {
        for entry in self.live.iter_mut().filter(|entry| entry.phase == Phase::Done) {
            let spec = entry.pod.as_ref().and_then(|pod| pod.spec.as_ref());
            if spec.and_then(|spec| spec.node_name.as_deref()) == Some(node) {
                (entry.asked_at, entry.is_asked_again, entry.is_answered) = (None, true, false);
            }
        }
    }

    /// Holds what the pod's containers saw at every start against what they saw first.
    pub(super) fn look_back(&mut self, at: usize) -> Result<()> {
        let entry = &self.live[at];
        let Some(pod) = &entry.pod else { return Ok(()) };
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(node) = self.cluster.nodes.iter().find(|node| Some(node.name()) == node_name) else { return Ok(()) };
        for (container, first) in &entry.seen {
            for said in node.said(pod, container)? {
                let again = own(said.nodes);
                if again != *first {
                    self.tally.changed(format!("{}/{container}: {first:?}, then {again:?}", entry.name));
                }
            }
        }
        Ok(())
    }
}

/// Whether the kubelet names what the pod sees, or will not any more.
async fn is_named(tally: &mut Tally, entry: &mut Entry, node: &RealNode, held: &mut Held) -> Result<bool> {
    if !held.contains_key(node.name()) {
        // One that is being killed does not answer.
        held.insert(node.name().to_owned(), node.held().await.ok());
    }
    let Some(held) = held.get(node.name()).and_then(Option::as_deref) else { return Ok(false) };
    let named = named(node, held, &entry.name)?;
    let asked_at = *entry.asked_at.get_or_insert_with(Instant::now);
    if named == entry.seen {
        tally.named(entry.is_asked_again, asked_at.elapsed());
    } else if asked_at.elapsed() > NAMED_WITHIN {
        tally.misnamed(&entry.name, &named, &entry.seen);
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// What the containers of the pod see, once all have said it.
fn seen(node: &RealNode, pod: &Pod) -> Result<Option<ByContainer>> {
    let mut seen = ByContainer::new();
    for container in &pod.spec.as_ref().context("a pod without spec")?.containers {
        let Some(said) = node.said(pod, &container.name)?.pop() else { return Ok(None) };
        seen.insert(container.name.clone(), own(said.nodes));
    }
    Ok(Some(seen))
}

/// Enters who sees what; the answer is every device that another container sees which lives now, after this one has said that it does.
fn hold(
    holders: &mut Holders,
    node: &RealNode,
    name: &str,
    ids: &BTreeMap<String, String>,
    seen: &ByContainer,
) -> Vec<String> {
    let mut doubles = Vec::new();
    for (container, paths) in seen {
        let holder = (format!("{name}/{container}"), ids.get(container).cloned().unwrap_or_default());
        // The file of a card that is cut is its instances'.
        let is_instance = paths.iter().any(|path| path.contains("nvidia-caps"));
        for path in paths.iter().filter(|path| !is_instance || path.contains("nvidia-caps")) {
            let before = holders.insert((node.name().to_owned(), path.clone()), holder.clone());
            if let Some((other, _)) = before.filter(|(_, id)| node.is_alive(id)) {
                doubles.push(format!("{path} of {}: {other} and {}", node.name(), holder.0));
            }
        }
    }
    doubles
}
