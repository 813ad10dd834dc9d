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

/// What to do with the object that people have at hand.
const CONFIG_MAP_HINT: &str = "this is the ConfigMap; check the document in it: \
    kubectl -n berth-system get configmap berth-policy -o jsonpath='{.data.policy\\.yaml}' | berth policy check -";

fn check(file: &Path) -> anyhow::Result<Outcome> {
    Ok(match parsed(file)? {
        Ok(_) => Outcome::Text(format!("{}: ok\n", file.display())),
        Err(finding) => Outcome::Finding(finding),
    })
}

/// The policy of a file, or where the file is wrong.
fn parsed(file: &Path) -> anyhow::Result<Result<Policy, String>> {
    let document = read(file)?;
    let is_config_map = document.lines().any(|line| line.trim_end() == "kind: ConfigMap");
    Ok(policy::parse(&document).map_err(|e| {
        let hint = if is_config_map { format!("{}: {CONFIG_MAP_HINT}\n", file.display()) } else { String::new() };
        format!("{}:{}:{}: {}\n{hint}", file.display(), e.line, e.column, e.message)
    }))
}

fn read(file: &Path) -> anyhow::Result<String> {
    read_bounded(file, DOCUMENT_BYTES_MAX).with_context(|| format!("cannot read policy {}", file.display()))
}

async fn scheduler_config(args: &SchedulerConfigArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let policy = match &args.policy {
        None => Policy::default(),
        Some(file) => match parsed(file)? {
            Ok(policy) => policy,
            Err(finding) => return Ok(Outcome::Finding(finding)),
        },
    };
    let mut resources: BTreeSet<String> = policy.gpu_resources().map(str::to_owned).collect();
    if args.from_cluster {
        resources.append(&mut offered(flags).await?);
    }
    let uncounted: BTreeSet<String> = policy.resources().shares().map(str::to_owned).collect();
    resources.retain(|name| !uncounted.contains(name));
    Ok(Outcome::Text(scheduler_config::document(args.mode, &resources, &uncounted)))
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
