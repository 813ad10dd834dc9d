//! How near two devices of a node are: PCIe levels, NVLinks, and the matrix of all pairs.

use std::fmt;

/// PCIe distance of two devices, from far to near. The order is the order of bandwidth: `Sys < Node < Phb < Pxb < Pix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PcieLevel {
    /// Across the interconnect between NUMA nodes.
    Sys,
    /// Across host bridges of one NUMA node.
    Node,
    /// Through a host bridge.
    Phb,
    /// Through several PCIe bridges, no host bridge.
    Pxb,
    /// Through at most one PCIe switch.
    Pix,
}

impl PcieLevel {
    /// All levels from far to near.
    pub const ALL: [Self; 5] = [Self::Sys, Self::Node, Self::Phb, Self::Pxb, Self::Pix];

    /// The word of `nvidia-smi topo -m`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sys => "SYS",
            Self::Node => "NODE",
            Self::Phb => "PHB",
            Self::Pxb => "PXB",
            Self::Pix => "PIX",
        }
    }

    /// Reads the word of `nvidia-smi topo -m`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// What joins two different devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Link {
    /// NVLinks between them; 0 for none. On NVSwitch machines: links of each GPU into the switches.
    pub nvlinks: u8,
    /// PCIe distance; `None` where a zone or a path is unknown, which never counts as far.
    pub pcie: Option<PcieLevel>,
}

impl Link {
    /// Most NVLinks a GPU can have. Source: `NVML_NVLINK_MAX_LINKS` in `nvml.h`. Checked: 2026-11-21.
    pub const NVLINKS_MAX: u8 = 18;

    /// The strongest joint: NVLink if there is any, else PCIe.
    #[must_use]
    pub fn class(self) -> LinkClass {
        match (self.nvlinks, self.pcie) {
            (0, None) => LinkClass::Unknown,
            (0, Some(level)) => LinkClass::Pcie(level),
            (count, _) => LinkClass::NvLink(count),
        }
    }

    /// Reads a report's cell: `NV18/SYS`, `PXB`, `?`.
    #[must_use]
    pub fn parse(cell: &str) -> Option<Self> {
        let level = |word: &str| match word {
            "?" => Some(None),
            other => PcieLevel::from_word(other).map(Some),
        };
        let Some(rest) = cell.strip_prefix("NV") else {
            return level(cell).map(|pcie| Self { nvlinks: 0, pcie });
        };
        let (count, word) = rest.split_once('/')?;
        let nvlinks = count.parse().ok().filter(|c| (1..=Self::NVLINKS_MAX).contains(c))?;
        level(word).map(|pcie| Self { nvlinks, pcie })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.pcie.map_or("?", PcieLevel::word);
        if self.nvlinks == 0 {
            return f.pad(level);
        }
        f.pad(&format!("NV{}/{level}", self.nvlinks))
    }
}

/// The strongest joint of two devices, from weak to strong: unknown < PCIe levels < NVLink by count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkClass {
    /// Not known. Satisfies no hard wish.
    Unknown,
    /// PCIe at this level.
    Pcie(PcieLevel),
    /// This many NVLinks.
    NvLink(u8),
}

impl LinkClass {
    /// The cell of `nvidia-smi topo -m`; `?` for unknown.
    #[must_use]
    pub fn cell(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for LinkClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.pad("?"),
            Self::Pcie(level) => f.pad(level.word()),
            Self::NvLink(count) => f.pad(&format!("NV{count}")),
        }
    }
}

/// Links of all pairs of a node's devices: GPUs first, then NICs. Square and symmetric by construction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LinkMatrix {
    device_count: usize,
    /// Upper triangle, row by row, without the diagonal.
    cells: Vec<Link>,
}

/// Why rows are no link matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// A row is missing or has too few or too many cells.
    #[error("row {row} has {cells} cells, {expected} are right")]
    Shape {
        /// Row with the wrong length.
        row: usize,
        /// Cells found.
        cells: usize,
        /// Cells expected.
        expected: usize,
    },
    /// A cell is not of the grammar.
    #[error("row {row}, column {column}: {cell:?} is none of X, ?, SYS, NODE, PHB, PXB, PIX, NV<k>/<level>")]
    Cell {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The text found.
        cell: String,
    },
    /// A cell differs from its mirror.
    #[error("row {row}, column {column}: {here} differs from {mirror} in the mirrored cell")]
    Asymmetric {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// Cell found.
        here: String,
        /// Mirrored cell.
        mirror: String,
    },
}

impl LinkMatrix {
    /// Most devices of a node (GPUs and NICs): bounds a hostile report.
    pub const DEVICES_MAX: usize = 128;

    /// Builds the matrix of `device_count` devices by asking once for each pair `a < b`.
    #[must_use]
    pub fn build(device_count: usize, mut link: impl FnMut(usize, usize) -> Link) -> Self {
        let mut cells = Vec::with_capacity(device_count.saturating_mul(device_count) / 2);
        for a in 0..device_count {
            for b in a.saturating_add(1)..device_count {
                cells.push(link(a, b));
            }
        }
        Self { device_count, cells }
    }

    /// Reads rows of blank-separated cells, `X` on the diagonal.
    ///
    /// # Errors
    /// [`MatrixError`] names the row and column.
    pub fn parse(rows: &[String]) -> Result<Self, MatrixError> {
        let expected = rows.len();
        let table: Vec<Vec<&str>> = rows.iter().map(|r| r.split_ascii_whitespace().collect()).collect();
        if let Some((row, cells)) = table.iter().enumerate().find(|(_, r)| r.len() != expected) {
            return Err(MatrixError::Shape { row, cells: cells.len(), expected });
        }
        for (row, cells) in table.iter().enumerate() {
            for (column, cell) in cells.iter().enumerate() {
                check_cell(&table, row, column, cell)?;
            }
        }
        let at = |a: usize, b: usize| table.get(a).and_then(|r| r.get(b)).and_then(|c| Link::parse(c));
        Ok(Self::build(expected, |a, b| at(a, b).unwrap_or_default()))
    }

    /// The rows that [`Self::parse`] reads.
    #[must_use]
    pub fn rows(&self) -> Vec<String> {
        (0..self.device_count)
            .map(|a| {
                let cells: Vec<String> = (0..self.device_count)
                    .map(|b| self.link(a, b).map_or_else(|| "X".to_owned(), |l| l.to_string()))
                    .collect();
                cells.join(" ")
            })
            .collect()
    }

    /// How many devices the matrix covers.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.device_count
    }

    /// The link of two devices by position; `None` for a device with itself or a position outside.
    #[must_use]
    pub fn link(&self, a: usize, b: usize) -> Option<Link> {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        if low == high || high >= self.device_count {
            return None;
        }
        // Rows before `low` hold n-1, n-2, ... cells.
        let before = low.saturating_mul(self.device_count.saturating_mul(2).saturating_sub(low).saturating_sub(1)) / 2;
        let offset = high.saturating_sub(low).saturating_sub(1);
        self.cells.get(before.saturating_add(offset)).copied()
    }
}

fn check_cell(table: &[Vec<&str>], row: usize, column: usize, cell: &str) -> Result<(), MatrixError> {
    let valid = if row == column { cell == "X" } else { Link::parse(cell).is_some() };
    if !valid {
        let cell = cell.chars().take(32).collect();
        return Err(MatrixError::Cell { row, column, cell });
    }
    let mirror = table.get(column).and_then(|r| r.get(row)).copied().unwrap_or_default();
    if mirror != cell && column < row {
        return Err(MatrixError::Asymmetric {
            row,
            column,
            here: cell.to_owned(),
            mirror: mirror.chars().take(32).collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[&str]) -> Vec<String> {
        text.iter().map(|r| (*r).to_owned()).collect()
    }

    #[test]
    fn a_matrix_comes_back_as_it_was_printed() {
        let given = rows(&["X NV18/SYS PXB ?", "NV18/SYS X NODE SYS", "PXB NODE X PIX", "? SYS PIX X"]);
        let matrix = LinkMatrix::parse(&given).unwrap();
        assert_eq!(matrix.rows(), given);
        assert_eq!(matrix.link(1, 0), matrix.link(0, 1));
        assert_eq!(matrix.link(3, 2).unwrap().class(), LinkClass::Pcie(PcieLevel::Pix));
        assert_eq!(matrix.link(2, 2), None);
        assert_eq!(matrix.link(0, 4), None);
    }

    #[test]
    fn a_matrix_that_is_none_names_row_and_column() {
        let cases: [(&[&str], &str); 5] = [
            (&["X PIX", "PIX"], "row 1 has 1 cells, 2 are right"),
            (&["X FOO", "FOO X"], "row 0, column 1: \"FOO\""),
            (&["X NV19/SYS", "NV19/SYS X"], "row 0, column 1"),
            (&["PIX PIX", "PIX X"], "row 0, column 0"),
            (&["X PIX", "PXB X"], "row 1, column 0: PXB differs from PIX"),
        ];
        for (given, said) in cases {
            let error = LinkMatrix::parse(&rows(given)).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn nvlink_is_nearer_than_any_pcie_and_unknown_is_nearer_than_nothing() {
        assert!(LinkClass::NvLink(1) > LinkClass::Pcie(PcieLevel::Pix));
        assert!(LinkClass::NvLink(2) > LinkClass::NvLink(1));
        assert!(LinkClass::Pcie(PcieLevel::Sys) > LinkClass::Unknown);
        for pair in PcieLevel::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
    }
}
