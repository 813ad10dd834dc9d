//! `berth topo`: one node, from this machine, from a machine file or from the cluster, in one of four forms.

use std::path::Path;

use anyhow::{Context as _, bail};
use berth_machine::{Machine, Salt};
use berth_model::{NodeName, NodeTopology};
use berth_probe::{ProbeConfig, probe};
use berth_proto::NodeTopology as Object;
use kube::Api;

use crate::api::{ApiError, Cluster, Right};
use crate::args::{ClusterFlags, TopoArgs, TopoOutput};
use crate::document::read_bounded;
use crate::render::{matrix::matrix, tree::tree};
use crate::run::Outcome;

/// Reads the node and renders it.
pub(crate) async fn run(args: &TopoArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let object = match (&args.machine, &args.node) {
        (Some(file), _) => object(&machine(file)?),
        (None, Some(name)) => reported(name, flags).await?,
        (None, None) => object(&here(args)?),
    };
    // The object is printed as it is: a report that cannot be decoded must still be readable.
    let text = match args.output {
        TopoOutput::Json => serde_json::to_string_pretty(&object).context("cannot write JSON")? + "\n",
        TopoOutput::Yaml => serde_saphyr::to_string(&object).context("cannot write YAML")?,
        TopoOutput::Tree => {
            let node = decoded(&object)?;
            if args.matrix { matrix(&node) } else { tree(&node) }
        }
    };
    Ok(Outcome::Text(text))
}

fn object(node: &NodeTopology) -> Object {
    let version = env!("CARGO_PKG_VERSION");
    Object::new(node.parts().node.as_str(), Some(berth_proto::encode(node, version)))
}

fn decoded(object: &Object) -> anyhow::Result<NodeTopology> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match object.topology() {
        Ok(Some(node)) => Ok(node),
        Ok(None) => bail!("the agent of node {name} has not reported yet: its NodeTopology has no status"),
        Err(error) => Err(error).with_context(|| {
            format!("the report of node {name} cannot be shown (berth topo --node {name} -o yaml prints it as it is)")
        }),
    }
}

async fn reported(name: &str, flags: &ClusterFlags) -> anyhow::Result<Object> {
    let cluster = Cluster::connect(flags).await?;
    let api: Api<Object> = Api::all(cluster.client());
    let right = Right::everywhere("get", "nodetopologies.topology.berth.dev");
    let mut object = match cluster.get(&api, name, &right).await {
        Err(ApiError::Missing(_)) => {
            bail!("node {name} has no report: there is no such node, or no agent has published one for it")
        }
        read => read?,
    };
    object.metadata.managed_fields = None;
    Ok(object)
}

/// Largest machine file: the largest known machine takes a fiftieth of it.
const MACHINE_BYTES_MAX: u64 = 1 << 20;

fn machine(file: &Path) -> anyhow::Result<NodeTopology> {
    let shown = file.display();
    let text = read_bounded(file, MACHINE_BYTES_MAX).with_context(|| format!("cannot read machine file {shown}"))?;
    let machine = Machine::parse(&text).with_context(|| format!("machine file {shown}"))?;
    berth_machine::topology(&machine, &machine.name, &Salt::default()).with_context(|| format!("machine file {shown}"))
}

/// Reads this machine. Blocks on driver calls, for which nothing else waits here.
fn here(args: &TopoArgs) -> anyhow::Result<NodeTopology> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let node = NodeName::parse(name.trim()).or_else(|_| NodeName::parse("localhost"))?;
    let config = ProbeConfig { nvml_library: args.nvml_library.clone(), root: args.root.clone(), node };
    probe(&config, None).context("cannot read this machine")
}
