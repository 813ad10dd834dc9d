//! The life of the process: builds the parts, joins every task, ends on a signal or when a part ends.

mod api;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::admin::{self, Admin, Gates, Pulse, Watchdog};
use crate::args::{Args, Command, LogFormat, ModeArg, ServeArgs};
use crate::bind::Bind;
use crate::bind::memory::MemoryBinder;
use crate::cluster::Cluster;
use crate::decide::{Decider, Mode};
use crate::demo;
use crate::http::{self, Extender, Settings};
use crate::machines::{self, MachinesError};
use crate::metrics::Metrics;
use crate::requeue::Requeue;

/// How often holds are looked over.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How long that may take before the process counts as stuck. A paused machine must not look like one.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Runs the command line to its end.
///
/// # Errors
/// What kept the process from starting, or the part that ended.
pub fn main(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.command {
        Some(Command::Demo) => runtime.block_on(demo::run(&mut std::io::stdout().lock())),
        None => {
            start_log(args.serve.log_format);
            runtime.block_on(serve(args.serve))
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
}

/// Tasks that must live as long as the process.
pub(crate) type Parts = JoinSet<Result<()>>;

async fn serve(args: ServeArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    let admin_listener =
        TcpListener::bind(args.admin_listen).await.with_context(|| format!("--admin-listen {}", args.admin_listen))?;
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let cluster = Arc::new(Cluster::new(Arc::clone(&metrics)));
    let gates = Gates::new();
    let mut parts = Parts::new();
    // The rest goes on through the drain: calls that are still served need what the watchers see.
    let (stop, stop_rest) = (CancellationToken::new(), CancellationToken::new());
    let requeue = Arc::new(Requeue::default());
    let (bind, remembers) = match &args.machines {
        Some(dir) => {
            reports::start(&args, &cluster, &requeue, None, &stop_rest, &mut parts).await?;
            (from_machines(&args, dir, &cluster, &mut parts)?, true)
        }
        None => (api::connect(&args, &cluster, &requeue, &gates, &stop_rest, &mut parts).await?, false),
    };
    let mode = match args.mode {
        ModeArg::Allocate => Mode::Allocate,
        ModeArg::Score => Mode::Score,
    };
    let watchdog = Watchdog::new();
    // A pulse that stops means that the runtime or the index is stuck: then only a restart helps.
    parts.spawn(keep_house(Arc::clone(&cluster), requeue, watchdog.add("house kept", SILENCE_MAX)));
    let decider = Arc::new(Decider::new(Arc::clone(&cluster), bind, mode, remembers));
    let settings = Settings { pre_stop_delay: Duration::from_secs(args.pre_stop_seconds), ..Settings::default() };
    let limits = settings.limits.clone();
    let extender = Extender::new(decider, gates.clone(), Arc::clone(&metrics), settings);
    let serving = tokio::spawn(http::serve(listener, extender, stop.clone()));
    let admin = Admin { gates, watchdog, metrics };
    let admin = tokio::spawn(admin::serve(admin_listener, admin, limits, stop_rest.clone()));
    tracing::info!(listen = %args.listen, admin = %args.admin_listen, ?mode, "berth-scheduler serves");

    let ended = until_end(&mut parts).await;
    stop.cancel();
    let forced = second_signal();
    tokio::select! {
        end = serving => tracing::info!(unfinished = end?.unfinished, "drained"),
        () = forced => tracing::warn!("second signal: ending without a drain"),
    }
    stop_rest.cancel();
    let _ = admin.await?;
    ended
}

/// Waits for a signal, or for a part that ends though it must not.
async fn until_end(parts: &mut Parts) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = parts.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow!("a part of the scheduler ended")),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(anyhow!(panic).context("a part of the scheduler panicked")),
        },
    }
}

async fn second_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// Lets go of holds whose time is over, and keeps the gauges true.
async fn keep_house(cluster: Arc<Cluster>, requeue: Arc<Requeue>, pulse: Pulse) -> Result<()> {
    let mut timer = tokio::time::interval(EXPIRE_EVERY);
    loop {
        timer.tick().await;
        pulse.beat();
        let expired = cluster.index.expire_holds(cluster.now_ms());
        if expired > 0 {
            tracing::warn!(expired, "holds ended without a word of their pods");
            // kube-scheduler knows nothing of holds.
            requeue.something_grew();
        }
        cluster.set_gauges();
    }
}

fn from_machines(
    args: &ServeArgs,
    dir: &std::path::Path,
    cluster: &Arc<Cluster>,
    parts: &mut Parts,
) -> Result<Arc<dyn Bind>> {
    if let Some(file) = &args.policy {
        let text = std::fs::read_to_string(file).with_context(|| format!("--policy {}", file.display()))?;
        let policy = berth_core::policy::parse(&text).with_context(|| format!("--policy {}", file.display()))?;
        cluster.set_policy(policy);
    }
    let nodes = match machines::read_dir(dir) {
        // Agents bring their own nodes.
        Err(MachinesError::Empty { .. }) if args.reports_listen.is_some() => Vec::new(),
        read => read.context("--machines")?,
    };
    machines::enter(cluster, &nodes).context("--machines")?;
    tracing::info!(nodes = nodes.len(), dir = %dir.display(), "no API server: nodes from machine files");
    let following = machines::follow(Arc::clone(cluster), dir.to_owned());
    parts.spawn(async move {
        following.await;
        Ok(())
    });
    Ok(Arc::new(MemoryBinder::new(Arc::clone(cluster))))
}
