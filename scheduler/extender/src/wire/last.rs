//! The pod of the last call, by the bytes that it was sent in.
//!
//! kube-scheduler asks prioritize for the pod that it has just asked filter for, and writes it in the same words. Those are compared
//! instead of read again: a pod may have tens of kilobytes, and nothing that is equal says anything new.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::args::{SplitArgs, read_rest};
use super::names;
use super::pod::Pod;

/// Longer ones are read each time. Pods are a few kilobytes; etcd takes at most 1.5 MiB.
const BYTES_MAX: usize = 256 * 1024;

/// Takes bodies apart, and remembers the last one without its names, with what was made of its pod.
#[derive(Debug)]
pub struct LastPod<T> {
    known: ArcSwapOption<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    rest: Vec<u8>,
    pod: Arc<T>,
}

impl<T> Default for LastPod<T> {
    fn default() -> Self {
        Self { known: ArcSwapOption::empty() }
    }
}

impl<T> LastPod<T> {
    /// Takes a body apart without reading its names, and makes something of its pod. `None` where it is not written as Go writes it, or
    /// has no pod.
    #[must_use]
    pub fn split<'a>(&self, body: &'a [u8], of: impl FnOnce(Pod) -> T) -> Option<SplitArgs<'a, T>> {
        let (rest, list) = names::split(body)?;
        if let Some(known) = self.known.load().as_ref().filter(|known| known.rest == rest) {
            return Some(SplitArgs { pod: Arc::clone(&known.pod), list });
        }
        let pod = Arc::new(of(read_rest(&rest)?));
        if rest.len() <= BYTES_MAX {
            self.known.store(Some(Arc::new(Known { rest, pod: Arc::clone(&pod) })));
        }
        Some(SplitArgs { pod, list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(last: &LastPod<String>, body: &str) -> Option<String> {
        last.split(body.as_bytes(), |pod| pod.metadata.uid).map(|args| args.pod.as_ref().clone())
    }

    #[test]
    fn the_same_words_are_the_same_pod_and_any_other_byte_is_read() {
        let last = LastPod::default();
        let body = |uid: &str, names: &str| {
            format!(r#"{{"Pod":{{"metadata":{{"uid":"{uid}"}}}},"Nodes":null,"NodeNames":[{names}]}}"#)
        };
        let (first, again) = (body("a", r#""n1","n2""#), body("a", r#""n2""#));
        let read = last.split(first.as_bytes(), |pod| pod.metadata.uid).unwrap();
        let known = last.split(again.as_bytes(), |_| unreachable!()).unwrap();
        assert!(Arc::ptr_eq(&read.pod, &known.pod), "not read again");
        assert_eq!((read.list, known.list), (&br#""n1","n2""#[..], &br#""n2""#[..]));
        for other in ["b", "aa", "A"] {
            assert_eq!(uid(&last, &body(other, "")).as_deref(), Some(other));
        }
        assert_eq!(uid(&last, &body("a", "")).as_deref(), Some("a"));
    }

    #[test]
    fn a_body_that_cannot_be_read_is_not_remembered() {
        let last = LastPod::default();
        let broken = r#"{"Pod":5,"Nodes":null,"NodeNames":[]}"#;
        assert_eq!((uid(&last, broken), uid(&last, broken)), (None, None));
        assert_eq!(uid(&last, r#"{"Pod":null,"Nodes":null,"NodeNames":[]}"#), None);
    }
}
