//! Binding through the API server: re-plan on the chosen node as of now, then one write that carries the plan.
//!
//! Nothing in the API fences a node, so every bind lists the node's pods first, holds what it planned, writes once, and ends in
//! time. What the write did is known, or the hold stays until it is: a device is never planned twice on a guess.

mod call;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use berth_core::annotation::Note;
use berth_core::demand::PodRequest;
use berth_core::unfit::Reason;
use berth_core::{Demand, Policy};
use berth_index::{Event, HoldId, PodUid};
use kube::Client;
use tokio::time::Instant;

use super::Bind;
use crate::cluster::Cluster;
use crate::convert::{pod_facts, pod_request};
use crate::http::{BoxFuture, Failure};
use crate::watch::PodOrder;
use crate::wire::{BindArgs, Pod};
use call::{Api, CallError, Target};

/// How long binds wait after the first list of pods: a bind of the scheduler that ran before ends within [`WORK_MAX`].
const QUIET: Duration = Duration::from_secs(3);
/// Longest wait for a turn. With [`WORK_MAX`] below the time that the HTTP face gives a call.
const TURN_MAX: Duration = Duration::from_millis(900);
/// Longest work on one bind, from its turn on, the API server's part included. Below the 5 s that lie between the last call of
/// one leader of kube-scheduler and the first of the next (15 s lease, 10 s renew deadline).
const WORK_MAX: Duration = Duration::from_secs(3);
/// Longest wait, from its turn on, for a kubelet that aligns zones to take the pods before: it takes one pod after another, within a second
/// mostly. With [`WRITE_MAX`] below [`WORK_MAX`].
const KUBELET_MAX: Duration = Duration::from_millis(1400);
/// How often it is looked whether it has. The watch tells the index.
const KUBELET_LOOK: Duration = Duration::from_millis(25);
/// Longest wait for a read.
const READ_MAX: Duration = Duration::from_millis(1000);
/// Longest wait for the write; the API server gives up by itself then.
const WRITE_MAX: Duration = Duration::from_millis(1500);
/// How long a claim outlives a write whose result nobody saw. The watch shows a bound pod within a second mostly.
const HOLD_MS: u64 = 30_000;

/// Every result of a bind besides the codes of unfits: the label of `berth_bind_results`.
pub const RESULTS: [&str; 15] = [
    "ok",
    "bad-request",
    "no-turn",
    "forbidden",
    "api-refused",
    "api-late",
    "api-unreachable",
    "api-busy",
    "pod-gone",
    "pod-leaving",
    "foreign-pod",
    "bound-elsewhere",
    "conflict",
    "plan-too-long",
    "unknown",
];

/// A client for binding: no retries behind our back, nothing waits longer than a bind may.
///
/// # Errors
/// [`kube::Error`] when the certificates or credentials cannot be read.
pub fn client(mut base: kube::Config) -> Result<Client, kube::Error> {
    base.connect_timeout = Some(READ_MAX);
    base.read_timeout = Some(WORK_MAX);
    base.write_timeout = Some(WRITE_MAX);
    base.reset_reader_on_write = true;
    // A retried POST could land after this bind was answered.
    base.default_retry = false;
    Client::try_from(base)
}

/// Binds by the API server.
#[derive(Debug)]
pub struct ApiBinder {
    cluster: Arc<Cluster>,
    api: Api,
    order: Arc<PodOrder>,
    scheduler_name: Option<String>,
}

/// How long the parts of one bind took.
#[derive(Debug, Default)]
struct Times {
    turn_ms: u64,
    list_ms: u64,
    write_ms: u64,
}

/// Where a bind stands before the write.
enum Stand {
    /// The pod is on this node already.
    Bound,
    /// This is what it asks for.
    Open(Arc<PodRequest>),
}

impl ApiBinder {
    /// A binder over the shared state. `client` must come from [`client`]. With `scheduler_name`, pods of other schedulers are
    /// refused where their name is seen.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, client: Client, order: Arc<PodOrder>, scheduler_name: Option<String>) -> Self {
        Self { cluster, api: Api::new(client), order, scheduler_name }
    }

    async fn bind_and_tell(&self, args: &BindArgs) -> Result<(), Failure> {
        let mut times = Times::default();
        let result = self.bind_now(args, &mut times).await;
        let code = result.as_ref().map_or_else(|failure| failure.code, |()| "ok");
        debug_assert!(
            RESULTS.contains(&code) || Reason::ALL.iter().any(|r| r.code() == code),
            "{code} is not documented"
        );
        let Times { turn_ms, list_ms, write_ms } = times;
        let BindArgs { pod_namespace: namespace, pod_name: pod, pod_uid: uid, node } = args;
        match &result {
            Ok(()) => tracing::info!(namespace, pod, uid, node, turn_ms, list_ms, write_ms, "bound"),
            Err(Failure { text, .. }) => {
                let error = text;
                tracing::warn!(
                    namespace,
                    pod,
                    uid,
                    node,
                    result = code,
                    error,
                    turn_ms,
                    list_ms,
                    write_ms,
                    "not bound"
                );
            }
        }
        result
    }

    async fn bind_now(&self, args: &BindArgs, times: &mut Times) -> Result<(), Failure> {
        let target = Target::parse(args)?;
        let asked_at = Instant::now();
        let turn = self.order.turn(QUIET, asked_at + TURN_MAX).await;
        let turn = turn.map_err(|why| Failure::new("no-turn", format!("{why}; the pod is tried again")))?;
        let began_at = Instant::now();
        times.turn_ms = millis(began_at.duration_since(asked_at));
        let ends_at = began_at + WORK_MAX;

        let request = match self.stand(&target, ends_at).await? {
            Stand::Bound => return Ok(()),
            Stand::Open(request) => request,
        };
        let pods = self.api.pods_on(&target.node, READ_MAX, ends_at).await;
        let pods = pods.map_err(|error| failure("list", &error, "get and list on pods"))?;
        let is_bound = self.learn(&pods, &target);
        times.list_ms = millis(began_at.elapsed());
        // From here on nothing is learned that a full list could throw away.
        drop(turn);
        if is_bound {
            return Ok(());
        }
        let policy = self.cluster.policy();
        let (mut hold, annotation) = self.plan_in_turn(&target, &request, &policy, began_at + KUBELET_MAX).await?;
        let write_at = Instant::now();
        // Kept over the write: if this bind is dropped half-way, the write may still land.
        hold.keep();
        let written = self.api.post_binding(&target, annotation.as_deref(), WRITE_MAX, ends_at).await;
        times.write_ms = millis(write_at.elapsed());
        match written {
            Ok(()) => Ok(()),
            Err(error) => settle::settle(&self.api, &target, &error, hold, ends_at).await,
        }
    }

    /// What the pod asks for: as the watch has it, else as the API server has it.
    async fn stand(&self, target: &Target, ends_at: Instant) -> Result<Stand, Failure> {
        if let Some(request) = self.cluster.waiting.by_uid(&PodUid::new(&target.uid)) {
            return Ok(Stand::Open(request));
        }
        let pod = self.api.pod(target, READ_MAX, ends_at).await;
        let pod = pod.map_err(|error| failure("read", &error, "get on pods"))?;
        let Some(pod) = pod.filter(|pod| pod.metadata.uid == target.uid) else { return Err(target.gone()) };
        if pod.spec.node_name == target.node.as_str() {
            return Ok(Stand::Bound);
        }
        self.check(&pod, target)?;
        Ok(Stand::Open(Arc::new(pod_request(&pod))))
    }

    /// Whether a pod that the watch did not show as waiting may be bound.
    fn check(&self, pod: &Pod, target: &Target) -> Result<(), Failure> {
        if !pod.spec.node_name.is_empty() {
            return Err(target.elsewhere(&pod.spec.node_name));
        }
        if !pod.metadata.deletion_timestamp.is_empty() {
            return Err(target.leaving());
        }
        match &self.scheduler_name {
            Some(ours) if *ours != pod.spec.scheduler_name => {
                let text = format!("schedulerName of {target} is {:?}, {ours:?} is right", pod.spec.scheduler_name);
                Err(Failure::new("foreign-pod", text))
            }
            _ => Ok(()),
        }
    }

    /// Takes what is on the node into the ledger. Says whether our pod is there already.
    fn learn(&self, pods: &[Pod], target: &Target) -> bool {
        let mut is_bound = false;
        for facts in pods.iter().filter_map(pod_facts) {
            is_bound |= *facts.uid.0 == *target.uid;
            self.cluster.index.apply(Event::Pod(Box::new(facts)));
        }
        is_bound
    }

    /// As [`ApiBinder::plan`], once the kubelet has taken the pods before this one, where these leave it another choice.
    async fn plan_in_turn(
        &self,
        target: &Target,
        request: &PodRequest,
        policy: &Policy,
        until: Instant,
    ) -> Result<(Hold, Option<String>), Failure> {
        let uid = PodUid::new(&target.uid);
        loop {
            let planned = self.plan(target, request, policy);
            let is_in_turn = planned.is_ok() || !self.cluster.index.awaits_kubelet(&uid, &target.node);
            if is_in_turn || Instant::now() >= until {
                return planned;
            }
            tokio::time::sleep(KUBELET_LOOK).await;
        }
    }

    /// Plans as of now and holds the devices; gives the annotation, `None` for a pod without GPUs.
    fn plan(&self, target: &Target, request: &PodRequest, policy: &Policy) -> Result<(Hold, Option<String>), Failure> {
        let refused = |unfit: berth_core::Unfit| Failure::new(unfit.reason.code(), format!("{}: {unfit}", target.node));
        let demand = Demand::parse(request, policy).map_err(refused)?;
        let uid = PodUid::new(&target.uid);
        if !demand.shape.asks_for_devices() {
            return Ok((Hold { cluster: Arc::clone(&self.cluster), id: None, is_kept: false }, None));
        }
        let index = &self.cluster.index;
        let until_ms = self.cluster.now_ms().saturating_add(HOLD_MS);
        let nominees = self.cluster.nominations.ahead(target.node.as_str(), request, policy);
        let (plan, id) =
            index.plan_and_hold(&uid, &target.node, &demand, &nominees, policy, until_ms).map_err(refused)?;
        let hold = Hold { cluster: Arc::clone(&self.cluster), id: Some(id), is_kept: false };
        let note = Note::of(&plan, &target.uid);
        let annotation = note.to_json().map_err(|error| Failure::new("plan-too-long", error.to_string()))?;
        Ok((hold, Some(annotation)))
    }
}

impl Bind for ApiBinder {
    fn bind(self: Arc<Self>, args: BindArgs) -> BoxFuture<Result<(), Failure>> {
        Box::pin(async move { self.bind_and_tell(&args).await })
    }
}

/// The claim of one bind. Released when dropped, unless the pod is bound or nobody knows: then it stays until the watch shows
/// the pod bound or its time is over.
#[derive(Debug)]
struct Hold {
    cluster: Arc<Cluster>,
    /// `None` for a pod without devices.
    id: Option<HoldId>,
    is_kept: bool,
}

impl Hold {
    fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Given back when this is dropped.
    fn release(&mut self) {
        self.is_kept = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(id) = self.id.take().filter(|_| !self.is_kept) {
            self.cluster.index.apply(Event::HoldReleased(id));
        }
    }
}

/// A read that failed: nothing was written.
fn failure(what: &str, error: &CallError, right: &str) -> Failure {
    let code = match error {
        CallError::Refused { code: 403, .. } => "forbidden",
        CallError::Refused { .. } => "api-refused",
        CallError::Late(_) => "api-late",
        CallError::Broken(_) => "api-unreachable",
    };
    let hint = if code == "forbidden" { format!(" (the scheduler's account needs {right})") } else { String::new() };
    Failure::new(code, format!("{what} before the bind: {error}{hint}"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
