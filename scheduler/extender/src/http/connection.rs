//! One connection: keep-alive for as long as kube-scheduler likes, but nobody may hold it by being slow.
//!
//! hyper's own header timeout also runs while a kept-alive connection is idle, and 5 s there would cut what Go keeps for 90 s and
//! then reuses for a POST. So the pace of the bytes is watched here.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::listen::{Limits, Respond};

/// Largest request head. kube-scheduler sends some 200 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers in a head.
const HEADERS_MAX: usize = 64;
/// hyper's buffer per connection; bodies are handed on in pieces of at most this size.
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Serves one connection to its end. Returns why it was cut, or `None` when it ended in peace.
pub(super) async fn serve<R: Respond>(
    stream: TcpStream,
    respond: R,
    limits: &Limits,
    stop: &CancellationToken,
    kill: &CancellationToken,
) -> Option<&'static str> {
    let pace = Pace::new();
    let service = service_fn({
        let pace = pace.clone();
        move |request| {
            let (respond, pace) = (respond.clone(), pace.clone());
            async move {
                pace.turn(Phase::Serving);
                let response = respond.respond(request).await;
                pace.turn(Phase::Idle);
                Ok::<_, Infallible>(response)
            }
        }
    });
    let io = TokioIo::new(PacedIo { stream, pace: pace.clone() });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Set only so that hyper's default of 30 s is off: see the top of this file.
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut tick = tokio::time::interval(limits.header_timeout.min(Duration::from_secs(4)) / 4);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return None;
            }
            () = kill.cancelled() => return Some("shutdown"),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            now = tick.tick() => {
                if let Some(reason) = pace.overdue(limits, now) {
                    return Some(reason);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of the next request has arrived.
    Idle,
    /// Some of the next request's head has arrived.
    Head,
    /// A handler is at work; it has its own deadline.
    Serving,
}

#[derive(Debug)]
struct PaceState {
    phase: Phase,
    since: Instant,
    write_stalled: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Pace(Arc<Mutex<PaceState>>);

impl Pace {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(PaceState { phase: Phase::Idle, since: Instant::now(), write_stalled: None })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut PaceState) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn turn(&self, phase: Phase) {
        self.with(|state| (state.phase, state.since) = (phase, Instant::now()));
    }

    fn bytes_arrived(&self) {
        self.with(|state| {
            if state.phase == Phase::Idle {
                (state.phase, state.since) = (Phase::Head, Instant::now());
            }
        });
    }

    fn wrote(&self, stalled: bool) {
        self.with(|state| {
            state.write_stalled = stalled.then(|| state.write_stalled.unwrap_or_else(Instant::now));
        });
    }

    fn overdue(&self, limits: &Limits, now: Instant) -> Option<&'static str> {
        self.with(|state| {
            if state.write_stalled.is_some_and(|since| now >= since + limits.write_timeout) {
                return Some("slow-reader");
            }
            match state.phase {
                Phase::Idle => (now >= state.since + limits.idle_timeout).then_some("idle"),
                Phase::Head => (now >= state.since + limits.header_timeout).then_some("slow-head"),
                Phase::Serving => None,
            }
        })
    }
}

/// A stream that tells the pace of its bytes.
#[derive(Debug)]
struct PacedIo {
    stream: TcpStream,
    pace: Pace,
}

impl AsyncRead for PacedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pace.bytes_arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PacedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace.wrote(wrote.is_pending());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace.wrote(wrote.is_pending());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
