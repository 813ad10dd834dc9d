//! `berth drift`: the pods that hold other GPUs than planned, or none at all, by the same fold as the scheduler's.

use anyhow::{Context as _, bail};
use berth_index::{Holder, NodeSlot};
use berth_model::GpuSet;
use serde::Serialize;

use crate::api::Cluster;
use crate::args::{ClusterFlags, DriftArgs, DriftOutput};
use crate::nodes;
use crate::render::drift::table;
use crate::run::Outcome;

/// All of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DriftList {
    api_version: &'static str,
    kind: &'static str,
    pub(crate) items: Vec<DriftRow>,
}

/// One pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DriftRow {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) node: String,
    /// Positions of the GPUs that its plan names.
    pub(crate) planned: Vec<u8>,
    /// Positions of the GPUs that the kubelet gave it.
    pub(crate) held: Vec<u8>,
    /// Since when, as the API writes times: the kubelet gives a pod its devices when it takes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) since: String,
    /// The difference in words: instances and shares of one GPU differ where positions do not.
    pub(crate) problem: String,
}

/// Lists, folds, renders.
pub(crate) async fn run(args: &DriftArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(flags).await?;
    let read = nodes::read(&cluster, None).await?;
    if !read.has_pods {
        bail!("without the pods nothing is known of drift: {}", read.notes.join("; "));
    }
    // The namespace of the flags, not of the context: whoever asks for drift means the cluster.
    let is_wanted = |row: &DriftRow| flags.namespace.as_ref().is_none_or(|namespace| *namespace == row.namespace);
    let mut items: Vec<DriftRow> = read.snapshot().nodes().flat_map(|slot| rows(slot)).filter(is_wanted).collect();
    items.sort_by(|a, b| (&a.namespace, &a.pod, &a.node).cmp(&(&b.namespace, &b.pod, &b.node)));
    let is_finding = !items.is_empty();
    let list = DriftList { api_version: "cli.berth.dev/v1alpha1", kind: "DriftList", items };
    let text = match args.output {
        DriftOutput::Table => table(&list, !args.no_headers),
        DriftOutput::Json => serde_json::to_string_pretty(&list).context("cannot write JSON")? + "\n",
        DriftOutput::Yaml => serde_saphyr::to_string(&list).context("cannot write YAML")?,
    };
    Ok(Outcome::Noted { text, notes: read.notes, is_finding })
}

fn rows(slot: &NodeSlot) -> Vec<DriftRow> {
    let indexes = |set: GpuSet| set.iter().map(|index| index.0).collect();
    let row = |holder: &Holder| {
        let (planned, held) = match holder.drifted_from {
            _ if holder.is_without_devices => (holder.set, GpuSet::EMPTY),
            Some(planned) => (planned, holder.set),
            None => return None,
        };
        Some(DriftRow {
            namespace: holder.namespace.clone(),
            pod: holder.name.clone(),
            node: slot.view.name.to_string(),
            planned: indexes(planned),
            held: indexes(held),
            since: holder.since.clone(),
            problem: holder.problem.clone(),
        })
    };
    slot.holders.iter().filter_map(row).collect()
}
