//! Joins the parts: reads the hardware by the clock, publishes what changed, and ends at once when told to.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_model::{NodeName, NodeTopology};
use berth_probe::{ProbeConfig, Prober};
use berth_proto::encode;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::admin::{self, Admin};
use crate::args::{Args, Format};
use crate::hardware::{Hardware, Reading};
use crate::metrics::Metrics;
use crate::news::news;
use crate::publish::{self, PublishError, Published, Publisher};
use crate::readiness::Readiness;
use crate::report::{Summary, VERSION};
use crate::stream::{self, Credentials, Target};

/// Admin endpoint and reporting loop; the hardware is read on threads of its own.
const WORKER_THREADS: usize = 2;

/// A reading that takes longer than the slowest first start of a driver is told once: the machine or its driver hangs.
const READING_SLOW_AFTER: Duration = Duration::from_secs(30);

/// The first event is read at once; the next ones within this time are read together. A GPU that fails tells so many times.
const EVENTS_TOGETHER: Duration = Duration::from_millis(250);

/// A refusal is asked about this much more slowly than an outage.
const REFUSAL_SLOWNESS: u32 = 2;

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
    let publisher = Publisher::new(node.clone(), publish::client(&args).await?);
    let (outdone, outdone_by) = watch::channel(0);
    if let Some(endpoint) = args.reports_endpoint.clone() {
        let said = publisher.said();
        let credentials = Credentials { authority: args.reports_ca.clone(), token: args.reports_token_file.clone() };
        let addresses = args.reports_addresses.clone();
        credentials.check(&endpoint, &addresses)?;
        let to = Target { endpoint, addresses, credentials, node: node.clone() };
        tokio::spawn(stream::keep_all(to, said, Arc::new(outdone), Arc::clone(&metrics)));
    }
    let reporter = Reporter {
        hardware: Hardware::new(probe_config(&args, &node)?),
        publisher,
        outdone_by,
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        poll_interval: args.poll_interval,
        verify_interval: args.verify_interval,
        backoff: DefaultBackoff::default(),
        last_good: None,
        read_at: Instant::now(),
        told: false,
    };
    tracing::info!(node, version = VERSION, admin = %listener.local_addr()?, "agent started");
    let mut admin = tokio::spawn(admin::serve(listener, Admin { metrics, readiness }));
    let mut reporting = tokio::spawn(reporter.run());
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "agent ended"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "agent ended"),
        ended = &mut admin => match ended.context("the admin endpoint ended")? {},
        ended = &mut reporting => match ended.context("the reporting loop ended")? {},
    }
    Ok(())
}

/// The reporting loop and what it remembers.
struct Reporter {
    hardware: Hardware,
    publisher: Publisher,
    /// Highest generation that a scheduler held against ours.
    outdone_by: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    poll_interval: Duration,
    verify_interval: Duration,
    backoff: DefaultBackoff,
    /// The last good reading, at first the published report: it knows the GPUs that no longer tell who they are.
    last_good: Option<NodeTopology>,
    /// When it was read.
    read_at: Instant,
    /// Whether this process has logged a reading.
    told: bool,
}

impl Reporter {
    async fn run(mut self) -> Infallible {
        self.remember_published().await;
        let mut probe_at = Instant::now();
        let mut verify_at = probe_at + self.verify_interval;
        let mut publish_at: Option<Instant> = None;
        let mut slow_at: Option<Instant> = None;
        let (news, mut events_at, mut is_due) = (self.hardware.news(), probe_at, false);
        loop {
            tokio::select! {
                () = news.notified() => {
                    // During a reading the news may be too late for it, so there is one more.
                    probe_at = probe_at.min(events_at.max(Instant::now()));
                    is_due = true;
                }
                reading = self.hardware.finished() => {
                    slow_at = None;
                    probe_at = if is_due { events_at } else { Instant::now() + self.poll_interval };
                    if self.take(reading) {
                        publish_at.get_or_insert_with(Instant::now);
                    }
                }
                () = sleep_until(probe_at), if !self.hardware.is_reading() => {
                    is_due = false;
                    events_at = Instant::now() + EVENTS_TOGETHER;
                    self.hardware.start(self.last_good.clone());
                    slow_at = Some(Instant::now() + READING_SLOW_AFTER);
                }
                () = sleep_until(slow_at.unwrap_or(verify_at)), if slow_at.is_some() => {
                    slow_at = None;
                    tracing::error!("the reading of the hardware hangs; the last good report stays");
                }
                Ok(()) = self.outdone_by.changed() => {
                    let generation = *self.outdone_by.borrow_and_update();
                    // One more, because the report held against ours may have our own generation and other facts.
                    self.publisher.outdo(generation.saturating_add(1));
                    publish_at.get_or_insert_with(Instant::now);
                }
                () = sleep_until(verify_at) => {
                    verify_at = Instant::now() + self.verify_interval;
                    self.publisher.forget();
                }
                () = sleep_until(publish_at.unwrap_or(verify_at)), if publish_at.is_some() => {
                    publish_at = self.publish().await.map(|wait| Instant::now() + wait);
                }
            }
        }
    }

    /// Reads the node's own object before anything else: generations go on from it.
    async fn remember_published(&mut self) {
        let published = loop {
            let trouble = match self.publisher.look().await {
                Ok(object) => break object.map(berth_proto::NodeTopology::topology),
                Err(error) => error,
            };
            let wait = self.wait_after(&trouble);
            tokio::time::sleep(wait).await;
        };
        self.backoff.reset();
        self.metrics.generation(self.publisher.generation());
        match published {
            Some(Ok(topology)) => self.last_good = topology,
            Some(Err(error)) => tracing::warn!(%error, "the published report is not readable and will be replaced"),
            None => {}
        }
    }

    /// Takes a reading; false when there is nothing to publish.
    fn take(&mut self, reading: Reading) -> bool {
        self.metrics.probed(reading.outcome.as_ref().ok(), reading.duration);
        for event in &reading.events {
            self.metrics.event(event);
            tracing::warn!(event = ?event, "the driver has news");
        }
        let read = match reading.outcome {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "hardware not read; the last good report stays");
                return false;
            }
        };
        let before = self.last_good.as_ref().filter(|_| self.told);
        for line in news(before, &read) {
            tracing::warn!(change = line, "hardware");
        }
        self.told = true;
        self.last_good = Some(read);
        self.read_at = Instant::now();
        true
    }

    /// Publishes the last good reading; returns how long to wait before the next try, if one is needed.
    async fn publish(&mut self) -> Option<Duration> {
        let read = self.last_good.as_ref()?;
        match self.publisher.publish(read).await {
            Ok(done) => {
                if done == Published::Written {
                    let summary = Summary::of(read);
                    let generation = self.publisher.generation();
                    tracing::info!(
                        generation,
                        healthy = summary.healthy,
                        unhealthy = summary.unhealthy,
                        unknown = summary.unknown,
                        "report published"
                    );
                    self.metrics.published("ok");
                    self.metrics.generation(generation);
                }
                self.backoff.reset();
                self.readiness.confirm(self.read_at);
                None
            }
            Err(error) => {
                self.metrics.published(error.word());
                Some(self.wait_after(&error))
            }
        }
    }

    /// Logs why the API server was of no use and says how long to leave it alone.
    fn wait_after(&mut self, error: &PublishError) -> Duration {
        let jittered = self.backoff.next().unwrap_or(self.poll_interval);
        let wait = if error.is_refusal() { jittered.saturating_mul(REFUSAL_SLOWNESS) } else { jittered };
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(%error, source, retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "API server");
        wait
    }
}
