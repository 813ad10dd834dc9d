//! What this agent says of its node now: one report for both carriers, settled in one place, so that they never differ by generation.
//! Says it to nobody; the streams and the writer of the object follow.

use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_model::{DevicePlugin, Drift, Finding, Generation, NodeTopology, Refusal};
use berth_probe::finding;
use berth_proto::{Status, decode};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::holders::{self, Instances};
use crate::lease::Cards;
use crate::report;

/// The report in force, and what it was made from.
#[derive(Debug)]
pub(crate) struct Statement {
    known: Mutex<Known>,
    /// What the streams carry: always ahead of the object, or the same.
    said: watch::Sender<Option<Status>>,
    /// When the hardware was last read; told at each reading, also at one that found nothing new.
    read_at: watch::Sender<Option<Instant>>,
    /// Generation of the report in the object; 0 where there is none.
    carried: watch::Sender<u64>,
}

#[derive(Debug)]
struct Known {
    /// The last good reading, or what the driver told since.
    read: Option<NodeTopology>,
    /// Who holds what beside its plan; `None` until the kubelet has said it for the first time.
    drifts: Option<Vec<Drift>>,
    /// Containers that wait without devices.
    refusals: Vec<Refusal>,
    /// The state of the device plugin, where this agent is one.
    plugin: Option<DevicePlugin>,
    /// Whether this agent is about to stop: it accepts nothing any more.
    is_leaving: bool,
    /// Why the container runtime is known to give containers no CDI devices, where plans are to be enforced.
    runtime_lack: Option<String>,
    /// The report in the object as the API server last showed it.
    published: Option<Status>,
    /// Highest generation ever met, because the object may be deleted while we run.
    generation_seen: Generation,
}

impl Statement {
    /// Nothing is said yet. Where holders are asked for, what the object says of them counts until they were read.
    pub(crate) fn new(are_holders_read: bool) -> Self {
        let drifts = (!are_holders_read).then(Vec::new);
        let known = Known {
            read: None,
            drifts,
            refusals: Vec::new(),
            plugin: None,
            is_leaving: false,
            runtime_lack: None,
            published: None,
            generation_seen: Generation(0),
        };
        Self {
            known: Mutex::new(known),
            said: watch::Sender::new(None),
            read_at: watch::Sender::new(None),
            carried: watch::Sender::new(0),
        }
    }

    /// The report, from now on.
    pub(crate) fn said(&self) -> watch::Receiver<Option<Status>> {
        self.said.subscribe()
    }

    /// When the hardware was read, from now on.
    pub(crate) fn readings(&self) -> watch::Receiver<Option<Instant>> {
        self.read_at.subscribe()
    }

    /// Says what was read.
    pub(crate) fn read(&self, read: NodeTopology, now: Instant) {
        self.known().read = Some(read);
        self.settle();
        self.read_at.send_replace(Some(now));
    }

    /// Says what the driver told, ahead of the reading that will confirm it.
    pub(crate) fn told(&self, told: NodeTopology) {
        self.known().read = Some(told);
        self.settle();
    }

    /// Says who holds what beside its plan.
    pub(crate) fn drifted(&self, drifts: Vec<Drift>) {
        let mut known = self.known();
        if known.drifts.as_ref() == Some(&drifts) {
            return;
        }
        known.drifts = Some(drifts);
        drop(known);
        self.settle();
    }

    /// Says which containers wait without devices.
    pub(crate) fn refused(&self, refusals: Vec<Refusal>) {
        let mut known = self.known();
        if known.refusals == refusals {
            return;
        }
        known.refusals = refusals;
        drop(known);
        self.settle();
    }

    /// Says how the device plugin stands.
    pub(crate) fn plugs(&self, plugin: DevicePlugin) {
        let mut known = self.known();
        if known.plugin == Some(plugin) {
            return;
        }
        known.plugin = Some(plugin);
        drop(known);
        self.settle();
    }

    /// Says that the container runtime gives containers no CDI devices. From now on nothing is accepted; the first cause stands.
    pub(crate) fn lacks_cdi(&self, cause: String) {
        self.known().runtime_lack.get_or_insert(cause);
        self.settle();
    }

    /// Whether nothing is accepted any more, whatever the device plugin says.
    pub(crate) fn is_closed(&self) -> bool {
        let known = self.known();
        known.is_leaving || known.runtime_lack.is_some()
    }

    /// Says that the device plugin is about to stop, whatever it says from now on, and returns once the object says so too; never, while
    /// nothing is read. Whether there is a plugin; at once, where there is none.
    pub(crate) async fn leave(&self) -> bool {
        let has_plugin = {
            let mut known = self.known();
            known.is_leaving = known.plugin.is_some();
            known.is_leaving
        };
        if !has_plugin {
            return false;
        }
        let Some(report) = self.settle() else { return std::future::pending().await };
        let mut carried = self.carried.subscribe();
        let generation = report::generation_of(&report);
        // The sender is this statement's own.
        let _never_closed = carried.wait_for(|carried| *carried >= generation).await;
        true
    }

    /// Whether anything was read yet.
    pub(crate) fn is_read(&self) -> bool {
        self.known().read.is_some()
    }

    /// What was last read, or told since.
    pub(crate) fn topology(&self) -> Option<NodeTopology> {
        self.known().read.clone()
    }

    /// The instances of the last reading.
    pub(crate) fn instances(&self) -> Instances {
        self.known().read.as_ref().map(holders::instances).unwrap_or_default()
    }

    /// The cards of the last reading; `None` before the first one.
    pub(crate) fn cards(&self) -> Option<Cards> {
        self.known().read.as_ref().map(|read| Cards::of(&read.parts().gpus))
    }

    /// Remembers what the object says; `None` when there is no object, or it was forgotten.
    pub(crate) fn published(&self, published: Option<Status>) {
        let mut known = self.known();
        if let Some(report) = &published {
            known.generation_seen = known.generation_seen.max(Generation(report::generation_of(report)));
        }
        self.carried.send_replace(published.as_ref().map_or(0, report::generation_of));
        known.published = published;
    }

    /// Remembers a generation as met: no later report has it or a lower one, unless a report that is known says the same.
    pub(crate) fn outdo(&self, generation: u64) {
        let mut known = self.known();
        known.generation_seen = known.generation_seen.max(Generation(generation));
    }

    /// Says what is true now, unless that is said already, and returns it; `None` before the first reading.
    pub(crate) fn settle(&self) -> Option<Status> {
        let mut known = self.known();
        let Known { read, drifts, refusals, plugin, is_leaving, runtime_lack, published, generation_seen } = &*known;
        let read = read.clone()?;
        let is_closed = *is_leaving || runtime_lack.is_some();
        let plugin = plugin.map(|plugin| DevicePlugin { is_accepting: plugin.is_accepting && !is_closed, ..plugin });
        let drifts = drifts.clone().unwrap_or_else(|| drifts_of(published.as_ref(), &read));
        let read = read.with_drifts(drifts).with_refusals(refusals.clone()).with_device_plugin(plugin);
        let found = runtime_lack.iter().map(|cause| Finding {
            code: finding::RUNTIME_WITHOUT_CDI.to_owned(),
            device: String::new(),
            text: cause.clone(),
        });
        let read = found.fold(read, NodeTopology::with_finding);
        let report = report::next(published.as_ref(), self.said.borrow().as_ref(), *generation_seen, &read);
        known.generation_seen = known.generation_seen.max(Generation(report::generation_of(&report)));
        // Under the lock, so that two who settle at once say things in the order of their generations.
        self.said.send_if_modified(|said| {
            let is_news = said.as_ref() != Some(&report);
            if is_news {
                *said = Some(report.clone());
            }
            is_news
        });
        Some(report)
    }

    /// When the reading was made that the report stands for.
    pub(crate) fn read_at(&self) -> Option<Instant> {
        *self.read_at.borrow()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one assignment, so a panic under the lock left a whole value.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the object says of holders.
fn drifts_of(published: Option<&Status>, read: &NodeTopology) -> Vec<Drift> {
    let published = published.and_then(|status| decode(read.parts().node.as_str(), status).ok());
    published.map(|topology| topology.into_parts().drifts).unwrap_or_default()
}
