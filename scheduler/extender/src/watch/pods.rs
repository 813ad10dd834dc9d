//! Pods: bound ones into the ledger, pending ones that ask for devices into the list of those that wait.

use std::collections::BTreeSet;

use berth_core::Group;
use berth_core::demand::PodRequest;
use berth_index::{Event, Kind, PodFacts, PodUid};
use tokio::sync::OwnedRwLockWriteGuard;

use super::Sinks;
use super::follow::Sink;
use crate::convert::{pod_facts, pod_request};
use crate::wire::{Pod, WatchedPod};

/// Takes pods into the index and the list of those that wait.
#[derive(Debug)]
pub(super) struct Pods {
    sinks: Sinks,
    scheduler_name: Option<String>,
    /// Held while a full list runs.
    list: Option<OwnedRwLockWriteGuard<()>>,
}

/// What is kept of a pod until its list is complete.
pub(super) struct Seen {
    facts: PodFacts,
    /// Its `resourceVersion`, by which kube-scheduler's calls tell that they mean this very state of it.
    version: String,
    /// When the pod was made.
    created: String,
    /// What it asks for, where it asks for devices of any kind.
    request: Option<PodRequest>,
    /// Whether it waits for us.
    waits: bool,
    /// Whether room is kept for it on a node, whoever schedules it.
    is_nominated: bool,
}

impl Pods {
    pub(super) fn new(sinks: Sinks, scheduler_name: Option<String>) -> Self {
        Self { sinks, scheduler_name, list: None }
    }

    /// Whether the pod, which asks for devices, waits for a node from us: not bound, not leaving, not held back by gates. Which devices
    /// are GPUs is policy, and a new policy must find the pods that waited before it.
    fn waits(&self, pod: &Pod, facts: &PodFacts) -> bool {
        self.scheduler_name.as_ref().is_none_or(|name| *name == pod.spec.scheduler_name)
            && pod.spec.scheduling_gates.0 == 0
            && is_open(pod, facts)
    }

    fn note_waiting(&self, uid: &PodUid, waits: Option<(PodRequest, String)>, nominated: Option<&PodRequest>) {
        let cluster = &self.sinks.cluster;
        match nominated {
            Some(request) => cluster.nominations.note(request),
            None => cluster.nominations.forget(uid),
        }
        match waits {
            Some((request, version)) => cluster.waiting.remember_version(request, version),
            None => cluster.waiting.forget(uid),
        }
    }
}

/// Whether the pod is to get devices and has none yet.
fn is_open(pod: &Pod, facts: &PodFacts) -> bool {
    facts.node.is_none()
        && !facts.is_ended
        && pod.metadata.deletion_timestamp.is_empty()
        && facts.totals.extended.values().any(|count| *count > 0)
}

impl Sink<WatchedPod> for Pods {
    const KIND: &'static str = "Pod";
    const NEEDS: &'static str = "get, list and watch on pods";
    type Item = Option<Seen>;

    fn read(&mut self, pod: WatchedPod) -> Self::Item {
        let version = pod.metadata.resource_version.clone().unwrap_or_default();
        let pod = Pod::from(pod);
        let Some(mut facts) = pod_facts(&pod) else {
            let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
            tracing::error!(namespace, pod = name, "a pod is left out: its UID or its node's name cannot be read");
            return None;
        };
        let policy = self.sinks.cluster.policy();
        facts.totals.group = Group::of(&facts.namespace, &pod.metadata.labels, &policy);
        let asks = facts.totals.extended.values().any(|count| *count > 0);
        let waits = asks && self.waits(&pod, &facts);
        let is_nominated = !pod.status.nominated_node_name.is_empty() && is_open(&pod, &facts);
        let request = asks.then(|| pod_request(&pod));
        Some(Seen { facts, version, created: pod.metadata.creation_timestamp, request, waits, is_nominated })
    }

    async fn begin(&mut self) {
        self.list = None;
        self.list = Some(self.sinks.order.begin_list().await);
    }

    fn abandon(&mut self) {
        self.list = None;
    }

    fn replace(&mut self, items: Vec<Self::Item>) -> bool {
        let came = items.iter().flatten().filter_map(|seen| Some((seen.created.as_str(), seen.request.as_ref()?)));
        self.sinks.cluster.pods_listed(came);
        let mut live = Vec::with_capacity(items.len());
        let mut waiting = Vec::new();
        let mut nominated = Vec::new();
        for Seen { facts, version, request, waits, is_nominated, .. } in items.into_iter().flatten() {
            if let Some(request) = request.as_ref().filter(|_| is_nominated) {
                nominated.push((facts.uid.clone(), request.clone()));
            }
            waiting.extend(request.filter(|_| waits).map(|request| (facts.uid.clone(), request, version)));
            live.push(Event::Pod(Box::new(facts)));
        }
        let changes = self.sinks.cluster.index.reset(Kind::Pods, live);
        let uids: BTreeSet<&PodUid> = nominated.iter().map(|(uid, _)| uid).collect();
        self.sinks.cluster.nominations.retain(|uid| uids.contains(uid));
        nominated.iter().for_each(|(_, request)| self.sinks.cluster.nominations.note(request));
        let uids: BTreeSet<&PodUid> = waiting.iter().map(|(uid, ..)| uid).collect();
        self.sinks.cluster.waiting.retain(|uid| uids.contains(uid));
        for (_, request, version) in waiting {
            self.sinks.cluster.waiting.remember_version(request, version);
        }
        // After those that wait, without whom growth is no news.
        self.sinks.growth_listed(&changes);
        self.list = None;
        self.sinks.order.listed();
        true
    }

    fn take(&mut self, item: Self::Item) -> bool {
        if let Some(Seen { facts, version, created, request, waits, is_nominated }) = item {
            if let Some(request) = &request {
                self.sinks.cluster.pod_came(&created, request);
            }
            let uid = facts.uid.clone();
            let change = self.sinks.cluster.index.apply(Event::Pod(Box::new(facts)));
            self.sinks.growth_seen(&change);
            let nominated = if is_nominated { request.clone() } else { None };
            let waits = request.filter(|_| waits).map(|request| (request, version));
            self.note_waiting(&uid, waits, nominated.as_ref());
        }
        false
    }

    /// Gone from the selection: deleted, or ended, which is for good too.
    fn lose(&mut self, item: Self::Item) -> bool {
        if let Some(Seen { facts, .. }) = item {
            self.note_waiting(&facts.uid, None, None);
            let change = self.sinks.cluster.index.apply(Event::PodGone(facts.uid));
            self.sinks.growth_seen(&change);
        }
        false
    }
}
