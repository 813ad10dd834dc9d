//! Binding: the one write of the scheduler, and the seam that lets it run without an API server.

pub mod api;
pub mod memory;

use std::fmt;
use std::sync::Arc;

use crate::http::{BoxFuture, Failure};
use crate::wire::BindArgs;

/// Puts a pod on a node.
pub trait Bind: fmt::Debug + Send + Sync + 'static {
    /// `Ok` means that the pod is bound to the node, by this call or an earlier one.
    fn bind(self: Arc<Self>, args: BindArgs) -> BoxFuture<Result<(), Failure>>;
}
