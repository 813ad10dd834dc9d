//! What nodes of one kind share: fabrics with their set tables, and MIG tables of kinds of cards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_core::Fabric;
use berth_core::place::mig::Worth;
use berth_core::view::{Hardware, worth_of};
use berth_model::{MigCapability, NodeTopology};

/// Most memory for the set tables of all kinds of machines: thousands of kinds with 8 GPUs, eleven with 16. Kinds beyond it are planned
/// without tables.
const TABLE_BYTES_MAX: usize = 32 << 20;

/// Most kinds of cards with MIG tables. A cluster has a handful; hostile reports may invent one each, of at most 1 MiB.
const CARD_KINDS_MAX: usize = 64;

/// Fabrics and MIG tables in use, each once.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    fabrics: BTreeSet<Arc<Fabric>>,
    worths: BTreeMap<MigCapability, Arc<Worth>>,
}

impl Kinds {
    /// A report with what is computed once per kind.
    pub(crate) fn hardware(&mut self, topology: NodeTopology) -> Hardware {
        let fabric = self.fabric(Fabric::of(&topology));
        Hardware::with(Arc::new(topology), fabric, &mut |capability| self.worth(capability))
    }

    fn fabric(&mut self, fabric: Fabric) -> Arc<Fabric> {
        if let Some(known) = self.fabrics.get(&fabric) {
            return Arc::clone(known);
        }
        // Fabrics that no report uses any more go when a new one comes.
        self.fabrics.retain(|f| Arc::strong_count(f) > 1);
        let tables = self.fabrics.iter().fold(0_usize, |sum, f| sum.saturating_add(f.table_bytes()));
        let is_within = tables.saturating_add(fabric.table_bytes()) <= TABLE_BYTES_MAX;
        let fabric = Arc::new(if is_within { fabric } else { fabric.coarse() });
        // Here, and not in the first decision that needs it.
        fabric.prepare();
        self.fabrics.insert(Arc::clone(&fabric));
        fabric
    }

    fn worth(&mut self, capability: &MigCapability) -> Option<Arc<Worth>> {
        if let Some(known) = self.worths.get(capability) {
            return Some(Arc::clone(known));
        }
        // Kinds that no report names any more go when a new one comes.
        self.worths.retain(|_, worth| Arc::strong_count(worth) > 1);
        if self.worths.len() >= CARD_KINDS_MAX {
            return None;
        }
        let worth = worth_of(capability)?;
        self.worths.insert(capability.clone(), Arc::clone(&worth));
        Some(worth)
    }
}
