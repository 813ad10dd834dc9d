//! Binding where there is no API server: demo, simulation, benches. The index is the record.

use std::sync::{Arc, Mutex, PoisonError};

use berth_core::annotation::Note;
use berth_core::demand::Totals;
use berth_core::{Demand, Plan};
use berth_index::{Event, PlanNote, PodFacts, PodUid, Rank};
use berth_model::NodeName;

use super::Bind;
use crate::cluster::Cluster;
use crate::http::{BoxFuture, Failure};
use crate::wire::BindArgs;

/// Long enough for the next line to run.
const HOLD_MS: u64 = 1000;
/// Plans kept for whoever asks what was bound. The oldest go first.
const BOUND_MAX: usize = 100_000;

/// A pod that was bound in memory.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The pod.
    pub uid: PodUid,
    /// Its plan.
    pub plan: Plan,
    /// The annotation as it would stand on the pod.
    pub note: Note,
}

/// Binds by writing to the index.
#[derive(Debug)]
pub struct MemoryBinder {
    cluster: Arc<Cluster>,
    bound: Mutex<Vec<Bound>>,
}

impl MemoryBinder {
    /// A binder that has bound nothing.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, bound: Mutex::default() }
    }

    /// The last pod that was bound.
    #[must_use]
    pub fn last(&self) -> Option<Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    fn bind_now(&self, args: &BindArgs) -> Result<(), Failure> {
        let uid = PodUid::new(&args.pod_uid);
        let request = self
            .cluster
            .waiting
            .by_uid(&uid)
            .ok_or_else(|| Failure::new("unknown-pod", format!("pod {} was never filtered here", args.pod_name)))?;
        let node = NodeName::parse(&args.node).map_err(|e| Failure::new("bad-request", format!("Node: {e}")))?;
        let policy = self.cluster.policy();
        let demand = Demand::parse(&request, &policy).map_err(|u| Failure::new(u.reason.code(), u.to_string()))?;
        let until_ms = self.cluster.now_ms().saturating_add(HOLD_MS);
        let nominees = self.cluster.nominations.ahead(&args.node, &request, &policy);
        let (plan, _) = self
            .cluster
            .index
            .plan_and_hold(&uid, &node, &demand, &nominees, &policy, until_ms)
            .map_err(|u| Failure::new(u.reason.code(), u.to_string()))?;
        let note = Note::of(&plan, &args.pod_uid);
        let holding = note.holding().map_err(|e| Failure::new("plan", e.to_string()))?;
        self.cluster.index.apply(Event::Pod(Box::new(PodFacts {
            uid: uid.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            node: Some(node),
            is_ended: false,
            expects_devices: false,
            is_enforced: false,
            totals: Totals { group: demand.group.clone(), ..Totals::of(&request) },
            rank: Rank::default(),
            note: PlanNote::Devices(holding),
            truth: std::collections::BTreeMap::new(),
        })));
        self.cluster.waiting.forget(&uid);
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if bound.len() >= BOUND_MAX {
            bound.remove(0);
        }
        bound.push(Bound { uid, plan, note });
        Ok(())
    }
}

impl Bind for MemoryBinder {
    fn bind(self: Arc<Self>, args: BindArgs) -> BoxFuture<Result<(), Failure>> {
        Box::pin(async move { self.bind_now(&args) })
    }
}
