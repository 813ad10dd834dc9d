//! Owns the live cluster to play with: starts a real control plane with plain
//! nodes, prints how to reach it, and holds until Ctrl-C.

use anyhow::Result;
use berth_tests::controlplane::{ControlPlane, NodeSpec, Options};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Opens a real control plane on this machine and holds it until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// Plain nodes to create, named node-0 and so on.
    #[arg(long, default_value_t = 4)]
    nodes: u32,
    /// GPUs that every plain node offers.
    #[arg(long, default_value_t = 8)]
    gpus: u32,
    /// Leave out kube-scheduler: pods then stay Pending until something binds them.
    #[arg(long)]
    no_scheduler: bool,
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
    let plane = ControlPlane::start(Options::default()).await?;
    let specs: Vec<NodeSpec> =
        (0..arguments.nodes).map(|number| NodeSpec::gpus(format!("node-{number}"), arguments.gpus)).collect();
    plane.create_nodes(&specs).await?;
    let _scheduler = match arguments.no_scheduler {
        true => None,
        false => Some(plane.start_kube_scheduler("").await?),
    };
    println!("A real control plane with {} nodes; logs in {}", specs.len(), plane.folder().display());
    println!("  export KUBECONFIG={}", plane.kubeconfig_path().display());
    println!("  alias kubectl={}", plane.programs().kubectl().display());
    println!("Ctrl-C ends it.");
    std::future::pending().await
}
