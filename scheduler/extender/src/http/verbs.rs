//! The calls of kube-scheduler: decode, ask, encode.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use berth_core::demand::PodRequest;
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};

use super::{Extender, Failure, OK, Verb, Written, json};
use crate::convert::into_request;
use crate::metrics::{ByReason, ByResult, ByVerb};
use crate::wire::{self, ExtenderArgs, FilterAnswer, Pod, SplitArgs};

/// The result label and the answer.
pub(super) type Answered = (&'static str, Response<Full<Bytes>>);

impl Extender {
    pub(super) async fn filter(&self, body: Incoming, deadline: Instant) -> Answered {
        let answer = match self.read(body, deadline).await {
            Ok(body) => self.caught(Verb::Filter, || self.decide_filter(body.bytes(), deadline)),
            Err(failure) => Err(failure),
        };
        answered(Verb::Filter, answer, wire::encode_filter_error)
    }

    fn decide_filter(&self, body: &[u8], deadline: Instant) -> Result<Vec<u8>, Failure> {
        let (pod, names) = match self.open(Verb::Filter, body, deadline)? {
            Opened::Split(request, list) => match self.0.decide.filter_list(&request, list) {
                Some(written) => return Ok(self.told(Verb::Filter, &request.uid, written)),
                None => read_whole(body)?,
            },
            Opened::Read(pod, names) => (pod, names),
        };
        self.count_asked(Verb::Filter, names.len());
        let answer = self.0.decide.filter(&pod, &names, deadline)?;
        self.count_rejections(&answer);
        tell(Verb::Filter, &pod.metadata.uid, names.len(), answer.fits.len());
        Ok(wire::encode_filter(&answer, &names))
    }

    pub(super) async fn prioritize(&self, body: Incoming, deadline: Instant) -> Answered {
        let answer = match self.read(body, deadline).await {
            Ok(body) => self.caught(Verb::Prioritize, || self.decide_prioritize(body.bytes(), deadline)),
            Err(failure) => Err(failure),
        };
        // The type has no field for an error; an empty list leaves the choice to kube-scheduler.
        answered(Verb::Prioritize, answer, |_| b"[]".to_vec())
    }

    fn decide_prioritize(&self, body: &[u8], deadline: Instant) -> Result<Vec<u8>, Failure> {
        let (pod, names) = match self.open(Verb::Prioritize, body, deadline)? {
            Opened::Split(request, list) => match self.0.decide.prioritize_list(&request, list) {
                Some(written) => return Ok(self.told(Verb::Prioritize, &request.uid, written)),
                None => read_whole(body)?,
            },
            Opened::Read(pod, names) => (pod, names),
        };
        self.count_asked(Verb::Prioritize, names.len());
        let answer = self.0.decide.prioritize(&pod, &names, deadline)?;
        tell(Verb::Prioritize, &pod.metadata.uid, names.len(), answer.scores.len());
        Ok(wire::encode_priorities(&answer, &names))
    }

    pub(super) async fn preempt(&self, body: Incoming, deadline: Instant) -> Answered {
        let answer = match self.read(body, deadline).await {
            Ok(body) => self.caught(Verb::Preempt, || self.decide_preempt(body.bytes(), deadline)),
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(body) => (OK, json(StatusCode::OK, body)),
            Err(failure) => {
                tracing::warn!(verb = Verb::Preempt.word(), code = failure.code, text = failure.text, "call refused");
                let is_theirs = failure.code == "bad-request";
                let status = if is_theirs { StatusCode::BAD_REQUEST } else { StatusCode::SERVICE_UNAVAILABLE };
                (failure.code, json(status, wire::encode_error_text(&failure.text)))
            }
        }
    }

    fn decide_preempt(&self, body: &[u8], deadline: Instant) -> Result<Vec<u8>, Failure> {
        if let Some(failure) = self.not_ready() {
            return Err(failure);
        }
        let args = wire::decode_preempt_args(body).map_err(|e| Failure::new("bad-request", e.to_string()))?;
        self.count_asked(Verb::Preempt, args.candidates.len());
        let evicted = self.0.decide.preempt(&args, deadline)?;
        tell(Verb::Preempt, &args.pod.metadata.uid, args.candidates.len(), evicted.len());
        Ok(wire::encode_preempt(&evicted))
    }

    pub(super) async fn bind(&self, body: Incoming, deadline: Instant) -> Answered {
        let answer = self.decide_bind(body, deadline).await;
        answered(Verb::Bind, answer.map(|()| wire::encode_bind(None)), |text| wire::encode_bind(Some(text)))
    }

    async fn decide_bind(&self, body: Incoming, deadline: Instant) -> Result<(), Failure> {
        let body = self.read(body, deadline).await?;
        if let Some(failure) = self.not_ready() {
            return Err(failure);
        }
        let args = wire::decode_bind_args(body.bytes()).map_err(|e| Failure::new("bad-request", e.to_string()))?;
        drop(body);
        let slots = Arc::clone(&self.0.bind_slots);
        let slot = tokio::time::timeout_at(deadline.into(), slots.acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            return Err(Failure::new("busy", "too many binds in flight, try again"));
        };
        let shared = Arc::clone(&self.0);
        // A task of its own: when the caller hangs up in the middle, the write to the API server must not be left half known.
        let task = self.0.tasks.spawn(async move {
            let _slot = slot;
            let decide = Arc::clone(&shared.decide);
            let bind = AssertUnwindSafe(async move { decide.bind(args).await }).catch_unwind();
            let ended = bind.await.unwrap_or_else(|payload| Err(shared.panicked(Verb::Bind, &*payload)));
            let result = ended.as_ref().err().map_or(OK, |failure| failure.code);
            shared.metrics.bind_results.get_or_create(&ByResult { result }).inc();
            ended
        });
        match tokio::time::timeout_at(deadline.into(), task).await {
            Ok(Ok(ended)) => ended,
            // The task catches its own panics, so this is the runtime going down.
            Ok(Err(_)) => {
                Err(Failure::new("shutdown", "bind was ended by shutdown; spec.nodeName of the pod tells how"))
            }
            Err(_) => {
                let text = "bind takes too long and goes on; spec.nodeName of the pod tells how it ended";
                Err(Failure::new("deadline", text))
            }
        }
    }

    /// The pod of a call and its names, as far as they have to be read; or why there are none.
    fn open<'a>(&self, verb: Verb, body: &'a [u8], deadline: Instant) -> Result<Opened<'a>, Failure> {
        if let Some(failure) = self.not_ready() {
            return Err(failure);
        }
        let opened = match self.split(verb, body) {
            Some((request, list)) => Opened::Split(request, list),
            None => {
                let (pod, names) = read_whole(body)?;
                Opened::Read(pod, names)
            }
        };
        if Instant::now() >= deadline {
            return Err(Failure::new("deadline", "the deadline of the call passed before it could be decided"));
        }
        Ok(opened)
    }

    /// What the pod of a call asks for, and the names as they stand in its body.
    fn split<'a>(&self, verb: Verb, body: &'a [u8]) -> Option<(Arc<PodRequest>, &'a [u8])> {
        let args = SplitArgs::of(body)?;
        if let Some(known) = args.version().and_then(|version| self.0.decide.known_pod(version)) {
            return Some((known, args.list));
        }
        self.0.metrics.pods_read.get_or_create_owned(&ByVerb { verb: verb.word() }).inc();
        Some((Arc::new(into_request(args.read_pod()?)), args.list))
    }

    fn told(&self, verb: Verb, pod_uid: &str, written: Written) -> Vec<u8> {
        self.count_asked(verb, written.asked_count);
        tell(verb, pod_uid, written.asked_count, written.named_count);
        written.body
    }

    fn count_asked(&self, verb: Verb, count: usize) {
        let evaluated = self.0.metrics.nodes_evaluated.get_or_create_owned(&ByVerb { verb: verb.word() });
        evaluated.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn count_rejections(&self, answer: &FilterAnswer) {
        for group in &answer.rejected {
            let count = u64::try_from(group.positions.len()).unwrap_or(u64::MAX);
            let reason = ByReason { reason: group.reason.code };
            self.0.metrics.filter_rejections.get_or_create_owned(&reason).inc_by(count);
        }
    }
}

/// A request.
enum Opened<'a> {
    /// As Go writes it: the names may stay as they are.
    Split(Arc<PodRequest>, &'a [u8]),
    /// Written otherwise: all of it is read.
    Read(Box<Pod>, Vec<Cow<'a, str>>),
}

/// Reads a body with the parser.
fn read_whole(body: &[u8]) -> Result<(Box<Pod>, Vec<Cow<'_, str>>), Failure> {
    let args = wire::decode_extender_args(body).map_err(|e| Failure::new("bad-request", e.to_string()))?;
    let ExtenderArgs { pod, nodes, node_names } = args;
    let pod = pod.ok_or_else(|| Failure::new("bad-request", "ExtenderArgs: Pod is null"))?;
    let names = node_names.ok_or_else(|| {
        let sent = if nodes.0 { "Nodes were sent" } else { "NodeNames is null" };
        let text = format!("ExtenderArgs: {sent}, names are needed: set nodeCacheCapable: true for this extender");
        Failure::new("node-objects", text)
    })?;
    Ok((pod, names))
}

fn tell(verb: Verb, pod_uid: &str, nodes_asked: usize, nodes_named: usize) {
    tracing::debug!(verb = verb.word(), pod_uid, nodes_asked, nodes_named, "answered");
}

fn answered(verb: Verb, answer: Result<Vec<u8>, Failure>, encode_error: impl FnOnce(&str) -> Vec<u8>) -> Answered {
    match answer {
        Ok(body) => (OK, json(StatusCode::OK, body)),
        Err(failure) => {
            tracing::warn!(verb = verb.word(), code = failure.code, text = failure.text, "call refused");
            (failure.code, json(StatusCode::OK, encode_error(&failure.text)))
        }
    }
}
