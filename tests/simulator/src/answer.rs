//! What callers ask of the API server, and the answers that they get or do not get.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Uri};
use serde_json::Value;

use crate::api::{Answer, Api, Call, Entry, Kind, Life, Verb, Written, answer, cut, refusal};
use crate::fleet;
use crate::step::How;

/// A call, as the server reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    List(Kind),
    Watch {
        kind: Kind,
        from: u64,
    },
    /// Pods of one node, as of now.
    PodsOn(Arc<str>),
    Pod(Arc<str>),
    Bind {
        pod: Arc<str>,
        uid: Arc<str>,
        node: Arc<str>,
        plan: Option<Arc<str>>,
        /// How long the server may work on it.
        timeout_ms: u64,
    },
    Touch(usize),
    Other,
}

impl What {
    pub(crate) fn read(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let asked = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key));
        let last = path.rsplit('/').next().unwrap_or_default();
        let kind = match path {
            "/api/v1/nodes" => Some(Kind::Nodes),
            "/apis/topology.berth.dev/v1alpha1/nodetopologies" => Some(Kind::Reports),
            "/api/v1/pods" => Some(Kind::Pods),
            "/api/v1/namespaces/berth-system/pods" => Some(Kind::Agents),
            "/apis/policy/v1/poddisruptionbudgets" => Some(Kind::Budgets),
            "/api/v1/namespaces/berth-system/configmaps" => Some(Kind::Policy),
            _ => None,
        };
        match (method, kind) {
            (&Method::GET, Some(kind)) if asked("watch=") == Some("true") => {
                let from = asked("resourceVersion=").and_then(|v| v.parse().ok()).unwrap_or(0);
                Self::Watch { kind, from }
            }
            (&Method::GET, Some(kind)) => match asked("fieldSelector=spec.nodeName%3D") {
                Some(selector) => Self::PodsOn(Arc::from(selector.split("%2C").next().unwrap_or_default())),
                None => Self::List(kind),
            },
            (&Method::GET, None) if path.starts_with("/api/v1/namespaces/ns/pods/") => Self::Pod(Arc::from(last)),
            (&Method::POST, None) if last == "binding" => Self::binding(path, query, body),
            (&Method::PATCH, None) => fleet::position(last).map_or(Self::Other, Self::Touch),
            _ => Self::Other,
        }
    }

    fn binding(path: &str, query: &str, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(Arc::from);
        let timeout = query.split('&').find_map(|part| part.strip_prefix("timeout=")?.strip_suffix("ms"));
        Self::Bind {
            pod: Arc::from(path.rsplit('/').nth(1).unwrap_or_default()),
            uid: text("/metadata/uid").unwrap_or_default(),
            node: text("/target/name").unwrap_or_default(),
            plan: text("/metadata/annotations/topology.berth.dev~1plan"),
            timeout_ms: timeout.and_then(|ms| ms.parse().ok()).unwrap_or(60_000),
        }
    }
}

impl Api {
    /// Answers a call that waits, or does what happens to it instead. A mutant's list of a node is what its watch was `told`.
    pub(crate) fn serve(&mut self, nth: usize, how: How, told: Option<usize>) {
        if nth >= self.calls.len() {
            return;
        }
        let (now, call) = (self.now_ms(), self.calls.remove(nth));
        let is_late = matches!(&call.what, What::Bind { .. }) && !call.may_still_land(now, self.trusted);
        let Call { life, what, reply, sent_ms } = call;
        let how = if is_late { How::Refuse(504) } else { how };
        if let (What::PodsOn(node), Some(told)) = (&what, told) {
            let texts = replayed(self.shelf(Kind::Pods).log.iter().take(told));
            let wanted = format!(r#""nodeName":"{node}""#);
            let on_it = texts.values().filter(|text| text.contains(&wanted));
            drop(reply.send(Ok(answer(200, listed(self.version, on_it)))));
            return;
        }
        // A caller that is gone hears nothing.
        match how {
            How::Ok => drop(reply.send(Ok(self.apply((life, sent_ms), &what, 0)))),
            How::Stale(back) => drop(reply.send(Ok(self.apply((life, sent_ms), &what, u64::from(back))))),
            How::Refuse(code) => drop(reply.send(Ok(answer(code, refusal(code))))),
            How::ApplyAndRefuse => {
                self.apply((life, sent_ms), &what, 0);
                drop(reply.send(Ok(answer(504, refusal(504)))));
            }
            How::Lose => self.lost.push((now, reply)),
            How::ApplyAndLose => {
                self.apply((life, sent_ms), &what, 0);
                self.lost.push((now, reply));
            }
            How::Cut => drop(reply.send(Err(cut()))),
            How::ApplyAndCut => {
                self.apply((life, sent_ms), &what, 0);
                drop(reply.send(Err(cut())));
            }
        }
    }

    fn apply(&mut self, (life, sent_ms): (Life, u64), what: &What, back: u64) -> Answer {
        match what {
            What::List(kind) => self.list(life, *kind, back),
            What::Watch { kind, from } => self.open(life, *kind, *from),
            What::PodsOn(node) => {
                let on_it = |name: &str| self.pods.get(name).is_some_and(|pod| pod.node.as_ref() == Some(node));
                let shelf = self.shelf(Kind::Pods);
                answer(200, listed(self.version, shelf.texts.iter().filter(|(key, _)| on_it(key)).map(|(_, t)| t)))
            }
            What::Pod(name) => match self.pods.get(name) {
                Some(pod) => answer(200, pod.json(self.version)),
                None => answer(404, refusal(404)),
            },
            What::Bind { pod, uid, node, plan, .. } => self.bind((life, sent_ms), pod, uid, node, plan.as_ref()),
            What::Touch(at) => {
                let Some(node) = &mut self.nodes[*at] else { return answer(404, refusal(404)) };
                node.touches += 1;
                let text = node.json(*at, self.version + 1);
                self.publish(Kind::Nodes, fleet::NAMES[*at]);
                answer(200, text)
            }
            What::Other => answer(404, refusal(404)),
        }
    }

    fn list(&mut self, life: Life, kind: Kind, back: u64) -> Answer {
        self.cheated.remove(&(life, kind));
        let shelf = self.shelf(kind);
        if back == 0 {
            return answer(200, listed(self.version, shelf.texts.values()));
        }
        // A follower that lags shows the world as it was.
        let version = self.version.saturating_sub(back).max(shelf.floor);
        let texts = replayed(shelf.log.iter().take_while(|entry| entry.version <= version));
        answer(200, listed(version, texts.values()))
    }

    /// Source: k8s.io/kubernetes `pkg/registry/core/pod/storage/storage.go`, `setPodNodeAndMetadata`.
    fn bind(&mut self, by: (Life, u64), pod: &Arc<str>, uid: &str, node: &Arc<str>, plan: Option<&Arc<str>>) -> Answer {
        let ignores_uids = self.ignores_uids;
        let Some(known) = self.pods.get(pod) else { return answer(404, refusal(404)) };
        let is_other = *known.uid != *uid && !ignores_uids;
        if is_other || known.is_leaving || known.node.is_some() || !known.is_live() {
            return answer(409, refusal(409));
        }
        self.edit_pod(pod, |pod| {
            pod.bound = Some(by);
            pod.node = Some(Arc::clone(node));
            pod.plan = plan.cloned();
        });
        self.written.push(Written { pod: Arc::clone(pod), life: by.0 });
        answer(201, r#"{"kind":"Status","apiVersion":"v1","status":"Success","code":201}"#)
    }
}

/// The objects as they were after these entries.
fn replayed<'a>(log: impl Iterator<Item = &'a Entry>) -> BTreeMap<Arc<str>, Arc<str>> {
    let mut texts = BTreeMap::new();
    for entry in log {
        match entry.verb {
            Verb::Deleted => texts.remove(&entry.key),
            Verb::Added | Verb::Modified => texts.insert(Arc::clone(&entry.key), Arc::clone(&entry.text)),
        };
    }
    texts
}

fn listed<'a>(version: u64, texts: impl Iterator<Item = &'a Arc<str>>) -> Bytes {
    let mut body = format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":["#);
    for (i, text) in texts.enumerate() {
        if i > 0 {
            body.push(',');
        }
        body.push_str(text);
    }
    body.push_str("]}");
    Bytes::from(body)
}
