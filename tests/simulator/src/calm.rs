//! When faults stop: everything that can be bound is bound, every scheduler knows what is, and nothing is kept that is over.

use std::sync::Arc;

use berth_core::NodeView;
use berth_index::Holder;

use crate::api::{Api, KINDS};
use crate::claims::Claims;
use crate::fleet;
use crate::objects::Pod;
use crate::replica::Replica;
use crate::step::{AgentState, Delivery, How, ReportStep};
use crate::world::{REPLICAS, World};

/// Rounds of five seconds: a list that has stalled is given up after 75 s, a watch is tried again after 30, a hold ends after 30.
const ROUNDS_MAX: usize = 60;
const ROUND_MS: u64 = 5000;
/// Answers and events of one round, far above what a world of this size can cause.
const ACTIONS_MAX: usize = 20_000;

impl World {
    /// Lets all come right, and says what did not.
    pub(crate) async fn calm(&mut self) -> Result<(), String> {
        self.policy(Some(0));
        for at in 0..fleet::NAMES.len() {
            self.report(at, ReportStep::Next { lost: 0 });
            self.agent(at, AgentState::Ready);
        }
        for at in 0..REPLICAS {
            self.start(at);
        }
        self.finish_leaving();
        let mut why = String::new();
        for _ in 0..ROUNDS_MAX {
            self.catch_up().await?;
            self.schedule_all().await?;
            match self.restless() {
                None => return self.compare().await,
                Some(reason) => why = reason,
            }
            tokio::time::sleep(std::time::Duration::from_millis(ROUND_MS)).await;
            self.settle().await?;
        }
        Err(format!("I8: faults have stopped for {} s, and still {why}", ROUND_MS * ROUNDS_MAX as u64 / 1000))
    }

    /// Kubelets end the pods that leave.
    fn finish_leaving(&mut self) {
        let mut api = self.api.lock();
        let leaving: Vec<Arc<str>> = api.pods.values().filter(|p| p.is_leaving).map(|p| Arc::clone(&p.name)).collect();
        for pod in leaving {
            api.remove_pod(&pod);
        }
    }

    /// Answers every call and delivers every event, until there is none.
    async fn catch_up(&mut self) -> Result<(), String> {
        for _ in 0..ACTIONS_MAX {
            let (calls, watches) = {
                let mut api = self.api.lock();
                let cheated = api.cheated.clone();
                // Who was cheated lists again.
                for nth in (0..api.watches.len()).rev() {
                    if cheated.contains(&(api.watches[nth].life, api.watches[nth].kind)) {
                        api.deliver(nth, Delivery::Gone);
                    }
                }
                let behind = (0..api.watches.len()).filter(|nth| api.is_behind(&api.watches[*nth])).collect::<Vec<_>>();
                (api.calls.len(), behind)
            };
            if calls == 0 && watches.is_empty() {
                return Ok(());
            }
            for _ in 0..calls {
                self.answer(0, How::Ok);
            }
            for nth in watches {
                self.deliver(nth, Delivery::Next);
            }
            self.settle().await?;
        }
        Err("I8: calls and events do not end".to_owned())
    }

    async fn schedule_all(&mut self) -> Result<(), String> {
        for _ in 0..self.kube.flights.len() {
            self.call_bind(0);
        }
        self.settle().await?;
        self.catch_up().await?;
        let count = self.pending().len();
        let mut skipped = 0;
        for _ in 0..count {
            let before = self.kube.flights.len();
            self.schedule(skipped, 0x0f, 0)?;
            if self.kube.flights.len() == before {
                skipped += 1;
                continue;
            }
            self.call_bind(0);
            self.settle().await?;
            self.catch_up().await?;
        }
        self.catch_up().await
    }

    /// What is not as it should be; none when all is.
    fn restless(&self) -> Option<String> {
        let api = self.api.lock();
        for replica in self.replicas.iter().flatten() {
            if !replica.gates.is_ready() {
                return Some(format!("life {} is not ready: {:?}", replica.life, replica.gates.missing()));
            }
            for kind in KINDS {
                let followed = api.watches.iter().any(|watch| watch.life == replica.life && watch.kind == kind);
                if !followed || api.cheated.contains(&(replica.life, kind)) {
                    return Some(format!("life {} does not watch {kind:?}", replica.life));
                }
            }
            if !replica.binds.is_empty() {
                return Some(format!("life {} has {} binds", replica.life, replica.binds.len()));
            }
            let held = replica.cluster.index.snapshot().hold_count();
            if held > 0 {
                return Some(format!("life {} has {held} holds", replica.life));
            }
        }
        if let Some(flight) = self.kube.flights.first() {
            return Some(format!("{flight:?} goes on"));
        }
        let feasible = api.pods.values().find(|pod| pod.node.is_none() && pod.is_live() && api.has_room(pod));
        feasible.map(|pod| format!("{} ({:?}) waits though there is room", pod.name, pod.shape()))
    }

    /// I2: what every scheduler has folded is what a new one reads from a list; I4: and it answers the same. I9: nothing more is kept.
    async fn compare(&mut self) -> Result<(), String> {
        let newcomer = self.newcomer();
        self.settle().await?;
        self.catch_up().await?;
        let wanted: Vec<_> = (0..fleet::NAMES.len()).map(|at| known(&newcomer, at)).collect();
        let (nodes, pending) = {
            let api = self.api.lock();
            let pending = api.pods.values().filter(|p| p.node.is_none() && p.is_live() && p.shape().asks_for_devices());
            // A pod may be bound to a node that is gone.
            let is_named = |at: &usize| api.nodes[*at].is_some() || api.on_node(fleet::NAMES[*at]).next().is_some();
            ((0..fleet::NAMES.len()).filter(is_named).count(), pending.filter(|p| !p.is_leaving).count())
        };
        for replica in self.replicas.iter().flatten() {
            let life = replica.life;
            for (at, wanted) in wanted.iter().enumerate() {
                let is = known(replica, at);
                if is != *wanted {
                    let node = fleet::NAMES[at];
                    let (is, wanted) = (is.as_ref().map(told), wanted.as_ref().map(told));
                    return Err(format!("I2: life {life} knows of {node}: {is:?}\na new one reads: {wanted:?}"));
                }
            }
            let snapshot = replica.cluster.index.snapshot();
            let waiting = replica.cluster.waiting.count();
            if waiting != pending || snapshot.nodes().count() != nodes {
                let count = snapshot.nodes().count();
                return Err(format!("I9: life {life} has {waiting} pods of {pending} and {count} nodes of {nodes}"));
            }
        }
        drop(newcomer);
        self.settle().await
    }
}

/// The part that differs, mostly: a report is pages long.
fn told((exists, view, holders): &(bool, NodeView, Vec<Holder>)) -> String {
    let NodeView { knowledge, held, shared, instances, unplanned_gpu_count, unplanned_instances, requested, .. } = view;
    let generation = view.hardware.as_ref().map(|h| h.topology.parts().generation);
    format!(
        "exists {exists}, {knowledge:?} {generation:?}, held {held} {shared:?} {instances:?}, unplanned {unplanned_gpu_count} \
         {unplanned_instances:?}, {requested:?}, holders {holders:?}"
    )
}

/// What a scheduler knows of a node, without what counts its own changes.
fn known(replica: &Replica, at: usize) -> Option<(bool, NodeView, Vec<Holder>)> {
    let snapshot = replica.cluster.index.snapshot();
    snapshot.node(fleet::NAMES[at]).map(|slot| (slot.exists, slot.view.clone(), slot.holders.clone()))
}

impl Api {
    /// Whether some node has room for a pod, by the plans and counts of who is there. Says no where it is not sure.
    fn has_room(&self, pod: &Pod) -> bool {
        pod.shape().asks_for_devices() && !pod.is_leaving && (0..fleet::NAMES.len()).any(|at| self.has_room_on(at, pod))
    }

    fn has_room_on(&self, at: usize, pod: &Pod) -> bool {
        let name = fleet::NAMES[at];
        let (Some(_), Some(report)) = (&self.nodes[at], &self.reports[at]) else { return false };
        let (shape, owned, offered) = (pod.shape(), self.owned(name), fleet::offered(at));
        // Who is there without a plan that names devices has some that nobody can tell.
        let is_named = |pod: &&Pod| pod.plan.as_deref().is_some_and(|plan| Claims::parse(plan).is_ok());
        let unnamed = self.on_node(name).filter(|pod| !is_named(pod) && pod.shape().asks_for_devices()).count();
        if unnamed > 0 {
            return false;
        }
        let healthy = fleet::healthy(at, report.content);
        let is_free = |uuid: &str| owned.get(uuid).is_none_or(crate::claims::Owned::is_free);
        if let Some((profile, count)) = shape.mig() {
            let free = fleet::with(at, |topology| {
                let cut =
                    topology.parts().gpus.iter().filter(|g| g.mig_enabled == Some(true) && healthy.contains(g.index));
                let instances = cut.flat_map(|gpu| gpu.detail.mig_instances.iter().map(move |i| (gpu, i)));
                let is_free = |uuid: &str, start: u8, size: u8| {
                    owned.get(uuid).is_none_or(|o| o.slots & (((1 << size) - 1) << start) == 0)
                };
                let free = instances.filter(|(gpu, i)| {
                    i.profile == profile && is_free(gpu.uuid.as_str(), i.placement.start(), i.placement.size())
                });
                free.count()
            });
            return free >= count as usize;
        }
        let taken: u32 = self.on_node(name).map(|pod| pod.shape().gpu_count()).sum();
        let left = offered.get("nvidia.com/gpu").copied().unwrap_or(0).saturating_sub(u64::from(taken));
        let free: Vec<usize> = fleet::with(at, |topology| {
            let gpus = topology.parts().gpus.iter().enumerate();
            let whole = gpus.filter(|(_, g)| g.mig_enabled != Some(true) && healthy.contains(g.index));
            whole.filter(|(_, g)| is_free(g.uuid.as_str())).map(|(i, _)| i).collect()
        });
        let count = shape.gpu_count() as usize;
        if left < count as u64 || free.len() < count {
            return false;
        }
        shape.wishes.is_empty()
            || free.iter().any(|a| {
                free.iter().any(|b| {
                    let link = fleet::with(at, |topology| topology.parts().links.link(*a, *b));
                    a < b && link.is_some_and(|link| link.nvlinks > 0)
                })
            })
    }
}
