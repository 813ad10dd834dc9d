//! An API server in this process, for tests: objects by path, lists, watches, bindings, and the failures that a real one cannot
//! be made to have. Its answers are those of Kubernetes 1.36 as far as the scheduler reads them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What a call meets instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This status; nothing is applied.
    Refuse(u16),
    /// It is applied, and the answer is this status all the same.
    ApplyAndRefuse(u16),
    /// It is applied, and the answer never comes.
    LoseAnswer,
    /// It is not applied, and no answer comes.
    Stall,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// The API server. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: std::collections::BTreeMap<String, Value>,
    history: Vec<(u64, String, Value)>,
    watchers: Vec<(String, String, mpsc::UnboundedSender<Value>)>,
    faults: Vec<(Method, &'static str, Fault, usize)>,
    calls: Vec<Call>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl FakeApi {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// The next `times` calls of the method whose path holds `part` meet the fault.
    pub(crate) fn fail(&self, method: Method, part: &'static str, fault: Fault, times: usize) {
        self.lock().faults.push((method, part, fault, times));
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.lock().put(path, object);
    }

    pub(crate) fn delete(&self, path: &str) {
        self.lock().delete(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Replaces an object without telling the watches that are open.
    pub(crate) fn put_unseen(&self, path: &str, object: Value) {
        let watchers = std::mem::take(&mut self.lock().watchers);
        self.put(path, object);
        self.lock().watchers = watchers;
    }

    /// Changes things while every watch is cut, and forgets what it would need to resume them: each watcher meets 410 and lists.
    pub(crate) fn blink(&self, change: impl FnOnce(&Self)) {
        let cut: Vec<_> = std::mem::take(&mut self.lock().watchers);
        change(self);
        self.lock().history.clear();
        let gone = json!({"type": "ERROR", "object": refusal(410, "too old resource version")});
        for (.., watcher) in cut {
            // A watcher that is gone already needs no word.
            drop(watcher.send(gone.clone()));
        }
    }

    /// The calls so far of the method whose path holds `part`.
    pub(crate) fn calls(&self, method: &Method, part: &str) -> Vec<Call> {
        let calls = self.lock().calls.clone();
        calls.into_iter().filter(|c| c.method == *method && c.path.contains(part)).collect()
    }

    async fn serve(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        let fault = self.lock().meet(&call);
        match fault {
            Some(Fault::Refuse(code)) => answer(code, &refusal(code, "told to")),
            Some(Fault::ApplyAndRefuse(code)) => {
                drop(self.lock().answer(&call));
                answer(code, &refusal(code, "told to"))
            }
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::LoseAnswer) => {
                drop(self.lock().answer(&call));
                std::future::pending().await
            }
            None => self.lock().answer(&call),
        }
    }
}

impl State {
    fn meet(&mut self, call: &Call) -> Option<Fault> {
        self.calls.push(call.clone());
        let fits = |(method, part, _, times): &&mut (Method, &str, Fault, usize)| {
            *times > 0 && *method == call.method && call.path.contains(*part)
        };
        let fault = self.faults.iter_mut().find(fits)?;
        fault.3 -= 1;
        Some(fault.2)
    }

    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(path.to_owned(), object.clone());
        self.announce(path, &json!({"type": kind, "object": object}));
    }

    fn delete(&mut self, path: &str) {
        let Some(mut object) = self.objects.remove(path) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.announce(path, &json!({"type": "DELETED", "object": object}));
    }

    fn announce(&mut self, path: &str, event: &Value) {
        self.history.push((self.version, path.to_owned(), event.clone()));
        self.watchers.retain(|(collection, query, watcher)| {
            !is_in(path, collection) || watcher.send(as_selected(event, query)).is_ok()
        });
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let path = call.path.as_str();
        if call.query.contains("watch=true") {
            return self.watch(call);
        }
        match (&call.method, path.strip_suffix("/binding")) {
            (&Method::POST, Some(pod)) => self.bind(pod, &call.body),
            (&Method::POST, None) => {
                let name = call.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                self.put(&format!("{path}/{name}"), call.body.clone());
                answer(201, &call.body)
            }
            (&Method::PATCH, _) => {
                let Some(mut object) = self.objects.get(path).cloned() else { return answer(404, &refusal(404, path)) };
                merge(&mut object, &call.body);
                self.put(path, object.clone());
                answer(200, &object)
            }
            (&Method::GET, _) if is_collection(path) => self.list(call),
            (&Method::GET, _) => match self.objects.get(path) {
                Some(object) => answer(200, object),
                None => answer(404, &refusal(404, &format!("{path} not found"))),
            },
            _ => answer(405, &refusal(405, path)),
        }
    }

    fn list(&self, call: &Call) -> Answer {
        let inside = self.objects.iter().filter(|(path, _)| is_in(path, &call.path));
        let items: Vec<&Value> = inside.map(|(_, o)| o).filter(|o| is_selected(o, &call.query)).collect();
        answer(200, &json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items}))
    }

    fn watch(&mut self, call: &Call) -> Answer {
        let since = call.query.split('&').find_map(|p| p.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|v| v.parse().ok()).unwrap_or(0);
        let (sender, receiver) = mpsc::unbounded_channel();
        for (version, path, event) in &self.history {
            if *version > since && is_in(path, &call.path) {
                sender.send(as_selected(event, &call.query)).unwrap();
            }
        }
        self.watchers.push((call.path.clone(), call.query.clone(), sender));
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            let line = Bytes::from(format!("{event}\n"));
            Some((Ok::<_, Infallible>(Frame::data(line)), receiver))
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(lines.boxed())))
    }

    /// Source: k8s.io/kubernetes `pkg/registry/core/pod/storage/storage.go`, `setPodNodeAndMetadata`.
    fn bind(&mut self, path: &str, binding: &Value) -> Answer {
        let Some(mut pod) = self.objects.get(path).cloned() else { return answer(404, &refusal(404, path)) };
        let conflict = |text: &str| answer(409, &refusal(409, text));
        if binding["metadata"]["uid"] != pod["metadata"]["uid"] {
            return conflict("Precondition failed: UID in precondition");
        }
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return conflict("pod is being deleted, cannot be assigned to a host");
        }
        if pod["spec"]["nodeName"].is_string() {
            return conflict("pod is already assigned to node");
        }
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        merge(&mut pod["metadata"], &json!({"annotations": binding["metadata"]["annotations"]}));
        self.put(path, pod);
        answer(201, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}))
    }
}

fn answer(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string()));
    Response::builder().status(code).body(UnsyncBoxBody::new(body)).unwrap()
}

fn refusal(code: u16, text: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": text, "reason": ""})
}

const COLLECTIONS: [&str; 6] =
    ["/pods", "/nodes", "/configmaps", "/nodetopologies", "/events", "/poddisruptionbudgets"];

fn is_collection(path: &str) -> bool {
    COLLECTIONS.iter().any(|c| path.ends_with(c))
}

/// Whether an object's path is of a collection, of one namespace or of all.
fn is_in(path: &str, collection: &str) -> bool {
    let Some((prefix, kind)) = collection.rsplit_once('/') else { return false };
    path.starts_with(prefix) && path.rsplit('/').nth(1) == Some(kind)
}

/// Whether the field selectors that the scheduler uses take the object.
fn is_selected(object: &Value, query: &str) -> bool {
    let query = query.replace("%3D", "=").replace("%21", "!").replace("%2C", ",");
    let selector = query.split('&').find_map(|p| p.strip_prefix("fieldSelector=")).unwrap_or_default().to_owned();
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (path, wanted, equal) = match term.split_once("!=") {
            Some((path, value)) => (path, value, false),
            None => term.split_once('=').map(|(path, value)| (path, value, true)).unwrap(),
        };
        let pointer = format!("/{}", path.replace('.', "/"));
        (object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default() == wanted) == equal
    })
}

/// An object that leaves the selection comes as deleted.
fn as_selected(event: &Value, query: &str) -> Value {
    let mut event = event.clone();
    if !is_selected(&event["object"], query) {
        event["type"] = json!("DELETED");
    }
    event
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}
