//! `berth topo diff` and `berth topo lint`: reads the sources, asks the pure parts, prints their answer.

use anyhow::Context as _;
use berth_model::NodeTopology;
use serde_json::json;

use super::source::{Source, all_reported, decoded};
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
    let seen = if args.all_nodes { every_node(flags).await? } else { named(args, flags).await? };
    let Seen { nodes, mut remarks, count } = seen;
    remarks.extend(lint::lint(&nodes));
    lint::sort(&mut remarks);
    let text = match args.output {
        ReviewOutput::Text => linted(count, &remarks),
        ReviewOutput::Json => {
            pretty(&json!({"apiVersion": API_VERSION, "kind": "TopologyFindings", "nodes": count, "items": remarks}))?
        }
    };
    let is_in_order = remarks.iter().all(|r| r.severity == Severity::Note);
    Ok(if is_in_order { Outcome::Text(text) } else { Outcome::Finding(text) })
}

/// Reports to look through, and what was said of them before.
#[derive(Default)]
struct Seen {
    nodes: Vec<NodeTopology>,
    remarks: Vec<lint::Remark>,
    /// Nodes, also those whose report cannot be used.
    count: usize,
}

impl Seen {
    fn add(&mut self, node: NodeTopology) {
        self.count += 1;
        self.nodes.push(node);
    }
}

async fn named(args: &LintArgs, flags: &ClusterFlags) -> anyhow::Result<Seen> {
    let sources: Vec<Source> = args.sources.iter().map(|text| Source::parse(text)).collect();
    let sources = if sources.is_empty() { vec![Source::Local] } else { sources };
    let mut seen = Seen::default();
    for source in sources {
        let read = source.read(&args.local, flags).await?;
        let node = decoded(&read.object)?;
        seen.remarks.extend(lint::contradicted(node.parts().node.as_str(), &read.contradicted));
        seen.add(node);
    }
    Ok(seen)
}

/// All reports that can be used, and a remark for each that cannot.
async fn every_node(flags: &ClusterFlags) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    for (name, report) in all_reported(flags).await? {
        match report {
            Ok(node) => seen.add(node),
            Err(error) => {
                seen.count += 1;
                seen.remarks.push(lint::unreadable(&name, &format!("{error:#}")));
            }
        }
    }
    Ok(seen)
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n")
}
