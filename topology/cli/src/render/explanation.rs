//! What berth-scheduler's `/explain` answers, as text. Fields are only ever added there, so every one may be absent here.

use serde::Deserialize;

use super::ink::{faint, strong, warn};
use super::size::{indented, percent};

/// Kinds of expected pods that are shown.
const KINDS_SHOWN: usize = 3;
/// The kind that this file knows.
const KIND: &str = "Explanation";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Explanation {
    mode: String,
    note: String,
    summary: String,
    class: String,
    gpu_count: u32,
    short_lists: u32,
    nodes_asked: usize,
    nodes_fit: usize,
    options: Vec<Choice>,
    reasons: Vec<Reason>,
    expected: Option<Expected>,
    held: Option<Held>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Expected {
    learned_from: usize,
    kind_count: usize,
    kinds: Vec<ExpectedKind>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExpectedKind {
    gpus: u32,
    gpu_milli: u32,
    cpu_milli: u64,
    part: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Choice {
    node: String,
    gpus: String,
    link: Option<String>,
    level: String,
    score: u32,
    behind: u32,
    is_trusted: bool,
    is_outside_clique: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Part {
    name: String,
    value: u32,
    weight: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reason {
    text: String,
    detail: String,
    advice: String,
    nodes: usize,
    examples: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Held {
    node: String,
    gpus: String,
    unplanned_gpu_count: u32,
    problem: String,
    node_is_imprecise: bool,
}

/// The answer for people. One of another kind, from a later scheduler, is printed as YAML.
pub(crate) fn explanation(answer: &serde_json::Value) -> String {
    let is_known = answer.get("kind").and_then(|k| k.as_str()) == Some(KIND);
    match serde_json::from_value::<Explanation>(answer.clone()) {
        Ok(told) if is_known => told.text(),
        _ => serde_saphyr::to_string(answer).unwrap_or_else(|_| answer.to_string()),
    }
}

impl Explanation {
    fn text(&self) -> String {
        let mut text = format!("{}\n", strong(&self.summary));
        if !self.class.is_empty() {
            text.push_str(&format!("class {}, {} GPUs, mode {}\n", self.class, self.gpu_count, self.mode));
        }
        if !self.note.is_empty() {
            text.push_str(&format!("{}\n", faint(&self.note)));
        }
        if self.short_lists > 0 {
            let times = self.short_lists;
            text.push_str(&format!(
                "offered nodes {times} times without being bound: the Events say what came after\n"
            ));
        }
        if let Some(held) = &self.held {
            text.push_str(&held.text(&self.summary));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("{} nodes would do, best first:\n", self.nodes_fit));
            self.options.iter().for_each(|choice| text.push_str(&indented(&choice.text(), "  ")));
        }
        if let Some(expected) = self.expected.as_ref().filter(|_| !self.options.is_empty()) {
            text.push_str(&format!("{}\n", faint(expected.text())));
        }
        // Out of no node: the pod itself is at fault, and the summary has said so.
        let (of_nodes, of_pod): (Vec<&Reason>, Vec<&Reason>) = self.reasons.iter().partition(|r| r.nodes > 0);
        of_pod.iter().filter(|r| !r.advice.is_empty()).for_each(|r| text.push_str(&r.help()));
        if !of_nodes.is_empty() {
            text.push_str(&format!("out of {} nodes:\n", self.nodes_asked));
            of_nodes.iter().for_each(|reason| text.push_str(&indented(&reason.text(), "  ")));
        }
        text
    }
}

impl Expected {
    fn text(&self) -> String {
        let kind = |kind: &ExpectedKind| {
            let share = if kind.gpu_milli < 1000 { format!(" x {}%", kind.gpu_milli / 10) } else { String::new() };
            format!("{} {} GPU{share} with {} cores", percent(kind.part), kind.gpus, kind.cpu_milli.div_ceil(1000))
        };
        let kinds: Vec<String> = self.kinds.iter().take(KINDS_SHOWN).map(kind).collect();
        let more = self.kind_count.saturating_sub(kinds.len());
        let more = if more > 0 { format!("; {more} more kinds") } else { String::new() };
        format!(
            "part left: what is left for the pods expected, learned from {}: {}{more}",
            self.learned_from,
            kinds.join("; ")
        )
    }
}

impl Choice {
    fn text(&self) -> String {
        let gpus = if self.gpus.is_empty() { "GPUs not known".to_owned() } else { format!("GPUs {}", self.gpus) };
        let link = self.link.as_ref().map_or_else(String::new, |l| format!("  joined by {l}"));
        let trust = if self.is_trusted { String::new() } else { format!("  {}", warn("(stale or no report)")) };
        let trust = if self.is_outside_clique {
            format!("{trust}  {}", warn("(outside of the group's clique)"))
        } else {
            trust
        };
        let behind =
            if self.behind == 0 { String::new() } else { format!(", {} behind the best", percent(self.behind)) };
        let level = if self.level.is_empty() { String::new() } else { format!("  {}", self.level) };
        let node = strong(&self.node);
        let mut text = format!("{node}  {gpus}{link}{level}  score {}{behind}{trust}\n", percent(self.score));
        let counted = self.parts.iter().filter(|p| p.weight > 0);
        let parts: Vec<String> = counted.map(|p| format!("{} {} x{}", p.name, percent(p.value), p.weight)).collect();
        if !parts.is_empty() {
            text.push_str(&format!("  {}\n", faint(parts.join(", "))));
        }
        text
    }
}

impl Reason {
    fn text(&self) -> String {
        let more = if self.nodes > self.examples.len() { ", ..." } else { "" };
        let names =
            if self.examples.is_empty() { String::new() } else { format!("  ({}{more})", self.examples.join(", ")) };
        let nodes = if self.nodes == 1 { "1 node " } else { &format!("{} nodes", self.nodes) };
        let mut text = format!("{nodes}  {}{names}\n", warn(&self.text));
        if !self.detail.is_empty() {
            text.push_str(&format!("  {}\n", self.detail));
        }
        if !self.advice.is_empty() {
            text.push_str(&indented(&self.help(), "  "));
        }
        text
    }

    fn help(&self) -> String {
        format!("what helps: {}\n", self.advice)
    }
}

impl Held {
    fn text(&self, summary: &str) -> String {
        let unplanned = match self.unplanned_gpu_count {
            0 => String::new(),
            count => format!(" and {count} that nobody can name"),
        };
        let gpus = if self.gpus.is_empty() { "none by plan".to_owned() } else { self.gpus.clone() };
        let mut text = format!("holds on {}: GPUs {gpus}{unplanned}\n", self.node);
        if !summary.contains(&self.problem) {
            text.push_str(&format!("{}\n", warn(&self.problem)));
        }
        if self.node_is_imprecise {
            text.push_str(&format!("{}\n", warn("the node is imprecise: pods without a plan hold GPUs there too")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use serde_json::json;

    use super::*;

    fn plain(answer: &serde_json::Value) -> String {
        strip_str(&explanation(answer)).to_string()
    }

    #[test]
    fn a_refusal_names_the_nodes_and_what_helps() {
        let answer = json!({
            "apiVersion": "explain.berth.dev/v1alpha1", "kind": "Explanation", "namespace": "team", "pod": "p",
            "mode": "allocate", "note": "plans are advice", "summary": "fits none of 4 nodes", "class": "training",
            "gpuCount": 8, "shortLists": 0, "nodesAsked": 4, "nodesFit": 0, "options": [],
            "reasons": [{"code": "gpus-busy", "text": "berth: too few free GPUs", "detail": "8 asked, 2 free",
                "advice": "wait", "helpedByPreemption": true, "nodes": 4, "examples": ["a", "b", "c"]}],
        });
        let expected = "\
fits none of 4 nodes
class training, 8 GPUs, mode allocate
plans are advice
out of 4 nodes:
  4 nodes  berth: too few free GPUs  (a, b, c, ...)
    8 asked, 2 free
    what helps: wait
";
        assert_eq!(plain(&answer), expected);
    }

    #[test]
    fn the_options_come_with_what_their_score_is_made_of() {
        let answer = json!({
            "kind": "Explanation", "summary": "fits 2 of 4 nodes now", "nodesAsked": 4, "nodesFit": 2, "fromTheFuture": 1,
            "options": [
                {"node": "n1", "gpus": "0,1", "link": "NV18", "level": "preferred", "score": 734_567, "isTrusted": true,
                    "parts": [{"name": "gpu", "value": 500_000, "weight": 3}, {"name": "link", "value": 1, "weight": 0}]},
                {"node": "n2", "gpus": "", "score": 1, "isTrusted": false, "parts": []}],
        });
        let expected = "\
fits 2 of 4 nodes now
2 nodes would do, best first:
  n1  GPUs 0,1  joined by NV18  preferred  score 73.4%
    gpu 50% x3
  n2  GPUs not known  score 0%  (stale or no report)
";
        assert_eq!(plain(&answer), expected);
    }

    #[test]
    fn a_pod_that_cannot_be_read_is_told_once() {
        let answer = json!({
            "kind": "Explanation", "summary": "a wish cannot be read (x)",
            "reasons": [{"text": "a wish cannot be read", "detail": "x", "advice": "correct it", "nodes": 0}],
        });
        assert_eq!(plain(&answer), "a wish cannot be read (x)\nwhat helps: correct it\n");
    }

    #[test]
    fn a_bound_pod_shows_what_is_wrong_with_its_plan() {
        let answer = json!({
            "kind": "Explanation", "summary": "bound to n1: bound without a plan",
            "held": {"node": "n1", "gpus": "", "unplannedGpuCount": 2, "problem": "bound without a plan",
                "nodeIsImprecise": true},
        });
        let text = plain(&answer);
        let expected = "\
bound to n1: bound without a plan
holds on n1: GPUs none by plan and 2 that nobody can name
the node is imprecise: pods without a plan hold GPUs there too
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_answer_of_another_kind_is_shown_as_it_is() {
        assert_eq!(plain(&json!({"kind": "Novel", "pages": 7})), "kind: Novel\npages: 7\n");
    }
}
