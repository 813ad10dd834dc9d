//! The admin endpoint: probes for the kubelet, metrics for Prometheus. It answers while the hardware or the API server do not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// More callers than a kubelet and a few scrapers are somebody else; they wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A request has no body and fits one packet, so a slower one is not meant well.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is given up after this, so that idle ones do not use up the limit.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept (out of descriptors) the next one would fail at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the endpoint tells.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
}

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) -> Infallible {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = admin.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            // Without a timer hyper's header timeout does nothing.
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = server.serve_connection(TokioIo::new(stream), answer);
            // A caller that goes away or stalls is its own trouble: nothing to log.
            let _ended = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(slot);
        });
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        match request.uri().path() {
            // Alive means that this answers. A hung driver call is no reason for a restart: the new process would hang too.
            "/livez" | "/healthz" => plain(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.readiness.trouble(Instant::now()) {
                None => plain(StatusCode::OK, "ok\n".to_owned()),
                Some(trouble) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
            },
            "/metrics" => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response(StatusCode::OK, kind, self.metrics.text())
            }
            _ => plain(StatusCode::NOT_FOUND, "known: /livez /readyz /healthz /metrics\n".to_owned()),
        }
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
