//! A running extender on port 0, and clients for it: hyper's, and raw bytes where a client has to misbehave.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::Gates;
use crate::http::{BoxFuture, Decide, ExplainError, ExplainRequest, Extender, Failure, ServeEnd, Settings, serve};
use crate::metrics::Metrics;
use crate::wire::{BindArgs, Evicted, FilterAnswer, Pod, PreemptArgs, PriorityAnswer, Reason};

/// No test waits longer than this for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const UNKNOWN: Reason = Reason { code: "unknown-node", text: "berth: unknown", helped_by_preemption: false };

/// Keeps the names that start with `gpu`, scores by position; a pod named `panic` or `refuse` gets that. Binds wait for a permit.
#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) asked: Mutex<Vec<Vec<String>>>,
    pub(super) bound: Mutex<Vec<BindArgs>>,
    pub(super) bind_permits: Semaphore,
    pub(super) binds_begun: Semaphore,
}

impl Scripted {
    fn play(&self, pod: &Pod, names: &[Cow<'_, str>]) -> Result<(), Failure> {
        match pod.metadata.name.as_str() {
            "panic" => panic!("scripted panic"),
            "refuse" => return Err(Failure::new("scripted", "refused by script")),
            _ => {}
        }
        self.asked.lock().unwrap().push(names.iter().map(|name| name.to_string()).collect());
        Ok(())
    }
}

impl Decide for Scripted {
    fn filter(&self, pod: &Pod, names: &[Cow<'_, str>], _deadline: Instant) -> Result<FilterAnswer, Failure> {
        self.play(pod, names)?;
        let mut answer = FilterAnswer::default();
        for (position, name) in names.iter().enumerate() {
            if name.starts_with("gpu") { answer.fits.push(position) } else { answer.reject(position, UNKNOWN) }
        }
        Ok(answer)
    }

    fn prioritize(&self, pod: &Pod, names: &[Cow<'_, str>], _deadline: Instant) -> Result<PriorityAnswer, Failure> {
        self.play(pod, names)?;
        Ok(PriorityAnswer { scores: (0..names.len()).zip(10..).collect() })
    }

    fn preempt(&self, args: &PreemptArgs, _deadline: Instant) -> Result<Vec<Evicted>, Failure> {
        self.play(&args.pod, &[])?;
        let of = |c: &crate::wire::Candidate| Evicted {
            node: c.node.clone(),
            victims: c.victims.clone(),
            violations: c.violations,
        };
        Ok(args.candidates.iter().filter(|c| c.node.starts_with("gpu")).map(of).collect())
    }

    fn bind(self: Arc<Self>, args: BindArgs) -> BoxFuture<Result<(), Failure>> {
        Box::pin(async move {
            self.binds_begun.add_permits(1);
            match args.pod_name.as_str() {
                "panic" => panic!("scripted panic"),
                "refuse" => return Err(Failure::new("scripted", "refused by script")),
                _ => {}
            }
            self.bind_permits.acquire().await.unwrap().forget();
            self.bound.lock().unwrap().push(args);
            Ok(())
        })
    }

    fn explain(&self, request: &ExplainRequest<'_>) -> Result<Vec<u8>, ExplainError> {
        match request {
            ExplainRequest::Named { pod: "panic", .. } => panic!("scripted panic"),
            ExplainRequest::Named { namespace, pod: "train-0" } => {
                Ok(format!("{{\"in\":\"{namespace}\"}}").into_bytes())
            }
            ExplainRequest::Named { pod, .. } => Err(ExplainError::NotFound(format!("no pod {pod}"))),
            ExplainRequest::Given { pod, names: None } => {
                Ok(format!("{{\"pod\":\"{}\"}}", pod.metadata.name).into_bytes())
            }
            ExplainRequest::Given { .. } => Err(ExplainError::Invalid("scripted".into())),
        }
    }
}

/// A running extender.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) decide: Arc<Scripted>,
    pub(super) extender: Extender,
    pub(super) metrics: Arc<Metrics>,
    pub(super) gates: Gates,
    pub(super) shutdown: CancellationToken,
    pub(super) server: JoinHandle<ServeEnd>,
}

pub(super) async fn rig() -> Rig {
    rig_with(|_| ()).await
}

pub(super) async fn rig_with(adjust: impl FnOnce(&mut Settings)) -> Rig {
    let mut settings = Settings { pre_stop_delay: Duration::ZERO, ..Settings::default() };
    adjust(&mut settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let decide = Arc::new(Scripted {
        asked: Mutex::default(),
        bound: Mutex::default(),
        bind_permits: Semaphore::new(0),
        binds_begun: Semaphore::new(0),
    });
    let (metrics, gates) = (Arc::new(Metrics::new("test")), Gates::new());
    let extender = Extender::new(Arc::clone(&decide) as Arc<dyn Decide>, gates.clone(), Arc::clone(&metrics), settings);
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, extender.clone(), shutdown.clone()));
    Rig { address, decide, extender, metrics, gates, shutdown, server }
}

impl Rig {
    pub(super) async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    pub(super) async fn raw(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// One call on a connection of its own.
    pub(super) async fn post(&self, path: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
        self.client().await.post(path, body).await
    }

    /// Waits until the metrics hold this line.
    pub(super) async fn shows(&self, line: &str) {
        eventually(line, || self.metrics.encode().unwrap().lines().any(|l| l == line)).await;
    }

    pub(super) async fn ends(self) -> ServeEnd {
        tokio::time::timeout(PATIENCE, self.server).await.expect("the server ends").unwrap()
    }
}

/// Waits for a condition, with a deadline.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// hyper's client on one connection.
pub(super) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub(super) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
        self.call("POST", path, body).await
    }

    pub(super) async fn call(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header("host", "berth");
        let request = request.body(Full::new(body.into())).unwrap();
        let exchange = async {
            self.0.ready().await.unwrap();
            let response = self.0.send_request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }
}

/// A client that writes whatever bytes it likes.
pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until `part` was seen; what was read so far when the server closed first.
    pub(super) async fn read_until(&mut self, part: &str) -> String {
        let mut seen = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&seen).contains(part) {
                match self.0.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => seen.extend_from_slice(&buffer[..n]),
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("bytes or an end in time");
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads until the server closes.
    pub(super) async fn read_to_end(&mut self) -> String {
        self.read_until("\u{0}never\u{0}").await
    }
}

pub(super) fn filter_body(pod: &str, names: &[&str]) -> String {
    serde_json::json!({"Pod": {"metadata": {"name": pod}}, "Nodes": null, "NodeNames": names}).to_string()
}

pub(super) fn bind_body(pod: &str) -> String {
    serde_json::json!({"PodName": pod, "PodNamespace": "ml", "PodUID": "u", "Node": "gpu-a"}).to_string()
}

/// The `Error` of an answer to filter or bind; empty is success.
pub(super) fn error_of(answer: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(answer).unwrap();
    value["Error"].as_str().unwrap().to_owned()
}
