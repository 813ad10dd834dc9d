//! Texts of `berth doctor`.

use berth_probe::xid::{Meaning, UNLISTED_ADVICE};

use super::ink::{bad, faint, good, strong, warn};
use crate::doctor::{Complaint, Examined, State};
use crate::lint::Severity;

/// Pods named under one complaint; more are counted.
const PODS_TOLD_MAX: usize = 8;

/// The nodes where something is wrong, check by check; with `is_asked` also those that are well. Then one line that counts.
pub(crate) fn examined(nodes: &[Examined], is_asked: bool) -> String {
    let mut out = String::new();
    for node in nodes.iter().filter(|node| is_asked || !node.complaints.is_empty()) {
        out.push_str(&format!("{}\n", strong(&node.node)));
        for check in &node.checks {
            let own: Vec<&Complaint> = node.complaints.iter().filter(|c| c.check == check.name).collect();
            let word = match check.state {
                State::Ok => good("ok  "),
                State::Unknown => faint("?   "),
                State::Warning => warn("warn"),
                State::Error => bad("FAIL"),
            };
            let first = if check.state == State::Unknown { "not known" } else { "" };
            if own.is_empty() {
                let line = format!("  {word}  {:8}  {first}", check.name);
                out.push_str(&format!("{}\n", line.trim_end()));
            }
            for complaint in own {
                out.push_str(&format!(
                    "  {}  {:8}  {}\n",
                    painted(complaint.severity),
                    check.name,
                    sentence(complaint)
                ));
            }
        }
    }
    let with = nodes.iter().filter(|node| !node.complaints.is_empty()).count();
    let counted = if nodes.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", nodes.len()) };
    let line = match with {
        0 => good(format!("{counted}: all in order")),
        _ => strong(format!("{counted}: {} in order, {with} with findings", nodes.len() - with)),
    };
    out.push_str(&format!("{line}\n"));
    out
}

fn painted(severity: Severity) -> String {
    match severity {
        Severity::Error => bad("FAIL"),
        Severity::Warning | Severity::Note => warn("warn"),
    }
}

/// What is wrong, then whom it hurts and what helps, a line each under the words.
fn sentence(complaint: &Complaint) -> String {
    let indent = " ".repeat(18);
    let about = if complaint.about.is_empty() { String::new() } else { format!("{}: ", complaint.about) };
    let mut text = format!("{about}{}", complaint.text);
    if !complaint.pods.is_empty() {
        let more = complaint.pods.len().saturating_sub(PODS_TOLD_MAX);
        let told: Vec<&str> = complaint.pods.iter().take(PODS_TOLD_MAX).map(String::as_str).collect();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        text.push_str(&format!("\n{indent}held by {}{more}", told.join(", ")));
    }
    text.push_str(&format!("\n{indent}{}", faint(&complaint.advice)));
    text
}

/// Rows of the table of Xids: of one that was asked for, or of all.
pub(crate) fn xids(asked: Option<u64>, rows: &[&Meaning]) -> String {
    if let (Some(xid), []) = (asked, rows) {
        return format!("Xid {xid} is not in the table: it counts against the GPU\n     {}\n", faint(UNLISTED_ADVICE));
    }
    rows.iter().map(|row| format!("{:>4}  {}\n      {}\n", row.xid, strong(row.text), faint(row.advice))).collect()
}
