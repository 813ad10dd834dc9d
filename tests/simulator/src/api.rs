//! The API server: objects with versions, what was told of them in which order, calls that wait for their answer.
//!
//! Nothing happens by itself: a call that has come in waits until a step answers it, and a watch shows an event when a step delivers it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::Body;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::answer::What;
use crate::fleet;
use crate::objects::{Agent, Node, Pod, Report, policy_json};
use crate::watch::Watch;

/// How long the scheduler's clients wait for a byte (`watch::client`).
const READ_MS_MAX: u64 = 75_000;

/// How long a call may be on its way.
const LATE_MS_MAX: u64 = 10_000;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nodes,
    Reports,
    Pods,
    Agents,
    Policy,
    Budgets,
}

pub(crate) const KINDS: [Kind; 6] = [Kind::Nodes, Kind::Reports, Kind::Pods, Kind::Agents, Kind::Policy, Kind::Budgets];

/// How an object came into a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Added,
    Modified,
    Deleted,
}

/// What was told of one object.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) version: u64,
    pub(crate) key: Arc<str>,
    pub(crate) verb: Verb,
    pub(crate) text: Arc<str>,
}

/// Objects of one kind that its watchers select, and what was told of them.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) texts: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) log: Vec<Entry>,
    /// What came before this version cannot be watched any more.
    pub(crate) floor: u64,
}

/// Identity of one life of a scheduler's process.
pub(crate) type Life = u32;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) life: Life,
    pub(crate) what: What,
    pub(crate) sent_ms: u64,
    pub(crate) reply: oneshot::Sender<Result<Answer, io::Error>>,
}

/// A binding that was written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) pod: Arc<str>,
    pub(crate) life: Life,
}

impl Call {
    /// Whether it may be applied though nobody waits for it any more. The server gives up by itself in time, but does not know how long a
    /// call was on its way; the connection of a process that died is closed, and so much later another leader speaks.
    pub(crate) fn may_still_land(&self, now_ms: u64, trusted: Option<Life>) -> bool {
        let What::Bind { timeout_ms, .. } = &self.what else { return false };
        let late_ms = if trusted == Some(self.life) { LATE_MS_MAX } else { 0 };
        now_ms.saturating_sub(self.sent_ms) < timeout_ms + late_ms
    }
}

#[derive(Debug)]
pub(crate) struct Api {
    began: Instant,
    pub(crate) version: u64,
    pub(crate) nodes: [Option<Node>; fleet::NAMES.len()],
    pub(crate) reports: [Option<Report>; fleet::NAMES.len()],
    pub(crate) agents: [Option<Agent>; fleet::NAMES.len()],
    pub(crate) policy: Option<usize>,
    pub(crate) pods: BTreeMap<Arc<str>, Pod>,
    pub(crate) shelves: [Shelf; KINDS.len()],
    pub(crate) calls: Vec<Call>,
    pub(crate) watches: Vec<Watch>,
    /// Calls whose answer is lost: their callers wait in vain.
    pub(crate) lost: Vec<(u64, oneshot::Sender<Result<Answer, io::Error>>)>,
    /// Watchers that missed something: only a list brings it back.
    pub(crate) cheated: BTreeSet<(Life, Kind)>,
    /// Bindings since somebody looked.
    pub(crate) written: Vec<Written>,
    /// Reports that were ever published, by node and generation: what a plan may be made from.
    pub(crate) published: BTreeSet<(usize, fleet::Content)>,
    /// The process whose bindings may arrive late.
    pub(crate) trusted: Option<Life>,
    /// Whether the check of a binding's UID is left out: a mutant.
    pub(crate) ignores_uids: bool,
}

/// Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Api>>);

impl Shared {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Api {
            began: Instant::now(),
            version: 1,
            nodes: Default::default(),
            reports: Default::default(),
            agents: Default::default(),
            policy: None,
            pods: BTreeMap::new(),
            shelves: Default::default(),
            calls: Vec::new(),
            watches: Vec::new(),
            lost: Vec::new(),
            cheated: BTreeSet::new(),
            written: Vec::new(),
            published: BTreeSet::new(),
            trusted: None,
            ignores_uids: false,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Api> {
        self.0.lock().unwrap()
    }

    /// A client of one life of a scheduler.
    pub(crate) fn client(&self, life: Life) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                let what = What::read(&parts.method, &parts.uri, &body);
                let (reply, answer) = oneshot::channel();
                {
                    let mut api = api.lock();
                    let sent_ms = api.now_ms();
                    api.calls.push(Call { life, what, sent_ms, reply });
                }
                answer.await.unwrap_or_else(|_| Err(cut()))
            }
        });
        Client::new(service, "default")
    }
}

/// The end of a connection.
pub(crate) fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut")
}

pub(crate) fn answer(code: u16, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {});
    Response::builder().status(code).body(UnsyncBoxBody::new(body)).unwrap()
}

pub(crate) fn refusal(code: u16) -> String {
    format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","code":{code},"message":"told to","reason":""}}"#)
}

impl Api {
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    pub(crate) fn shelf(&self, kind: Kind) -> &Shelf {
        &self.shelves[kind as usize]
    }

    /// Tells what an object is now, after it changed.
    pub(crate) fn publish(&mut self, kind: Kind, key: &str) {
        self.version += 1;
        let version = self.version;
        let at = || fleet::position(key).unwrap();
        let text = match kind {
            Kind::Nodes => self.nodes[at()].as_ref().map(|node| node.json(at(), version)),
            Kind::Reports => self.reports[at()].as_ref().map(|report| report.json(at(), version)),
            Kind::Agents => self.agents[at()].as_ref().map(|agent| agent.json(at(), version)),
            // Nobody makes one.
            Kind::Budgets => None,
            Kind::Policy => self.policy.map(|document| policy_json(document, version)),
            // A pod that ends leaves the selection.
            Kind::Pods => self.pods.get(key).filter(|pod| pod.is_live()).map(|pod| pod.json(version)),
        };
        if kind == Kind::Reports
            && let Some(report) = &self.reports[at()]
        {
            self.published.insert((at(), report.content));
        }
        let shelf = &mut self.shelves[kind as usize];
        let key: Arc<str> = Arc::from(key);
        let (verb, text) = match text {
            Some(text) => {
                let text: Arc<str> = Arc::from(text);
                let before = shelf.texts.insert(Arc::clone(&key), Arc::clone(&text));
                (if before.is_some() { Verb::Modified } else { Verb::Added }, text)
            }
            None => match shelf.texts.remove(&key) {
                Some(text) => (Verb::Deleted, at_version(&text, version)),
                None => return,
            },
        };
        shelf.log.push(Entry { version, key, verb, text });
    }

    /// Removes a pod for good.
    pub(crate) fn remove_pod(&mut self, name: &str) {
        self.pods.remove(name);
        self.publish(Kind::Pods, name);
    }

    /// Changes a pod, if it is there.
    pub(crate) fn edit_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        if let Some(pod) = self.pods.get_mut(name) {
            change(pod);
            self.publish(Kind::Pods, name);
        }
    }

    /// Forgets callers and watchers that went away. A binding outlives its caller: it is on its way.
    pub(crate) fn sweep(&mut self) {
        let now = self.now_ms();
        let trusted = self.trusted;
        self.calls.retain(|call| !call.reply.is_closed() || call.may_still_land(now, trusted));
        self.watches.retain(|watch| !watch.is_over());
        // The clients of watchers end a connection on which nothing comes.
        let (over, lost) = std::mem::take(&mut self.lost)
            .into_iter()
            .filter(|(_, reply)| !reply.is_closed())
            .partition(|(lost_ms, _)| now.saturating_sub(*lost_ms) > READ_MS_MAX);
        self.lost = lost;
        for (_, reply) in over {
            drop(reply.send(Err(cut())));
        }
    }
}

/// The text of an object that is gone, with the version of its end.
fn at_version(text: &str, version: u64) -> Arc<str> {
    const KEY: &str = r#""resourceVersion":""#;
    let start = text.find(KEY).unwrap() + KEY.len();
    let end = start + text[start..].find('"').unwrap();
    Arc::from(format!("{}{version}{}", &text[..start], &text[end..]))
}
