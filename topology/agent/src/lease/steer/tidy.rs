//! Keeps the specs of held leases as they should be: a reboot empties the runtime's folder, and nvidia-ctk writes its specs anew.

use std::collections::BTreeMap;

use berth_model::{Refusal, RefusalReason};
use tokio::time::Instant;

use super::{Steering, TIDY_EVERY};
use crate::lease::cards::Cards;
use crate::lease::edits::{self, Sources};
use crate::lease::record::LeaseName;

impl Steering {
    /// Once in a while and at the start: writes the specs that are not there or not as the sources say. A spec that cannot be made again
    /// stays as it is; one that is not there is a refusal.
    pub(super) fn tidy(&mut self, cards: Option<&Cards>) -> BTreeMap<LeaseName, Refusal> {
        let is_due = self.tidied_at.is_none_or(|at| at.elapsed() >= TIDY_EVERY);
        let Some(cards) = cards.filter(|_| is_due) else { return self.standing() };
        self.tidied_at = Some(Instant::now());
        self.reread();
        let mut refusals = BTreeMap::new();
        let (book, _) = self.leases.book();
        for lease in book.into_values() {
            let Some(holder) = lease.holder else { continue };
            let written = self.sources.1.of(&holder.devices, cards).and_then(|(version, edits)| {
                let written = self.specs.write(&lease.name, &version, &edits);
                written.map_err(|error| format!("{}: {error}", self.places.cdi_dir.display()))
            });
            match written {
                Ok(true) => tracing::info!(lease = %lease.name, "the spec is written again"),
                Ok(false) => {}
                Err(_) if self.specs.has(&lease.name) => {}
                Err(text) => {
                    let pod = format!("{}/{}", holder.namespace, holder.pod);
                    let (pod_uid, container, reason) = (holder.pod_uid, holder.container, RefusalReason::NoEdits);
                    refusals.insert(lease.name, Refusal { pod, pod_uid, container, reason, text });
                }
            }
        }
        refusals
    }

    /// Refusals of held leases, between two looks at them.
    fn standing(&self) -> BTreeMap<LeaseName, Refusal> {
        let (book, _) = self.leases.book();
        let is_held = |lease: &LeaseName| book.get(lease).is_some_and(|lease| lease.holder.is_some());
        let standing = self.refused.iter().filter(|(lease, _)| is_held(lease) && !self.specs.has(lease));
        standing.map(|(lease, (_, refusal))| (lease.clone(), refusal.clone())).collect()
    }

    pub(super) fn reread(&mut self) {
        let signature = edits::signature(&self.places.cdi_sources);
        if self.sources.0.as_ref() != Some(&signature) {
            let sources = Sources::read(&self.places.cdi_sources, &self.places.dev_root);
            self.sources = (Some(signature), sources);
        }
    }
}
