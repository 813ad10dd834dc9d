//! The world: what a step does to it, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use berth_extender::http::Failure;
use berth_index::Event;
use berth_model::NodeName;

use crate::answer::What;
use crate::api::{Kind, Life, Shared, Verb};
use crate::fleet::{self, Content};
use crate::invariants::Watchful;
use crate::kube_scheduler::{Flight, KubeScheduler};
use crate::mutant::Mutant;
use crate::objects::{Agent, Node, POLICIES, Phase, Pod, Report, SHAPES};
use crate::replica::Replica;
use crate::step::{AgentState, Delivery, How, NodeStep, ReportStep, Step};

/// Scheduler processes.
pub(crate) const REPLICAS: usize = 2;
/// Pods at a time; people stop making more.
const PODS_MAX: usize = 40;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) api: Shared,
    pub(crate) replicas: [Option<Replica>; REPLICAS],
    pub(crate) kube: KubeScheduler,
    pub(crate) mutant: Mutant,
    pub(crate) watchful: Watchful,
    lives: Life,
    made: u32,
    /// Generation of each node's newest report, and of the first in its object.
    pub(crate) generations: [(u32, u32); fleet::NAMES.len()],
}

impl World {
    /// Nodes that are up, agents that have reported, a policy, and schedulers that have just started.
    pub(crate) fn new(mutant: Mutant) -> Self {
        let api = Shared::new();
        api.lock().ignores_uids = mutant == Mutant::UidIgnored;
        let mut world = Self {
            api,
            replicas: Default::default(),
            kube: KubeScheduler::default(),
            mutant,
            watchful: Watchful::default(),
            lives: 0,
            made: 0,
            generations: Default::default(),
        };
        world.policy(Some(0));
        for at in 0..fleet::NAMES.len() {
            world.node(at, NodeStep::Back);
            world.report(at, ReportStep::Next { lost: 0 });
            world.agent(at, AgentState::Ready);
        }
        for at in 0..REPLICAS {
            world.start(at);
        }
        world
    }

    /// Goes through one step, and lets everything that follows from it happen.
    pub(crate) async fn go(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Answer { nth, how } => self.answer(usize::from(nth), how),
            Step::Deliver { nth, how } => self.deliver(usize::from(nth), how),
            Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(u64::from(ms))).await,
            // A machine that was suspended: nobody saw the time pass.
            Step::Jump { seconds } => {
                tokio::time::advance(Duration::from_secs(u64::from(seconds))).await;
                for flight in &mut self.kube.flights {
                    flight.slept_ms += u64::from(seconds) * 1000;
                }
            }
            Step::Create { shape, again } => self.create(usize::from(shape), again),
            Step::Delete { nth } => self.edit_nth(nth, |pod| pod.is_leaving = true),
            Step::Remove { nth } => {
                if let Some(name) = self.nth_pod(nth) {
                    self.api.lock().remove_pod(&name);
                }
            }
            Step::Kubelet { nth, ended } => self.edit_nth(nth, |pod| match (pod.node.is_some(), pod.phase, ended) {
                (true, Phase::Pending, false) => pod.phase = Phase::Running,
                (true, Phase::Pending, true) => pod.phase = Phase::Failed,
                (true, Phase::Running, true) => pod.phase = Phase::Succeeded,
                _ => {}
            }),
            Step::Foreign { nth, node } => {
                let node = fleet::NAMES[usize::from(node) % fleet::NAMES.len()];
                self.edit_nth(nth, |pod| {
                    if pod.node.is_none() && pod.is_live() && !pod.is_leaving {
                        (pod.node, pod.is_foreign) = (Some(Arc::from(node)), true);
                    }
                });
            }
            Step::Schedule { nth, names, pick } => self.schedule(usize::from(nth), names, pick)?,
            Step::Bind { nth } => self.call_bind(usize::from(nth)),
            Step::Rebind { nth } => self.rebind(usize::from(nth)),
            Step::Lead { replica } => self.lead(usize::from(replica) % REPLICAS),
            Step::Kill { replica } => {
                self.replicas[usize::from(replica) % REPLICAS] = None;
                self.trust();
            }
            Step::Start { replica } => self.start(usize::from(replica) % REPLICAS),
            Step::Node { at, what } => self.node(usize::from(at) % fleet::NAMES.len(), what),
            Step::Report { at, what } => self.report(usize::from(at) % fleet::NAMES.len(), what),
            Step::Agent { at, state } => self.agent(usize::from(at) % fleet::NAMES.len(), state),
            Step::Policy { document } => self.policy(document.map(usize::from)),
            Step::Compact { kind } => self.compact(usize::from(kind)),
            Step::Calm => return self.calm().await,
        }
        self.settle().await
    }

    /// What the leader's living process has sent may arrive late; what others have sent ends with its own time.
    pub(crate) fn trust(&mut self) {
        self.api.lock().trusted = self.replicas[self.kube.leader].as_ref().map(|replica| replica.life);
    }

    /// Waits until nobody can go on by himself, and looks at what came of it.
    pub(crate) async fn settle(&mut self) -> Result<(), String> {
        // The paused clock moves only when every task waits.
        tokio::time::sleep(Duration::from_millis(1)).await;
        for replica in self.replicas.iter_mut().flatten() {
            while replica.binds.try_join_next().is_some() {}
        }
        self.api.lock().sweep();
        if self.mutant == Mutant::NoHold {
            let api = self.api.lock();
            let binds = api.calls.iter().filter(|call| matches!(call.what, What::Bind { .. }));
            for life in binds.map(|call| call.life) {
                self.lose_holds(life);
            }
        }
        for (flight, result) in self.land() {
            self.check_result(&flight, result)?;
        }
        self.check_step()
    }

    pub(crate) fn answer(&mut self, nth: usize, how: How) {
        let mut api = self.api.lock();
        let Some(call) = api.calls.get(nth) else { return };
        // Only lists of watchers may be old: the server promises consistent ones, and binds rely on it.
        let is_list = matches!(call.what, What::List(_));
        let how = if matches!(how, How::Stale(_)) && !is_list { How::Ok } else { how };
        // A pod that is there is never said not to be: nothing could be built on such a server.
        let is_watched = is_list || matches!(call.what, What::Watch { .. });
        let how = if how == How::Refuse(404) && !is_watched { How::Refuse(500) } else { how };
        let is_old = self.mutant == Mutant::ListNotConsistent && matches!(call.what, What::PodsOn(_));
        let seen = is_old.then(|| api.watches.iter().find(|w| w.life == call.life && w.kind == Kind::Pods)).flatten();
        let seen = seen.map(|watch| watch.at);
        api.serve(nth, how, seen);
    }

    pub(crate) fn deliver(&mut self, nth: usize, how: Delivery) {
        let mut guard = self.api.lock();
        let api = &mut *guard;
        let Some(watch) = api.watches.get_mut(nth) else { return };
        let (life, kind) = (watch.life, watch.kind);
        let next = api.shelves[kind as usize].log.get(watch.at);
        match (self.mutant, kind, next) {
            (Mutant::OlderReportTaken, Kind::Reports, Some(entry)) => {
                let node = NodeName::parse(&entry.key).unwrap();
                for replica in self.replicas.iter().flatten().filter(|replica| replica.life == life) {
                    replica.cluster.index.apply(Event::ReportGone(node.clone()));
                }
            }
            (Mutant::DeletionsMissed, Kind::Pods, Some(entry)) if entry.verb == Verb::Deleted => {
                watch.at += 1;
                return;
            }
            _ => {}
        }
        api.deliver(nth, how);
    }

    fn nth_pod(&self, nth: u16) -> Option<Arc<str>> {
        let api = self.api.lock();
        let count = api.pods.len();
        (count > 0).then(|| api.pods.keys().nth(usize::from(nth) % count).cloned()).flatten()
    }

    fn edit_nth(&mut self, nth: u16, change: impl FnOnce(&mut Pod)) {
        if let Some(name) = self.nth_pod(nth) {
            self.api.lock().edit_pod(&name, change);
        }
    }

    fn create(&mut self, shape: usize, again: bool) {
        let mut api = self.api.lock();
        if api.pods.len() >= PODS_MAX {
            return;
        }
        self.made += 1;
        // A name of before, as StatefulSets use them: deleted by force, and made again at once. Mostly of a pod that waits.
        let waiting = || api.pods.values().filter(|pod| pod.node.is_none()).map(|pod| Arc::clone(&pod.name));
        let count = waiting().count().max(1);
        let known = again.then(|| waiting().nth(shape * 7 % count)).flatten();
        let name = known.unwrap_or_else(|| Arc::from(format!("p{}", self.made)));
        let uid = Arc::from(format!("u{}", self.made));
        if api.pods.contains_key(&name) {
            api.remove_pod(&name);
        }
        let pod = Pod {
            name: Arc::clone(&name),
            uid,
            shape: shape % SHAPES.len(),
            node: None,
            plan: None,
            phase: Phase::Pending,
            is_leaving: false,
            is_foreign: false,
            bound: None,
        };
        api.pods.insert(Arc::clone(&name), pod);
        api.publish(Kind::Pods, &name);
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.replicas[at].is_none() {
            self.lives += 1;
            self.replicas[at] = Some(Replica::start(&self.api, self.lives, self.mutant));
            self.trust();
        }
    }

    /// One more process, which is in no list.
    pub(crate) fn newcomer(&mut self) -> Replica {
        self.lives += 1;
        Replica::start(&self.api, self.lives, Mutant::None)
    }

    fn node(&mut self, at: usize, what: NodeStep) {
        let name = fleet::NAMES[at];
        let mut api = self.api.lock();
        match what {
            NodeStep::Back => {
                if api.nodes[at].is_none() {
                    let uid = Arc::from(format!("node-{at}-{}", api.version));
                    api.nodes[at] = Some(Node { uid, boot: 1, touches: 0 });
                    api.publish(Kind::Nodes, name);
                }
            }
            NodeStep::Boot => {
                if let Some(node) = &mut api.nodes[at] {
                    node.boot += 1;
                    api.publish(Kind::Nodes, name);
                }
            }
            NodeStep::Gone => {
                api.nodes[at] = None;
                api.publish(Kind::Nodes, name);
                // Its pods and its report go with it.
                let pods: Vec<Arc<str>> = api
                    .pods
                    .values()
                    .filter(|p| p.node.as_deref() == Some(name))
                    .map(|p| Arc::clone(&p.name))
                    .collect();
                for pod in pods {
                    api.remove_pod(&pod);
                }
                drop(api);
                self.report(at, ReportStep::Gone);
            }
        }
    }

    pub(crate) fn report(&mut self, at: usize, what: ReportStep) {
        let mut api = self.api.lock();
        let Some(boot) = api.nodes[at].as_ref().map(|node| node.boot) else {
            if api.reports[at].take().is_some() {
                api.publish(Kind::Reports, fleet::NAMES[at]);
            }
            return;
        };
        let (newest, first) = &mut self.generations[at];
        let known = api.reports[at].clone();
        let content = match (what, &known) {
            (ReportStep::Gone, Some(_)) => {
                api.reports[at] = None;
                api.publish(Kind::Reports, fleet::NAMES[at]);
                return;
            }
            (ReportStep::Next { lost }, _) => {
                *newest += 1;
                Content { generation: *newest, boot, lost, is_broken: false }
            }
            (ReportStep::Back, Some(known)) if known.content.generation > *first => {
                Content { generation: known.content.generation - 1, lost: 0, ..known.content }
            }
            (ReportStep::Broken, Some(known)) => Content { is_broken: true, ..known.content },
            _ => return,
        };
        let version = api.version;
        let uid = known.map_or_else(
            || {
                *first = content.generation;
                Arc::from(format!("report-{at}-{version}"))
            },
            |known| known.uid,
        );
        api.reports[at] = Some(Report { uid, content });
        api.publish(Kind::Reports, fleet::NAMES[at]);
    }

    pub(crate) fn agent(&mut self, at: usize, state: AgentState) {
        let mut api = self.api.lock();
        let version = api.version;
        let uid = api.agents[at].take().map_or_else(|| Arc::from(format!("agent-{at}-{version}")), |agent| agent.uid);
        api.agents[at] = match state {
            AgentState::Ready => Some(Agent { uid, is_ready: true }),
            AgentState::NotReady => Some(Agent { uid, is_ready: false }),
            AgentState::Gone => None,
        };
        api.publish(Kind::Agents, fleet::NAMES[at]);
    }

    pub(crate) fn policy(&mut self, document: Option<usize>) {
        let mut api = self.api.lock();
        api.policy = document.map(|document| document % POLICIES.len());
        api.publish(Kind::Policy, "berth-policy");
    }

    fn compact(&mut self, kind: usize) {
        let mut api = self.api.lock();
        let version = api.version;
        let kinds = api.shelves.len();
        api.shelves[kind % kinds].floor = version;
    }

    /// A mutant's holds end at once: as if their time were over.
    fn lose_holds(&self, life: Life) {
        for replica in self.replicas.iter().flatten().filter(|replica| replica.life == life) {
            replica.cluster.index.expire_holds(u64::MAX);
        }
    }

    /// What a bind's result allows to say of the pod.
    fn check_result(&mut self, flight: &Flight, result: Result<(), Failure>) -> Result<(), String> {
        let Flight { pod: name, uid, node, life, began_ms, .. } = flight;
        if let Err(failure) = &result
            && failure.code == "unknown"
            && self.mutant == Mutant::HoldFreedWhenUnknown
        {
            self.lose_holds(*life);
        }
        let api = self.api.lock();
        let pod = api.pods.get(name).filter(|pod| pod.uid == *uid);
        let is_there = pod.and_then(|pod| pod.node.as_ref()) == Some(node);
        match result {
            Ok(()) if pod.is_some() && !is_there => {
                Err(format!("I6: bind of {name} ({uid}) to {node} is acknowledged, and it is {pod:?}"))
            }
            Err(failure)
                if failure.code != "unknown"
                    && is_there
                    && pod
                        .and_then(|pod| pod.bound)
                        .is_some_and(|(by, sent_ms)| by == *life && sent_ms >= *began_ms) =>
            {
                Err(format!("I6: bind of {name} ({uid}) to {node} is refused with {failure}, and yet it is there"))
            }
            _ => Ok(()),
        }
    }
}
