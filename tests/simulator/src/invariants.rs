//! What must hold after every step, told from the world and not from what a scheduler believes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::Life;
use crate::fleet;
use crate::world::World;

/// Longest life of a hold, with the second in which it is looked over.
const HOLD_MS_MAX: u64 = 30_000 + 1_100;
/// Longest bind: its turn and its work, with the millisecond of a step.
const BIND_MS_MAX: u64 = 900 + 3_000 + 10;
/// How often the slower looks are taken, in steps.
const LOOK_EVERY: u64 = 16;

/// What was seen before.
#[derive(Debug, Default)]
pub(crate) struct Watchful {
    steps: u64,
    /// Since when each pod has a hold, by process.
    holds: BTreeMap<(Life, Arc<str>), u64>,
    /// The newest generation that each process has had of each node.
    generations: BTreeMap<(Life, usize), u64>,
}

impl World {
    pub(crate) fn check_step(&mut self) -> Result<(), String> {
        self.watchful.steps += 1;
        {
            let mut api = self.api.lock();
            for written in std::mem::take(&mut api.written) {
                api.check_bound(&written.pod).map_err(|why| format!("{why} (life {})", written.life))?;
            }
            let now = api.now_ms();
            for flight in self.kube.flights.iter_mut().filter(|f| f.result.is_some() && f.age_ms(now) > BIND_MS_MAX) {
                // Its process may have died just now.
                flight.late_looks += 1;
                if flight.late_looks > 1 {
                    return Err(format!("I5: the bind of {} goes on for {} ms", flight.pod, flight.age_ms(now)));
                }
            }
        }
        if self.watchful.steps.is_multiple_of(LOOK_EVERY) { self.look() } else { Ok(()) }
    }

    fn look(&mut self) -> Result<(), String> {
        let now = self.api.lock().now_ms();
        let mut holds = BTreeMap::new();
        for replica in self.replicas.iter().flatten() {
            let snapshot = replica.cluster.index.snapshot();
            for at in 0..fleet::NAMES.len() {
                let Some(slot) = snapshot.node(fleet::NAMES[at]) else {
                    self.watchful.generations.remove(&(replica.life, at));
                    continue;
                };
                for holder in slot.holders.iter().filter(|holder| holder.problem == "binding") {
                    let key = (replica.life, Arc::clone(&holder.uid.0));
                    let since = self.watchful.holds.get(&key).copied().unwrap_or(now);
                    holds.insert(key, since);
                }
                let generation = slot.view.hardware.as_ref().map_or(0, |h| h.topology.parts().generation.0);
                let before = self.watchful.generations.insert((replica.life, at), generation).unwrap_or(0);
                // An object of before, with a UID of its own, may come back out of a lagging server.
                if generation >= u64::from(self.generations[at].1) && generation > 0 && generation < before {
                    let node = fleet::NAMES[at];
                    return Err(format!("the report of {node} went back from generation {before} to {generation}"));
                }
            }
        }
        self.watchful.holds = holds;
        // A pod that is tried again and again has a new hold each time; one try is half a minute.
        let is_old = |((life, uid), since): &(&(Life, Arc<str>), &u64)| {
            let called = self.kube.called_ms.get(&(*life, Arc::clone(uid)));
            let last = called.map_or(**since, |called| called + BIND_MS_MAX);
            now.saturating_sub(last.max(**since)) > HOLD_MS_MAX
        };
        match self.watchful.holds.iter().find(is_old) {
            Some(((life, uid), since)) => {
                Err(format!("I5: {uid} is held by life {life} since {since} ms, now is {now}"))
            }
            None => Ok(()),
        }
    }
}
