//! `berth doctor`: goes through every node of the cluster, check by check, and says what is wrong, whom it hurts and what helps.
//!
//! It finds nothing by itself: reports carry what is wrong with hardware ([`crate::lint`]), the fold of the pods carries who holds
//! what ([`berth_index`]). Here both meet, with what an Xid means.

mod check;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, bail};
use berth_probe::xid::{KNOWN, meaning};
use serde::Serialize;
use serde_json::json;

use crate::api::Cluster;
use crate::args::{ClusterFlags, DoctorArgs, ReviewOutput};
use crate::lint::Severity;
use crate::nodes;
use crate::render::doctor::{examined, xids};
use crate::run::Outcome;

#[cfg(test)]
pub(crate) use check::CHECKS;
pub(crate) use check::{Check, State, examine};

const API_VERSION: &str = "cli.berth.dev/v1alpha1";

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Complaint {
    /// Which check found it.
    pub(crate) check: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What it is about: `GPU3`, a pod as namespace/name, or empty for the node.
    pub(crate) about: String,
    /// What was seen.
    pub(crate) text: String,
    /// Pods that it hurts, as namespace/name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pods: Vec<String>,
    /// What helps.
    pub(crate) advice: String,
}

/// One node, all checks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Examined {
    pub(crate) node: String,
    /// Every check in order, whatever came of it.
    pub(crate) checks: Vec<Check>,
    pub(crate) complaints: Vec<Complaint>,
}

/// Examines, or prints the table of Xids.
pub(crate) async fn run(args: &DoctorArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    if let Some(asked) = &args.xid {
        return table(*asked, args.output);
    }
    let cluster = Cluster::connect(flags).await?;
    let read = nodes::read(&cluster, None).await?;
    let all = examine(&read);
    if let Some(absent) = args.nodes.iter().find(|name| !all.iter().any(|node| node.node == **name)) {
        bail!("no node {absent:?} in the cluster");
    }
    let is_wanted = |node: &Examined| args.nodes.is_empty() || args.nodes.contains(&node.node);
    let wanted: Vec<Examined> = all.into_iter().filter(is_wanted).collect();
    let is_finding = wanted.iter().any(|node| !node.complaints.is_empty());
    let text = match args.output {
        ReviewOutput::Text => examined(&wanted, !args.nodes.is_empty()),
        ReviewOutput::Json => pretty(&json!({"apiVersion": API_VERSION, "kind": "NodeExaminations", "items": wanted}))?,
    };
    Ok(Outcome::Noted { text, notes: read.notes, is_finding })
}

/// What an Xid means, or all of the table.
fn table(asked: Option<u64>, output: ReviewOutput) -> anyhow::Result<Outcome> {
    let rows: Vec<_> = asked.map_or_else(|| KNOWN.iter().collect(), |xid| meaning(xid).into_iter().collect());
    let text = match output {
        ReviewOutput::Text => xids(asked, &rows),
        ReviewOutput::Json => {
            let item =
                |row: &&berth_probe::xid::Meaning| json!({"xid": row.xid, "meaning": row.text, "advice": row.advice});
            let items: Vec<_> = rows.iter().map(item).collect();
            pretty(&json!({"apiVersion": API_VERSION, "kind": "XidMeanings", "items": items}))?
        }
    };
    Ok(Outcome::Text(text))
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n")
}
