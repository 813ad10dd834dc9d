//! The preempt verb: kube-scheduler says where it would evict by counts; here it is decided whether that leads to a plan, and who goes.
//!
//! Pods are chosen by the devices that they free ([`berth_core::preempt`]). Only pods of the node that are less important than the one
//! that needs room may go, whether kube-scheduler named them or not; what it named stays its choice where more than amounts decides.

use std::collections::BTreeSet;

use berth_core::demand::{PodRequest, Totals};
use berth_core::place::Afresh;
use berth_core::plan::decide;
use berth_core::preempt::{EXACT_GUESTS_MAX, Guest, choose, seeds};
use berth_core::{Demand, Policy, Score};
use berth_index::{Holder, Nominee, PodFacts, PodUid, Stage};
use berth_model::GpuSet;

use crate::cluster::Cluster;
use crate::convert::{is_countable, pod_request};
use crate::wire::{Candidate, Evicted, PreemptArgs};

/// Most looks at nodes without some of their pods, over all nodes of one call: some tenths of a second. Nodes for which none are left are
/// answered as kube-scheduler has them, if its own choice leads to a plan.
const TRIES_MAX: u32 = 20_000;

/// Who goes where, for the nodes where that leads to a plan. `has_time` ends the work: nodes that were not reached are left out.
pub(crate) fn preempt(cluster: &Cluster, args: &PreemptArgs, has_time: &dyn Fn() -> bool) -> Vec<Evicted> {
    let policy = cluster.policy();
    let request = pod_request(&args.pod);
    // Filter refuses such a pod everywhere: nobody is evicted for it. One without devices is kube-scheduler's alone.
    let Ok(demand) = Demand::parse(&request, &policy) else { return Vec::new() };
    if !demand.shape.asks_for_devices() {
        return args.candidates.iter().map(as_named).collect();
    }
    let need = Need {
        cluster,
        policy: &policy,
        totals: Totals::of(&request),
        is_countable: is_countable(&args.pod),
        request,
        demand,
    };
    let mut tries = TRIES_MAX;
    let mut candidates: Vec<&Candidate> = args.candidates.iter().collect();
    // The likeliest to be taken first, should the work come to its limit.
    candidates.sort_by_key(|c| (c.violations, c.victims.len(), c.node.as_str()));
    let mut evicted: Vec<Evicted> = Vec::new();
    for (done, candidate) in candidates.iter().enumerate() {
        if !has_time() {
            let left_count = candidates.len().saturating_sub(done);
            tracing::warn!(pod = need.request.name, left_count, "no time to look at all nodes for preemption");
            break;
        }
        evicted.extend(need.on(candidate, &mut tries));
    }
    evicted.sort_by(|a, b| a.node.cmp(&b.node));
    evicted
}

fn as_named(candidate: &Candidate) -> Evicted {
    let Candidate { node, victims, violations } = candidate.clone();
    Evicted { node, victims, violations }
}

/// The pod that needs room.
struct Need<'a> {
    cluster: &'a Cluster,
    policy: &'a Policy,
    request: PodRequest,
    demand: Demand,
    totals: Totals,
    /// Whether nothing but amounts decides beside whom it can run.
    is_countable: bool,
}

/// One node where room is looked for.
struct Place<'a> {
    stage: &'a Stage,
    nominees: &'a [Nominee],
    /// Pods that may go, the most important first.
    lower: Vec<&'a PodFacts>,
    /// Those of them that kube-scheduler named.
    named: BTreeSet<&'a str>,
}

impl Need<'_> {
    /// Who goes on one node; `None` where nothing helps.
    fn on(&self, candidate: &Candidate, tries: &mut u32) -> Option<Evicted> {
        let (stage, nominees) = self.cluster.stage(&candidate.node, &self.request, self.policy)?;
        let holders = stage.holders();
        let place = self.place(&stage, &nominees, candidate, &holders);
        let guests = self.guests(&place, &holders);
        let mut fits = |gone: &[bool]| self.score_without(&place, gone);
        let free = guests.iter().filter(|guest| !guest.must_go).count();
        let is_affordable = tries_for(free) < u64::from(*tries);
        // Pods that kube-scheduler knows and we do not, yet or any more: it named them, and they go.
        let strangers = candidate.victims.iter().filter(|uid| !place.named.contains(uid.as_str()));
        let strangers: Vec<String> = strangers.cloned().collect();
        if !is_affordable {
            let own: Vec<bool> = place.lower.iter().map(|pod| place.named.contains(pod.uid.as_str())).collect();
            *tries = tries.saturating_sub(1);
            return fits(&own).map(|_| as_named(candidate));
        }
        let victims = choose(&guests, &seeds(&stage.view(), &self.demand.shape), tries, &mut fits)?;
        let uids: Vec<String> =
            victims.guests.iter().filter_map(|at| guests.get(*at)).map(|guest| guest.uid.clone()).collect();
        let has_all_named = place.named.iter().all(|uid| uids.iter().any(|chosen| chosen == uid));
        // Nobody has to go by what we know; kube-scheduler knows better why it asks. Where it names nobody, it goes on asking others.
        if uids.is_empty() || (has_all_named && uids.len() == place.named.len()) {
            return Some(as_named(candidate));
        }
        let counted = i64::from(victims.violations);
        let violations = if has_all_named { counted.max(candidate.violations) } else { counted };
        Some(Evicted { node: candidate.node.clone(), victims: uids.into_iter().chain(strangers).collect(), violations })
    }

    fn place<'p>(
        &self,
        stage: &'p Stage,
        nominees: &'p [Nominee],
        candidate: &'p Candidate,
        holders: &[Holder],
    ) -> Place<'p> {
        let named: BTreeSet<&str> = candidate.victims.iter().map(String::as_str).collect();
        let has_devices: BTreeSet<&PodUid> = holders.iter().map(|holder| &holder.uid).collect();
        let may_go = |pod: &&PodFacts| {
            pod.rank.priority < self.request.priority
                && (has_devices.contains(&pod.uid) || named.contains(pod.uid.as_str()))
        };
        let mut lower: Vec<&PodFacts> = stage.pods().filter(may_go).collect();
        lower.sort_by_key(|pod| {
            let started_at = pod.totals.admitted_at.as_str();
            (std::cmp::Reverse(pod.rank.priority), started_at.is_empty(), started_at, &pod.uid)
        });
        let known: BTreeSet<&str> =
            lower.iter().map(|pod| pod.uid.as_str()).filter(|uid| named.contains(uid)).collect();
        Place { stage, nominees, lower, named: known }
    }

    fn guests(&self, place: &Place<'_>, holders: &[Holder]) -> Vec<Guest> {
        let broken: BTreeSet<PodUid> =
            self.cluster.budgets.broken_by(place.lower.iter().copied()).into_iter().collect();
        let set = |uid: &PodUid| holders.iter().find(|h| h.uid == *uid).map_or(GpuSet::EMPTY, |h| h.set);
        let guest = |pod: &&PodFacts| Guest {
            uid: pod.uid.to_string(),
            priority: pod.rank.priority,
            started_at: pod.totals.admitted_at.clone(),
            is_protected: broken.contains(&pod.uid),
            is_leaving: pod.rank.is_leaving,
            is_named: place.named.contains(pod.uid.as_str()),
            must_go: place.named.contains(pod.uid.as_str()) && (!self.is_countable || pod.rank.repels),
            gpus: set(&pod.uid),
        };
        place.lower.iter().map(guest).collect()
    }

    /// How good the plan is without these of the pods that may go; `None` where there is none, or where kube-scheduler's own filters
    /// would not let the pod in: they do when all that it named are gone.
    fn score_without(&self, place: &Place<'_>, gone: &[bool]) -> Option<Score> {
        let gone_pods = place.lower.iter().zip(gone).filter(|(_, is_gone)| **is_gone);
        let gone: BTreeSet<&PodUid> = gone_pods.map(|(pod, _)| &pod.uid).collect();
        let stays = |pod: &PodFacts| !gone.contains(&pod.uid);
        let has_named = || place.named.iter().all(|uid| gone.iter().any(|known| known.as_str() == *uid));
        if !place.stage.has_amounts(&self.totals, place.nominees, &stays) && (place.named.is_empty() || !has_named()) {
            return None;
        }
        let view = place.stage.view_with(&stays);
        decide(&view, &self.demand.shape, self.policy, &mut Afresh).ok().map(|fit| fit.score)
    }
}

/// How many looks the search among so many pods may take.
fn tries_for(free: usize) -> u64 {
    match u32::try_from(free) {
        Ok(free) if usize::try_from(free).is_ok_and(|free| free <= EXACT_GUESTS_MAX) => 1_u64.unbounded_shl(free) + 1,
        // One pass; more of them where there is room for more.
        _ => u64::try_from(free).unwrap_or(u64::MAX).saturating_add(2),
    }
}

#[cfg(test)]
mod tests;
