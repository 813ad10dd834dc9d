//! One scheduler's stream: opened again and again, the newest report first, then every newer one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use berth_proto::Status;
use berth_proto::topology::v1alpha1::reports_client::ReportsClient;
use berth_proto::topology::v1alpha1::{Answer, Report};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use super::{Shared, endpoint};

/// Time for TCP and TLS, and as much again for the scheduler to let the stream in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a quiet connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
/// Waits between tries, each of them with jitter: 5000 agents that lost one scheduler must not come back as one.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Keeps the stream to one address open, for ever.
pub(super) async fn keep(
    address: SocketAddr,
    shared: Arc<Shared>,
    said: watch::Receiver<Option<Status>>,
    is_open: Arc<AtomicBool>,
) -> Infallible {
    let mut backoff = Waits::default();
    let mut told: Option<String> = None;
    loop {
        let open = Open { shared: &shared, is_open: &is_open };
        let ended = stream(address, &open, said.clone()).await;
        // Before the wait: the name may stand for another address by now.
        if is_open.load(Ordering::Relaxed) {
            backoff = Waits::default();
            told = None;
        }
        drop(open);
        let error = match ended {
            Ok(()) => "the scheduler ended the stream".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let wait = backoff.next();
        if told.as_ref() != Some(&error) {
            tracing::warn!(%address, error, "report stream; the object is written all the same");
            told = Some(error);
        }
        tokio::time::sleep(wait).await;
    }
}

/// An open stream is counted for as long as this lives, also when the task is ended from outside.
struct Open<'a> {
    shared: &'a Shared,
    is_open: &'a AtomicBool,
}

impl Open<'_> {
    fn set(&self) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.shared.metrics.streams(1);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.is_open.swap(false, Ordering::Relaxed) {
            self.shared.metrics.streams(-1);
            self.shared.lost.notify_one();
        }
    }
}

/// Waits that double up to [`WAIT_MAX`], each with half of it left to chance.
struct Waits(Duration);

impl Default for Waits {
    fn default() -> Self {
        Self(WAIT_MIN)
    }
}

impl Waits {
    fn next(&mut self) -> Duration {
        let half = self.0 / 2;
        self.0 = self.0.saturating_mul(2).min(WAIT_MAX);
        half + half.mul_f64(fastrand::f64())
    }
}

/// Opens the stream and follows it to its end.
async fn stream(address: SocketAddr, open: &Open<'_>, mut said: watch::Receiver<Option<Status>>) -> Result<()> {
    let shared = open.shared;
    // A scheduler ends a stream that says nothing, so there is none before there is a report.
    said.wait_for(Option::is_some).await.map_err(|_| anyhow!("nothing is read any more"))?;
    let mut client = ReportsClient::new(connect(address, shared).await?);
    let (reports, sent) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(sent));
    if let Some(path) = &shared.target.credentials.token {
        let token = endpoint::text_of(path)?;
        let value = format!("Bearer {}", token.trim()).parse().context("the token is no header value")?;
        request.metadata_mut().insert("authorization", value);
    }
    let opening = timeout(CONNECT_TIMEOUT, client.publish(request)).await;
    let mut answers = opening.map_err(|_| anyhow!("not let in within {CONNECT_TIMEOUT:?}"))??.into_inner();
    said.mark_changed();
    let mut is_due = false;
    loop {
        tokio::select! {
            changed = said.changed() => {
                changed.map_err(|_| anyhow!("nothing is read any more"))?;
                is_due = true;
            }
            permit = reports.reserve(), if is_due => {
                let permit = permit.map_err(|_| anyhow!("the stream is closed"))?;
                permit.send(Report { node: shared.target.node.clone(), status: said.borrow_and_update().clone() });
                is_due = false;
            }
            answer = answers.message() => match answer? {
                Some(answer) => heed(address, &answer, open),
                None => return Ok(()),
            },
        }
    }
}

async fn connect(address: SocketAddr, shared: &Shared) -> Result<Channel> {
    let target = &shared.target;
    let scheme = if target.endpoint.is_tls() { "https" } else { "http" };
    let mut endpoint = Channel::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_WITHIN)
        .keep_alive_while_idle(true);
    if let Some(path) = target.credentials.authority.as_ref().filter(|_| target.endpoint.is_tls()) {
        let authority = Certificate::from_pem(endpoint::text_of(path)?);
        // The address is one of many; what the certificate must name is what was asked for.
        let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name(target.endpoint.host());
        endpoint = endpoint.tls_config(tls)?;
    }
    let connecting = timeout(2 * CONNECT_TIMEOUT, endpoint.connect()).await;
    connecting.map_err(|_| anyhow!("no connection within {:?}", 2 * CONNECT_TIMEOUT))?.context("connect")
}

/// Takes what the scheduler says to a report.
fn heed(address: SocketAddr, answer: &Answer, open: &Open<'_>) {
    open.set();
    open.shared.metrics.answered(answer.accepted);
    if answer.accepted {
        tracing::debug!(%address, generation = answer.generation, "a scheduler took the report");
        return;
    }
    let Answer { field, text, generation, .. } = answer;
    tracing::error!(%address, field, error = text, generation, "a scheduler refuses the report; it keeps the last good one");
    // It knows a younger report, of a run whose object is gone: ours must come after it.
    if field == "status.generation" {
        let known = u64::try_from(*generation).unwrap_or_default();
        open.shared.outdone.send_if_modified(|outdone| {
            let is_news = known > *outdone;
            *outdone = known.max(*outdone);
            is_news
        });
    }
}
