//! Owns the live cluster to play with: a real control plane with Berth on it, or bare; prints how to reach it, and holds until Ctrl-C.

use anyhow::{Context, Result};
use berth_tests::binaries::binaries;
use berth_tests::controlplane::{ControlPlane, NodeSpec, Options};
use berth_tests::running::Running;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// What a cluster has when nothing is said: one node of each kind of GPU machine.
const NODES: [&str; 4] = ["h100=dgx-h100", "dgx1=dgx-1v", "pcie=pcie-8gpu-two-level", "pairs=bridged-pairs"];

/// Opens a live Kubernetes control plane on this machine, with Berth placing pods on made-up GPU nodes, and holds it until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// A node with an agent, made from tests/machines/MACHINE.yaml; may be given again and again.
    #[arg(long = "node", value_name = "NAME=MACHINE", default_values = NODES)]
    made: Vec<String>,
    /// Further nodes node-0, node-1, ... of one machine, with a report but no agent.
    #[arg(long, default_value_t = 0)]
    nodes: u32,
    /// The machine of those further nodes.
    #[arg(long, default_value = "dgx-h100")]
    machine: String,
    /// Without Berth: the control plane, the stock kube-scheduler, and the further nodes as plain ones.
    #[arg(long, conflicts_with = "made")]
    bare: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Taken first, so that a Ctrl-C while it starts also cleans up.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = hold(&arguments) => done?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("\ncluster gone");
    Ok(())
}

/// Starts everything and never returns by itself, but for an error.
async fn hold(arguments: &Arguments) -> Result<()> {
    let further: Vec<String> = (0..arguments.nodes).map(|number| format!("node-{number}")).collect();
    if arguments.bare {
        let plane = ControlPlane::start(Options::default()).await?;
        let specs: Vec<NodeSpec> = further.iter().map(|name| NodeSpec::gpus(name, 8)).collect();
        plane.create_nodes(&specs).await?;
        let _scheduler = plane.start_kube_scheduler("").await?;
        println!("A bare Kubernetes control plane with {} nodes; logs in {}", specs.len(), plane.folder().display());
        print_access(&plane);
        return std::future::pending().await;
    }
    let made = arguments.made.iter().map(|node| {
        let (name, machine) = node.split_once('=').with_context(|| format!("--node {node}: NAME=MACHINE is right"))?;
        Ok((machine, name))
    });
    let running = Running::start(&made.collect::<Result<Vec<_>>>()?).await?;
    let plane = &running.plane;
    plane.create_reported_nodes(&arguments.machine, &further).await?;
    let nodes = running.nodes.len() + further.len();
    println!("A live Kubernetes control plane with Berth and {nodes} nodes; logs in {}", plane.folder().display());
    println!("Pods with `schedulerName: berth` are placed; no kubelet runs them, so they stay Pending on their node.");
    println!("  extender http://127.0.0.1:{}", running.extender_port);
    println!("  metrics  http://127.0.0.1:{}/metrics", running.admin_port);
    println!("  alias berth={}", binaries()?.cli.display());
    print_access(plane);
    std::future::pending().await
}

fn print_access(plane: &ControlPlane) {
    println!("  alias kubectl={}", plane.programs().kubectl().display());
    println!("  export KUBECONFIG={}", plane.kubeconfig_path().display());
    println!("Ctrl-C ends it.");
}
