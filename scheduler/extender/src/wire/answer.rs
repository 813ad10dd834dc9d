//! Answers to kube-scheduler, written straight into one buffer with the exact Go names.
//!
//! Nodes are positions in the list that was asked for: an answer cannot hold a name that was not in the request, which
//! kube-scheduler would take as an error of the whole call.

use std::borrow::Cow;

/// Why nodes are out. Fixed texts: they land in events and pod status, and a text that changes rewrites the pod at each retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// A short word of a closed set, for metrics.
    pub code: &'static str,
    /// The sentence a user reads.
    pub text: &'static str,
    /// Whether eviction by counts could lead to a plan: decides between `FailedNodes` and `FailedAndUnresolvableNodes`.
    pub helped_by_preemption: bool,
}

/// The nodes that are out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// Positions in the names of the request.
    pub positions: Vec<usize>,
}

/// The answer of filter. A node in neither list is rejected without a text and without preemption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterAnswer {
    /// Positions of the nodes that stay, best first.
    pub fits: Vec<usize>,
    /// The others, grouped by reason.
    pub rejected: Vec<Rejected>,
}

impl FilterAnswer {
    /// Adds one node that is out.
    pub fn reject(&mut self, position: usize, reason: Reason) {
        match self.rejected.iter_mut().find(|group| group.reason == reason) {
            Some(group) => group.positions.push(position),
            None => self.rejected.push(Rejected { reason, positions: vec![position] }),
        }
    }
}

/// The answer of prioritize: a position in the names of the request, and its score. Nodes left out get nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriorityAnswer {
    /// Position and score.
    pub scores: Vec<(usize, i64)>,
}

/// `ExtenderFilterResult` of a decision.
#[must_use]
pub fn encode_filter(answer: &FilterAnswer, names: &[Cow<'_, str>]) -> Vec<u8> {
    let texts: usize = answer.rejected.iter().map(|group| group.positions.len() * (group.reason.text.len() + 48)).sum();
    let mut out = Vec::with_capacity(160 + answer.fits.len() * 48 + texts);
    // `null` would make kube-scheduler fall back to `Nodes`; an empty list says that nothing fits.
    out.extend_from_slice(br#"{"Nodes":null,"NodeNames":["#);
    for (index, name) in answer.fits.iter().filter_map(|&position| names.get(position)).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_string(&mut out, name);
    }
    out.extend_from_slice(br#"],"FailedNodes":"#);
    push_failed(&mut out, answer, names, true);
    out.extend_from_slice(br#","FailedAndUnresolvableNodes":"#);
    push_failed(&mut out, answer, names, false);
    out.extend_from_slice(br#","Error":""}"#);
    out
}

/// `ExtenderFilterResult` that rejects nobody by name, of names that are JSON strings already, one by one or with commas between them.
#[must_use]
pub fn encode_kept<'n>(quoted: impl Iterator<Item = &'n [u8]> + Clone) -> Vec<u8> {
    let text: usize = quoted.clone().map(|name| name.len().saturating_add(1)).sum();
    let mut out = Vec::with_capacity(text.saturating_add(128));
    out.extend_from_slice(br#"{"Nodes":null,"NodeNames":["#);
    for (index, name) in quoted.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
    }
    out.extend_from_slice(br#"],"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":""}"#);
    out
}

/// Room for one name and its score: enough for most, and the answer grows where it is not.
const SCORE_BYTES: usize = 64;

/// `HostPriorityList` of names that are JSON strings already.
#[must_use]
pub fn encode_scores<'n>(scores: impl Iterator<Item = (&'n [u8], i64)>) -> Vec<u8> {
    let count_max = scores.size_hint().1.unwrap_or_default();
    let mut out = Vec::with_capacity(count_max.saturating_mul(SCORE_BYTES).saturating_add(2));
    out.push(b'[');
    for (index, (name, score)) in scores.enumerate() {
        out.extend_from_slice(if index > 0 { br#",{"Host":"# } else { br#"{"Host":"# });
        out.extend_from_slice(name);
        out.extend_from_slice(br#","Score":"#);
        push_integer(&mut out, score);
        out.push(b'}');
    }
    out.push(b']');
    out
}

fn push_failed(out: &mut Vec<u8>, answer: &FilterAnswer, names: &[Cow<'_, str>], helped_by_preemption: bool) {
    let mut open = false;
    for group in answer.rejected.iter().filter(|group| group.reason.helped_by_preemption == helped_by_preemption) {
        let mut text = Vec::with_capacity(group.reason.text.len() + 2);
        push_string(&mut text, group.reason.text);
        for name in group.positions.iter().filter_map(|&position| names.get(position)) {
            out.push(if open { b',' } else { b'{' });
            open = true;
            push_string(out, name);
            out.push(b':');
            out.extend_from_slice(&text);
        }
    }
    out.extend_from_slice(if open { b"}" } else { b"null" });
}

/// `ExtenderFilterResult` of a call that failed as a whole.
#[must_use]
pub fn encode_filter_error(text: &str) -> Vec<u8> {
    let mut out =
        br#"{"Nodes":null,"NodeNames":null,"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":"#.to_vec();
    push_string(&mut out, text);
    out.push(b'}');
    out
}

/// `HostPriorityList`. Scores are integer literals: Go refuses the whole list for one float.
#[must_use]
pub fn encode_priorities(answer: &PriorityAnswer, names: &[Cow<'_, str>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + answer.scores.len() * 64);
    out.push(b'[');
    let known = answer.scores.iter().filter_map(|&(position, score)| Some((names.get(position)?, score)));
    for (index, (name, score)) in known.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"Host":"#);
        push_string(&mut out, name);
        out.extend_from_slice(br#","Score":"#);
        push_integer(&mut out, score);
        out.push(b'}');
    }
    out.push(b']');
    out
}

/// `ExtenderBindingResult`: bound where `error` is `None`.
#[must_use]
pub fn encode_bind(error: Option<&str>) -> Vec<u8> {
    let mut out = br#"{"Error":"#.to_vec();
    push_string(&mut out, error.unwrap_or_default());
    out.push(b'}');
    out
}

/// `{"error": text}`, for answers that kube-scheduler never reads.
#[must_use]
pub fn encode_error_text(text: &str) -> Vec<u8> {
    let mut out = br#"{"error":"#.to_vec();
    push_string(&mut out, text);
    out.push(b'}');
    out
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A JSON string as Go's encoder writes it, with `<`, `>`, `&` and the two Unicode line separators escaped.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Without an early end the compiler checks many bytes at once: this is most of the time of an answer with 5000 names.
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|c| push_char(out, c));
    }
    out.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

fn push_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        }
        _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}
