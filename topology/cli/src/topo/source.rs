//! Where a report can come from: this machine, a file, or the cluster. Reading only; nothing is judged here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use berth_machine::{Contradiction, Machine, Salt};
use berth_model::{NodeName, NodeTopology};
use berth_probe::{ProbeConfig, probe};
use berth_proto::NodeTopology as Object;
use kube::Api;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::{ApiError, Cluster, Right};
use crate::args::{ClusterFlags, LocalFlags};
use crate::document::read_bounded;

/// Largest file taken: the largest known machine takes a fiftieth of it, a report of 5000 nodes is not one file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One place to read a report from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// This machine.
    Local,
    /// The report of a node of the cluster.
    Node(String),
    /// A machine file and nothing else.
    MachineFile(PathBuf),
    /// A machine file or a report: what it is stands in it.
    File(PathBuf),
}

impl Source {
    /// What a person wrote: `local`, `node/NAME`, or the path of a file.
    pub(crate) fn parse(text: &str) -> Self {
        match (text, text.strip_prefix("node/")) {
            ("local", _) => Self::Local,
            // A file below a folder named node is still reached as ./node/...
            (_, Some(name)) => Self::Node(name.to_owned()),
            (path, None) => Self::File(PathBuf::from(path)),
        }
    }

    /// The object as it was read, or as an agent would publish it, and what only a capture knows.
    pub(crate) async fn read(&self, local: &LocalFlags, flags: &ClusterFlags) -> anyhow::Result<Read> {
        match self {
            Self::Local => Ok(object(&here(local)?).into()),
            Self::Node(name) => Ok(reported(name, flags).await?.into()),
            Self::MachineFile(file) => {
                let text = read_bounded(file, FILE_BYTES_MAX)
                    .with_context(|| format!("cannot read machine file {}", file.display()))?;
                machine_file(file, &text)
            }
            Self::File(file) => of_file(file),
        }
    }

    /// The checked report.
    pub(crate) async fn topology(&self, local: &LocalFlags, flags: &ClusterFlags) -> anyhow::Result<NodeTopology> {
        decoded(&self.read(local, flags).await?.object)
    }
}

/// What a source says.
#[derive(Debug)]
pub(crate) struct Read {
    /// The report.
    pub(crate) object: Object,
    /// Cells of the capture behind it that its zones contradict; no report carries them.
    pub(crate) contradicted: Vec<Contradiction>,
}

impl From<Object> for Read {
    fn from(object: Object) -> Self {
        Self { object, contradicted: Vec::new() }
    }
}

/// The report that an object carries.
pub(crate) fn decoded(object: &Object) -> anyhow::Result<NodeTopology> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match object.topology() {
        Ok(Some(node)) => Ok(node),
        Ok(None) => bail!("the agent of node {name} has not reported yet: its NodeTopology has no status"),
        Err(error) => Err(error).with_context(|| {
            format!("the report of node {name} cannot be shown (berth topo --node {name} -o yaml prints it as it is)")
        }),
    }
}

/// Every report of the cluster. An object that says nothing usable is given with its problem.
pub(crate) async fn all_reported(flags: &ClusterFlags) -> anyhow::Result<Vec<(String, anyhow::Result<NodeTopology>)>> {
    let cluster = Cluster::connect(flags).await?;
    let api: Api<Object> = Api::all(cluster.client());
    let right = Right::everywhere("list", "nodetopologies.topology.berth.dev");
    let mut reports = Vec::new();
    let take = |object: Object| {
        let report = decoded(&object);
        reports.push((object.metadata.name.unwrap_or_default(), report));
    };
    cluster.list(&api, kube::api::ListParams::default(), &right, take).await?;
    Ok(reports)
}

fn object(node: &NodeTopology) -> Object {
    let version = env!("CARGO_PKG_VERSION");
    Object::new(node.parts().node.as_str(), Some(berth_proto::encode(node, version)))
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

/// What every document says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Heading {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

fn of_file(file: &Path) -> anyhow::Result<Read> {
    let shown = file.display();
    let text = read_bounded(file, FILE_BYTES_MAX).with_context(|| format!("cannot read {shown}"))?;
    if berth_machine::is_capture(&text) {
        return of_machine(&super::import::imported(file, &text)?.machine, file);
    }
    let heading: Heading = yaml(&text).map_err(|problem| {
        anyhow!(
            "{shown} is neither a machine file nor a report as berth topo -o json or yaml prints it nor a capture of nvidia-smi topo -m: {problem}"
        )
    })?;
    if heading.kind == berth_proto::KIND {
        return yaml::<Object>(&text).map(Read::from).map_err(|problem| anyhow!("report {shown}: {problem}"));
    }
    if heading.api_version == Machine::API_VERSION {
        return machine_file(file, &text);
    }
    bail!(
        "{shown} is neither a machine file (apiVersion: {}) nor a report (kind: {}): it says apiVersion {:?}, kind {:?}",
        Machine::API_VERSION,
        berth_proto::KIND,
        heading.api_version,
        heading.kind
    )
}

/// Reads YAML or JSON, which is YAML too. The problem is one line with its place.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

fn machine_file(file: &Path, text: &str) -> anyhow::Result<Read> {
    let machine = Machine::parse(text).with_context(|| format!("machine file {}", file.display()))?;
    of_machine(&machine, file)
}

fn of_machine(machine: &Machine, file: &Path) -> anyhow::Result<Read> {
    let node = berth_machine::topology(machine, &machine.name, &Salt::default())
        .with_context(|| format!("machine file {}", file.display()))?;
    Ok(Read { object: object(&node), contradicted: machine.contradicted.clone() })
}

/// Reads this machine. Blocks on driver calls, for which nothing else waits here.
fn here(local: &LocalFlags) -> anyhow::Result<NodeTopology> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let node = NodeName::parse(name.trim()).or_else(|_| NodeName::parse("localhost"))?;
    let config = ProbeConfig { nvml_library: local.nvml_library.clone(), ..ProbeConfig::new(local.root.clone(), node) };
    probe(&config, None).context("cannot read this machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_source_and_everything_else_a_file() {
        assert_eq!(Source::parse("local"), Source::Local);
        assert_eq!(Source::parse("node/gpu-7"), Source::Node("gpu-7".to_owned()));
        assert_eq!(Source::parse("./local"), Source::File("./local".into()));
        assert_eq!(Source::parse("a/node/b.yaml"), Source::File("a/node/b.yaml".into()));
    }
}
