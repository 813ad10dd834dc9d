//! The seam between the HTTP face and the decisions.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use berth_core::demand::PodRequest;

use crate::wire::{BindArgs, Evicted, FilterAnswer, Pod, PodVersion, PreemptArgs, PriorityAnswer};

/// A boxed future that may outlive its caller.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the handlers ask. All methods may be called at once, from several threads.
///
/// `names` are the candidates as kube-scheduler sent them: some may be unknown, and a hostile caller may send duplicates or empty
/// ones. Answers speak of positions in `names`. `deadline` is for long loops: a call that sees it passed may give up with a
/// [`Failure`]; a complete answer is sent even when it is late.
pub trait Decide: fmt::Debug + Send + Sync + 'static {
    /// Which nodes stay, and why the others do not. Runs on the connection's task: it must not block on locks or IO.
    ///
    /// # Errors
    /// [`Failure`] when the call as a whole cannot be answered. The pod is then retried, without preemption.
    fn filter(&self, pod: &Pod, names: &[Cow<'_, str>], deadline: Instant) -> Result<FilterAnswer, Failure>;

    /// How good the nodes are. Runs as `filter` does.
    ///
    /// # Errors
    /// [`Failure`]: kube-scheduler goes on without our scores.
    fn prioritize(&self, pod: &Pod, names: &[Cow<'_, str>], deadline: Instant) -> Result<PriorityAnswer, Failure>;

    /// What a pod asks for in just this version, where that is known: then the pod of the call is not read.
    fn known_pod(&self, _version: PodVersion<'_>) -> Option<Arc<PodRequest>> {
        None
    }

    /// As `filter`, of names as they stand between the brackets of the body, with the answer written out: thousands of names are most
    /// of a call. `None` where only `filter` can answer: nothing fits, the pod is not ours, or the list is not as Go writes it.
    fn filter_list(&self, _pod: &PodRequest, _list: &[u8]) -> Option<Written> {
        None
    }

    /// As `prioritize`, likewise.
    fn prioritize_list(&self, _pod: &PodRequest, _list: &[u8]) -> Option<Written> {
        None
    }

    /// Which pods go to make room, on which of the nodes that kube-scheduler names. Nodes where nothing helps are left out. Runs as
    /// `filter` does, and is asked for pods that nothing else helps.
    ///
    /// # Errors
    /// [`Failure`]: nobody is evicted now.
    fn preempt(&self, args: &PreemptArgs, deadline: Instant) -> Result<Vec<Evicted>, Failure>;

    /// Binds the pod. The future is driven to its end even when the caller goes away, so it must end by itself in time.
    /// `Ok` means that the API server has the binding; asking again for a pod that already is on this node is `Ok` too.
    fn bind(self: Arc<Self>, args: BindArgs) -> BoxFuture<Result<(), Failure>>;

    /// Why a pod is where it is, or nowhere, as JSON.
    ///
    /// # Errors
    /// [`ExplainError`].
    fn explain(&self, request: &ExplainRequest<'_>) -> Result<Vec<u8>, ExplainError>;
}

/// An answer in bytes, and its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What kube-scheduler reads.
    pub body: Vec<u8>,
    /// Names that the call has.
    pub asked_count: usize,
    /// Names that the answer has.
    pub named_count: usize,
}

/// A call that could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// A word of a closed set: the `result` label of the metrics.
    pub code: &'static str,
    /// What kube-scheduler logs, and the pod's owner may read in an event: say what would be right.
    pub text: String,
}

impl Failure {
    /// A failure of the kind `code`.
    #[must_use]
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// What to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainRequest<'a> {
    /// A pod of the cluster, over all nodes.
    Named {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        pod: &'a str,
    },
    /// A pod that need not exist.
    Given {
        /// The pod.
        pod: &'a Pod,
        /// The candidates; `None` means all nodes.
        names: Option<&'a [Cow<'a, str>]>,
    },
}

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such pod, or not one of ours.
    #[error("{0}")]
    NotFound(String),
    /// The pod cannot be read.
    #[error("{0}")]
    Invalid(String),
}
