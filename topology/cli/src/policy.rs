//! `berth policy`: what `berth_core::policy` knows, for people and CI.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use berth_core::Policy;
use berth_core::policy::{self, DEFAULT_DOCUMENT};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;

use crate::api::{Cluster, Right};
use crate::args::{ClusterFlags, PolicyCommand, SchedulerConfigArgs};
use crate::document::read_bounded;
use crate::run::Outcome;

mod scheduler_config;

/// Largest policy document: that of a ConfigMap.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// Runs a subcommand.
pub(crate) async fn run(command: &PolicyCommand, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    match command {
        PolicyCommand::Default => Ok(Outcome::Text(DEFAULT_DOCUMENT.to_owned())),
        PolicyCommand::Check { file } => check(file),
        PolicyCommand::SchedulerConfig(args) => scheduler_config(args, flags).await,
    }
}

fn check(file: &Path) -> anyhow::Result<Outcome> {
    let document = read(file)?;
    Ok(match policy::parse(&document) {
        Ok(_) => Outcome::Text(format!("{}: ok\n", file.display())),
        Err(e) => Outcome::Finding(format!("{}:{}:{}: {}\n", file.display(), e.line, e.column, e.message)),
    })
}

fn read(file: &Path) -> anyhow::Result<String> {
    read_bounded(file, DOCUMENT_BYTES_MAX).with_context(|| format!("cannot read policy {}", file.display()))
}

async fn scheduler_config(args: &SchedulerConfigArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let policy = match &args.policy {
        None => Policy::default(),
        Some(file) => match policy::parse(&read(file)?) {
            Ok(policy) => policy,
            Err(e) => {
                let said = format!("{}:{}:{}: {}\n", file.display(), e.line, e.column, e.message);
                return Ok(Outcome::Finding(said));
            }
        },
    };
    let mut resources: BTreeSet<String> = policy.gpu_resources().map(str::to_owned).collect();
    if args.from_cluster {
        resources.append(&mut offered(flags).await?);
    }
    Ok(Outcome::Text(scheduler_config::document(args.mode, &resources)))
}

/// GPU resources that any node of the cluster offers, in NVIDIA's names.
async fn offered(flags: &ClusterFlags) -> anyhow::Result<BTreeSet<String>> {
    let cluster = Cluster::connect(flags).await?;
    let mut names = BTreeSet::new();
    let nodes: Api<Node> = Api::all(cluster.client());
    let right = Right::everywhere("list", "nodes");
    let take = |node: Node| {
        let offered = node.status.and_then(|s| s.allocatable).unwrap_or_default();
        names.extend(offered.into_keys().filter(|name| scheduler_config::means_gpus(name)));
    };
    cluster.list(&nodes, ListParams::default(), &right, take).await?;
    Ok(names)
}
