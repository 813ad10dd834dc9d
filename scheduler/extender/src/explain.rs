//! `/explain`: why a pod is where it is, or nowhere, as JSON for people and the CLI.
//!
//! The same decision as filter's, told with its numbers. What it says of a waiting pod holds at the moment of asking.

mod form;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::demand::PodRequest;
use berth_core::unfit::{Reason, Unfit};
use berth_core::{Demand, Plan, Policy, plan};
use berth_index::{Holder, NodeSlot, PodUid, Snapshot};

use crate::cluster::Cluster;
use crate::convert::pod_request;
use crate::decide::Mode;
use crate::http::{ExplainError, ExplainRequest};
use form::{Choice, Expected, Explanation, HeldOn, ReasonCount};

/// Fitting nodes that are told in full.
const OPTIONS_MAX: usize = 5;
/// Nodes named as examples of a reason.
const EXAMPLES_MAX: usize = 3;

/// Explains a pod.
///
/// # Errors
/// [`ExplainError::NotFound`] for a pod that nobody has seen.
pub(crate) fn explain(cluster: &Cluster, mode: Mode, asked: &ExplainRequest<'_>) -> Result<Vec<u8>, ExplainError> {
    let snapshot = cluster.index.snapshot();
    let explanation = match asked {
        ExplainRequest::Given { pod, names } => told(cluster, &snapshot, mode, &pod_request(pod), *names),
        ExplainRequest::Named { namespace, pod } => match cluster.waiting.by_name(namespace, pod) {
            Some(request) => told(cluster, &snapshot, mode, &request, None),
            None => held(&snapshot, mode, namespace, pod)?,
        },
    };
    serde_json::to_vec(&explanation).map_err(|e| ExplainError::Invalid(e.to_string()))
}

/// A pod that is bound: who holds what, and what is wrong with it.
fn held(snapshot: &Snapshot, mode: Mode, namespace: &str, pod: &str) -> Result<Explanation, ExplainError> {
    let is_it = |h: &&Holder| h.namespace == namespace && h.name == pod;
    let found = snapshot.nodes().find_map(|slot| slot.holders.iter().find(is_it).map(|h| (slot, h)));
    let Some((slot, holder)) = found else {
        let text = format!(
            "pod {namespace}/{pod} is neither waiting for GPUs nor holding any, as far as this scheduler knows"
        );
        return Err(ExplainError::NotFound(text));
    };
    let mut explanation = Explanation::new(namespace, pod, mode);
    let node = slot.view.name.as_str();
    explanation.summary = if holder.problem.is_empty() {
        format!("bound to {node}, holds GPUs {}", holder.set)
    } else {
        format!("bound to {node}: {}", holder.problem)
    };
    explanation.held = Some(HeldOn {
        node: node.to_owned(),
        gpus: holder.set.to_string(),
        unplanned_gpu_count: holder.unplanned_gpu_count,
        problem: holder.problem.clone(),
        node_is_imprecise: slot.view.is_imprecise,
    });
    Ok(explanation)
}

/// A pod that waits, or might: every node's answer.
fn told(
    cluster: &Cluster,
    snapshot: &Snapshot,
    mode: Mode,
    request: &PodRequest,
    names: Option<&[Cow<'_, str>]>,
) -> Explanation {
    let policy = cluster.policy();
    let mut explanation = Explanation::new(&request.namespace, &request.name, mode);
    explanation.short_lists = cluster.waiting.attempts(&PodUid::new(&request.uid));
    let demand = match Demand::parse(request, &policy) {
        Ok(demand) => demand,
        Err(unfit) => {
            explanation.summary = unfit.to_string();
            explanation.reasons = vec![ReasonCount::of(unfit.reason, 0, vec![], unfit.detail)];
            return explanation;
        }
    };
    explanation.class = demand.shape.class.clone();
    explanation.gpu_count = demand.shape.device_count();
    let slots: Vec<&Arc<NodeSlot>> = match names {
        Some(names) => names.iter().filter_map(|n| snapshot.node(n)).filter(|s| s.exists).collect(),
        None => snapshot.nodes().filter(|s| s.exists).collect(),
    };
    let (plans, refusals) = outcomes(&slots, &demand, &policy);
    explanation.nodes_asked = slots.len();
    explanation.nodes_fit = plans.len();
    let clique = cluster.group_clique(&demand, snapshot);
    explanation.options = options(&plans, |slot| {
        let standing = snapshot.position(slot.view.name.as_str()).and_then(|position| snapshot.standing(position));
        clique.is_some() && standing.is_none_or(|standing| standing.clique != clique)
    });
    explanation.reasons = refusals;
    explanation.expected = Expected::of(&cluster.expectation());
    explanation.summary = summary(&explanation, &policy, &demand);
    explanation
}

fn bracketed(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

type Outcomes<'s> = (Vec<(&'s Arc<NodeSlot>, Plan)>, Vec<ReasonCount>);

fn outcomes<'s>(slots: &[&'s Arc<NodeSlot>], demand: &Demand, policy: &Policy) -> Outcomes<'s> {
    let mut plans = Vec::new();
    let mut refusals: BTreeMap<Reason, Vec<(String, String)>> = BTreeMap::new();
    for slot in slots {
        match plan(&slot.view, demand, policy) {
            Ok(plan) => plans.push((*slot, plan)),
            Err(Unfit { reason, detail }) => {
                refusals.entry(reason).or_default().push((slot.view.name.to_string(), detail));
            }
        }
    }
    let count = |(reason, mut nodes): (Reason, Vec<(String, String)>)| {
        nodes.sort_unstable();
        let detail = nodes.first().map_or_else(String::new, |(_, detail)| detail.clone());
        let examples = nodes.iter().take(EXAMPLES_MAX).map(|(name, _)| name.clone()).collect();
        ReasonCount::of(reason, nodes.len(), examples, detail)
    };
    let mut refusals: Vec<_> = refusals.into_iter().collect();
    refusals.sort_by_key(|(reason, nodes)| (!reason.is_passing(), Reverse(nodes.len())));
    (plans, refusals.into_iter().map(count).collect())
}

fn options(plans: &[(&Arc<NodeSlot>, Plan)], is_outside: impl Fn(&NodeSlot) -> bool) -> Vec<Choice> {
    let mut best: Vec<&(&Arc<NodeSlot>, Plan)> = plans.iter().collect();
    // The order of the short list.
    best.sort_by_key(|(slot, plan)| {
        (Reverse(plan.score.is_trusted), is_outside(slot), Reverse(plan.score), slot.view.name.as_str())
    });
    let first = best.first().map(|(_, plan)| plan.score).unwrap_or_default();
    let choice = |(slot, plan): &(&Arc<NodeSlot>, Plan)| Choice::of(plan, first, is_outside(slot));
    best.into_iter().take(OPTIONS_MAX).map(choice).collect()
}

fn summary(told: &Explanation, policy: &Policy, demand: &Demand) -> String {
    if !demand.shape.asks_for_devices() {
        let names: Vec<&str> = policy.gpu_resources().collect();
        return format!("asks for none of {}: berth has no say", names.join(", "));
    }
    let asked = told.nodes_asked;
    match (told.options.first(), told.reasons.first()) {
        (Some(best), _) => {
            let next = told.options.get(1).map_or_else(String::new, |next| next.lead());
            format!("fits {} of {asked} nodes now; best is {}{next}: {}", told.nodes_fit, best.node, best.why)
        }
        (None, Some(reason)) => {
            format!(
                "fits none of {asked} nodes; nearest are {}: {}{}",
                reason.nodes,
                reason.text,
                bracketed(&reason.detail)
            )
        }
        (None, None) => "there is no node to ask".to_owned(),
    }
}
