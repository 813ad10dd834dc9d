//! The part of a run that takes reports of agents by stream.

use std::sync::Arc;

use anyhow::{Context, Result};
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::args::ServeArgs;
use crate::cluster::Cluster;
use crate::ingest::certificate::Files;
use crate::ingest::identity::Tokens;
use crate::ingest::serve::{self, Limits, Security};
use crate::ingest::{Ingest, Nodes};
use crate::requeue::Requeue;

/// The agents' service account, as the manifests name it.
const AGENT_ACCOUNT: &str = "berth-agent";

/// Opens the port, where one is asked for. `api` reviews tokens.
pub(super) async fn start(
    args: &ServeArgs,
    cluster: &Arc<Cluster>,
    requeue: &Arc<Requeue>,
    api: Option<Client>,
    stop: &CancellationToken,
    parts: &mut Parts,
) -> Result<()> {
    let Some(address) = args.reports_listen else { return Ok(()) };
    let files = args.reports_cert.clone().zip(args.reports_key.clone());
    let files = files.map(|(certificate, key)| Files { certificate, key });
    let nodes = if api.is_some() { Nodes::ByApi } else { Nodes::ByReport };
    let tokens = api.map(|client| Tokens::new(client, &args.reports_audience, &args.namespace, AGENT_ACCOUNT));
    let security = Security::new(address, files, tokens).with_context(|| format!("--reports-listen {address}"))?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("--reports-listen {address}"))?;
    tracing::info!(address = %listener.local_addr()?, is_plain = security.is_plain(), "report streams are taken");
    let ingest = Ingest { cluster: Arc::clone(cluster), requeue: Arc::clone(requeue), nodes };
    let serving = serve::serve(listener, security, ingest, Limits::default(), stop.clone());
    parts.spawn(async move { serving.await.context("the report port") });
    Ok(())
}
