//! The grammar of `nvidia-smi topo -m`: what a capture says, cell by cell, and where. Refuses what contradicts itself.
//!
//! Dialects differ in columns (CPU; CPU and NUMA; both and GPU NUMA ID) and in how NICs are called (by name, or NICn with a legend). Column kinds
//! are read from the header, never by position.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{CpuSet, GpuSet, Link, NodeTopology, PcieLevel};

use super::lines::{Cell, Line, lines};
use super::{At, ImportError, refuse};

/// What stands between two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    NvLink(u8),
    Pcie(PcieLevel),
}

/// A value and where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// What the columns after the devices say of a GPU. `None` was not captured.
#[derive(Debug, Clone, Default)]
pub(super) struct Affinity {
    pub(super) cpus: Option<Given<CpuSet>>,
    /// Empty for N/A.
    pub(super) zones: Option<Given<Vec<u16>>>,
    pub(super) memory_zone: Option<Given<Option<u16>>>,
}

/// A capture, checked to be symmetric. Devices are positions: GPUs first, then NICs.
#[derive(Debug, Default)]
pub(super) struct Capture {
    /// Values of the `# key: value` lines before the table.
    pub(super) said: BTreeMap<String, String>,
    /// Devices as the header calls them.
    pub(super) labels: Vec<String>,
    pub(super) gpu_count: usize,
    /// Kernel names of the NICs.
    pub(super) nic_names: Vec<String>,
    /// Cells by pair, the lower position first.
    pub(super) cells: BTreeMap<(usize, usize), Given<Word>>,
    /// Devices with a row.
    pub(super) rows: BTreeSet<usize>,
    pub(super) affinity: Vec<Affinity>,
    /// Whether the capture leaves NVLinks out (`topo -mp`).
    pub(super) pcie_only: bool,
    /// Where the header is.
    pub(super) header: At,
    /// What was taken for granted while reading.
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Cpus,
    Zones,
    MemoryZone,
}

impl Column {
    fn read(heading: &str) -> Option<Self> {
        [Self::Cpus, Self::Zones, Self::MemoryZone].into_iter().find(|column| column.heading() == heading)
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Cpus => "CPU Affinity",
            Self::Zones => "NUMA Affinity",
            Self::MemoryZone => "GPU NUMA ID",
        }
    }
}

pub(super) fn read(text: &str) -> Result<Capture, ImportError> {
    let mut reading = Reading::default();
    for line in lines(text) {
        reading.line(&line)?;
    }
    reading.finish()
}

#[derive(Default)]
struct Reading {
    capture: Capture,
    columns: Vec<Column>,
    legend: BTreeMap<String, Given<String>>,
    legend_seen: bool,
    legend_of_nvlink: bool,
}

impl Reading {
    fn line(&mut self, line: &Line) -> Result<(), ImportError> {
        let words = line.words();
        let first = words.split(' ').next().unwrap_or_default();
        if first.starts_with('#') {
            if let Some((key, value)) = words.trim_start_matches('#').split_once(": ") {
                self.capture.said.entry(key.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
            }
            return Ok(());
        }
        if self.capture.labels.is_empty() {
            // A shell's prompt with the command is what people paste along.
            return if words.contains("nvidia-smi") { Ok(()) } else { self.header(line) };
        }
        let name = line.cells.first();
        let position = name.and_then(|cell| self.capture.labels.iter().position(|label| *label == cell.text));
        match (position, first.strip_suffix(':')) {
            (Some(position), _) => self.row(position, line),
            (None, Some(label)) if label.starts_with("NIC") => self.legend_entry(label, &words, line),
            _ if words == "Legend:" || words == "NIC Legend:" => {
                self.legend_seen = true;
                Ok(())
            }
            _ if words.contains(" = ") && is_legend_word(first) => {
                self.legend_of_nvlink |= first == "NV#";
                Ok(())
            }
            _ => {
                let problem = format!("{:?} is neither a device of the header nor a line of the legend", cut(first));
                refuse(At { line: line.number, column: name.map_or(1, |c| c.column) }, problem)
            }
        }
    }

    fn header(&mut self, line: &Line) -> Result<(), ImportError> {
        let skipped = usize::from(line.cells.first().is_some_and(|c| c.text.is_empty()));
        let at = |cell: &Cell| At { line: line.number, column: cell.column };
        for cell in line.cells.iter().skip(skipped) {
            let text = cell.text.as_str();
            let labels = &self.capture.labels;
            if let Some(column) = Column::read(text).filter(|c| !labels.is_empty() && !self.columns.contains(c)) {
                self.columns.push(column);
            } else if text.is_empty() && !self.columns.is_empty() {
                // Some drivers print two tabs before the last heading.
            } else if !self.columns.is_empty() || labels.iter().any(|label| label == text) {
                return refuse(
                    at(cell),
                    format!("{:?} must stand once, and devices before the other columns", cut(text)),
                );
            } else if text == format!("GPU{}", labels.len()) && labels.len() == self.capture.gpu_count {
                self.capture.gpu_count = self.capture.gpu_count.saturating_add(1);
                self.capture.labels.push(text.to_owned());
            } else if labels.is_empty() || text.starts_with("GPU") || !is_nic(text) {
                let right = if labels.is_empty() {
                    "the header with GPU0 first"
                } else {
                    "the next GPU, a NIC or a known column"
                };
                return refuse(at(cell), format!("{:?} where {right} is right", cut(text)));
            } else {
                self.capture.labels.push(text.to_owned());
            }
        }
        self.capture.header = At { line: line.number, column: line.cells.get(skipped).map_or(1, |c| c.column) };
        let nic_count = self.capture.labels.len().saturating_sub(self.capture.gpu_count);
        if self.capture.gpu_count > GpuSet::GPUS_MAX || nic_count > NodeTopology::NICS_MAX {
            let problem = format!("at most {} GPUs and {} NICs are taken", GpuSet::GPUS_MAX, NodeTopology::NICS_MAX);
            return refuse(self.capture.header, problem);
        }
        self.capture.affinity.resize_with(self.capture.gpu_count, Affinity::default);
        Ok(())
    }

    fn row(&mut self, row: usize, line: &Line) -> Result<(), ImportError> {
        let at = |cell: &Cell| At { line: line.number, column: cell.column };
        let label = self.capture.labels.get(row).cloned().unwrap_or_default();
        let cells = line.cells.get(1..).unwrap_or_default();
        if let Some(first) = line.cells.first().filter(|_| !self.capture.rows.insert(row)) {
            return refuse(at(first), format!("a second row {label}"));
        }
        let device_count = self.capture.labels.len();
        for (column, cell) in cells.iter().take(device_count).enumerate() {
            self.cell(row, column, cell, at(cell))?;
        }
        if cells.len() < device_count {
            let note =
                format!("row {label} ends after {} of {device_count} cells: the rest was not captured", cells.len());
            self.capture.notes.push(note);
        }
        self.affinity(row, &label, line, cells.get(device_count..).unwrap_or_default())
    }

    fn cell(&mut self, row: usize, column: usize, cell: &Cell, at: At) -> Result<(), ImportError> {
        let text = cell.text.as_str();
        if (text == "X") != (row == column) {
            return refuse(at, format!("{:?}: X is right where a device meets itself, and only there", cut(text)));
        }
        if row == column {
            return Ok(());
        }
        let Some(word) = read_word(text) else {
            return refuse(
                at,
                format!("{:?} is none of X, NV1 to NV{}, PIX, PXB, PHB, NODE, SYS", cut(text), Link::NVLINKS_MAX),
            );
        };
        let pair = (row.min(column), row.max(column));
        if matches!(word, Word::NvLink(_)) && pair.1 >= self.capture.gpu_count {
            return refuse(at, format!("{text} with a NIC: NVLinks join GPUs"));
        }
        if text == "SOC" {
            self.capture.notes.push(format!("line {}: SOC is the older word for SYS", at.line));
        }
        match self.capture.cells.get(&pair) {
            Some(mirror) if mirror.value != word => {
                let there = format!("line {}, column {}", mirror.at.line, mirror.at.column);
                refuse(at, format!("{text} differs from the mirrored cell at {there}"))
            }
            Some(_) => Ok(()),
            None => {
                self.capture.cells.insert(pair, Given { value: word, at });
                Ok(())
            }
        }
    }

    /// The cells after the devices. Two tabs stand before the last one of a GPU; a NIC's are empty.
    fn affinity(&mut self, row: usize, label: &str, line: &Line, cells: &[Cell]) -> Result<(), ImportError> {
        let at = |cell: &Cell| At { line: line.number, column: cell.column };
        let Some(affinity) = self.capture.affinity.get_mut(row) else {
            let stray = cells.iter().find(|c| !c.text.is_empty());
            return stray.map_or(Ok(()), |c| refuse(at(c), format!("{:?} in the row of a NIC", cut(&c.text))));
        };
        let mut cells: Vec<&Cell> = cells.iter().collect();
        let last = self.columns.iter().position(|c| *c == Column::MemoryZone);
        if let Some(gap) =
            last.filter(|i| cells.len() > self.columns.len() && cells.get(*i).is_some_and(|c| c.text.is_empty()))
        {
            cells.remove(gap);
        }
        if let Some(extra) = cells.iter().skip(self.columns.len()).find(|c| !c.text.is_empty()) {
            return refuse(at(extra), format!("{:?} has no column in the header", cut(&extra.text)));
        }
        if !line.tabbed && cells.len() < self.columns.len() {
            // Between blanks an empty cell cannot be told from a missing one.
            if !cells.is_empty() {
                self.capture
                    .notes
                    .push(format!("row {label}: its last cells are not all there, so none of them is taken"));
            }
            return Ok(());
        }
        let missing: Vec<&str> = self.columns.iter().skip(cells.len()).map(|c| c.heading()).collect();
        if !missing.is_empty() {
            self.capture.notes.push(format!("row {label} has no {}: not captured", missing.join(", ")));
        }
        for (column, cell) in self.columns.iter().zip(cells) {
            let at = at(cell);
            match column {
                Column::Cpus if cell.text == "N/A" => {}
                Column::Cpus => affinity.cpus = Some(Given { value: cpu_list(&cell.text, at)?, at }),
                Column::Zones => affinity.zones = zone_list(&cell.text, at)?.map(|value| Given { value, at }),
                Column::MemoryZone => {
                    affinity.memory_zone = memory_zone(&cell.text, at)?.map(|value| Given { value, at });
                }
            }
        }
        Ok(())
    }

    fn legend_entry(&mut self, label: &str, words: &str, line: &Line) -> Result<(), ImportError> {
        let at = At { line: line.number, column: line.cells.first().map_or(1, |c| c.column) };
        let name = words.split_once(' ').map(|(_, name)| name).unwrap_or_default();
        if !self.capture.labels.iter().any(|known| known == label) {
            return refuse(at, format!("{:?} is no column of the header", cut(label)));
        }
        if !is_nic(name) || self.legend.values().any(|other| other.value == name) {
            return refuse(at, format!("{:?} must be a device name that stands once", cut(name)));
        }
        match self.legend.insert(label.to_owned(), Given { value: name.to_owned(), at }) {
            Some(_) => refuse(at, format!("a second entry {label}")),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Capture, ImportError> {
        let Self { mut capture, legend, legend_seen, legend_of_nvlink, .. } = self;
        if capture.labels.is_empty() {
            return refuse(capture.header, "no header: a line with GPU0 and the other devices is right");
        }
        if capture.rows.is_empty() {
            return refuse(capture.header, "no rows: a header and a row per device are right");
        }
        let mut unnamed = Vec::new();
        for (number, label) in capture.labels.iter().skip(capture.gpu_count).enumerate() {
            let numbered = label.strip_prefix("NIC").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            let name = match legend.get(label) {
                Some(given) => given.value.clone(),
                None if numbered => {
                    unnamed.push(label.as_str());
                    format!("mlx5_{number}")
                }
                None => label.clone(),
            };
            if capture.nic_names.contains(&name) {
                return refuse(capture.header, format!("{label} has no name in the legend, and {name} is taken"));
            }
            capture.nic_names.push(name);
        }
        if !unnamed.is_empty() {
            capture.notes.push(format!("no legend names {}: called mlx5_0 and so on by position", unnamed.join(", ")));
        }
        let command = capture.said.get("command").map(String::as_str).unwrap_or_default();
        let has_nvlinks = capture.cells.values().any(|c| matches!(c.value, Word::NvLink(_)));
        capture.pcie_only = !has_nvlinks && (command.ends_with("-mp") || (legend_seen && !legend_of_nvlink));
        Ok(capture)
    }
}

fn read_word(text: &str) -> Option<Word> {
    if text == "SOC" {
        return Some(Word::Pcie(PcieLevel::Sys));
    }
    let Some(count) = text.strip_prefix("NV") else { return PcieLevel::from_word(text).map(Word::Pcie) };
    let count = count.parse().ok().filter(|c| (1..=Link::NVLINKS_MAX).contains(c))?;
    Some(Word::NvLink(count))
}

fn is_legend_word(word: &str) -> bool {
    matches!(word, "X" | "NV#" | "SOC") || PcieLevel::from_word(word).is_some()
}

/// Kernel names of RDMA devices, and NICn. A device name has a digit; a heading that was cut has none.
fn is_nic(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    plain
        && text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.contains(|c: char| c.is_ascii_digit())
}

fn cpu_list(text: &str, at: At) -> Result<CpuSet, ImportError> {
    CpuSet::parse(text).or_else(|error| refuse(at, error.to_string()))
}

/// `None` for an empty cell, an empty list for N/A.
fn zone_list(text: &str, at: At) -> Result<Option<Vec<u16>>, ImportError> {
    match text {
        "" => Ok(None),
        "N/A" => Ok(Some(Vec::new())),
        list => match CpuSet::parse(list) {
            Ok(set) => Ok(Some(set.cpus().filter_map(|id| u16::try_from(id).ok()).collect())),
            Err(_) => refuse(at, format!("{:?} is neither a list of NUMA nodes like 0,3-9 nor N/A", cut(list))),
        },
    }
}

fn memory_zone(text: &str, at: At) -> Result<Option<Option<u16>>, ImportError> {
    match text {
        "" => Ok(None),
        "N/A" => Ok(Some(None)),
        number => match number.parse() {
            Ok(id) => Ok(Some(Some(id))),
            Err(_) => refuse(at, format!("{:?} is neither a NUMA node nor N/A", cut(number))),
        },
    }
}

/// Foreign text as an error shows it.
fn cut(text: &str) -> String {
    text.chars().take(32).collect()
}
