//! Keeps the node's object as the agent's word: writes what changed, looks now and then whether it stays so, waits longer and longer where
//! the API server is of no use. Readings and streams never wait for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use berth_model::NodeTopology;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::metrics::Metrics;
use crate::publish::{PublishError, Published, Publisher};
use crate::readiness::Readiness;
use crate::statement::Statement;

/// A refusal is asked about this much more slowly than an outage.
const REFUSAL_SLOWNESS: u32 = 2;

/// The loop that writes, and what it remembers.
pub(crate) struct Writer {
    pub(crate) publisher: Publisher,
    pub(crate) statement: Arc<Statement>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
    pub(crate) verify_interval: Duration,
    pub(crate) backoff: DefaultBackoff,
}

/// What writer and reporter tell each other once, at the start.
pub(crate) struct Handover {
    /// Gets what the object said before anything was written.
    pub(crate) published: oneshot::Sender<Option<NodeTopology>>,
    /// Told when a reading was made that knows it: a lost GPU is only known by an earlier report, and must not vanish from the object.
    pub(crate) is_read: oneshot::Receiver<()>,
}

impl Writer {
    /// Writes for ever.
    pub(crate) async fn run(mut self, handover: Handover) -> Infallible {
        let mut readings = self.statement.readings();
        let mut said = self.statement.said();
        let published = self.look().await;
        // A reporter that is gone has ended the process.
        let _ = handover.published.send(published);
        let _ = handover.is_read.await;
        let mut verify_at = Instant::now() + self.verify_interval;
        let mut publish_at = Some(Instant::now());
        loop {
            tokio::select! {
                Ok(()) = readings.changed() => drop(publish_at.get_or_insert_with(Instant::now)),
                // A scheduler may know a higher generation than ours, without any reading.
                Ok(()) = said.changed() => drop(publish_at.get_or_insert_with(Instant::now)),
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

    /// Reads the node's own object before anything is written: generations go on from it.
    async fn look(&mut self) -> Option<NodeTopology> {
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
            Some(Ok(topology)) => topology,
            Some(Err(error)) => {
                tracing::warn!(%error, "the published report is not readable and will be replaced");
                None
            }
            None => None,
        }
    }

    /// Publishes what is true now; returns how long to wait before the next try, if one is needed.
    async fn publish(&mut self) -> Option<Duration> {
        // Before the call: a reading that ends under way may not be in what is written.
        let read_at = self.statement.read_at();
        match self.publisher.publish().await {
            Ok(done) => {
                if done == Published::Written {
                    let generation = self.publisher.generation();
                    tracing::info!(generation, "report published");
                    self.metrics.published("ok");
                    self.metrics.generation(generation);
                }
                self.backoff.reset();
                if let Some(read_at) = read_at {
                    self.readiness.confirm(read_at);
                }
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
        let jittered = self.backoff.next().unwrap_or(self.verify_interval);
        let wait = if error.is_refusal() { jittered.saturating_mul(REFUSAL_SLOWNESS) } else { jittered };
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(%error, source, retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "API server");
        wait
    }
}
