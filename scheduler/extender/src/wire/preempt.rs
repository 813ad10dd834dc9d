//! The call of preemption: which pods kube-scheduler would evict on which nodes, and which of them go.
//!
//! Victims come as whole pods (`nodeCacheCapable: false`) or as UIDs (`true`), in two fields of which one is `null`. The answer is UIDs
//! always, by the names of the nodes that were asked.

use std::collections::BTreeMap;

use super::answer::push_string;
use super::args::{DecodeError, NODE_NAMES_MAX, decode};
use super::go::go_struct;
use super::pod::Pod;

/// Most victims read of one node; kubelets run some hundreds of pods at most.
const VICTIMS_MAX: usize = 2000;

go_struct! {
    /// `ExtenderPreemptionArgs`, as it comes.
    pub(super) struct WireArgs {
        /// The pod that needs room.
        pub pod: Option<Box<Pod>> = "Pod",
        /// Victims by node, as pods.
        pub victims: BTreeMap<String, Victims> = "NodeNameToVictims",
        /// Victims by node, as UIDs.
        pub meta: BTreeMap<String, MetaVictims> = "NodeNameToMetaVictims",
    }
}

go_struct! {
    /// Victims as pods, of which the UIDs are read.
    pub(super) struct Victims {
        /// The pods.
        pub pods: Vec<VictimPod> = "Pods",
        /// Budgets that their going breaks.
        pub violations: i64 = "NumPDBViolations",
    }
}

go_struct! {
    /// A victim.
    pub(super) struct VictimPod {
        /// Who it is.
        pub metadata: VictimMeta = "metadata",
    }
}

go_struct! {
    /// Who a victim is.
    pub(super) struct VictimMeta {
        /// Its UID.
        pub uid: String = "uid",
    }
}

go_struct! {
    /// Victims as UIDs.
    pub(super) struct MetaVictims {
        /// The pods.
        pub pods: Vec<MetaPod> = "Pods",
        /// Budgets that their going breaks.
        pub violations: i64 = "NumPDBViolations",
    }
}

go_struct! {
    /// A victim by its UID.
    pub(super) struct MetaPod {
        /// Its UID.
        pub uid: String = "UID",
    }
}

/// A node where kube-scheduler would evict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// UIDs of the pods that it would evict, by its own counts; nobody where its filters pass without that (1.38 on).
    pub victims: Vec<String>,
    /// How many disruption budgets that breaks, as it counts.
    pub violations: i64,
}

/// `ExtenderPreemptionArgs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreemptArgs {
    /// The pod that needs room.
    pub pod: Box<Pod>,
    /// Nodes, by name.
    pub candidates: Vec<Candidate>,
}

/// What goes on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// The node, as it was asked.
    pub node: String,
    /// UIDs of the pods that go, the most important first: kube-scheduler takes the first for the highest priority.
    pub victims: Vec<String>,
    /// How many disruption budgets that breaks.
    pub violations: i64,
}

/// Decodes the body of a call of preemption, in either of its forms.
///
/// # Errors
/// [`DecodeError`], naming the field.
pub fn decode_preempt_args(body: &[u8]) -> Result<PreemptArgs, DecodeError> {
    const WHAT: &str = "ExtenderPreemptionArgs";
    let WireArgs { pod, victims, meta } = decode(body, WHAT)?;
    let pod = pod.ok_or(DecodeError::Missing { what: WHAT, field: "Pod" })?;
    let count = victims.len().max(meta.len());
    if count > NODE_NAMES_MAX {
        return Err(DecodeError::TooManyNames { what: WHAT, count });
    }
    let candidate = |node, uids: &mut dyn Iterator<Item = String>, violations| {
        let victims = uids.filter(|uid| !uid.is_empty()).take(VICTIMS_MAX).collect();
        Candidate { node, victims, violations }
    };
    // Meta first: it is the one that is filled when the nodes are cached here.
    let candidates = if meta.is_empty() {
        let named = victims.into_iter();
        named.map(|(node, v)| candidate(node, &mut v.pods.into_iter().map(|p| p.metadata.uid), v.violations)).collect()
    } else {
        let named = meta.into_iter();
        named.map(|(node, v)| candidate(node, &mut v.pods.into_iter().map(|p| p.uid), v.violations)).collect()
    };
    Ok(PreemptArgs { pod, candidates })
}

/// `ExtenderPreemptionResult`. A node that is left out is no place for the pod.
#[must_use]
pub fn encode_preempt(nodes: &[Evicted]) -> Vec<u8> {
    let victims: usize = nodes.iter().map(|node| node.victims.len()).sum();
    let mut out = Vec::with_capacity(nodes.len() * 96 + victims * 56 + 32);
    out.extend_from_slice(br#"{"NodeNameToMetaVictims":{"#);
    for (index, Evicted { node, victims, violations }) in nodes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_string(&mut out, node);
        out.extend_from_slice(br#":{"Pods":["#);
        for (index, uid) in victims.iter().enumerate() {
            out.extend_from_slice(if index > 0 { br#",{"UID":"# } else { br#"{"UID":"# });
            push_string(&mut out, uid);
            out.push(b'}');
        }
        out.extend_from_slice(format!(r#"],"NumPDBViolations":{violations}}}"#).as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_victims() {
        // Field order and nulls as kube-scheduler 1.36.3 writes them.
        let meta = br#"{"Pod":{"metadata":{"name":"p","uid":"u"}},"NodeNameToVictims":null,
            "NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"a"},{"UID":"b"}],"NumPDBViolations":1},"n2":{"Pods":[],"NumPDBViolations":0}}}"#;
        let full = br#"{"Pod":{"metadata":{"name":"p","uid":"u"}},
            "NodeNameToVictims":{"n1":{"Pods":[{"metadata":{"uid":"a"},"spec":{"containers":null}},{"metadata":{"uid":"b"}}],"NumPDBViolations":1},
            "n2":{"Pods":null,"NumPDBViolations":0}},"NodeNameToMetaVictims":null}"#;
        let (meta, full) = (decode_preempt_args(meta).unwrap(), decode_preempt_args(full).unwrap());
        assert_eq!(meta, full);
        assert_eq!(meta.pod.metadata.uid, "u");
        let of = |node: &str, victims: &[&str], violations| Candidate {
            node: node.to_owned(),
            victims: victims.iter().map(|uid| (*uid).to_owned()).collect(),
            violations,
        };
        assert_eq!(meta.candidates, [of("n1", &["a", "b"], 1), of("n2", &[], 0)]);
    }

    #[test]
    fn letter_case_does_not_count_and_unknown_keys_are_passed_over() {
        let body = br#"{"pod":{"metadata":{"uid":"u"}},"nodenametometavictims":{"n":{"pods":[{"uid":"a","x":1}],"numpdbviolations":2}},"y":[]}"#;
        let args = decode_preempt_args(body).unwrap();
        assert_eq!((args.candidates[0].victims.as_slice(), args.candidates[0].violations), (&["a".to_owned()][..], 2));
    }

    #[test]
    fn a_call_without_a_pod_or_with_a_wrong_type_is_refused_by_its_field() {
        let error = |body: &str| decode_preempt_args(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(r#"{"Pod":null}"#), "ExtenderPreemptionArgs: Pod is missing");
        assert_eq!(error(""), "ExtenderPreemptionArgs: body is empty, expected one JSON object");
        let text = error(r#"{"Pod":{},"NodeNameToMetaVictims":{"n":{"NumPDBViolations":1.5}}}"#);
        assert!(text.contains(r#"NodeNameToMetaVictims["n"].NumPDBViolations"#), "{text}");
    }

    #[test]
    fn the_answer_is_in_uids_with_the_names_of_go() {
        let of = |node: &str, victims: &[&str], violations| Evicted {
            node: node.to_owned(),
            victims: victims.iter().map(|uid| (*uid).to_owned()).collect(),
            violations,
        };
        let answer = encode_preempt(&[of("n\"1", &["a", "b"], 1), of("n2", &[], 0)]);
        let expected = r#"{"NodeNameToMetaVictims":{"n\"1":{"Pods":[{"UID":"a"},{"UID":"b"}],"NumPDBViolations":1},"n2":{"Pods":[],"NumPDBViolations":0}}}"#;
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
        assert_eq!(encode_preempt(&[]), br#"{"NodeNameToMetaVictims":{}}"#);
    }
}
