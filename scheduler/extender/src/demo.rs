//! The first command of the README: a small cluster of captured machines, a queue of pods, and for each pod its node, its
//! devices and the reason. No Kubernetes, no GPU; the HTTP path is the one that kube-scheduler takes.

mod client;
mod print;
mod queue;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use berth_machine::{Faults, Machine};
use berth_model::NodeName;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::Gates;
use crate::bind::Bind;
use crate::bind::memory::MemoryBinder;
use crate::cluster::Cluster;
use crate::decide::{Decider, Mode};
use crate::http::{self, Extender, Settings};
use crate::machines::{MachineNode, enter};
use crate::metrics::Metrics;
use client::{Choice, KubeScheduler};
use print::Row;

/// The demo's machines: where the text comes from, and the nodes made of it.
const MACHINES: [(&str, &[&str]); 5] = [
    (include_str!("../../../tests/machines/dgx-h100.yaml"), &["h100-a", "h100-b"]),
    (include_str!("../../../tests/machines/dgx-1v.yaml"), &["v100-a", "v100-b"]),
    (include_str!("../../../tests/machines/pcie-8gpu-two-level.yaml"), &["pcie-a", "pcie-b"]),
    (include_str!("../../../tests/machines/bridged-pairs.yaml"), &["pairs-a"]),
    (include_str!("../../../tests/machines/cpu-only.yaml"), &["cpu-a"]),
];

fn machine_nodes() -> Result<Vec<MachineNode>> {
    let mut nodes = Vec::new();
    for (text, names) in MACHINES {
        let machine = Machine::parse(text)?;
        for name in names {
            let name = NodeName::parse(name)?;
            nodes.push(MachineNode { name, machine: machine.clone(), faults: Faults::default() });
        }
    }
    Ok(nodes)
}

/// Runs the demo and writes what happened to `out`.
///
/// # Errors
/// The port cannot be opened, or an answer is not what the extender's contract says: a defect.
pub async fn run(out: &mut impl Write) -> Result<()> {
    let cluster = Arc::new(Cluster::new(Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")))));
    let nodes = machine_nodes().context("the demo's machines")?;
    enter(&cluster, &nodes)?;
    let binder = Arc::new(MemoryBinder::new(Arc::clone(&cluster)));
    let bind: Arc<dyn Bind> = Arc::<MemoryBinder>::clone(&binder);
    let decider = Arc::new(Decider::new(Arc::clone(&cluster), bind, Mode::Allocate, true));
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port on 127.0.0.1")?;
    let address = listener.local_addr()?;
    let settings = Settings { pre_stop_delay: std::time::Duration::ZERO, ..Settings::default() };
    let extender = Extender::new(decider, Gates::new(), Arc::clone(&cluster.metrics), settings);
    let stop = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, extender, stop.clone()));

    let names: Vec<String> = nodes.iter().map(|n| n.name.to_string()).collect();
    let mut scheduler = KubeScheduler::connect(address, names).await?;
    writeln!(out, "{}", print::cluster(&cluster.index.snapshot()))?;
    writeln!(out, "Pods, each sent through POST /filter, /prioritize and /bind on {address}:\n")?;
    writeln!(out, "{}", print::header())?;
    let mut refused = Vec::new();
    for pod in queue::pods() {
        match scheduler.schedule(&pod).await? {
            Choice::Bound { node } => {
                let Some(bound) = binder.last().filter(|b| b.uid.0.as_ref() == pod.uid()) else {
                    bail!("{} was bound to {node} and has no plan", pod.name);
                };
                writeln!(out, "{}", print::row(&Row::bound(&pod, &bound)))?;
            }
            Choice::Nowhere { reasons } => {
                writeln!(out, "{}", print::row(&Row::refused(&pod, &reasons)))?;
                refused.push(pod);
            }
        }
    }
    writeln!(out, "\nWhat is left (# in use, . free):\n\n{}", print::left(&cluster.index.snapshot()))?;
    if let Some(pod) = refused.last() {
        let told = scheduler.explain(pod).await?;
        writeln!(out, "Why does {} wait?  (GET /explain)\n\n{}", pod.name, print::explanation(&told))?;
    }
    stop.cancel();
    server.await?;
    Ok(())
}

#[cfg(test)]
mod tests;
