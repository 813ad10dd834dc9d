//! The answers to kube-scheduler: from a pod and names to a short list, to wire scores, to a bind.
//!
//! Filter and prioritize write nothing to the API and nothing to the ledger. What fits and how well is decided by the core;
//! here names become positions and verdicts become answers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use berth_core::demand::PodRequest;
use berth_core::order::{Candidate, Key, short_list, soft_ranks, unique_ranks};
use berth_core::place::Afresh;
use berth_core::plan::decide;
use berth_core::unfit::Reason as Unfitness;
use berth_core::{Demand, Policy, Unfit};
use berth_index::{Listing, PodUid, Rules, Snapshot, Standing, Verdict, Zoned};

use crate::bind::Bind;
use crate::cluster::Cluster;
use crate::convert::pod_request;
use crate::explain;
use crate::http::{BoxFuture, Decide, ExplainError, ExplainRequest, Failure, Written};
use crate::preempt;
use crate::wire::{
    BindArgs, Evicted, FilterAnswer, NODE_NAMES_MAX, Pod, PodVersion, PreemptArgs, PriorityAnswer, Reason, encode_kept,
    encode_scores,
};

/// What the scheduler may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Chooses devices and binds.
    Allocate,
    /// Filters and scores only; has no right to write, and cannot know devices.
    Score,
}

/// Answers from the shared state.
#[derive(Debug)]
pub struct Decider {
    cluster: Arc<Cluster>,
    bind: Arc<dyn Bind>,
    mode: Mode,
    /// Whether pods that nobody watches are remembered as filter sees them: without an API server there is no other source.
    remembers_filtered: bool,
}

impl Decider {
    /// A decider over the shared state, binding through `bind`.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, bind: Arc<dyn Bind>, mode: Mode, remembers_filtered: bool) -> Self {
        Self { cluster, bind, mode, remembers_filtered }
    }

    fn judge(&self, demand: &Demand, names: &[Cow<'_, str>], policy: &Arc<Policy>, snapshot: &Snapshot) -> Judged {
        let positions = snapshot.positions(names.iter().map(AsRef::as_ref));
        let verdicts = self.cluster.evaluator.verdicts(snapshot, &positions, &demand.shape, policy);
        let group_clique = self.cluster.group_clique(demand, snapshot);
        let mut judged = Judged::default();
        for (at, (position, verdict)) in positions.into_iter().zip(verdicts).enumerate() {
            let standing = position.and_then(|p| snapshot.standing(p));
            match (standing, verdict) {
                (Some(Standing { name_rank, zone, is_avoided, clique }), Some(Verdict::Fit(score))) => {
                    let is_outside = group_clique.is_some() && clique != group_clique;
                    judged.asked.push(at);
                    judged.fits.push(Candidate { name_rank, score, zone, is_avoided, is_outside });
                }
                (Some(_), Some(Verdict::Unfit(reason))) => judged.unfit.push((at, reason)),
                (_, None) | (None, _) => judged.unfit.push((at, Unfitness::UnknownNode)),
            }
        }
        judged
    }
}

impl Decider {
    /// Nodes where what is left beside those that go before the pod would not do fall out. Rare: who is nominated waits for its room.
    fn leave_room(
        &self,
        judged: &mut Judged,
        names: &[Cow<'_, str>],
        request: &PodRequest,
        demand: &Demand,
        policy: &Policy,
    ) {
        if !self.cluster.nominations.concern(request) {
            return;
        }
        let refusal = |at: &usize| {
            let (stage, nominees) = self.cluster.stage(names.get(*at)?, request, policy)?;
            if nominees.is_empty() {
                return None;
            }
            decide(&stage.view(), &demand.shape, policy, &mut Afresh).err()
        };
        let refusals: Vec<Option<Unfitness>> = judged.asked.iter().map(refusal).collect();
        let asked = std::mem::take(&mut judged.asked);
        let fits = std::mem::take(&mut judged.fits);
        for ((at, fit), refusal) in asked.into_iter().zip(fits).zip(refusals) {
            match refusal {
                Some(reason) => judged.unfit.push((at, reason)),
                None => {
                    judged.asked.push(at);
                    judged.fits.push(fit);
                }
            }
        }
    }
}

/// The nodes of one call, in two heaps.
#[derive(Default)]
struct Judged {
    /// Positions in the request of `fits`.
    asked: Vec<usize>,
    fits: Vec<Candidate>,
    unfit: Vec<(usize, Unfitness)>,
}

impl Judged {
    fn scores(&self, demand: &Demand, policy: &Policy) -> Vec<i64> {
        if demand.has_soft_wishes {
            let zoned: Vec<(Key, Option<u32>)> = self.fits.iter().map(|fit| (fit.key(), fit.zone)).collect();
            return soft_ranks(&zoned, policy.soft_steps());
        }
        unique_ranks(&self.fits.iter().map(Candidate::key).collect::<Vec<_>>())
    }
}

fn wire_reason(reason: Unfitness) -> Reason {
    Reason { code: reason.code(), text: reason.text(), helped_by_preemption: reason.helped_by_preemption() }
}

/// How many nodes the short list of this pod holds: four times as many each time it comes back unbound, since a later
/// extender, a volume or a Reserve plugin may have refused the ones that we named.
fn list_size(policy: &Policy, has_soft_wishes: bool, attempts: u32) -> Option<usize> {
    let list = policy.short_list();
    let size = if has_soft_wishes { list.size_soft } else { list.size };
    size?.checked_mul(4_usize.checked_pow(attempts)?)
}

impl Decide for Decider {
    fn filter(&self, pod: &Pod, names: &[Cow<'_, str>], _deadline: Instant) -> Result<FilterAnswer, Failure> {
        let cluster = &self.cluster;
        let policy = cluster.policy();
        let request = pod_request(pod);
        let uid = PodUid::new(&request.uid);
        let demand = match Demand::parse(&request, &policy) {
            Ok(demand) => demand,
            Err(unfit) => return Ok(self.refuse_everywhere(&unfit, &request.name, names.len())),
        };
        if self.remembers_filtered {
            cluster.waiting.remember(request.clone());
        }
        if !demand.shape.asks_for_devices() {
            return Ok(FilterAnswer { fits: (0..names.len()).collect(), rejected: Vec::new() });
        }
        let snapshot = cluster.index.snapshot();
        let mut judged = self.judge(&demand, names, &policy, &snapshot);
        self.leave_room(&mut judged, names, &request, &demand, &policy);
        let mut answer = FilterAnswer::default();
        if judged.fits.is_empty() {
            cluster.note_refusal();
            for (at, reason) in judged.unfit {
                answer.reject(at, wire_reason(reason));
            }
            return Ok(answer);
        }
        let attempts = cluster.waiting.attempts(&uid);
        let size = list_size(&policy, demand.has_soft_wishes, attempts);
        let listed = short_list(&judged.fits, size, policy.short_list());
        // Only a list that left somebody out can be the reason that the pod comes back.
        if listed.len() < judged.fits.len() {
            cluster.waiting.count_attempt(&uid);
        }
        answer.fits = listed.into_iter().filter_map(|f| judged.asked.get(f).copied()).collect();
        Ok(answer)
    }

    fn prioritize(&self, pod: &Pod, names: &[Cow<'_, str>], _deadline: Instant) -> Result<PriorityAnswer, Failure> {
        let cluster = &self.cluster;
        let policy = cluster.policy();
        // Filter has refused a pod that cannot be read; one that got here changed in between and comes again.
        let Ok(demand) = Demand::parse(&pod_request(pod), &policy) else { return Ok(PriorityAnswer::default()) };
        if !demand.shape.asks_for_devices() {
            return Ok(PriorityAnswer::default());
        }
        let snapshot = cluster.index.snapshot();
        let judged = self.judge(&demand, names, &policy, &snapshot);
        let scores = judged.scores(&demand, &policy);
        Ok(PriorityAnswer { scores: judged.asked.into_iter().zip(scores).collect() })
    }

    fn known_pod(&self, version: PodVersion<'_>) -> Option<Arc<PodRequest>> {
        self.cluster.waiting.of_version(version.uid, version.resource_version)
    }

    fn filter_list(&self, request: &PodRequest, list: &[u8]) -> Option<Written> {
        let cluster = &self.cluster;
        let policy = cluster.policy();
        let uid = PodUid::new(&request.uid);
        let demand = Demand::parse(request, &policy).ok().filter(|demand| demand.shape.asks_for_devices())?;
        if cluster.nominations.concern(request) {
            return None;
        }
        let snapshot = cluster.index.snapshot();
        let listed = cluster.reader.read(&snapshot, list).filter(|listed| listed.len() <= NODE_NAMES_MAX)?;
        if self.remembers_filtered {
            cluster.waiting.remember(request.clone());
        }
        let size = list_size(&policy, demand.has_soft_wishes, cluster.waiting.attempts(&uid));
        let clique = cluster.group_clique(&demand, &snapshot);
        let rules = Rules { size, per_zone: policy.short_list().per_zone, clique };
        let Listing { places, leaves_out } =
            cluster.evaluator.short_list(&snapshot, &listed, &demand.shape, &policy, rules)?;
        if places.is_empty() {
            // Every node's reason is needed.
            return None;
        }
        // Only a list that left somebody out can be the reason that the pod comes back.
        if leaves_out {
            cluster.waiting.count_attempt(&uid);
        }
        let body = encode_kept(listed.quoted_runs(list, &places));
        Some(Written { body, asked_count: listed.len(), named_count: places.len() })
    }

    fn prioritize_list(&self, request: &PodRequest, list: &[u8]) -> Option<Written> {
        let cluster = &self.cluster;
        let policy = cluster.policy();
        let demand = Demand::parse(request, &policy).ok().filter(|d| d.shape.asks_for_devices())?;
        let snapshot = cluster.index.snapshot();
        let listed = cluster.reader.read(&snapshot, list).filter(|listed| listed.len() <= NODE_NAMES_MAX)?;
        let evaluator = &cluster.evaluator;
        let clique = cluster.group_clique(&demand, &snapshot);
        let scores: Vec<(usize, i64)> = if demand.has_soft_wishes {
            let Zoned { places, keys } = evaluator.zoned_keys(&snapshot, &listed, &demand.shape, &policy, clique)?;
            places.into_iter().zip(soft_ranks(&keys, policy.soft_steps())).collect()
        } else {
            let ranks = evaluator.ranks(&snapshot, &listed, &demand.shape, &policy, clique)?;
            ranks.into_iter().map(i64::from).enumerate().filter(|(_, rank)| *rank > 0).collect()
        };
        let quoted = scores.iter().filter_map(|(place, score)| Some((listed.quoted(list, *place)?, *score)));
        let body = encode_scores(quoted);
        Some(Written { body, asked_count: listed.len(), named_count: scores.len() })
    }

    fn preempt(&self, args: &PreemptArgs, deadline: Instant) -> Result<Vec<Evicted>, Failure> {
        Ok(preempt::preempt(&self.cluster, args, &|| Instant::now() < deadline))
    }

    fn bind(self: Arc<Self>, args: BindArgs) -> BoxFuture<Result<(), Failure>> {
        if self.mode == Mode::Score {
            let text = "this scheduler runs in mode score and binds nothing: remove bindVerb from its configuration";
            return Box::pin(std::future::ready(Err(Failure::new("score-mode", text))));
        }
        Arc::clone(&self.bind).bind(args)
    }

    fn explain(&self, request: &ExplainRequest<'_>) -> Result<Vec<u8>, ExplainError> {
        explain::explain(&self.cluster, self.mode, request)
    }
}

impl Decider {
    /// A pod that cannot be read fits nowhere; the text is fixed, and explain has the detail.
    fn refuse_everywhere(&self, unfit: &Unfit, pod: &str, name_count: usize) -> FilterAnswer {
        tracing::info!(pod, reason = unfit.reason.code(), detail = unfit.detail, "a pod cannot be read");
        let mut answer = FilterAnswer::default();
        for at in 0..name_count {
            answer.reject(at, wire_reason(unfit.reason));
        }
        answer
    }
}

#[cfg(test)]
mod tests;
