//! NUMA and sub-NUMA nodes.

use crate::cpuset::CpuSet;
use crate::id::{MiB, ZoneId};

/// The pool of huge pages of one size in one zone. How many of them are free is no fact of hardware: it changes with every process, so
/// it is in no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HugePages {
    /// Size of one page.
    pub page_kib: u64,
    /// Pages of the pool, without those that the kernel lends beyond it (surplus).
    pub page_count: u64,
}

impl HugePages {
    /// Most sizes of one zone. arm64 with 64 KiB pages has four.
    pub const SIZES_MAX: usize = 8;

    /// All pools of a zone as a text like `2048x1024,1048576x16` (KiB per page, pages); `none` for no pool.
    #[must_use]
    pub fn text(pools: &[Self]) -> String {
        if pools.is_empty() {
            return "none".to_owned();
        }
        pools.iter().map(|p| format!("{}x{}", p.page_kib, p.page_count)).collect::<Vec<_>>().join(",")
    }

    /// Reads what [`HugePages::text`] writes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Vec<Self>> {
        if text == "none" {
            return Some(Vec::new());
        }
        let pools: Option<Vec<Self>> = text.split(',').map(Self::parse_one).collect();
        let ascending = |p: &Vec<Self>| p.is_sorted_by(|a, b| a.page_kib < b.page_kib);
        pools.filter(|p| p.len() <= Self::SIZES_MAX && ascending(p))
    }

    fn parse_one(text: &str) -> Option<Self> {
        let (size, count) = text.split_once('x')?;
        let pool = Self { page_kib: size.parse().ok()?, page_count: count.parse().ok()? };
        (pool.page_kib > 0 && pool.page_count > 0).then_some(pool)
    }
}

/// One NUMA node that has CPUs or memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Kernel id.
    pub id: ZoneId,
    /// CPUs of this zone; empty for a memory-only zone (Grace GPU memory).
    pub cpus: CpuSet,
    /// Memory, where the kernel says so.
    pub memory: Option<MiB>,
    /// Huge pages set aside here, by size; empty where there are none, `None` where the kernel does not say.
    pub huge_pages: Option<Vec<HugePages>>,
    /// SLIT distance to every zone of the node, in the order of the node's zones; empty when unknown.
    pub distances: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_come_back_as_written_and_nothing_else_is_one() {
        for text in ["none", "2048x1024", "2048x1024,1048576x16"] {
            assert_eq!(HugePages::text(&HugePages::parse(text).unwrap()), text);
        }
        for bad in ["", "2048", "2048x0", "0x1", "2048x1,2048x2", "1048576x1,2048x2", "2048x-1", "2Mx1"] {
            assert_eq!(HugePages::parse(bad), None, "{bad:?} was taken");
        }
    }
}
