//! The parts of a run against an API server: watchers, Events, requeue and the binder.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::admin::Gates;
use crate::args::{ModeArg, ServeArgs};
use crate::audit;
use crate::bind::Bind;
use crate::bind::api::{self, ApiBinder};
use crate::cluster::Cluster;
use crate::events;
use crate::refusals;
use crate::requeue::Requeue;
use crate::watch::{self, PodOrder, Settings, Sinks};

/// The scheduler whose pods are ours, as every overlay names it.
const SCHEDULER_NAME: &str = "berth";

/// Connects to the API server and starts everything that lives on it.
pub(super) async fn connect(
    args: &ServeArgs,
    cluster: &Arc<Cluster>,
    requeue: &Arc<Requeue>,
    gates: &Gates,
    stop: &CancellationToken,
    parts: &mut Parts,
) -> Result<Arc<dyn Bind>> {
    // Two providers are in the tree of dependencies; without a choice the first handshake would panic.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a TLS provider was installed before"))?;
    let config = kube_config(args).await?;
    let watching = watch::client(config.clone()).context("client of the watchers")?;
    let binding = api::client(config).context("client of the binder")?;
    let (events, writer) = events::channel();
    let auditing = audit::run(Arc::clone(cluster), events.clone(), stop.clone());
    parts.spawn(async move {
        auditing.await;
        Ok(())
    });
    // Mode score has no right to evict.
    let may_evict = args.mode == ModeArg::Allocate;
    let enforcing = refusals::run(Arc::clone(cluster), events.clone(), watching.clone(), may_evict, stop.clone());
    parts.spawn(async move {
        enforcing.await;
        Ok(())
    });
    let order = Arc::new(PodOrder::default());
    let sinks = Sinks { cluster: Arc::clone(cluster), requeue: Arc::clone(requeue), events, order: Arc::clone(&order) };
    let settings = Settings {
        namespace: args.namespace.clone(),
        policy_name: args.policy_configmap.clone(),
        scheduler_name: Some(SCHEDULER_NAME.to_owned()),
    };
    let watchers = watch::start(&watching, &sinks, gates, &settings, stop);
    let ended = stop.clone();
    parts.spawn(async move { Ok(watch::join(watchers, ended).await?) });
    let telling = writer.run(watching.clone(), stop.clone());
    parts.spawn(async move {
        telling.await;
        Ok(())
    });
    super::reports::start(args, cluster, requeue, Some(watching.clone()), stop, parts).await?;
    // Mode score has no right to write: pods then wait for kube-scheduler's own timer.
    if args.mode == ModeArg::Allocate {
        let touching = Arc::clone(requeue).run(watching, Arc::clone(cluster), stop.clone());
        parts.spawn(async move {
            touching.await;
            Ok(())
        });
    }
    Ok(Arc::new(ApiBinder::new(Arc::clone(cluster), binding, order, Some(SCHEDULER_NAME.to_owned()))))
}

async fn kube_config(args: &ServeArgs) -> Result<kube::Config> {
    match &args.kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(read, &options)
                .await
                .with_context(|| format!("--kubeconfig {}", file.display()))
        }
        None => kube::Config::infer().await.context("no kubeconfig and no account of a pod"),
    }
}
