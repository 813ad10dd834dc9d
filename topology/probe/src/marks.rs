//! What events said about GPUs and a reading cannot see: remembered, put on each reading, and forgotten when it is over. Pure: time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use berth_model::{Driver, Health, NodeTopology, TopologyError};

use crate::facts::GpuEvent;
use crate::xid::{self, XidVerdict};

/// How long a doubt lasts after the last Xid that gave rise to it. NVIDIA's advice for such numbers is to restart the application: a GPU
/// that was calm so long afterwards takes pods again. What does need a reset (a pending row remap) is a fact of the readings.
pub const DOUBT_LASTS: Duration = Duration::from_secs(300);
/// A new session wakes every GPU without persistence mode, so a storm of events asks for one no more often than this.
const SESSION_LASTS: Duration = Duration::from_secs(30);
/// Most GPUs with a mark: as many as NVML numbers.
const MARKS_MAX: usize = 64;

/// What events said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    by_uuid: BTreeMap<String, Mark>,
    /// What cannot be laid at one GPU's door, as text; put on all GPUs once.
    unassigned: Option<String>,
    new_session: bool,
    /// When a new session was last asked for.
    asked_at: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    xid: u64,
    is_broken: bool,
    since: Instant,
    /// Whether a reading found the GPU silent since: when it answers again, it was reset.
    was_silent: bool,
}

impl Marks {
    /// Takes an event in. Of two Xids the worse one stays, of equals the later.
    pub fn note(&mut self, event: &GpuEvent, ignored: &BTreeSet<u64>, now: Instant) {
        match event {
            GpuEvent::Other { .. } => {}
            GpuEvent::WaitFailed(_) => self.ask_for_session(now),
            GpuEvent::Xid { uuid, xid } => {
                let verdict = xid::verdict(*xid, ignored);
                let is_broken = match verdict {
                    XidVerdict::Ignored => return,
                    XidVerdict::Doubtful => false,
                    XidVerdict::Broken => true,
                };
                match uuid {
                    None => {
                        self.unassigned = Some(format!("{}{}", xid::text(*xid), xid::OF_NO_CERTAIN_GPU));
                        self.ask_for_session(now);
                    }
                    Some(uuid) => self.mark(uuid, Mark { xid: *xid, is_broken, since: now, was_silent: false }),
                }
            }
        }
    }

    /// Takes up the marks that the last report of this boot tells of, at the first reading of a process: what broke a GPU is not mended by
    /// a new agent. Doubts count from now.
    pub fn take_up(&mut self, report: &NodeTopology, ignored: &BTreeSet<u64>, now: Instant) {
        for gpu in &report.parts().gpus {
            let Some((xid, before)) = xid::in_reason(gpu.health.reason()) else { continue };
            let is_broken = match xid::verdict(xid, ignored) {
                XidVerdict::Ignored => continue,
                XidVerdict::Doubtful => false,
                XidVerdict::Broken => true,
            };
            let was_silent = !before.is_empty() && matches!(gpu.health, Health::Unhealthy(_));
            // What this process heard itself is newer.
            if !self.by_uuid.contains_key(gpu.uuid.as_str()) {
                self.mark(gpu.uuid.as_str(), Mark { xid, is_broken, since: now, was_silent });
            }
        }
    }

    fn ask_for_session(&mut self, now: Instant) {
        if self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= SESSION_LASTS) {
            self.new_session = true;
            self.asked_at = Some(now);
        }
    }

    fn mark(&mut self, uuid: &str, mark: Mark) {
        let known = self.by_uuid.get(uuid);
        let is_worse_known = known.is_some_and(|known| known.is_broken && !mark.is_broken);
        if !is_worse_known && (known.is_some() || self.by_uuid.len() < MARKS_MAX) {
            self.by_uuid.insert(uuid.to_owned(), mark);
        }
    }

    /// Whether the GPUs should be counted anew before anything is concluded.
    #[must_use]
    pub fn wants_new_session(&self) -> bool {
        self.new_session
    }

    /// Forgets what is said of GPUs: the driver was loaded anew.
    pub fn forget(&mut self) {
        self.by_uuid.clear();
    }

    /// Puts what is remembered on a reading, and forgets what the reading shows to be over.
    ///
    /// # Errors
    /// [`TopologyError`] as [`NodeTopology::try_new`]; health alone contradicts nothing.
    pub fn put_on(&mut self, read: NodeTopology, now: Instant) -> Result<NodeTopology, TopologyError> {
        self.new_session = false;
        if matches!(read.parts().driver, Driver::Absent(_)) {
            self.forget();
        }
        let unassigned = self.unassigned.take();
        if self.by_uuid.is_empty() && unassigned.is_none() {
            return Ok(read);
        }
        let mut parts = read.into_parts();
        for gpu in &mut parts.gpus {
            self.put_on_gpu(gpu.uuid.as_str(), &mut gpu.health, now);
            if let (Health::Healthy, Some(why)) = (&gpu.health, &unassigned) {
                gpu.health = Health::Unknown(why.clone());
            }
        }
        NodeTopology::try_new(parts)
    }

    fn put_on_gpu(&mut self, uuid: &str, health: &mut Health, now: Instant) {
        let Some(mark) = self.by_uuid.get_mut(uuid) else { return };
        let is_silent = matches!(health, Health::Unhealthy(_));
        let was_reset = mark.was_silent && !is_silent;
        let is_calm = !mark.is_broken && now.saturating_duration_since(mark.since) >= DOUBT_LASTS;
        if was_reset || is_calm {
            self.by_uuid.remove(uuid);
            return;
        }
        mark.was_silent |= is_silent;
        let text = xid::text(mark.xid);
        *health = match &*health {
            Health::Unhealthy(why) => Health::Unhealthy(format!("{why}; {text}")),
            Health::Healthy | Health::Unknown(_) if mark.is_broken => Health::Unhealthy(text),
            Health::Healthy => Health::Unknown(text),
            Health::Unknown(why) => Health::Unknown(format!("{why}; {text}")),
        };
    }
}

#[cfg(test)]
mod tests;
