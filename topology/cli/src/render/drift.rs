//! `berth drift` as a table.

use super::ink::{faint, warn};
use crate::drift::{DriftList, DriftRow};

const HEADERS: [&str; 5] = ["NAMESPACE", "POD", "NODE", "SINCE", "PROBLEM"];
const PROBLEM: usize = 4;

/// One line per pod; one sentence where there is none.
pub(crate) fn table(list: &DriftList, has_headers: bool) -> String {
    if list.items.is_empty() {
        return "no drift: every pod whose kubelet tells holds what its plan names\n".to_owned();
    }
    let mut rows: Vec<[String; 5]> = if has_headers { vec![HEADERS.map(str::to_owned)] } else { Vec::new() };
    rows.extend(list.items.iter().map(cells));
    let widths = [0, 1, 2, 3, 4].map(|c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let is_header = has_headers && number == 0;
        for (column, cell) in row.iter().enumerate() {
            text.push_str(&match column {
                _ if is_header => faint(cell),
                PROBLEM => warn(cell),
                _ => cell.clone(),
            });
            if column < PROBLEM {
                text.push_str(&" ".repeat(widths[column] - cell.chars().count() + 3));
            }
        }
        text.push('\n');
    }
    text
}

fn cells(row: &DriftRow) -> [String; 5] {
    let since = if row.since.is_empty() { "-".to_owned() } else { row.since.clone() };
    [row.namespace.clone(), row.pod.clone(), row.node.clone(), since, row.problem.clone()]
}
