//! `wire`: the fill of `pack` through the real HTTP path and a model of kube-scheduler, beside the same fill in process.
//!
//! The model is what kube-scheduler does with an extender: it checks CPU and memory, asks filter with every name that passed, asks
//! prioritize with what filter kept, takes the highest score (of equal ones any), and binds. Pods without GPUs are not sent to
//! Berth (`managedResources`): in-tree MostAllocated places them, on both sides.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use berth_core::Policy;
use berth_core::view::Compute;
use berth_extender::admin::Gates;
use berth_extender::bind::memory::MemoryBinder;
use berth_extender::cluster::Cluster;
use berth_extender::convert::pod_request;
use berth_extender::decide::{Decider, Mode};
use berth_extender::http::{Extender, Settings};
use berth_extender::metrics::Metrics;
use berth_extender::wire::decode_extender_args;
use berth_index::{Event, NodeFacts};
use berth_model::{MiB, NodeName};
use berth_pack::openb::arrive::{Arrivals, fill};
use berth_pack::openb::berth::{Berth, report};
use berth_pack::openb::host::{Cards, Host};
use berth_pack::openb::judge::{Change, Judge, Offer};
use berth_pack::openb::peers::{self, Peer};
use berth_pack::openb::replay::replay;
use berth_pack::openb::trace::{self, PodClass, Trace};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::args::WireArgs;
use crate::call::Caller;
use crate::serve::stage::start;

/// Extended resources as users of shares write them.
const GPU: &str = "nvidia.com/gpu";
const CORES: &str = "nvidia.com/gpucores";
/// A device plugin that shares cards offers each of them this often.
const REPLICAS: u64 = 100;

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Wire {
    seed: u64,
    demand: f64,
    /// Names in a filter answer at most, strata apart; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    short_list: Option<usize>,
    /// Through HTTP.
    pub(crate) wire_pct: f64,
    /// In process, on the same arrivals.
    pub(crate) in_process_pct: f64,
    /// Pods that Berth bound.
    bound: usize,
    /// Pods that fitted nowhere.
    lost: usize,
}

/// Runs `wire`.
///
/// # Errors
/// The files cannot be read, or an answer of the extender is none.
pub(crate) fn run(args: &WireArgs) -> Result<Wire> {
    measure(&trace::read(&args.nodes, &args.pods)?, args.demand, args.seed)
}

pub(crate) fn measure(trace: &Trace, demand: f64, seed: u64) -> Result<Wire> {
    let arrivals = fill(trace, demand, seed);
    let mut in_process = InProcess { berth: Berth::of(trace, Policy::default())?, in_tree: in_tree(trace) };
    let expected = replay(trace, &arrivals, &mut in_process);
    let mut model = Model::open(trace, &arrivals, in_process.berth.policy().clone())?;
    for (number, class) in arrivals.classes.iter().enumerate() {
        model.arrive(number, &trace.classes[*class])?;
    }
    let free: i64 = model.hosts.iter().map(Host::free_milli).sum();
    let installed = trace.installed_milli() as f64;
    Ok(Wire {
        seed,
        demand,
        short_list: in_process.berth.policy().short_list().size,
        wire_pct: round(100.0 * (1.0 - free as f64 / installed)),
        in_process_pct: round(100.0 * expected.allocated),
        bound: model.bound,
        lost: model.lost,
    })
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn in_tree(trace: &Trace) -> Box<dyn Judge> {
    peers::judge(Peer::MostAllocated, trace, 0)
}

/// Berth for pods with GPUs, in-tree scoring for the others.
struct InProcess {
    berth: Berth,
    in_tree: Box<dyn Judge>,
}

impl Judge for InProcess {
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer> {
        if class.gpu_count == 0 { self.in_tree.offer(host, class) } else { self.berth.offer(host, class) }
    }

    fn opened(&mut self, hosts: &[Host]) {
        self.berth.opened(hosts);
    }

    fn changed(&mut self, before: &Host, after: &Host) -> Change {
        self.berth.changed(before, after)
    }
}

/// kube-scheduler, as far as it matters here, and the extender behind its HTTP port.
struct Model {
    hosts: Vec<Host>,
    models: Vec<String>,
    in_tree: Box<dyn Judge>,
    cluster: Arc<Cluster>,
    caller: Caller,
    runtime: Runtime,
    bound: usize,
    lost: usize,
    _server: Runtime,
}

impl Model {
    fn open(trace: &Trace, arrivals: &Arrivals, policy: Policy) -> Result<Self> {
        let cluster = Arc::new(Cluster::new(Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")))));
        cluster.set_policy(policy);
        let hosts: Vec<Host> = arrivals.host_order.iter().map(|n| Host::idle(trace.hosts[*n])).collect();
        for (at, host) in hosts.iter().enumerate() {
            let name = NodeName::parse(&name(at))?;
            let capacity = host.capacity;
            let topology = report(&name, &trace.models[capacity.model], capacity.gpu_count)?;
            let gpu_count = u64::try_from(capacity.gpu_count)?;
            cluster.index.apply(Event::Node(NodeFacts {
                name,
                boot_id: Some(topology.parts().boot_id.clone()),
                offered: [(GPU.to_owned(), gpu_count * REPLICAS)].into(),
                allocatable: Compute {
                    cpu_milli: u64::try_from(capacity.cpu_milli)?,
                    memory: MiB(u64::try_from(capacity.memory_mib)?),
                },
                zone: None,
                is_avoided: false,
                labels: berth_core::level::LabelSet::default(),
            }));
            cluster.index.apply(Event::Report(Box::new(topology)));
        }
        let binder = Arc::new(MemoryBinder::new(Arc::clone(&cluster)));
        let decider = Arc::new(Decider::new(Arc::clone(&cluster), binder, Mode::Allocate, false));
        let extender = Extender::new(decider, Gates::new(), Arc::clone(&cluster.metrics), Settings::default());
        let (server, address) = start("extender", extender)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let caller = runtime.block_on(Caller::connect(address))?;
        let (models, in_tree) = (trace.models.clone(), in_tree(trace));
        Ok(Self { hosts, models, in_tree, cluster, caller, runtime, bound: 0, lost: 0, _server: server })
    }

    fn arrive(&mut self, number: usize, class: &PodClass) -> Result<()> {
        let passed: Vec<usize> = (0..self.hosts.len()).filter(|at| self.has_compute(*at, class)).collect();
        if class.gpu_count == 0 {
            return self.place_in_tree(number, class, &passed);
        }
        let uid = format!("pod-{number}");
        let pod = self.pod(&uid, class);
        let names: Vec<String> = passed.iter().map(|at| name(*at)).collect();
        let body = arguments(&pod, &names)?;
        // As with an API server: pods are known before they are filtered.
        let read = decode_extender_args(&body)?.pod.context("the pod is null")?;
        self.cluster.waiting.remember(pod_request(&read));
        let kept = if names.is_empty() { Vec::new() } else { kept_names(&self.call("/filter", body)?)? };
        let Some(chosen) = self.best(&pod, &kept)? else {
            self.lost += 1;
            self.cluster.waiting.forget(&berth_index::PodUid::new(&uid));
            return Ok(());
        };
        let binding = json!({"PodName": uid, "PodNamespace": "bench", "PodUID": uid, "Node": chosen});
        let answer: Value = serde_json::from_slice(&self.call("/bind", Bytes::from(binding.to_string()))?)?;
        ensure!(answer["Error"] == "", "bind failed: {}", answer["Error"]);
        self.bound += 1;
        self.note(&chosen, class)
    }

    fn has_compute(&self, at: usize, class: &PodClass) -> bool {
        self.hosts[at].cpu_milli >= class.cpu_milli && self.hosts[at].memory_mib >= class.memory_mib
    }

    /// The highest score; where filter leaves one node, kube-scheduler asks for no scores.
    fn best(&mut self, pod: &Value, kept: &[String]) -> Result<Option<String>> {
        if kept.len() < 2 {
            return Ok(kept.first().cloned());
        }
        let answer: Vec<Value> = serde_json::from_slice(&self.call("/prioritize", arguments(pod, kept)?)?)?;
        let scores = answer.iter().filter_map(|one| Some((one["Score"].as_i64()?, one["Host"].as_str()?)));
        Ok(scores.max().map(|(_, host)| host.to_owned()))
    }

    fn call(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        Ok(self.runtime.block_on(self.caller.post(path, body))?.1)
    }

    fn place_in_tree(&mut self, number: usize, class: &PodClass, passed: &[usize]) -> Result<()> {
        let mut best: Option<(i64, usize)> = None;
        for at in passed {
            let offer = self.in_tree.offer(&self.hosts[*at], class);
            if let Some(offer) = offer.filter(|o| best.is_none_or(|(score, _)| o.score > score)) {
                best = Some((offer.score, *at));
            }
        }
        let Some((_, at)) = best else {
            self.lost += 1;
            return Ok(());
        };
        self.hosts[at].place(class, 0);
        // The watch would tell Berth of it.
        let pod = self.pod(&format!("pod-{number}"), class);
        let read = decode_extender_args(&arguments(&pod, &[])?)?.pod.map(|pod| *pod).context("the pod is null")?;
        let read = berth_extender::wire::Pod {
            spec: berth_extender::wire::PodSpec { node_name: name(at), ..read.spec },
            ..read
        };
        let facts = berth_extender::convert::pod_facts(&read).context("a pod without UID")?;
        self.cluster.index.apply(Event::Pod(Box::new(facts)));
        Ok(())
    }

    /// Books what Berth gave: the cards are those that its index says are taken more than before.
    fn note(&mut self, node: &str, class: &PodClass) -> Result<()> {
        let at: usize = node.strip_prefix(NAME).context("a node that nobody asked for")?.parse()?;
        let snapshot = self.cluster.index.snapshot();
        let view = &snapshot.node(node).context("the node is gone")?.view;
        let host = &mut self.hosts[at];
        let taken = |card: usize| -> u32 {
            let Ok(index) = u8::try_from(card).map(berth_model::GpuIndex) else { return 0 };
            let shares = view.shared_on(index).map_or(0, |shared| shared.share_count);
            shares + u32::from(view.held.contains(index))
        };
        let cards: Cards = (0..host.gpus().len())
            .filter(|card| taken(*card) > host.pods_on[*card])
            .fold(0, |cards, card| cards | 1 << card);
        ensure!(cards.count_ones() as usize == class.gpu_count, "{node}: cards {cards:b} for {class:?}");
        host.place(class, cards);
        Ok(())
    }

    fn pod(&self, uid: &str, class: &PodClass) -> Value {
        let mut limits = json!({"cpu": format!("{}m", class.cpu_milli), "memory": format!("{}Mi", class.memory_mib)});
        if class.gpu_count > 0 {
            limits[GPU] = json!(class.gpu_count.to_string());
        }
        if class.is_share() {
            limits[CORES] = json!(((class.gpu_milli + 9) / 10).to_string());
        }
        let wanted: Vec<&str> =
            self.models.iter().enumerate().filter(|(at, _)| class.takes_model(*at)).map(|(_, m)| m.as_str()).collect();
        let mut annotations = json!({});
        if wanted.len() < self.models.len() {
            annotations["berth.dev/gpu-product"] = json!(wanted.join(","));
        }
        json!({
            "metadata": {"name": uid, "namespace": "bench", "uid": uid, "annotations": annotations},
            "spec": {"containers": [{"name": "main", "resources": {"limits": limits}}]},
        })
    }
}

const NAME: &str = "host-";

/// Names in the order that decides ties in process.
fn name(at: usize) -> String {
    format!("{NAME}{at:06}")
}

fn arguments(pod: &Value, names: &[String]) -> Result<Bytes> {
    let names = serde_json::to_string(names)?;
    Ok(Bytes::from(format!(r#"{{"Pod":{pod},"Nodes":null,"NodeNames":{names}}}"#)))
}

fn kept_names(answer: &[u8]) -> Result<Vec<String>> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["Error"] == "", "filter failed: {}", answer["Error"]);
    Ok(serde_json::from_value::<Option<Vec<String>>>(answer["NodeNames"].clone())?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use berth_pack::openb::synthetic;

    use super::*;

    #[test]
    fn the_wire_costs_no_packing_with_the_short_list_on() {
        let outcome = measure(&synthetic::trace(1), 1.3, 1).unwrap();
        assert_eq!(outcome.short_list, Some(32), "fewer than the hosts, so that lists are short");
        assert!((outcome.wire_pct - outcome.in_process_pct).abs() <= 0.1, "{outcome:?}");
        assert!(outcome.wire_pct > 90.0 && outcome.lost > 0, "{outcome:?}");
    }
}
