//! The shell around the decisions: the HTTP face that kube-scheduler calls, the API watch, the bind write, probes and metrics.
//!
//! Nothing here decides where a pod goes. Handlers decode, ask through [`http::Decide`], and encode.

pub mod admin;
pub mod args;
mod audit;
pub mod bind;
pub mod budgets;
pub mod carriers;
pub mod cluster;
pub mod convert;
pub mod decide;
pub mod demo;
pub mod events;
mod explain;
#[cfg(test)]
mod fake_api;
#[cfg(test)]
mod fixture;
pub mod http;
pub mod ingest;
mod learned;
pub mod machines;
pub mod metrics;
pub mod nominations;
pub mod preempt;
pub mod refusals;
pub mod requeue;
pub mod run;
pub mod waiting;
pub mod watch;
pub mod wire;
