//! `berth topo diff` and `berth topo lint`: reads the sources, asks the pure parts, prints their answer.

use anyhow::Context as _;
use berth_model::NodeTopology;
use serde_json::json;

use super::source::{Source, all_reported};
use crate::args::{ClusterFlags, DiffArgs, LintArgs, ReviewOutput};
use crate::compare::differences;
use crate::lint::{self, Severity};
use crate::render::review::{compared, linted};
use crate::run::Outcome;

const API_VERSION: &str = "cli.berth.dev/v1alpha1";
/// One pipe cannot give two documents.
const STDIN: &str = "-";

/// Compares two reports.
pub(crate) async fn diff(args: &DiffArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    anyhow::ensure!(args.before != STDIN || args.after != STDIN, "only one of the two sources can be standard input");
    let before = Source::parse(&args.before).topology(&args.local, flags).await?;
    let after = Source::parse(&args.after).topology(&args.local, flags).await?;
    let list = differences(&before, &after);
    let text = match args.output {
        ReviewOutput::Text => compared(&before, &after, &list),
        ReviewOutput::Json => pretty(&json!({
            "apiVersion": API_VERSION,
            "kind": "TopologyDiff",
            "before": before.parts().node.as_str(),
            "after": after.parts().node.as_str(),
            "items": list,
        }))?,
    };
    Ok(if list.is_empty() { Outcome::Text(text) } else { Outcome::Finding(text) })
}

/// Looks through reports.
pub(crate) async fn lint(args: &LintArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let (nodes, mut remarks) =
        if args.all_nodes { every_node(flags).await? } else { (named(args, flags).await?, Vec::new()) };
    let seen = nodes.len() + remarks.len();
    remarks.extend(lint::lint(&nodes));
    lint::sort(&mut remarks);
    let text = match args.output {
        ReviewOutput::Text => linted(seen, &remarks),
        ReviewOutput::Json => {
            pretty(&json!({"apiVersion": API_VERSION, "kind": "TopologyFindings", "nodes": seen, "items": remarks}))?
        }
    };
    let is_in_order = remarks.iter().all(|r| r.severity == Severity::Note);
    Ok(if is_in_order { Outcome::Text(text) } else { Outcome::Finding(text) })
}

async fn named(args: &LintArgs, flags: &ClusterFlags) -> anyhow::Result<Vec<NodeTopology>> {
    if args.sources.is_empty() {
        return Ok(vec![Source::Local.topology(&args.local, flags).await?]);
    }
    let mut nodes = Vec::new();
    for source in &args.sources {
        nodes.push(Source::parse(source).topology(&args.local, flags).await?);
    }
    Ok(nodes)
}

/// All reports that can be used, and a remark for each that cannot.
async fn every_node(flags: &ClusterFlags) -> anyhow::Result<(Vec<NodeTopology>, Vec<lint::Remark>)> {
    let mut nodes = Vec::new();
    let mut remarks = Vec::new();
    for (name, report) in all_reported(flags).await? {
        match report {
            Ok(node) => nodes.push(node),
            Err(error) => remarks.push(lint::unreadable(&name, &format!("{error:#}"))),
        }
    }
    Ok((nodes, remarks))
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n")
}
