//! The second listener: `/livez`, `/readyz`, `/healthz` and `/metrics`.
//!
//! Liveness never depends on the API server; readiness is the set of [`Gates`], each opened once by the part it names.

mod gates;
mod watchdog;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use gates::{Gate, Gates};
pub use watchdog::{Pulse, Watchdog};

use crate::http::{Limits, Respond, ServeEnd, listen};
use crate::metrics::Metrics;

/// What the admin listener shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Readiness.
    pub gates: Gates,
    /// Liveness.
    pub watchdog: Watchdog,
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

/// Answers on `listener` until `shutdown`. Call it with a token that fires after the extender has drained, so that probes and
/// metrics stay visible during the drain.
pub async fn serve(listener: TcpListener, admin: Admin, limits: Limits, shutdown: CancellationToken) -> ServeEnd {
    let ends = limits.drain_timeout;
    let listening = listen(listener, admin, limits, None, shutdown.clone());
    shutdown.cancelled().await;
    listening.drain(ends).await
}

impl Respond for Admin {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            response.headers_mut().insert(hyper::header::ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let verbose =
            request.uri().query().is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
        match request.uri().path() {
            "/livez" => self.alive("livez", verbose),
            "/healthz" => self.alive("healthz", verbose),
            "/readyz" => self.ready(verbose),
            "/metrics" => self.numbers(),
            path => {
                text(StatusCode::NOT_FOUND, format!("unknown path {path:?}; known: /livez /readyz /healthz /metrics\n"))
            }
        }
    }
}

impl Admin {
    fn alive(&self, check: &str, verbose: bool) -> Response<Full<Bytes>> {
        let trouble = |alive: bool| (!alive).then(|| "no sign of life".to_owned());
        let parts: Vec<_> = self.watchdog.states().into_iter().map(|(name, alive)| (name, trouble(alive))).collect();
        verdict(check, verbose, &parts)
    }

    fn ready(&self, verbose: bool) -> Response<Full<Bytes>> {
        let mut parts = self.gates.states();
        parts.push(("serving", self.gates.is_draining().then(|| "draining".to_owned())));
        verdict("readyz", verbose, &parts)
    }

    fn numbers(&self) -> Response<Full<Bytes>> {
        match self.metrics.encode() {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response
                    .headers_mut()
                    .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
        }
    }
}

/// The form of Kubernetes' own health endpoints: a list when it is asked for or when something is wrong, else `ok`.
fn verdict(check: &str, verbose: bool, parts: &[(&'static str, Option<String>)]) -> Response<Full<Bytes>> {
    let good = parts.iter().all(|(_, trouble)| trouble.is_none());
    if good && !verbose {
        return text(StatusCode::OK, "ok".to_owned());
    }
    let mut body = String::new();
    for (name, trouble) in parts {
        let line = match trouble {
            None => writeln!(body, "[+]{name} ok"),
            Some(trouble) => writeln!(body, "[-]{name} failed: {trouble}"),
        };
        // Writing into a string cannot fail.
        debug_assert!(line.is_ok());
    }
    body.push_str(check);
    body.push_str(if good { " check passed\n" } else { " check failed\n" });
    text(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
