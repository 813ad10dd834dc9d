//! Owns a proxy before an API server that fails on request: it refuses, loses answers after the write, holds requests back and cuts
//! connections. Everything else passes untouched, watches included. Plain HTTP on loopback, so that nobody has to trust another key.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::controlplane::ControlPlane;

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The write of a bind.
    Binding,
    /// The list of a node's pods before it.
    NodeList,
    /// The read of the pod after it.
    PodRead,
}

impl On {
    fn covers(self, method: &Method, path: &str, query: &str) -> bool {
        let is_pod = path.starts_with("/api/v1/namespaces/") && path.contains("/pods/");
        match self {
            Self::Binding => *method == Method::POST && path.ends_with("/binding"),
            Self::NodeList => *method == Method::GET && path == "/api/v1/pods" && query.contains("spec.nodeName"),
            Self::PodRead => *method == Method::GET && is_pod,
        }
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status; the API server never sees it.
    Refuse(u16),
    /// Carried out, and answered with this status.
    ApplyAndRefuse(u16),
    /// The connection is cut; the API server never sees it.
    CutBefore,
    /// Carried out, and then the connection is cut.
    CutAfter,
    /// Carried out at once, and answered so much later.
    AnswerLate(Duration),
    /// Carried out so much later, even when nobody waits for the answer any more.
    ApplyLate(Duration),
}

#[derive(Debug)]
struct Rule {
    on: On,
    fault: Fault,
    left: usize,
}

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<Rule>,
    /// How many requests met a fault.
    met: usize,
}

/// A proxy that fails on request. Ends when it is dropped.
#[derive(Debug)]
pub struct Faulty {
    address: SocketAddr,
    rules: Arc<Mutex<Rules>>,
    accepting: JoinHandle<()>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

impl Faulty {
    /// Starts a proxy before the plane's API server.
    ///
    /// # Errors
    /// No port can be taken.
    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let rules = Arc::new(Mutex::new(Rules::default()));
        let (client, shared) = (plane.anonymous()?, Arc::clone(&rules));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, rules) = (client.clone(), Arc::clone(&shared));
                let service = service_fn(move |request| {
                    let (client, rules) = (client.clone(), Arc::clone(&rules));
                    async move { pass(request, client, &rules).await }
                });
                // An error of the service is a connection that is cut.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Self { address, rules, accepting })
    }

    /// The kubeconfig for the same identity by way of this proxy.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn kubeconfig(&self, own: &Path) -> Result<PathBuf> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(own)?)?;
        let cluster = config["clusters"][0]["cluster"].as_object_mut().context("a kubeconfig without a cluster")?;
        cluster.remove("certificate-authority");
        cluster.insert("server".to_owned(), json!(format!("http://{}", self.address)));
        let path = own.with_extension("faulty");
        std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(path)
    }

    /// The next `times` such requests meet the fault.
    pub fn fail(&self, on: On, fault: Fault, times: usize) {
        self.lock().rules.push(Rule { on, fault, left: times });
    }

    /// How many requests met a fault so far.
    #[must_use]
    pub fn met(&self) -> usize {
        self.lock().met
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(request: Request<Incoming>, client: Client, rules: &Mutex<Rules>) -> Result<Answer> {
    let fault = {
        let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, uri) = (request.method(), request.uri());
        let covers =
            |rule: &&mut Rule| rule.left > 0 && rule.on.covers(method, uri.path(), uri.query().unwrap_or_default());
        let met = rules.rules.iter_mut().find(covers).map(|rule| {
            rule.left -= 1;
            rule.fault
        });
        rules.met += usize::from(met.is_some());
        met
    };
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(hyper::header::HOST);
    let body = body.collect().await?.to_bytes();
    let forward = async move { client.send(Request::from_parts(parts, Body::from(body.to_vec()))).await };
    match fault {
        None => Ok(forward.await?.map(BodyExt::boxed_unsync)),
        Some(Fault::Refuse(code)) => Ok(refusal(code)),
        Some(Fault::ApplyAndRefuse(code)) => {
            forward.await?;
            Ok(refusal(code))
        }
        Some(Fault::CutBefore) => bail!("cut by a fault"),
        Some(Fault::CutAfter) => {
            forward.await?;
            bail!("cut by a fault")
        }
        Some(Fault::AnswerLate(time)) => {
            let answer = forward.await?;
            tokio::time::sleep(time).await;
            Ok(answer.map(BodyExt::boxed_unsync))
        }
        Some(Fault::ApplyLate(time)) => {
            // A task of its own: a client that hangs up does not call back what is on its way.
            let late = tokio::spawn(async move {
                tokio::time::sleep(time).await;
                forward.await
            });
            let answer = late.await??;
            Ok(answer.map(BodyExt::boxed_unsync))
        }
    }
}

/// As the API server words a refusal.
fn refusal(code: u16) -> Answer {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("a fault of this test: {code}"), "reason": reason, "code": code});
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    if code == 429 {
        response.headers_mut().insert(hyper::header::RETRY_AFTER, hyper::header::HeaderValue::from_static("1"));
    }
    response
}
