//! The two servers and their callers, and one case measured on them: blocks of calls in turns, the order swapped every round.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_core::demand::PodRequest;
use berth_extender::admin::Gates;
use berth_extender::bind::memory::MemoryBinder;
use berth_extender::cluster::Cluster;
use berth_extender::convert::pod_request;
use berth_extender::decide::{Decider, Mode};
use berth_extender::http::{Extender, Limits, Respond, Settings, listen};
use berth_extender::wire::decode_extender_args;
use berth_index::PodUid;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::cases::{Case, CaseFigures, Round, Sizes, Verb};
use super::churn::Churn;
use super::cluster::{Filled, Random};
use super::echo::Echo;
use super::pod::{self, Template};
use crate::args::ServeArgs;
use crate::call::Caller;
use crate::nodes;
use crate::sample::{Latency, Sample, number, round3};

/// Calls before each block that are not timed: the other arm ran in between, and in churn nodes have changed.
const WARM_UP_CALLS: usize = 10;
/// Orders of the names that take turns: no call of filter has the bytes of the one before.
const ORDERS: usize = 8;

/// Both arms, ready to be called.
pub(super) struct Stage {
    cluster: Arc<Cluster>,
    echo: Echo,
    callers: Callers,
    runtime: Runtime,
    pod: Value,
    request: PodRequest,
    /// Whether the watch has told of the pods that calls are for.
    knows_pods: bool,
    names: Vec<String>,
    churn: Churn,
    uids: u64,
    /// They serve until they are dropped.
    _servers: [Runtime; 2],
}

struct Callers {
    extender: Caller,
    echo: Caller,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Extender,
    Echo,
}

impl Stage {
    /// Starts both servers over a cluster and connects to them.
    pub(super) fn open(filled: Filled, args: &ServeArgs) -> Result<Self> {
        let cluster = filled.cluster;
        let binder = Arc::new(MemoryBinder::new(Arc::clone(&cluster)));
        // As with an API server: pods are known before they are filtered.
        let decider = Arc::new(Decider::new(Arc::clone(&cluster), binder, Mode::Allocate, false));
        let metrics = Arc::clone(&cluster.metrics);
        let extender = Extender::new(decider, Gates::new(), metrics, Settings::default());
        let echo = Echo::default();
        let (extender_runtime, extender_address) = start("extender", extender)?;
        let (echo_runtime, echo_address) = start("echo", echo.clone())?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let callers = runtime.block_on(async {
            let extender = Caller::connect(extender_address).await?;
            anyhow::Ok(Callers { extender, echo: Caller::connect(echo_address).await? })
        })?;
        let pod = pod::object(args.pod, args.class.as_deref());
        let request = read_request(&pod)?;
        let churn = Churn::new(Arc::clone(&cluster));
        let names = (0..args.nodes).map(nodes::name).collect();
        let servers = [extender_runtime, echo_runtime];
        let knows_pods = !args.unknown_pods;
        Ok(Self { cluster, echo, callers, runtime, pod, request, knows_pods, names, churn, uids: 0, _servers: servers })
    }

    /// The cluster behind the extender.
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Measures one case.
    pub(super) fn measure(&mut self, case: Case, args: &ServeArgs) -> Result<CaseFigures> {
        self.cluster.set_policy(case.list.policy()?);
        let asked = self.names_asked(case)?;
        let orders = orders(case, &asked, args.piece);
        let templates: Vec<Template> =
            orders.iter().map(|names| Template::new(&self.pod, names)).collect::<Result<_>>()?;
        let (_, answer) = self.call(Arm::Extender, case, &templates)?;
        check(case, &asked, &answer)?;
        self.echo.answer_with(answer.len());
        let mut rounds = Vec::new();
        let mut evaluations = 0_u64;
        for number in 0..args.rounds {
            let arms = if number % 2 == 0 { [Arm::Extender, Arm::Echo] } else { [Arm::Echo, Arm::Extender] };
            let mut round = Round { extender: Latency::default(), echo: Latency::default() };
            for arm in arms {
                let (latency, evaluated) = self.block(arm, case, &templates, args.calls)?;
                match arm {
                    Arm::Extender => round.extender = latency,
                    Arm::Echo => round.echo = latency,
                }
                evaluations += evaluated;
            }
            rounds.push(round);
        }
        let sizes = Sizes {
            names_asked: asked.len(),
            request_bytes: templates.first().map_or(0, |template| template.body(&pod::uid(0)).len()),
            answer_bytes: answer.len(),
        };
        let per_call = evaluations as f64 / number(args.calls * args.rounds);
        let figures = CaseFigures::of(case, sizes, &rounds, round3(per_call));
        eprintln!(
            "{:?} {} names, list {:?}, churn {}: p50 {} us = {}x echo, p99 {} us = {}x echo",
            case.verb,
            case.names,
            case.list,
            case.churn,
            figures.extender.p50_us,
            figures.p50_ratio,
            figures.extender.p99_us,
            figures.p99_ratio
        );
        Ok(figures)
    }

    /// The names of a call: for prioritize, what filter answers in the same case.
    fn names_asked(&mut self, case: Case) -> Result<Vec<String>> {
        let all = self.names.get(..case.names).context("more names than nodes")?.to_vec();
        if case.verb == Verb::Filter {
            return Ok(all);
        }
        let templates = [Template::new(&self.pod, &all)?];
        let (_, answer) = self.call(Arm::Extender, Case { verb: Verb::Filter, ..case }, &templates)?;
        kept_names(&answer)
    }

    /// One block of calls of one arm: their percentiles, and how many nodes the extender evaluated meanwhile.
    fn block(&mut self, arm: Arm, case: Case, templates: &[Template], calls: usize) -> Result<(Latency, u64)> {
        for _ in 0..WARM_UP_CALLS {
            self.call(arm, case, templates)?;
        }
        let before = self.cluster.evaluator.evaluation_count();
        let times = (0..calls).map(|_| Ok(self.call(arm, case, templates)?.0)).collect::<Result<Vec<Duration>>>()?;
        Ok((Sample::new(times).latency(), self.cluster.evaluator.evaluation_count() - before))
    }

    /// One call for a pod that nobody has seen before. What comes before it is the same for both arms and is not timed.
    fn call(&mut self, arm: Arm, case: Case, templates: &[Template]) -> Result<(Duration, bytes::Bytes)> {
        self.uids += 1;
        let uid = pod::uid(self.uids);
        let template = templates.iter().cycle().nth(usize::try_from(self.uids)? % templates.len().max(1));
        let template = template.context("no names to ask with")?;
        let body = template.body(&uid);
        let version = if self.knows_pods { pod::VERSION } else { "" };
        let request = PodRequest { uid: uid.clone(), ..self.request.clone() };
        self.cluster.waiting.remember_version(request, version.to_owned());
        if case.churn {
            self.churn.step()?;
        }
        let caller = match arm {
            Arm::Extender => &mut self.callers.extender,
            Arm::Echo => &mut self.callers.echo,
        };
        if case.verb == Verb::Prioritize {
            // As kube-scheduler does: it has just asked filter for the same pod.
            self.runtime.block_on(caller.post(Verb::Filter.path(), body.clone()))?;
        }
        let answered = self.runtime.block_on(caller.post(case.verb.path(), body));
        self.cluster.waiting.forget(&PodUid::new(&uid));
        answered
    }
}

/// Serves on a free port of loopback, with one thread, by whose name a profiler tells the arms apart.
pub(crate) fn start<R: Respond>(name: &str, respond: R) -> Result<(Runtime, SocketAddr)> {
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        // It ends with its runtime.
        let _listening = listen(listener, respond, Limits::default(), None, CancellationToken::new());
        anyhow::Ok(address)
    })?;
    Ok((runtime, address))
}

/// The pod as the watch would have remembered it.
fn read_request(pod: &Value) -> Result<PodRequest> {
    let body = Template::new(pod, &[])?.body(&pod::uid(0));
    let args = decode_extender_args(&body)?;
    let pod = args.pod.context("the pod is null")?;
    Ok(pod_request(&pod))
}

/// The names of the calls of a case: for filter in pieces that come in any order, another one each time; for prioritize as filter
/// answered.
fn orders(case: Case, names: &[String], piece: usize) -> Vec<Vec<String>> {
    if case.verb == Verb::Prioritize {
        return vec![names.to_vec()];
    }
    let mut random = Random(71);
    let mut order = || {
        let mut pieces: Vec<&[String]> = names.chunks(piece.max(1)).collect();
        for last in (1..pieces.len()).rev() {
            pieces.swap(last, random.index(last + 1));
        }
        pieces.concat()
    };
    (0..ORDERS).map(|_| order()).collect()
}

/// A bench of wrong answers would be worth nothing.
fn check(case: Case, asked: &[String], answer: &[u8]) -> Result<()> {
    let count = match case.verb {
        Verb::Filter => kept_names(answer)?.len(),
        Verb::Prioritize => serde_json::from_slice::<Vec<Value>>(answer)?.len(),
    };
    // Churn may have filled a node since filter kept it.
    let is_right = (1..=asked.len()).contains(&count);
    ensure!(is_right, "{}: {count} nodes answered of {} asked", case.verb.path(), asked.len());
    Ok(())
}

fn kept_names(answer: &[u8]) -> Result<Vec<String>> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["Error"] == "", "filter failed: {}", answer["Error"]);
    Ok(serde_json::from_value(answer["NodeNames"].clone())?)
}
