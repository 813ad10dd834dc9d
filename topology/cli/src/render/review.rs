//! Texts of `berth topo diff` and `berth topo lint`.

use std::collections::BTreeSet;

use berth_model::NodeTopology;

use super::ink::{bad, faint, good, strong, warn};
use crate::compare::Difference;
use crate::lint::{Remark, Severity, entry};

/// A line for each difference, or one that there is none.
pub(crate) fn compared(before: &NodeTopology, after: &NodeTopology, list: &[Difference]) -> String {
    let (a, b) = (&before.parts().node, &after.parts().node);
    if list.is_empty() {
        return format!(
            "{}\n",
            good(if a == b { format!("{a}: no difference") } else { format!("{a} and {b} are alike") })
        );
    }
    list.iter().map(|d| format!("{}\n", d.text)).collect()
}

/// Remarks node by node, then what helps, once per code.
pub(crate) fn linted(node_count: usize, remarks: &[Remark]) -> String {
    let nodes: BTreeSet<&str> = remarks.iter().map(|r| r.node.as_str()).collect();
    let counted = if node_count == 1 { "1 node".to_owned() } else { format!("{node_count} nodes") };
    if remarks.is_empty() {
        return format!("{}\n", good(format!("{counted}: nothing found")));
    }
    let mut out = String::new();
    let width = remarks.iter().map(|r| r.code.len()).max().unwrap_or(0);
    for node in nodes {
        out.push_str(&format!("{}\n", strong(node)));
        for remark in remarks.iter().filter(|r| r.node == node) {
            let device = if remark.device.is_empty() { String::new() } else { format!("{}: ", remark.device) };
            let word = painted(remark.severity);
            out.push_str(&format!("  {word}  {:width$}  {device}{}\n", remark.code, remark.text));
        }
    }
    out.push_str("\nWhat it means, and what helps\n");
    let mut codes: Vec<(Severity, &str)> = remarks.iter().map(|r| (r.severity, r.code.as_str())).collect();
    codes.sort_unstable();
    codes.dedup();
    for (_, code) in codes {
        let entry = entry(code);
        out.push_str(&format!("  {code}: {}\n      {}\n", entry.meaning, faint(entry.advice)));
    }
    let count = |severity: Severity| remarks.iter().filter(|r| r.severity == severity).count();
    let totals = [Severity::Error, Severity::Warning, Severity::Note].map(|s| format!("{} {s}", count(s)));
    out.push_str(&format!("\n{counted}: {}\n", totals.join(", ")));
    out
}

fn painted(severity: Severity) -> String {
    let word = format!("{severity:7}");
    match severity {
        Severity::Error => bad(word),
        Severity::Warning => warn(word),
        Severity::Note => faint(word),
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::compare::differences;
    use crate::lint::lint;
    use crate::render::sample::Sample;

    #[test]
    fn remarks_are_told_by_node_and_advice_once() {
        let mut sample = Sample::new(&["X SYS", "SYS X"], &[0, 1], &[]);
        for gpu in &mut sample.parts.gpus {
            gpu.health = berth_model::Health::Unhealthy("Xid 79".to_owned());
        }
        let text = strip_str(&linted(1, &lint(&[sample.build()]))).to_string();
        let expected = "\
sample
  error    gpu-unhealthy  GPU0: Xid 79
  error    gpu-unhealthy  GPU1: Xid 79

What it means, and what helps
  gpu-unhealthy: a GPU gets no pods
      look up the Xid or text; reset the GPU or drain the node, then have it repaired

1 node: 2 error, 0 warning, 0 note
";
        assert_eq!(text, expected);
        assert_eq!(strip_str(&linted(3, &[])).to_string(), "3 nodes: nothing found\n");
    }

    #[test]
    fn no_difference_is_said_in_a_sentence() {
        let node = Sample::new(&["X"], &[0], &[]).build();
        let text = compared(&node, &node, &differences(&node, &node));
        assert_eq!(strip_str(&text).to_string(), "sample: no difference\n");
    }
}
