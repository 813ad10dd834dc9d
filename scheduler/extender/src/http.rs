//! The HTTP face of the extender: routes, limits, deadlines, and the turn of every failure into an answer.
//!
//! kube-scheduler reads nothing but 200: a failure of the domain is 200 with `Error` filled (prioritize, which has no such
//! field, answers an empty list). Preempt has no such field either, and an empty answer would be told as "no candidate": its failures
//! are a status, which kube-scheduler names in the pod's Event. What fits and what is best is asked through [`Decide`]; nothing is decided here.

mod body;
mod connection;
mod decide;
mod explain;
mod listen;
mod serve;
mod verbs;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use decide::{BoxFuture, Decide, ExplainError, ExplainRequest, Failure, Written};
pub use listen::{Limits, Listening, Respond, ServeEnd, listen};
pub use serve::serve;

use crate::admin::Gates;
use crate::metrics::{Call, Metrics};
use crate::wire;

/// How the extender answers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Limits of connections and bodies.
    pub limits: Limits,
    /// Time for one call, from its head. Must be below `httpTimeout` of the extender's configuration (80 % of it is good), so
    /// that kube-scheduler hears our reason and not its own timeout.
    pub deadline: Duration,
    /// How long calls are served after readiness was withdrawn.
    pub pre_stop_delay: Duration,
    /// Most binds in flight; more wait, and are refused as busy at the deadline. Each holds one request to the API server.
    pub binds_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            deadline: Duration::from_secs(4),
            pre_stop_delay: Duration::from_secs(5),
            binds_max: 128,
        }
    }
}

/// The extender as a service. Clones share all state.
#[derive(Debug, Clone)]
pub struct Extender(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    decide: Arc<dyn Decide>,
    gates: Gates,
    metrics: Arc<Metrics>,
    settings: Settings,
    /// Binds in flight and bodies being thrown away: work that outlives its connection.
    tasks: TaskTracker,
    bind_slots: Arc<Semaphore>,
    body_pool: Arc<Semaphore>,
}

/// What kube-scheduler or a user may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Filter,
    Prioritize,
    Preempt,
    Bind,
    Explain,
}

impl Verb {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/filter" => Some(Self::Filter),
            "/prioritize" => Some(Self::Prioritize),
            "/preempt" => Some(Self::Preempt),
            "/bind" => Some(Self::Bind),
            "/explain" => Some(Self::Explain),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Prioritize => "prioritize",
            Self::Preempt => "preempt",
            Self::Bind => "bind",
            Self::Explain => "explain",
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::Filter | Self::Prioritize | Self::Preempt | Self::Bind => "POST",
            Self::Explain => "GET, POST",
        }
    }

    fn takes(self, method: &Method) -> bool {
        *method == Method::POST || (self == Self::Explain && *method == Method::GET)
    }
}

const KNOWN_PATHS: &str = "/filter /prioritize /preempt /bind /explain";

impl Extender {
    /// An extender that answers what `decide` decides, once all `gates` are open.
    #[must_use]
    pub fn new(decide: Arc<dyn Decide>, gates: Gates, metrics: Arc<Metrics>, settings: Settings) -> Self {
        let bind_slots = Arc::new(Semaphore::new(settings.binds_max));
        let body_pool = Arc::new(Semaphore::new(body::POOL_CHUNKS));
        let tasks = TaskTracker::new();
        Self(Arc::new(Shared { decide, gates, metrics, settings, tasks, bind_slots, body_pool }))
    }

    fn not_ready(&self) -> Option<Failure> {
        let missing = self.0.gates.missing();
        (!missing.is_empty())
            .then(|| Failure::new("not-ready", format!("not ready: waiting for {}", missing.join(", "))))
    }

    /// Runs code of the decisions; a panic in it costs this call and nothing else.
    fn caught<T>(&self, verb: Verb, decide: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(decide))
            .unwrap_or_else(|payload| Err(self.0.panicked(verb, &*payload)))
    }
}

impl Shared {
    fn panicked(&self, verb: Verb, payload: &(dyn std::any::Any + Send)) -> Failure {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        self.metrics.panics.inc();
        tracing::error!(verb = verb.word(), panic = text, "a call panicked; the server goes on");
        Failure::new("panic", format!("{}: internal error, see the log of berth-scheduler", verb.word()))
    }
}

impl Respond for Extender {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let Some(verb) = Verb::at(request.uri().path()) else {
            let text = format!("unknown path {:?}; known: {KNOWN_PATHS}", request.uri().path());
            return json(StatusCode::NOT_FOUND, wire::encode_error_text(&text));
        };
        if !verb.takes(request.method()) {
            let text = format!("{} takes {}, not {}", request.uri().path(), verb.methods(), request.method());
            let mut response = json(StatusCode::METHOD_NOT_ALLOWED, wire::encode_error_text(&text));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(verb.methods()));
            return response;
        }
        let deadline = started + self.0.settings.deadline;
        let (result, response) = match verb {
            Verb::Filter => self.filter(request.into_body(), deadline).await,
            Verb::Prioritize => self.prioritize(request.into_body(), deadline).await,
            Verb::Preempt => self.preempt(request.into_body(), deadline).await,
            Verb::Bind => self.bind(request.into_body(), deadline).await,
            Verb::Explain => self.explain(request, deadline).await,
        };
        // A late answer is sent all the same: kube-scheduler may still be waiting, and an error would waste the cycle.
        let result = if result == OK && Instant::now() > deadline { "late" } else { result };
        let duration = &self.0.metrics.request_duration;
        duration.get_or_create(&Call { verb: verb.word(), result }).observe(started.elapsed().as_secs_f64());
        response
    }
}

/// The result label of a call that went well.
const OK: &str = "ok";

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
