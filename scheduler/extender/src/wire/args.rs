//! Requests of kube-scheduler, decoded from a body.

use std::borrow::Cow;

use serde::Deserialize;

use super::go::{Given, go_struct};
use super::names;
use super::pod::Pod;
use super::version::PodVersion;

/// Most node names in one call. Twenty times the supported cluster size; bounds the memory that a 16 MiB body of short names
/// could claim.
pub const NODE_NAMES_MAX: usize = 100_000;

go_struct! {
    /// `ExtenderArgs`: the body of filter and prioritize.
    pub struct ExtenderArgs<'a> {
        /// The pod; `None` for `null`.
        pub pod: Option<Box<Pod>> = "Pod",
        /// Whether full node objects were sent, which is what `nodeCacheCapable: false` does. They are never read.
        pub nodes: Given = "Nodes",
        /// The candidates, borrowed from the body; `None` for `null`.
        pub node_names: Option<Vec<Cow<'a, str>>> = "NodeNames",
    }
}

go_struct! {
    /// `ExtenderBindingArgs`: the body of bind.
    pub struct BindArgs {
        /// Name of the pod.
        pub pod_name: String = "PodName",
        /// Namespace of the pod.
        pub pod_namespace: String = "PodNamespace",
        /// UID of the pod that was scheduled.
        pub pod_uid: String = "PodUID",
        /// The chosen node.
        pub node: String = "Node",
    }
}

/// Why a body is no request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Go calls this EOF.
    #[error("{what}: body is empty, expected one JSON object")]
    Empty {
        /// The type that was expected.
        what: &'static str,
    },
    /// Not JSON, or a field of another type.
    #[error("{what}: {text}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// The field path and what is wrong there, cut to a sane length.
        text: String,
        /// As the parser said it.
        #[source]
        source: serde_json::Error,
    },
    /// More candidates than [`NODE_NAMES_MAX`].
    #[error("{what}: {count} nodes are named, at most {NODE_NAMES_MAX} are taken")]
    TooManyNames {
        /// The type that was expected.
        what: &'static str,
        /// How many were sent.
        count: usize,
    },
    /// A field that must be filled is empty or `null`.
    #[error("{what}: {field} is missing")]
    Missing {
        /// The type that was expected.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// The body of filter or prioritize, of which nothing is read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitArgs<'a> {
    /// What stands before the names.
    front: &'a [u8],
    /// What stands between the brackets of `NodeNames`. It may be anything: who reads it must check it.
    pub list: &'a [u8],
}

impl<'a> SplitArgs<'a> {
    /// Takes a body apart. `None` where it is not written as Go writes it.
    #[must_use]
    pub fn of(body: &'a [u8]) -> Option<Self> {
        let (front, list) = names::split(body)?;
        Some(Self { front, list })
    }

    /// Which version of which pod was sent, told without reading the pod. `None` where it does not say so as Go does.
    #[must_use]
    pub fn version(&self) -> Option<PodVersion<'a>> {
        PodVersion::of(self.front)
    }

    /// The pod. `None` where the body cannot be what it was taken for, or has no pod.
    #[must_use]
    pub fn read_pod(&self) -> Option<Pod> {
        without_names(&names::closed(self.front))?.pod.map(|pod| *pod)
    }
}

/// Decodes the body of filter or prioritize. Only the first JSON value is read.
///
/// # Errors
/// [`DecodeError`], naming the field.
pub fn decode_extender_args(body: &[u8]) -> Result<ExtenderArgs<'_>, DecodeError> {
    let quick = names::split(body).and_then(|(front, list)| {
        let names = names::read(list)?;
        let ExtenderArgs { pod, nodes, .. } = without_names(&names::closed(front))?;
        Some(ExtenderArgs { pod, nodes, node_names: Some(names) })
    });
    let args: ExtenderArgs<'_> = match quick {
        Some(args) => args,
        None => decode(body, "ExtenderArgs")?,
    };
    match &args.node_names {
        Some(names) if names.len() > NODE_NAMES_MAX => {
            Err(DecodeError::TooManyNames { what: "ExtenderArgs", count: names.len() })
        }
        Some(_) | None => Ok(args),
    }
}

/// Decodes a body whose names were taken out. `None` where the body cannot be what the split took it for.
fn without_names(rest: &[u8]) -> Option<ExtenderArgs<'static>> {
    let mut deserializer = serde_json::Deserializer::from_slice(rest);
    let ExtenderArgs { pod, nodes, .. } = ExtenderArgs::deserialize(&mut deserializer).ok()?;
    // More than one value: the names were not of the first, which is the only one that counts.
    deserializer.end().ok()?;
    Some(ExtenderArgs { pod, nodes, node_names: None })
}

/// Decodes the body of bind. All four fields must be filled: a binding without UID could hit a later pod of the same name.
///
/// # Errors
/// [`DecodeError`], naming the field.
pub fn decode_bind_args(body: &[u8]) -> Result<BindArgs, DecodeError> {
    const WHAT: &str = "ExtenderBindingArgs";
    let args: BindArgs = decode(body, WHAT)?;
    let filled = [
        ("PodName", &args.pod_name),
        ("PodNamespace", &args.pod_namespace),
        ("PodUID", &args.pod_uid),
        ("Node", &args.node),
    ];
    match filled.iter().find(|(_, text)| text.is_empty()) {
        Some((field, _)) => Err(DecodeError::Missing { what: WHAT, field }),
        None => Ok(args),
    }
}

/// Longest error text: it may quote a value of the body, and ends in pod events.
const TEXT_CHARS_MAX: usize = 400;

pub(super) fn decode<'de, T: Deserialize<'de>>(body: &'de [u8], what: &'static str) -> Result<T, DecodeError> {
    if body.trim_ascii().is_empty() {
        return Err(DecodeError::Empty { what });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    T::deserialize(&mut deserializer).map_err(|source| {
        let text = source.to_string().trim_start_matches('.').chars().take(TEXT_CHARS_MAX).collect();
        DecodeError::Malformed { what, text, source }
    })
}
