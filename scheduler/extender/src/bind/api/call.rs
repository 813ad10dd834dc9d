//! The three calls of a bind, each with a deadline on both sides. kube's own `Api` can send no `timeout` with a request.

use std::fmt;
use std::time::Duration;

use berth_model::NodeName;
use http::{Method, Request};
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::http::Failure;
use crate::wire::{BindArgs, Pod};
use berth_core::annotation::PLAN_KEY;

/// Pods read of one node. Kubelets run 110 by default and some hundreds at most.
const PODS_MAX: usize = 2000;
/// Longest text of the API server quoted: it ends in a pod's Event.
const TEXT_CHARS_MAX: usize = 300;

/// Which pod goes where, with names that are safe in a path.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) node: NodeName,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.pod)
    }
}

impl Target {
    /// Checks names as the API server would, so that none can reach out of its path.
    pub(super) fn parse(args: &BindArgs) -> Result<Self, Failure> {
        let name = |field: &str, text: &str, more: &[u8]| {
            let is_legal = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(b);
            if !text.is_empty() && text.len() <= 253 && text.as_bytes().iter().all(is_legal) && !text.starts_with('.') {
                return Ok(text.to_owned());
            }
            let text: String = text.chars().take(64).collect();
            Err(Failure::new("bad-request", format!("{field}: {text:?} is no name of Kubernetes")))
        };
        let node = name("Node", &args.node, b"-.")?;
        if args.pod_uid.is_empty() {
            return Err(Failure::new("bad-request", "PodUID: missing, the pod's UID is right"));
        }
        Ok(Self {
            namespace: name("PodNamespace", &args.pod_namespace, b"-")?,
            pod: name("PodName", &args.pod_name, b"-.")?,
            uid: args.pod_uid.clone(),
            node: NodeName::parse(&node).map_err(|e| Failure::new("bad-request", format!("Node: {e}")))?,
        })
    }

    pub(super) fn gone(&self) -> Failure {
        Failure::new("pod-gone", format!("{self} with UID {} is gone", self.uid))
    }

    pub(super) fn elsewhere(&self, node: &str) -> Failure {
        Failure::new("bound-elsewhere", format!("{self} is bound to node {node} already, not to {}", self.node))
    }

    pub(super) fn leaving(&self) -> Failure {
        Failure::new("pod-leaving", format!("{self} is being deleted"))
    }
}

/// Why a call has no answer to use.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The API server said no.
    #[error("the API server answered {code}: {text}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its message, cut.
        text: String,
    },
    /// No answer in time.
    #[error("the API server did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// No connection, or an answer that cannot be read.
    #[error("{0}")]
    Broken(String),
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Pod>>,
}

#[derive(Deserialize, Default)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    continues: String,
}

/// Any object; its content is not read.
#[derive(Deserialize)]
struct Anything {}

/// The API server, as binding sees it.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The pod as of now; `None` where there is none of that name.
    pub(super) async fn pod(
        &self,
        target: &Target,
        most: Duration,
        ends_at: Instant,
    ) -> Result<Option<Pod>, CallError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}?", target.namespace, target.pod);
        match self.call::<Pod>(Method::GET, &path, Vec::new(), most, ends_at).await {
            Ok(pod) => Ok(Some(pod)),
            Err(CallError::Refused { code: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All live pods on a node as of now: without a resource version the API server answers no older state than that.
    pub(super) async fn pods_on(
        &self,
        node: &NodeName,
        most: Duration,
        ends_at: Instant,
    ) -> Result<Vec<Pod>, CallError> {
        let live = "status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";
        let path = format!("/api/v1/pods?limit={PODS_MAX}&fieldSelector=spec.nodeName%3D{node}%2C{live}&");
        let list: PodList = self.call(Method::GET, &path, Vec::new(), most, ends_at).await?;
        if !list.metadata.continues.is_empty() {
            return Err(CallError::Broken(format!("node {node} has more than {PODS_MAX} pods")));
        }
        Ok(list.items.unwrap_or_default())
    }

    /// Binds the pod if it still has the target's UID; the annotation goes with it in the same write.
    pub(super) async fn post_binding(
        &self,
        target: &Target,
        plan: Option<&str>,
        most: Duration,
        ends_at: Instant,
    ) -> Result<(), CallError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}/binding?", target.namespace, target.pod);
        let mut metadata = serde_json::json!({
            "namespace": target.namespace, "name": target.pod, "uid": target.uid,
        });
        if let (Some(plan), Some(metadata)) = (plan, metadata.as_object_mut()) {
            metadata.insert("annotations".to_owned(), serde_json::json!({ PLAN_KEY: plan }));
        }
        let binding = serde_json::json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": {"apiVersion": "v1", "kind": "Node", "name": target.node.as_str()},
        });
        let body = binding.to_string().into_bytes();
        self.call::<Anything>(Method::POST, &path, body, most, ends_at).await.map(|_| ())
    }

    /// One request. `path` ends in `?` or `&`; the server's own timeout is added to it.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        most: Duration,
        ends_at: Instant,
    ) -> Result<T, CallError> {
        let most = most.min(ends_at.saturating_duration_since(Instant::now()));
        if most.is_zero() {
            return Err(CallError::Late(most));
        }
        // Source: k8s.io/apiserver `pkg/server/filters/request_deadline.go`: `timeout` bounds every request but watches.
        let request = Request::builder().method(method).uri(format!("{path}timeout={}ms", most.as_millis().max(1)));
        let request = request.header("content-type", "application/json").body(body);
        let request = request.map_err(|error| CallError::Broken(error.to_string()))?;
        // Not `Client::request`: it logs a body that it cannot read, and pods hold secrets in their environment.
        let text = tokio::time::timeout(most, self.client.request_text(request)).await;
        let text = text.map_err(|_| CallError::Late(most))?.map_err(refusal)?;
        serde_json::from_str(&text).map_err(|error| CallError::Broken(format!("the answer cannot be read: {error}")))
    }
}

fn refusal(error: kube::Error) -> CallError {
    let cut = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect();
    match error {
        kube::Error::Api(status) => CallError::Refused { code: status.code, text: cut(&status.message) },
        other => CallError::Broken(cut(&format!("the API server cannot be reached: {}", chain(&other)))),
    }
}

/// The error with its causes: the outermost alone says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
