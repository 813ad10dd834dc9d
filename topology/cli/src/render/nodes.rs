//! `berth nodes` as a table and as names.

use super::ink::{bad, faint, strong, warn};
use super::size::ranges;
use crate::nodes::{HolderRow, Inventory, NodeRow};

/// How to print the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// With the holders.
    pub(crate) is_wide: bool,
    /// With the line of headings.
    pub(crate) has_headers: bool,
}

const HEADERS: [&str; 10] =
    ["NAME", "GPUS", "FREE", "UNHEALTHY", "LINK", "FREE-ISLAND", "STATUS", "LEVEL", "PRODUCT", "HOLDERS"];
const COLUMNS_NARROW: usize = 9;
/// Columns whose numbers call for a look when they are not zero, and those whose words do.
const UNHEALTHY: usize = 3;
const STATUS: usize = 6;

/// One line per node under one for the cluster, whose name is `*`. No cell but the last has a blank in it.
pub(crate) fn table(inventory: &Inventory, form: Table) -> String {
    let columns = if form.is_wide { HEADERS.len() } else { COLUMNS_NARROW };
    let headers = HEADERS.map(str::to_owned);
    let mut rows: Vec<[String; 10]> = if form.has_headers { vec![headers] } else { Vec::new() };
    rows.push(totals(inventory));
    rows.extend(inventory.items.iter().map(cells));
    let widths: Vec<usize> =
        (0..columns).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let is_header = form.has_headers && number == 0;
        let is_totals = number == usize::from(form.has_headers);
        for column in 0..columns {
            let cell = &row[column];
            let shown = match column {
                _ if is_header => faint(cell),
                _ if is_totals => strong(cell),
                UNHEALTHY if cell != "0" => bad(cell),
                STATUS if cell != "ok" => warn(cell),
                _ => cell.clone(),
            };
            text.push_str(&shown);
            if column + 1 < columns {
                text.push_str(&" ".repeat(widths[column] - cell.chars().count() + 3));
            }
        }
        text.push('\n');
    }
    text
}

fn totals(inventory: &Inventory) -> [String; 10] {
    let totals = &inventory.totals;
    let well = totals.node_count.saturating_sub(totals.troubled_node_count);
    let holders: Option<usize> = inventory.items.iter().map(|r| r.holders.as_ref().map(Vec::len)).sum();
    [
        "*".to_owned(),
        totals.gpu_count.to_string(),
        number(totals.free_gpu_count, "?"),
        totals.unhealthy_gpu_count.to_string(),
        "-".to_owned(),
        number(totals.free_island_gpu_count, "-"),
        format!("{well}/{}-ok", totals.node_count),
        "-".to_owned(),
        counted(totals.node_count, "node"),
        holders.map_or_else(|| "?".to_owned(), |count| counted(count, "pod")),
    ]
}

fn cells(row: &NodeRow) -> [String; 10] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.replace(' ', "-") };
    let holders = match row.holders.as_deref() {
        None => "?".to_owned(),
        Some([]) => "-".to_owned(),
        Some(holders) => holders.iter().map(holder).collect::<Vec<_>>().join(" "),
    };
    // Where there is NVLink and no number, nobody knows which GPUs are free.
    let no_island = if row.link_class.starts_with("NV") { "?" } else { "-" };
    [
        row.name.clone(),
        row.gpu_count.to_string(),
        number(row.free_gpu_count, "?"),
        row.unhealthy_gpu_count.to_string(),
        or_dash(&row.link_class),
        number(row.free_island_gpu_count(), no_island),
        if row.status.is_empty() { "ok".to_owned() } else { row.status.join(",") },
        or_dash(row.level),
        or_dash(&row.product),
        holders,
    ]
}

/// `team/train-0:0-3`; GPUs that nobody can name are counted after a `+`.
fn holder(holder: &HolderRow) -> String {
    let gpus = ranges(holder.gpus.iter().map(|g| u32::from(*g)));
    let unplanned = match holder.unplanned_gpu_count {
        0 => String::new(),
        count => format!("+{count}?"),
    };
    format!("{}/{}:{gpus}{unplanned}", holder.namespace, holder.pod)
}

fn number(number: Option<u32>, absent: &str) -> String {
    number.map_or_else(|| absent.to_owned(), |n| n.to_string())
}

fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// `node/NAME`, as `kubectl get nodes -o name` prints it.
pub(crate) fn names(inventory: &Inventory) -> String {
    inventory.items.iter().map(|row| format!("node/{}\n", row.name)).collect()
}
