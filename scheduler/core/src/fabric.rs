//! A node's topology as set choice sees it: how near its GPUs are, which have a rail, which zone they are in.
//!
//! Nodes of one kind have equal fabrics, whatever their UUIDs and names; the index interns them so that equal states are
//! computed once.

mod pairs;
mod rails;
mod ring;
mod table;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::OnceLock;

use berth_model::{GpuIndex, GpuSet, LinkClass, NicSet, NodeTopology, ZoneId};

use crate::score::Ppm;
use pairs::Pairs;
pub use rails::{Matched, Rails};
pub use table::SIZES;
use table::{TABLE_GPUS_MAX, Table};

/// How near the GPUs of a node are.
#[derive(Debug)]
pub struct Fabric {
    pairs: Pairs,
    form: Form,
    /// Made at first use, since all nodes of a kind share one fabric.
    made: OnceLock<Made>,
}

/// How exact the answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    Coarse,
}

/// What is computed from the facts once.
#[derive(Debug)]
struct Made {
    /// What the GPUs get when all NICs are free.
    rails: Rails,
    table: Option<Table>,
    /// By set size: the best sum inside that growing finds on the idle node. Where there is no table, quality is against this.
    grown: Vec<u64>,
}

impl PartialEq for Fabric {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Fabric {}

impl PartialOrd for Fabric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fabric {
    fn cmp(&self, other: &Self) -> Ordering {
        self.pairs.cmp(&other.pairs)
    }
}

impl Fabric {
    /// The fabric of a node.
    #[must_use]
    pub fn of(topology: &NodeTopology) -> Self {
        Self { pairs: Pairs::of(topology), form: Form::Exact, made: OnceLock::new() }
    }

    /// The same fabric without tables, for whoever has too many large ones: choices are then among sums of link values.
    #[must_use]
    pub fn coarse(self) -> Self {
        Self { pairs: self.pairs, form: Form::Coarse, made: OnceLock::new() }
    }

    /// Bytes that its tables take.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        if self.is_tabled() { Table::bytes(self.pairs.gpu_count) } else { 0 }
    }

    /// Makes the tables now; otherwise the first decision that needs them does.
    pub fn prepare(&self) {
        self.made();
    }

    fn is_tabled(&self) -> bool {
        self.form == Form::Exact && self.pairs.gpu_count <= TABLE_GPUS_MAX
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| {
            let rails = Rails::of(&self.pairs.rails, self.all_nics());
            let table = self.is_tabled().then(|| Table::of(&self.pairs, &rails));
            let all = GpuSet::first(self.pairs.gpu_count);
            let sizes = if self.is_tabled() { 0..0 } else { 0..all.gpu_count().saturating_add(1) };
            let grown =
                sizes.map(|size| crate::place::grow(self, all, size).map_or(0, |set| self.inside(set))).collect();
            Made { rails, table, grown }
        })
    }

    /// How many GPUs the node has.
    #[must_use]
    pub fn gpu_count(&self) -> usize {
        self.pairs.gpu_count
    }

    /// NICs that are a rail of some GPU.
    #[must_use]
    pub fn all_nics(&self) -> NicSet {
        self.pairs.rails.iter().map(|r| r.nic).collect()
    }

    /// What the GPUs can get of the NICs in `free`.
    #[must_use]
    pub fn rails_of(&self, free: NicSet) -> Cow<'_, Rails> {
        if self.all_nics().is_subset(free) {
            return Cow::Borrowed(&self.made().rails);
        }
        Cow::Owned(Rails::of(&self.pairs.rails, free))
    }

    /// GPUs that have an active NIC under their own PCIe switch.
    #[must_use]
    pub fn railed(&self) -> GpuSet {
        self.pairs.rails.iter().map(|r| r.gpu).collect()
    }

    pub(crate) fn pair_value(&self, a: GpuIndex, b: GpuIndex) -> u32 {
        self.pairs.value(a, b)
    }

    /// How good a set is against the best of its size on the idle machine: the bottleneck of its best ring first, then zones, rails
    /// and all links inside.
    #[must_use]
    pub fn quality(&self, set: GpuSet) -> Ppm {
        let made = self.made();
        match &made.table {
            Some(table) => table.quality(set),
            None if set.gpu_count() < 2 => Ppm::ONE,
            None => {
                let size = usize::try_from(set.gpu_count()).unwrap_or(0);
                Ppm::ratio(self.inside(set), made.grown.get(size).copied().unwrap_or(0))
            }
        }
    }

    /// How good the best sets within `free` are, over the sizes that pods ask for ([`SIZES`]): what placing a set leaves for later.
    #[must_use]
    pub fn kept(&self, free: GpuSet) -> Ppm {
        let made = self.made();
        match &made.table {
            Some(table) => table.kept(free),
            None => Ppm::ratio(self.inside(free), self.inside(GpuSet::first(self.pairs.gpu_count))),
        }
    }

    /// How good the best sets within `free` are against those of any other set of as many GPUs. Where all links are alike it is all;
    /// how many GPUs are free plays no part.
    #[must_use]
    pub fn wholeness(&self, free: GpuSet) -> Ppm {
        let made = self.made();
        match &made.table {
            Some(table) => table.wholeness(free),
            None if free.gpu_count() < 2 => Ppm::ONE,
            None => {
                let size = usize::try_from(free.gpu_count()).unwrap_or(0);
                Ppm::ratio(self.inside(free), made.grown.get(size).copied().unwrap_or(0))
            }
        }
    }

    /// What taking a set of `free` is worth: its own quality and what it keeps. The most is best; at most three times [`Ppm::ONE`].
    #[must_use]
    pub fn worth(&self, free: GpuSet, set: GpuSet) -> u32 {
        table::worth(self.quality(set), self.kept(free.minus(set)))
    }

    /// The best set of a size in `free` when nothing else is wished, by the table; `None` also where there is no table.
    pub(crate) fn tabled(&self, free: GpuSet, size: u32) -> Option<Option<GpuSet>> {
        self.made().table.as_ref().map(|table| table.best(free, size))
    }

    /// The sum of the values of all pairs of a set: more is nearer.
    #[must_use]
    pub fn inside(&self, set: GpuSet) -> u64 {
        self.pairs.inside(set)
    }

    /// The weakest link between any two GPUs of a set; `None` for fewer than two.
    #[must_use]
    pub fn weakest(&self, set: GpuSet) -> Option<LinkClass> {
        self.pairs.weakest(set)
    }

    /// The one zone of all GPUs of a set; `None` when they differ or one is unknown.
    #[must_use]
    pub fn zone(&self, set: GpuSet) -> Option<ZoneId> {
        self.pairs.zone(set)
    }
}
