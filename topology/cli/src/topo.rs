//! `berth topo`: one node, from this machine, from a machine file or from the cluster, in one of several forms.

mod import;
mod review;
mod source;

use std::path::Path;

use anyhow::Context as _;
use berth_model::NodeTopology;

use crate::args::{ClusterFlags, TopoArgs, TopoCommand, TopoOutput};
use crate::picture::svg;
use crate::render::{matrix::matrix, tree::tree};
use crate::run::Outcome;
use source::{Source, decoded};

/// Reads the node and renders it, or compares or looks through several.
pub(crate) async fn run(args: &TopoArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    match &args.command {
        Some(TopoCommand::Diff(diff)) => return review::diff(diff, flags).await,
        Some(TopoCommand::Lint(lint)) => return review::lint(lint, flags).await,
        Some(TopoCommand::Import(args)) => return import::run(args),
        None => {}
    }
    let source = match (&args.machine, &args.report, &args.node) {
        (Some(file), _, _) => Source::MachineFile(file.clone()),
        (None, Some(file), _) => Source::File(file.clone()),
        (None, None, Some(name)) => Source::Node(name.clone()),
        (None, None, None) => Source::Local,
    };
    let object = source.read(&args.local, flags).await?.object;
    if let Some(file) = &args.svg {
        return picture(&decoded(&object)?, file);
    }
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

fn picture(node: &NodeTopology, file: &Path) -> anyhow::Result<Outcome> {
    let text = svg(node);
    if file == Path::new("-") {
        return Ok(Outcome::Text(text));
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Outcome::Text(String::new()))
}
