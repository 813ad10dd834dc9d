//! Reads the hardware, by the clock and at the driver's news, and says what it found. Waits for no API server and no scheduler.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use berth_model::NodeTopology;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::hardware::{Hardware, Reading};
use crate::metrics::Metrics;
use crate::news::news;
use crate::readiness::Readiness;
use crate::report::Summary;
use crate::statement::Statement;

/// A reading that takes longer than the slowest first start of a driver is told once: the machine or its driver hangs.
const READING_SLOW_AFTER: Duration = Duration::from_secs(30);

/// The first event is read at once; the next ones within this time are read together. A GPU that fails tells so many times.
const EVENTS_TOGETHER: Duration = Duration::from_millis(250);

/// The loop that reads, and what it remembers.
pub(crate) struct Reporter {
    pub(crate) hardware: Hardware,
    pub(crate) statement: Arc<Statement>,
    /// Highest generation that a scheduler held against ours.
    pub(crate) outdone_by: watch::Receiver<u64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) poll_interval: Duration,
    pub(crate) object: Object,
    /// The last good reading, at first the published report: it knows the GPUs that no longer tell who they are.
    pub(crate) last_good: Option<NodeTopology>,
    /// Whether this process has logged a reading.
    pub(crate) told: bool,
}

/// What there is to know of the node's object.
#[derive(Debug)]
pub(crate) enum Object {
    /// It is being looked for. The first reading waits that long for it.
    Awaited {
        /// Gets the report in it.
        published: oneshot::Receiver<Option<NodeTopology>>,
        /// Told after the first reading that knows it.
        is_read: oneshot::Sender<()>,
        /// Until then there is nothing to say that could not be wrong.
        wait: Duration,
    },
    /// It was found, and there was no reading since.
    Found(oneshot::Sender<()>),
    /// It is the writer's.
    Settled,
    /// There is none, and never will be: streams alone carry the report, and a reading is all that readiness needs.
    Absent(Readiness),
}

impl Reporter {
    /// Reads for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        self.await_object().await;
        let mut probe_at = Instant::now();
        let mut slow_at: Option<Instant> = None;
        let (news, mut events_at, mut is_due) = (self.hardware.news(), probe_at, false);
        loop {
            tokio::select! {
                () = news.notified() => {
                    // During a reading the news may be too late for it, so there is one more.
                    probe_at = probe_at.min(events_at.max(Instant::now()));
                    is_due = true;
                    self.say_told();
                }
                reading = self.hardware.finished() => {
                    slow_at = None;
                    probe_at = if is_due { events_at } else { Instant::now() + self.poll_interval };
                    self.take(reading);
                    // News that came while it was under way.
                    self.say_told();
                }
                () = sleep_until(probe_at), if !self.hardware.is_reading() => {
                    is_due = false;
                    events_at = Instant::now() + EVENTS_TOGETHER;
                    self.hardware.start(self.last_good.clone());
                    slow_at = Some(Instant::now() + READING_SLOW_AFTER);
                }
                () = sleep_until(slow_at.unwrap_or(probe_at)), if slow_at.is_some() => {
                    slow_at = None;
                    tracing::error!("the reading of the hardware hangs; the last good report stays");
                }
                // Not during a reading, which would not know it.
                published = self.object.found(), if !self.hardware.is_reading() => {
                    self.know(published);
                    probe_at = Instant::now();
                }
                Ok(()) = self.outdone_by.changed() => {
                    let generation = *self.outdone_by.borrow_and_update();
                    // One more, because the report held against ours may have our own generation and other facts.
                    self.statement.outdo(generation.saturating_add(1));
                    self.statement.settle();
                }
            }
        }
    }

    /// Gives the object the time that it may have.
    async fn await_object(&mut self) {
        let Object::Awaited { wait, .. } = &self.object else { return };
        let wait = *wait;
        if let Ok(published) = tokio::time::timeout(wait, self.object.found()).await {
            self.know(published);
        }
    }

    fn know(&mut self, published: Option<NodeTopology>) {
        if published.is_some() {
            self.last_good = published;
        }
        if let Object::Awaited { is_read, .. } = std::mem::replace(&mut self.object, Object::Settled) {
            self.object = Object::Found(is_read);
        }
    }

    /// Says what the driver told, before anything is asked of hardware that may be slow to answer now.
    fn say_told(&mut self) {
        if let Some(told) = self.hardware.told() {
            self.statement.told(told);
        }
    }

    /// Takes a reading. One that failed leaves the last good report.
    fn take(&mut self, reading: Reading) {
        self.metrics.probed(reading.outcome.as_ref().ok(), reading.duration);
        for event in &reading.events {
            self.metrics.event(event);
            tracing::warn!(event = ?event, "the driver has news");
        }
        let read = match reading.outcome {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "hardware not read; the last good report stays");
                return;
            }
        };
        let now = Instant::now();
        self.statement.read(read.clone(), now);
        self.object.was_read(now);
        self.tell(&read);
        self.last_good = Some(read);
    }

    fn tell(&mut self, read: &NodeTopology) {
        let before = self.last_good.as_ref().filter(|_| self.told);
        for line in news(before, read) {
            tracing::warn!(change = line, "hardware");
        }
        if before.map(Summary::of) != Some(Summary::of(read)) {
            let Summary { healthy, unhealthy, unknown } = Summary::of(read);
            tracing::info!(healthy, unhealthy, unknown, "GPUs");
        }
        self.told = true;
    }
}

impl Object {
    /// The report in the object, once it was looked for; else for ever. May be dropped and called again until it answered.
    async fn found(&mut self) -> Option<NodeTopology> {
        let Self::Awaited { published, .. } = self else { return std::future::pending().await };
        match published.await {
            Ok(report) => report,
            // The writer ended, and with it the process.
            Err(_) => std::future::pending().await,
        }
    }

    fn was_read(&mut self, now: Instant) {
        match std::mem::replace(self, Self::Settled) {
            // A writer that is gone has ended the process.
            Self::Found(is_read) => drop(is_read.send(())),
            Self::Absent(readiness) => {
                readiness.confirm(now);
                *self = Self::Absent(readiness);
            }
            other => *self = other,
        }
    }
}
