//! Joins the parts: who reads, who streams, who writes the object; and ends at once when told to.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_model::{Level, NodeName};
use berth_probe::{ProbeConfig, Prober};
use berth_proto::encode;
use kube::Client;
use kube::runtime::watcher::DefaultBackoff;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::admin::{self, Admin};
use crate::args::{Args, Format};
use crate::hardware::Hardware;
use crate::holders::Holders;
use crate::lease::{self, Leases, Steering};
use crate::metrics::Metrics;
use crate::plugin::Plugin;
use crate::pods;
use crate::publish::{self, Publisher};
use crate::readiness::Readiness;
use crate::report::VERSION;
use crate::reporter::{Object, Reporter};
use crate::statement::Statement;
use crate::stream::{self, Credentials, Target};
use crate::writer::{Handover, Writer};

/// Admin endpoint and reporting loop; the hardware is read on threads of its own.
const WORKER_THREADS: usize = 2;

/// How long the streams wait for what the object said: with it, no scheduler has to tell that it knows a higher generation. An API
/// server that is away must not keep them.
const OBJECT_FIRST: Duration = Duration::from_secs(2);

/// How long the API server may take to be told that the device plugin stops. An agent is given 30 s to end.
const LEAVING_SAID_WITHIN: Duration = Duration::from_secs(5);

/// After this long no bind is under way that did not know it: a pod that the kubelet admits without its device plugin is lost.
///
/// Source: the scheduler's own limit of a bind, `WORK_MAX` in scheduler/extender/src/bind/api.rs.
const BINDS_END_WITHIN: Duration = Duration::from_secs(3);

/// How often a runtime that takes no leases is looked at again: a person exchanges it, and the kubelet tells within seconds.
const RUNTIME_LOOKED_AT_EVERY: Duration = Duration::from_secs(10);

/// Runs until a signal, or prints one report.
pub(crate) fn main(args: Args) -> Result<()> {
    if args.once {
        return once(&args);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("BERTH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    // Two TLS providers in one program make rustls panic at the first connection, so ours is named.
    let _set_by_nobody_else = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    let outcome = runtime.block_on(serve(args));
    if let Err(error) = &outcome {
        eprintln!("berth-agent: {error:#}");
    }
    // Without destructors: those of the driver library wait for a driver call that hangs, and the end must not.
    signal_hook::low_level::exit(i32::from(outcome.is_err()))
}

fn probe_config(args: &Args, node: &str) -> Result<ProbeConfig> {
    let node = NodeName::parse(node).context("--node-name or NODE_NAME")?;
    Ok(ProbeConfig {
        nvml_library: args.nvml_library.clone(),
        gpu_within: args.gpu_timeout,
        xids_ignored: args.xids_ignored.0.clone(),
        ..ProbeConfig::new(args.root.clone(), node)
    })
}

/// Prints the report of this machine as the object that would be published.
fn once(args: &Args) -> Result<()> {
    let node = match &args.node_name {
        Some(name) => name.clone(),
        None => {
            let path = args.root.join("proc/sys/kernel/hostname");
            let text = std::fs::read_to_string(&path);
            text.with_context(|| format!("--node-name is not given and {} does not tell it", path.display()))?
        }
    };
    let config = probe_config(args, node.trim())?;
    let read = Prober::new(config).probe(None).context("read the hardware")?;
    let object = berth_proto::NodeTopology::new(node.trim(), Some(encode(&read, VERSION)));
    let mut text = match args.output {
        Format::Json => serde_json::to_string_pretty(&object)?,
        Format::Yaml => serde_saphyr::to_string(&object)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    std::io::stdout().write_all(text.as_bytes()).context("write the report")
}

async fn serve(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(args.admin_listen)
        .await
        .with_context(|| format!("--admin-listen {} cannot be listened on", args.admin_listen))?;
    let node = args.node_name.clone().unwrap_or_default();
    let metrics = Arc::new(Metrics::new());
    let readiness = Readiness::new(args.poll_interval);
    let statement = Arc::new(Statement::new(args.pod_resources.is_some()));
    let (outdone, outdone_by) = watch::channel(0);
    let is_streaming = match target(&args, &node)? {
        Some(target) => {
            tokio::spawn(stream::keep_all(target, statement.said(), Arc::new(outdone), Arc::clone(&metrics)));
            true
        }
        None => false,
    };
    let mut mended = None;
    let (object, writing) = if args.no_object {
        args.plugin.refuse_without_object()?;
        (Object::Absent(readiness.clone()), None)
    } else {
        let client = publish::client(&args).await?;
        mended = start_beside(&args, &client, &statement, &metrics).await?;
        let writer = Writer {
            publisher: Publisher::new(node.clone(), client, Arc::clone(&statement)),
            statement: Arc::clone(&statement),
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
            verify_interval: args.verify_interval,
            backoff: DefaultBackoff::default(),
        };
        let (object, handover) = awaited(if is_streaming { OBJECT_FIRST } else { Duration::MAX });
        (object, Some(tokio::spawn(writer.run(handover))))
    };
    let leaving = Arc::clone(&statement);
    let reporter = Reporter {
        hardware: Hardware::new(probe_config(&args, &node)?),
        statement,
        outdone_by,
        metrics: Arc::clone(&metrics),
        poll_interval: args.poll_interval,
        object,
        last_good: None,
        told: false,
    };
    tracing::info!(node, version = VERSION, admin = %listener.local_addr()?, "agent started");
    let mut admin = tokio::spawn(admin::serve(listener, Admin { metrics, readiness }));
    let mut reporting = tokio::spawn(reporter.run());
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "told to end"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "told to end"),
        ended = &mut admin => match ended.context("the admin endpoint ended")? {},
        ended = &mut reporting => match ended.context("the reporting loop ended")? {},
        ended = finished(writing) => match ended.context("the writing loop ended")? {},
        ended = finished(mended) => {
            ended.context("looking at the runtime ended")?;
            tracing::info!("the container runtime takes CDI devices now: starting anew");
        }
    }
    tokio::select! {
        () = leave(&leaving) => {}
        // Who says it twice means at once.
        _ = terminate.recv() => {}
    }
    tracing::info!("agent ended");
    Ok(())
}

/// How a task ended; never, where there is none.
async fn finished<T>(task: Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// An object that is being looked for, and what its writer tells of it.
fn awaited(wait: Duration) -> (Object, Handover) {
    let (published, found) = oneshot::channel();
    let (is_read, was_read) = oneshot::channel();
    (Object::Awaited { published: found, is_read, wait }, Handover { published, is_read: was_read })
}

/// Starts what watches and serves beside the report: who holds what, and the device plugin. Where the plugin cannot be, because the
/// container runtime would start containers without their leases, the hardware is reported all the same; the task that is returned then
/// ends when the runtime is another one.
async fn start_beside(
    args: &Args,
    client: &Client,
    statement: &Arc<Statement>,
    metrics: &Arc<Metrics>,
) -> Result<Option<JoinHandle<()>>> {
    if let Some(socket) = args.pod_resources.clone() {
        let (statement, metrics) = (Arc::clone(statement), Arc::clone(metrics));
        let node =
            NodeName::parse(args.node_name.as_deref().unwrap_or_default()).context("--node-name or NODE_NAME")?;
        let holders = Holders::new(node, socket, args.holders_interval, client.clone(), statement, metrics);
        tokio::spawn(holders.run());
    }
    let node = args.node_name.as_deref().unwrap_or_default();
    let Some(mut config) = args.plugin.config(node, args.pod_resources.clone())? else { return Ok(None) };
    let looked =
        if args.plugin.runtime_has_cdi { Ok(None) } else { lease::runtime_lack(client.clone(), &config.node).await };
    // It was looked at before, so an API server that is away is no reason against it.
    let lack = looked.unwrap_or_else(|error| {
        tracing::warn!(%error, "the node's runtime is not known; leases are given all the same");
        None
    });
    match lack {
        Some(lack) if config.level == Level::Enforced => {
            tracing::error!(
                lack,
                "plans cannot be enforced here: this agent is no device plugin, and the node gets no pods with GPUs"
            );
            metrics.lease.lacks_cdi();
            statement.lacks_cdi(lack);
            return Ok(Some(tokio::spawn(until_mended(client.clone(), config.node))));
        }
        Some(_) => {
            tracing::info!("the runtime takes no CDI devices: containers get environment and device files");
            config.cdi = None;
        }
        None => {}
    }
    let pods = pods::watch(publish::watching_client(args).await?, config.node.as_str());
    let is_enforced = config.level == Level::Enforced;
    // Pods from when the node enforced plans keep their leases, and get back specs that a reboot takes; new ones have none.
    let leases = if is_enforced { Some(Leases::open(&config.lease_dir)?) } else { Leases::left(&config.lease_dir)? };
    let leases = leases.map(Arc::new);
    if let Some(leases) = &leases {
        // Before anything is registered with the kubelet, so that no old spec can match.
        let (places, statement, metrics) =
            (args.plugin.places(&config, &args.root), Arc::clone(statement), Arc::clone(metrics));
        let steering = Steering::new(Arc::clone(leases), places, pods.clone(), statement, metrics)?;
        tokio::spawn(steering.run());
    }
    let leases = leases.filter(|_| is_enforced);
    let plugin = Plugin::new(config, leases, pods, Arc::clone(statement), Arc::clone(metrics));
    tokio::spawn(plugin.run());
    Ok(None)
}

/// Waits until the node's container runtime is one that takes leases.
async fn until_mended(client: Client, node: NodeName) {
    loop {
        tokio::time::sleep(RUNTIME_LOOKED_AT_EVERY).await;
        // An API server that does not answer says nothing new of the runtime.
        if let Ok(None) = lease::runtime_lack(client.clone(), &node).await {
            return;
        }
    }
}

/// Says that the device plugin stops, and waits until no pod can be on its way any more; at once, where there is none.
async fn leave(statement: &Statement) {
    match tokio::time::timeout(LEAVING_SAID_WITHIN, statement.leave()).await {
        Ok(false) => {}
        Ok(true) => tokio::time::sleep(BINDS_END_WITHIN).await,
        Err(_) => tracing::warn!("the API server was not told in time that the device plugin stops"),
    }
}

/// Whom to stream to, and as whom; `None` where nobody asked for streams.
fn target(args: &Args, node: &str) -> Result<Option<Target>> {
    let Some(endpoint) = args.reports_endpoint.clone() else { return Ok(None) };
    let credentials = Credentials { authority: args.reports_ca.clone(), token: args.reports_token_file.clone() };
    let addresses = args.reports_addresses.clone();
    credentials.check(&endpoint, &addresses)?;
    Ok(Some(Target { endpoint, addresses, credentials, node: node.to_owned() }))
}
