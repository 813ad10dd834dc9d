//! What a decision takes of the CPU, without HTTP, in a small and in a large cluster: the same number of names, nothing changed since the
//! last call. No thread but this one is counted, so a busy machine blurs it little.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_extender::bind::memory::MemoryBinder;
use berth_extender::convert::into_request;
use berth_extender::decide::{Decider, Mode};
use berth_extender::http::Decide;
use berth_extender::wire::SplitArgs;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cluster::fill;
use super::pod::{self, Template};
use crate::args::ServeArgs;
use crate::host::thread_cpu;
use crate::nodes;
use crate::sample::{number, round3};

/// Names of every call: what kube-scheduler looks for in a cluster of thousands by default.
const NAMES_MAX: usize = 500;
/// Pods that take turns, so that none is given a longer list.
const PODS: u64 = 64;
/// The kernel counts a thread's time in steps of milliseconds: fewer calls would say nothing.
const CALLS_PER_ROUND: usize = 1000;

/// One size of cluster.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    pub(crate) nodes: usize,
    /// Names of every call.
    pub(crate) names: usize,
    /// CPU time of a filter call, from the body to the answer, in the mean of all.
    pub(crate) filter_cpu_us: f64,
    /// Node evaluations of a call.
    pub(crate) evaluations_per_call: f64,
}

/// A fifth of the nodes, and all.
///
/// # Errors
/// An answer is missing: a defect.
pub(super) fn measure(args: &ServeArgs) -> Result<Vec<Scale>> {
    let small = (args.nodes / 5).max(1);
    [small, args.nodes].into_iter().map(|nodes| one(nodes, small.min(NAMES_MAX), args)).collect()
}

fn one(node_count: usize, name_count: usize, args: &ServeArgs) -> Result<Scale> {
    let cluster = fill(node_count, args.full_percent)?.cluster;
    let binder = Arc::new(MemoryBinder::new(Arc::clone(&cluster)));
    let decider = Decider::new(Arc::clone(&cluster), binder, Mode::Allocate, false);
    let pod = pod::object(args.pod, args.class.as_deref());
    // Spread over the cluster, as sampling spreads them.
    let stride = node_count / name_count.max(1);
    let names: Vec<String> = (0..name_count).map(|at| nodes::name(at * stride)).collect();
    let template = Template::new(&pod, &names)?;
    let bodies: Vec<Bytes> = (0..PODS).map(|number| template.body(&pod::uid(number))).collect();
    for body in &bodies {
        let args = SplitArgs::of(body).context("the body is not read")?;
        let request = into_request(args.read_pod().context("no pod")?);
        cluster.waiting.remember_version(request, pod::VERSION.to_owned());
    }
    let call = |body: &Bytes| {
        let args = SplitArgs::of(body).context("the body is not read")?;
        let request = args.version().and_then(|version| decider.known_pod(version)).context("the pod is not known")?;
        let answer = decider.filter_list(&request, args.list).context("no answer")?;
        ensure!(answer.asked_count == name_count, "{} names were read of {name_count}", answer.asked_count);
        Ok(())
    };
    bodies.iter().try_for_each(call)?;
    let count = args.rounds * CALLS_PER_ROUND.min(args.calls * 10);
    let evaluations = cluster.evaluator.evaluation_count();
    let before = thread_cpu();
    bodies.iter().cycle().take(count).try_for_each(call)?;
    let took: Duration = thread_cpu().saturating_sub(before);
    let evaluated = cluster.evaluator.evaluation_count() - evaluations;
    Ok(Scale {
        nodes: node_count,
        names: name_count,
        filter_cpu_us: round3(took.as_secs_f64() * 1e6 / number(count)),
        evaluations_per_call: round3(evaluated as f64 / number(count)),
    })
}
