//! Reads the kernel's tree into [`SysfsFacts`]: boot id, CPUs, zones, PCI devices, RDMA devices.
//!
//! Parsers are plain functions in the modules below and touch no tree; this file walks. Every file may be missing: that is unknown,
//! never zero. A file that is there and makes no sense is unknown too, and is named in [`SysfsFacts::faults`].
//!
//! A kernel tree is thousands of files, and next to nothing in it changes. Whoever reads it again and again keeps what a boot settles
//! ([`BootFacts`]), reads the rest now and then ([`read_rest`]), and looks between at the few files that tell of a change ([`glance`]).

pub mod cpu;
pub mod glance;
pub mod infiniband;
pub mod kubelet;
pub mod memory;
pub mod netdev;
pub mod numa;
pub mod pci;
pub mod vgpu;

use std::collections::BTreeMap;

use berth_model::{Cpu, PciAddress};

use crate::facts::{PciFacts, SysfsFacts, SysfsFault};
use crate::tree::Tree;

/// Most faults kept. The first ones say what is wrong; a broken tree must not fill the report.
pub const FAULTS_MAX: usize = 16;

const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// What stays until the next boot, unless a CPU comes or goes: hundreds of files on a large machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFacts {
    boot_id: Option<String>,
    /// Without its governor, which an administrator may change.
    cpu: Cpu,
    faults: Vec<SysfsFault>,
}

impl BootFacts {
    /// Reads them.
    #[must_use]
    pub fn read(tree: &dyn Tree) -> Self {
        let mut reader = Reader { tree, faults: Vec::new() };
        let boot_id = reader.text(BOOT_ID).map(|text| text.trim().to_owned());
        let cpu = cpu::read(&mut reader);
        Self { boot_id, cpu, faults: reader.faults }
    }
}

/// Reads all that the kernel shows under `tree`.
#[must_use]
pub fn read(tree: &dyn Tree) -> SysfsFacts {
    read_rest(tree, &BootFacts::read(tree), &BTreeMap::new())
}

/// Reads what may change without a boot. Of `known`, the devices of the last reading, bridges and others of no interest are not read again.
#[must_use]
pub fn read_rest(tree: &dyn Tree, boot: &BootFacts, known: &BTreeMap<PciAddress, PciFacts>) -> SysfsFacts {
    let mut reader = Reader { tree, faults: boot.faults.clone() };
    let zones = numa::read(&mut reader);
    let pci = pci::read(&mut reader, known);
    let iommu_groups = pci::read_groups(&mut reader, &pci);
    let rdma = infiniband::read(&mut reader);
    let governor = cpu::read_governor(&mut reader, boot.cpu.sockets.as_ref());
    let transparent_huge_pages = memory::read_thp(&mut reader);
    let kubelet = kubelet::read(&mut reader);
    let samepage_merging = memory::read_ksm(&mut reader);
    SysfsFacts {
        boot_id: boot.boot_id.clone(),
        zones,
        pci,
        iommu_groups,
        rdma,
        cpu: Cpu { governor, ..boot.cpu.clone() },
        transparent_huge_pages,
        samepage_merging,
        kubelet,
        faults: reader.faults,
    }
}

/// A tree with a memory for what went wrong.
pub(crate) struct Reader<'a> {
    tree: &'a dyn Tree,
    faults: Vec<SysfsFault>,
}

impl Reader<'_> {
    /// The text of a file; `None` when it is missing or cannot be taken.
    pub(crate) fn text(&mut self, path: &str) -> Option<String> {
        let read = self.tree.read(path);
        self.keep(path, read)
    }

    /// The text of a file that the reader may be kept from: no fault where it cannot be taken.
    pub(crate) fn quiet(&mut self, path: &str) -> Option<String> {
        self.tree.read(path).ok().flatten()
    }

    /// The start of a file that may be long; `None` when it is missing or cannot be taken.
    pub(crate) fn start(&mut self, path: &str) -> Option<String> {
        let read = self.tree.read_start(path);
        self.keep(path, read)
    }

    /// The text of a link; `None` when there is no link.
    pub(crate) fn link(&mut self, path: &str) -> Option<String> {
        let read = self.tree.read_link(path);
        self.keep(path, read)
    }

    /// The names in a directory; empty when it is missing or cannot be taken.
    pub(crate) fn list(&mut self, path: &str) -> Vec<String> {
        let read = self.tree.list(path);
        self.keep(path, read).unwrap_or_default()
    }

    /// The content of a file as `parse` takes it. `expected` says what would be right.
    pub(crate) fn parsed<T>(&mut self, path: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(path)?;
        let value = parse(text.trim());
        if value.is_none() {
            let shown: String = text.trim().chars().take(40).collect();
            self.fault(path, format!("{shown:?} is not {expected}"));
        }
        value
    }

    /// Remembers what was wrong with a path.
    pub(crate) fn fault(&mut self, path: &str, problem: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(SysfsFault { path: path.to_owned(), problem: problem.into() });
        }
    }

    fn keep<T>(&mut self, path: &str, read: Result<Option<T>, crate::tree::TreeError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.fault(path, error.to_string());
            None
        })
    }
}

#[cfg(test)]
mod tests;
