//! The JSON of an explanation. The CLI reads it; fields are only ever added.

use berth_core::annotation::Note;
use berth_core::score::Ppm;
use berth_core::unfit::Reason;
use berth_core::value::Typical;
use berth_core::{Plan, Score};
use serde::Serialize;

use crate::decide::Mode;
use crate::learned::Expectation;

/// Why a pod is where it is, or nowhere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    pod: String,
    mode: &'static str,
    /// What the mode cannot promise.
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'static str,
    /// One sentence.
    pub(super) summary: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) class: String,
    pub(super) gpu_count: u32,
    /// Short lists that the pod was given without being bound.
    pub(super) short_lists: u32,
    pub(super) nodes_asked: usize,
    pub(super) nodes_fit: usize,
    /// The best nodes, best first.
    pub(super) options: Vec<Choice>,
    /// Why the other nodes are out: what may pass by waiting first, then most frequent first.
    pub(super) reasons: Vec<ReasonCount>,
    /// The pods that were expected, where that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<Expected>,
    /// Where the pod is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<HeldOn>,
}

impl Explanation {
    pub(super) fn new(namespace: &str, pod: &str, mode: Mode) -> Self {
        let (mode, note) = match mode {
            Mode::Allocate => (
                "allocate",
                "a plan promises what its node can keep: at level advice another device plugin decides which GPUs a container gets",
            ),
            Mode::Score => {
                ("score", "mode score: this scheduler does not bind, so it cannot know which devices a pod holds")
            }
        };
        Self {
            api_version: "explain.berth.dev/v1alpha1",
            kind: "Explanation",
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            mode,
            note,
            summary: String::new(),
            class: String::new(),
            gpu_count: 0,
            short_lists: 0,
            nodes_asked: 0,
            nodes_fit: 0,
            options: Vec::new(),
            reasons: Vec::new(),
            expected: None,
            held: None,
        }
    }
}

/// What the part `left` of the scores went by.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expected {
    /// Pods that it was learned from; what the policy's document expects stands for those that are missing.
    learned_from: usize,
    /// Equal ones are equal expectations, on every replica.
    hash: String,
    /// How many kinds there are.
    kind_count: usize,
    /// The most frequent ones.
    kinds: Vec<ExpectedKind>,
}

/// A kind of pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExpectedKind {
    gpus: u32,
    /// Of each of its GPUs.
    gpu_milli: u32,
    cpu_milli: u64,
    /// Its part of all, in parts per million.
    part: u64,
}

/// Kinds that are told.
const KINDS_TOLD: usize = 8;

impl Expected {
    /// `None` where nothing is expected.
    pub(super) fn of(expectation: &Expectation) -> Option<Self> {
        let parts = expectation.mix.parts();
        let kind = |(kind, part): &(Typical, u64)| ExpectedKind {
            gpus: kind.gpu_count,
            gpu_milli: kind.gpu_milli,
            cpu_milli: kind.cpu_milli,
            part: *part,
        };
        (!parts.is_empty()).then(|| Self {
            learned_from: expectation.pods,
            hash: format!("{:013x}", expectation.mix.fingerprint()),
            kind_count: parts.len(),
            kinds: parts.iter().take(KINDS_TOLD).map(kind).collect(),
        })
    }
}

/// A node that would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Choice {
    pub(super) node: String,
    /// Positions of the GPUs; empty where devices are not known.
    gpus: String,
    /// Weakest link inside the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nics: Vec<String>,
    /// What a plan for the node promises.
    level: &'static str,
    /// Parts per million.
    score: u32,
    /// By how much the best node is better, in parts per million.
    behind: u32,
    /// False for a node with a stale or missing report, which stands behind all others.
    is_trusted: bool,
    /// True for a node outside of the NVLink clique that most pods of the group are in: it stands behind all inside.
    is_outside_clique: bool,
    parts: Vec<ScorePart>,
    pub(super) why: String,
}

#[derive(Debug, Serialize)]
struct ScorePart {
    name: &'static str,
    /// Parts per million.
    value: u32,
    weight: u32,
}

impl Choice {
    pub(super) fn of(plan: &Plan, best: Score, is_outside_clique: bool) -> Self {
        let note = Note::of(plan, "");
        let part = |p: &berth_core::score::Part| ScorePart { name: p.name, value: p.value.0, weight: p.weight };
        Self {
            node: plan.node.to_string(),
            gpus: plan.set.map_or_else(String::new, |s| s.to_string()),
            link: plan.weakest.map(|l| l.to_string()),
            nics: note.nics,
            level: plan.level.word(),
            score: plan.score.value.0,
            behind: best.value.0.saturating_sub(plan.score.value.0),
            is_trusted: plan.score.is_trusted,
            is_outside_clique,
            parts: plan.parts.iter().map(part).collect(),
            why: note.why,
        }
    }
}

impl Choice {
    /// What the best node is better by than this one, the next.
    pub(super) fn lead(&self) -> String {
        if self.is_outside_clique {
            return format!(", before {} outside of the group's clique", self.node);
        }
        match self.behind {
            0 => format!(", as good as {} which follows by name", self.node),
            behind => format!(", {} before {}", Ppm(behind), self.node),
        }
    }
}

/// A reason and how many nodes are out for it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReasonCount {
    code: &'static str,
    pub(super) text: &'static str,
    /// The numbers of the first example.
    pub(super) detail: String,
    advice: &'static str,
    helped_by_preemption: bool,
    pub(super) nodes: usize,
    examples: Vec<String>,
}

impl ReasonCount {
    pub(super) fn of(reason: Reason, nodes: usize, examples: Vec<String>, detail: String) -> Self {
        Self {
            code: reason.code(),
            text: reason.text(),
            detail,
            advice: reason.advice(),
            helped_by_preemption: reason.helped_by_preemption(),
            nodes,
            examples,
        }
    }
}

/// Where a pod is bound and what it holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeldOn {
    pub(super) node: String,
    pub(super) gpus: String,
    pub(super) unplanned_gpu_count: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) problem: String,
    pub(super) node_is_imprecise: bool,
}
