//! kube-scheduler, as far as an extender can tell: one leader that asks, chooses, assumes and binds, and forgets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_extender::http::{Decide, Failure};
use berth_extender::wire::{self, BindArgs, FilterAnswer, Pod};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::api::Life;
use crate::fleet;
use crate::objects;
use crate::replica::Replica;
use crate::world::World;

/// Between the last call of one leader and the first of the next: a lease lasts 15 s, and who cannot renew it stops after 10.
const LEADER_GAP_MS: u64 = 5000;
/// A name that kube-scheduler knows and we do not.
const STRANGER: &str = "stranger";

/// A pod on its way to a node.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) pod: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) life: Life,
    pub(crate) began_ms: u64,
    /// None until bind was called.
    pub(crate) result: Option<oneshot::Receiver<Result<(), Failure>>>,
    /// How long the machine was suspended meanwhile.
    pub(crate) slept_ms: u64,
    /// After how many steps it was found to go on for too long.
    pub(crate) late_looks: u8,
}

/// The leader, and what it remembers.
#[derive(Debug, Default)]
pub(crate) struct KubeScheduler {
    pub(crate) leader: usize,
    /// No call of the leader before this.
    pub(crate) speaks_at_ms: u64,
    pub(crate) last_call_ms: u64,
    pub(crate) flights: Vec<Flight>,
    /// Binds that have ended, the last few.
    pub(crate) ended: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    /// When each pod was last bound through each process.
    pub(crate) called_ms: BTreeMap<(Life, Arc<str>), u64>,
}

impl World {
    /// The leader's process, if it may speak and is ready to be asked.
    fn spokesman(&self) -> Option<&Replica> {
        let now = self.api.lock().now_ms();
        let replica = self.replicas[self.kube.leader].as_ref()?;
        (now >= self.kube.speaks_at_ms && replica.gates.is_ready()).then_some(replica)
    }

    /// Pods that wait and that the leader has not assumed, by name.
    pub(crate) fn pending(&self) -> Vec<objects::Pod> {
        let api = self.api.lock();
        let open = |pod: &&objects::Pod| {
            pod.node.is_none()
                && pod.is_live()
                && !pod.is_leaving
                && !self.kube.flights.iter().any(|flight| flight.uid == pod.uid)
        };
        api.pods.values().filter(open).cloned().collect()
    }

    /// One scheduling cycle. What the answers must be is checked here; what was chosen waits for its bind.
    pub(crate) fn schedule(&mut self, nth: usize, names: u8, pick: u8) -> Result<(), String> {
        let Some(pod) = self.pending().into_iter().nth(nth) else { return Ok(()) };
        let Some(replica) = self.spokesman() else { return Ok(()) };
        let (version, known) = {
            let api = self.api.lock();
            (api.version, api.nodes.each_ref().map(Option::is_some))
        };
        let seen: Pod = serde_json::from_str(&pod.json(version)).unwrap();
        let named = fleet::NAMES.iter().enumerate().filter(|(at, _)| known[*at] && names & (1 << at) != 0);
        let mut asked: Vec<Cow<'_, str>> = named.map(|(_, name)| Cow::Borrowed(*name)).collect();
        // A pod without devices goes anywhere; kube-scheduler asks about it only where it is told to manage all.
        if names & 0x80 != 0 && pod.shape().asks_for_devices() {
            asked.push(Cow::Borrowed(STRANGER));
        }
        let life = replica.life;
        let chosen = ask(replica, &seen, &asked, pick)?;
        self.kube.last_call_ms = self.api.lock().now_ms();
        if let Some(node) = chosen {
            let (began_ms, node) = (self.kube.last_call_ms, Arc::from(node));
            let flight =
                Flight { pod: pod.name, uid: pod.uid, node, life, began_ms, result: None, slept_ms: 0, late_looks: 0 };
            self.kube.flights.push(flight);
        }
        Ok(())
    }

    /// Calls bind for a pod that has its node and was not bound yet.
    pub(crate) fn call_bind(&mut self, nth: usize) {
        let waiting = self.kube.flights.iter().enumerate().filter(|(_, flight)| flight.result.is_none());
        let Some(at) = waiting.map(|(at, _)| at).nth(nth) else { return };
        if self.spokesman().is_none() {
            // The call is refused; the pod is tried again.
            self.kube.flights.remove(at);
            return;
        }
        let flight = &self.kube.flights[at];
        let args = BindArgs {
            pod_name: flight.pod.to_string(),
            pod_namespace: "ns".to_owned(),
            pod_uid: flight.uid.to_string(),
            node: flight.node.to_string(),
        };
        let now = self.api.lock().now_ms();
        let Some(replica) = &mut self.replicas[self.kube.leader] else { return };
        let (tell, result) = oneshot::channel();
        let bind = Arc::clone(&replica.decider).bind(args);
        // Nobody may listen any more: a leader that was replaced has forgotten it.
        replica.binds.spawn(async move { drop(tell.send(bind.await)) });
        let flight = &mut self.kube.flights[at];
        (flight.result, flight.life, flight.began_ms) = (Some(result), replica.life, now);
        self.kube.called_ms.insert((flight.life, Arc::clone(&flight.uid)), now);
        self.kube.last_call_ms = now;
    }

    /// Calls bind once more for what has ended, as one does who did not hear the answer.
    pub(crate) fn rebind(&mut self, nth: usize) {
        let Some((pod, uid, node)) = self.kube.ended.get(nth).cloned() else { return };
        if self.spokesman().is_none() || self.kube.flights.iter().any(|flight| flight.uid == uid) {
            return;
        }
        let began_ms = self.api.lock().now_ms();
        self.kube.flights.push(Flight { pod, uid, node, life: 0, began_ms, result: None, slept_ms: 0, late_looks: 0 });
        let waiting = self.kube.flights.iter().filter(|flight| flight.result.is_none()).count();
        self.call_bind(waiting - 1);
    }

    /// Another replica leads. The one before has forgotten whom it had assumed; its binds go on.
    pub(crate) fn lead(&mut self, replica: usize) {
        if replica == self.kube.leader {
            return;
        }
        self.kube.leader = replica;
        self.kube.speaks_at_ms = self.kube.last_call_ms + LEADER_GAP_MS;
        self.kube.flights.clear();
        self.trust();
    }

    /// Takes the results of binds that have ended. Those whose process died have none.
    pub(crate) fn land(&mut self) -> Vec<(Flight, Result<(), Failure>)> {
        let mut landed = Vec::new();
        for mut flight in std::mem::take(&mut self.kube.flights) {
            match flight.result.as_mut().map(oneshot::Receiver::try_recv) {
                None | Some(Err(TryRecvError::Empty)) => self.kube.flights.push(flight),
                Some(Err(TryRecvError::Closed)) => {}
                Some(Ok(result)) => {
                    let ended = (Arc::clone(&flight.pod), Arc::clone(&flight.uid), Arc::clone(&flight.node));
                    self.kube.ended.insert(0, ended);
                    landed.push((flight, result));
                }
            }
        }
        self.kube.ended.truncate(4);
        landed
    }
}

/// Filter and prioritize, each two times: equal questions have equal answers, whatever was cached in between.
fn ask<'n>(replica: &Replica, pod: &Pod, asked: &[Cow<'n, str>], pick: u8) -> Result<Option<&'n str>, String> {
    let decider = &replica.decider;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let filter = || decider.filter(pod, asked, deadline).map_err(|failure| format!("I3: filter failed: {failure}"));
    let (fits, again) = (filter()?, filter()?);
    if wire::encode_filter(&fits, asked) != wire::encode_filter(&again, asked) {
        return Err(format!("I4: filter says {fits:?}, and then {again:?}"));
    }
    check_filter(&fits, asked)?;
    if fits.fits.is_empty() {
        return Ok(None);
    }
    let kept: Vec<Cow<'n, str>> = fits.fits.iter().map(|at| asked[*at].clone()).collect();
    let scores =
        decider.prioritize(pod, &kept, deadline).map_err(|failure| format!("I3: prioritize: {failure}"))?.scores;
    let again = decider.prioritize(pod, &kept, deadline).map_err(|failure| format!("I3: prioritize: {failure}"))?;
    if scores != again.scores {
        return Err(format!("I4: prioritize says {scores:?}, and then {:?}", again.scores));
    }
    let is_wild = |score: i64| score.checked_abs().and_then(|s| s.checked_mul(2000)).is_none_or(|s| s >= 1 << 40);
    let mut seen: Vec<usize> = scores.iter().map(|(at, _)| *at).collect();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != scores.len() || seen.iter().any(|at| *at >= kept.len()) || scores.iter().any(|(_, s)| is_wild(*s))
    {
        return Err(format!("I3: scores {scores:?} of {} nodes", kept.len()));
    }
    // Mostly the best; else another scheduler's plugins have the last word.
    let best = scores.iter().max_by_key(|(_, score)| *score).map(|(at, _)| *at);
    let at = if pick < 200 { best.unwrap_or(0) } else { usize::from(pick) % kept.len() };
    Ok(match &kept[at] {
        Cow::Borrowed(name) => Some(name),
        Cow::Owned(_) => None,
    })
}

fn check_filter(answer: &FilterAnswer, asked: &[Cow<'_, str>]) -> Result<(), String> {
    let rejected = answer.rejected.iter().flat_map(|group| &group.positions);
    let mut all: Vec<usize> = answer.fits.iter().chain(rejected).copied().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    let is_strange = answer.fits.iter().any(|at| asked.get(*at).is_none_or(|name| name == STRANGER));
    if all.len() != count || all.iter().any(|at| *at >= asked.len()) || is_strange {
        return Err(format!("I3: {answer:?} of {asked:?}"));
    }
    Ok(())
}

impl Flight {
    /// How long its bind has been going on.
    pub(crate) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.began_ms).saturating_sub(self.slept_ms)
    }
}
