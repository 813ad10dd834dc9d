//! Readings of the hardware, off the async threads: a driver call may hang for minutes or for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_model::NodeTopology;
use berth_probe::facts::GpuEvent;
use berth_probe::{ProbeConfig, Prober};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Reads one machine, one reading at a time.
#[derive(Debug)]
pub(crate) struct Hardware {
    config: ProbeConfig,
    /// Absent while a reading is under way.
    prober: Option<Prober>,
    reading: Option<JoinHandle<(Prober, Result<NodeTopology>, Duration)>>,
    /// Told when the driver has news.
    news: Arc<Notify>,
}

/// A finished reading.
#[derive(Debug)]
pub(crate) struct Reading {
    /// What the machine is, or why it could not be read at all.
    pub(crate) outcome: Result<NodeTopology>,
    /// How long the reading took.
    pub(crate) duration: Duration,
    /// What the driver told before it.
    pub(crate) events: Vec<GpuEvent>,
}

impl Hardware {
    pub(crate) fn new(config: ProbeConfig) -> Self {
        Self { config, prober: None, reading: None, news: Arc::default() }
    }

    /// Is told once when the driver had news since it was last waited for.
    pub(crate) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Whether a reading is under way.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// What the driver's news alone say of the hardware as it was last read, ahead of the next reading; `None` where they say nothing,
    /// or a reading is under way.
    pub(crate) fn told(&mut self) -> Option<NodeTopology> {
        self.prober.as_mut().and_then(Prober::told)
    }

    /// Starts a reading, unless one is under way. `previous` tells the identities of GPUs that no longer answer.
    pub(crate) fn start(&mut self, previous: Option<NodeTopology>) {
        if self.is_reading() {
            return;
        }
        let mut prober = self.prober.take().unwrap_or_else(|| {
            let news = Arc::clone(&self.news);
            Prober::with_events(self.config.clone(), Arc::new(move || news.notify_one()))
        });
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let outcome = prober.follow(previous.as_ref()).context("read the hardware");
            (prober, outcome, started.elapsed())
        }));
    }

    /// Waits for the reading under way; for ever if there is none. May be dropped and called again.
    pub(crate) async fn finished(&mut self) -> Reading {
        let Some(reading) = &mut self.reading else {
            return std::future::pending().await;
        };
        let joined = reading.await;
        self.reading = None;
        match joined {
            Ok((prober, outcome, duration)) => {
                let events = prober.events().to_vec();
                self.prober = Some(prober);
                Reading { outcome, duration, events }
            }
            // The prober went with the panic; the next reading makes a new one.
            Err(error) => {
                let outcome = Err(error).context("the reading of the hardware panicked");
                Reading { outcome, duration: Duration::ZERO, events: Vec::new() }
            }
        }
    }
}
