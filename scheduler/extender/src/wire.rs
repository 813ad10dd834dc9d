//! The extender v1 wire: what kube-scheduler sends and what it reads back.
//!
//! Owns the JSON forms and their limits. Decoding follows Go's `encoding/json`: keys in any letter case, unknown keys ignored,
//! `null` means the zero value, the last of two equal keys wins, only the first JSON value of a body is read, and a float is
//! no integer. Encoding writes the exact Go names. What the fields mean to a decision is not decided here.

mod answer;
mod args;
mod go;
mod names;
mod pod;
mod preempt;
mod version;
mod watched;

pub use answer::{
    FilterAnswer, PriorityAnswer, Reason, Rejected, encode_bind, encode_error_text, encode_filter, encode_filter_error,
    encode_kept, encode_priorities, encode_scores,
};
pub use args::{
    BindArgs, DecodeError, ExtenderArgs, NODE_NAMES_MAX, SplitArgs, decode_bind_args, decode_extender_args,
};
pub use go::{Given, ItemCount};
pub use pod::{
    Affinity, AllocatedDevice, AllocatedResource, Container, ContainerPort, ContainerStatus, OwnerReference, Pod,
    PodMeta, PodSpec, PodStatus, PodTerms, PreferredTerms, Quantity, ResourceList, Resources, TopologySpread, Volume,
};
pub use preempt::{Candidate, Evicted, PreemptArgs, decode_preempt_args, encode_preempt};
pub use version::PodVersion;
pub use watched::WatchedPod;

#[cfg(test)]
mod tests;
