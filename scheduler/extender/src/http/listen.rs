//! Accepting connections under a limit, and letting them end. Used by the extender and the admin listener alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use crate::metrics::{ByReason, Metrics};

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// For the whole body, where the deadline of the call is not sooner.
    pub body_timeout: Duration,
    /// Between two requests. Must be above 90 s: Go reuses connections that long, and a POST on a closed one fails.
    pub idle_timeout: Duration,
    /// How long a client may refuse to take more of an answer.
    pub write_timeout: Duration,
    /// Most open connections; more wait in the backlog. kube-scheduler keeps two, and opens one per concurrent bind.
    pub connections_max: usize,
    /// Largest body. 5000 names are 220 KB; full node objects, which are refused anyway, may be more than this.
    pub body_bytes_max: usize,
    /// How long requests in flight may take after accepting has stopped.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(180),
            write_timeout: Duration::from_secs(10),
            connections_max: 256,
            body_bytes_max: 16 * 1024 * 1024,
            drain_timeout: Duration::from_secs(15),
        }
    }
}

/// Something that answers requests. It always answers: failures are responses.
pub trait Respond: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn respond(&self, request: Request<Incoming>) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeEnd {
    /// Connections and binds that were still busy when the drain time was over.
    pub unfinished: usize,
}

/// A listener at work.
#[derive(Debug)]
pub struct Listening {
    tasks: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
}

/// Pause after a failed accept: it fails again at once where file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Starts accepting on `listener`. When `stop` fires, accepting ends and each connection ends after its request in flight.
/// `metrics` counts the connections where it is given.
pub fn listen<R: Respond>(
    listener: TcpListener,
    respond: R,
    limits: Limits,
    metrics: Option<Arc<Metrics>>,
    stop: CancellationToken,
) -> Listening {
    let listening = Listening { tasks: TaskTracker::new(), stop, kill: CancellationToken::new() };
    let (tasks, stop, kill) = (listening.tasks.clone(), listening.stop.clone(), listening.kill.clone());
    listening.tasks.spawn(async move {
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let limits = Arc::new(limits);
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                Some((accept(&listener).await, slot))
            };
            let (stream, slot) = tokio::select! {
                () = stop.cancelled() => return,
                next = next => match next {
                    Some(next) => next,
                    // The semaphore is never closed; if it were, nothing could be accepted any more.
                    None => return,
                },
            };
            let (respond, limits, metrics) = (respond.clone(), Arc::clone(&limits), metrics.clone());
            let (stop, kill) = (stop.clone(), kill.clone());
            tasks.spawn(async move {
                let _slot = slot;
                let _open = metrics.as_deref().map(Open::count);
                if let Some(reason) = connection::serve(stream, respond, &limits, &stop, &kill).await {
                    tracing::debug!(reason, "connection cut");
                    if let Some(metrics) = &metrics {
                        metrics.connections_cut.get_or_create(&ByReason { reason }).inc();
                    }
                }
            });
        }
    });
    listening
}

/// Counts a connection for as long as it lives, also when its task panics.
struct Open<'a>(&'a Metrics);

impl<'a> Open<'a> {
    fn count(metrics: &'a Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written once and waited for: Nagle's delay would only add to each call.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Listening {
    /// Stops accepting, waits for requests in flight, and cuts what is left after `time`.
    pub async fn drain(self, time: Duration) -> ServeEnd {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(time, self.tasks.wait()).await.is_ok() {
            return ServeEnd { unfinished: 0 };
        }
        let unfinished = self.tasks.len();
        self.kill.cancel();
        self.tasks.wait().await;
        ServeEnd { unfinished }
    }
}
