//! The calls that kube-scheduler makes for one pod, made by a plain HTTP client.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::queue::DemoPod;

/// What became of a pod.
pub(super) enum Choice {
    /// It is bound.
    Bound {
        /// Where.
        node: String,
    },
    /// No node can take it.
    Nowhere {
        /// Reason text to number of nodes.
        reasons: BTreeMap<String, usize>,
    },
}

/// The part of kube-scheduler that talks to an extender.
pub(super) struct KubeScheduler {
    sender: SendRequest<Full<Bytes>>,
    nodes: Vec<String>,
}

impl KubeScheduler {
    pub(super) async fn connect(address: SocketAddr, nodes: Vec<String>) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, nodes })
    }

    /// Filter, then prioritize when there is a choice, then bind: the order of `schedule_one.go`.
    pub(super) async fn schedule(&mut self, pod: &DemoPod) -> Result<Choice> {
        let object = pod.object();
        let filtered = self.post("/filter", &json!({"Pod": object, "Nodes": null, "NodeNames": self.nodes})).await?;
        if let Some(error) = filtered["Error"].as_str().filter(|e| !e.is_empty()) {
            bail!("filter of {}: {error}", pod.name);
        }
        let fits: Vec<&str> =
            filtered["NodeNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let node = match fits.as_slice() {
            [] => return Ok(Choice::Nowhere { reasons: count_reasons(&filtered) }),
            [only] => (*only).to_owned(),
            several => {
                let args = json!({"Pod": object, "Nodes": null, "NodeNames": several});
                let scores = self.post("/prioritize", &args).await?;
                let best = scores.as_array().into_iter().flatten().max_by_key(|s| s["Score"].as_i64());
                let host = best.and_then(|s| s["Host"].as_str()).context("prioritize scored nobody")?;
                host.to_owned()
            }
        };
        let args = json!({"PodName": pod.name, "PodNamespace": "demo", "PodUID": pod.uid(), "Node": node});
        let bound = self.post("/bind", &args).await?;
        match bound["Error"].as_str() {
            Some("") => Ok(Choice::Bound { node }),
            error => bail!("bind of {}: {}", pod.name, error.unwrap_or("no answer")),
        }
    }

    pub(super) async fn explain(&mut self, pod: &DemoPod) -> Result<Value> {
        let path = format!("/explain?namespace=demo&pod={}", pod.name);
        self.call(Method::GET, &path, Bytes::new()).await
    }

    async fn post(&mut self, path: &str, args: &Value) -> Result<Value> {
        self.call(Method::POST, path, Bytes::from(serde_json::to_vec(args)?)).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Value> {
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1").body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            bail!("{path} answered {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).with_context(|| format!("{path} answered no JSON"))
    }
}

fn count_reasons(filtered: &Value) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for list in ["FailedNodes", "FailedAndUnresolvableNodes"] {
        for text in filtered[list].as_object().into_iter().flat_map(|m| m.values()).filter_map(Value::as_str) {
            *reasons.entry(text.to_owned()).or_default() += 1;
        }
    }
    reasons
}
