//! The calls of kube-scheduler: decode, ask, encode.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};

use super::{Extender, Failure, OK, Verb, json};
use crate::metrics::{ByReason, ByResult, ByVerb};
use crate::wire::{self, ExtenderArgs, FilterAnswer, Pod};

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
        let Candidates { pod, names } = self.candidates(Verb::Filter, body, deadline)?;
        let answer = self.0.decide.filter(&pod, &names, deadline)?;
        self.count_rejections(&answer);
        tracing::debug!(
            pod_uid = pod.metadata.uid,
            nodes_asked = names.len(),
            nodes_kept = answer.fits.len(),
            "filtered"
        );
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
        let Candidates { pod, names } = self.candidates(Verb::Prioritize, body, deadline)?;
        let answer = self.0.decide.prioritize(&pod, &names, deadline)?;
        tracing::debug!(
            pod_uid = pod.metadata.uid,
            nodes_asked = names.len(),
            nodes_scored = answer.scores.len(),
            "prioritized"
        );
        Ok(wire::encode_priorities(&answer, &names))
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

    /// The pod and the candidates of a call, or why there are none.
    fn candidates<'a>(&self, verb: Verb, body: &'a [u8], deadline: Instant) -> Result<Candidates<'a>, Failure> {
        if let Some(failure) = self.not_ready() {
            return Err(failure);
        }
        let args = wire::decode_extender_args(body).map_err(|e| Failure::new("bad-request", e.to_string()))?;
        let candidates = Candidates::of(args)?;
        if Instant::now() >= deadline {
            return Err(Failure::new("deadline", "the deadline of the call passed before it could be decided"));
        }
        let evaluated = self.0.metrics.nodes_evaluated.get_or_create_owned(&ByVerb { verb: verb.word() });
        evaluated.inc_by(u64::try_from(candidates.names.len()).unwrap_or(u64::MAX));
        Ok(candidates)
    }

    fn count_rejections(&self, answer: &FilterAnswer) {
        for group in &answer.rejected {
            let count = u64::try_from(group.positions.len()).unwrap_or(u64::MAX);
            let reason = ByReason { reason: group.reason.code };
            self.0.metrics.filter_rejections.get_or_create_owned(&reason).inc_by(count);
        }
    }
}

/// A complete request.
struct Candidates<'a> {
    pod: Box<Pod>,
    names: Vec<Cow<'a, str>>,
}

impl<'a> Candidates<'a> {
    fn of(args: ExtenderArgs<'a>) -> Result<Self, Failure> {
        let ExtenderArgs { pod, nodes, node_names } = args;
        let pod = pod.ok_or_else(|| Failure::new("bad-request", "ExtenderArgs: Pod is null"))?;
        let names = node_names.ok_or_else(|| {
            let sent = if nodes.0 { "Nodes were sent" } else { "NodeNames is null" };
            let text = format!("ExtenderArgs: {sent}, names are needed: set nodeCacheCapable: true for this extender");
            Failure::new("node-objects", text)
        })?;
        Ok(Self { pod, names })
    }
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
