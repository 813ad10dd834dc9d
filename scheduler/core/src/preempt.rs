//! Which pods of a node go so that another one can be planned there: chosen by the devices they free, and as few and as unimportant
//! as can be.
//!
//! The order of sets is the one by which kube-scheduler ranks nodes, so that the best set of each node meets its choice of the node.
//! What a set frees is asked through `fits`; nothing here knows of pods' devices but where they lie.

mod seeds;

use std::cmp::Reverse;

use berth_model::GpuSet;

use crate::score::Score;
pub use seeds::seeds;

/// Up to this many pods every set of them is compared: 4096 sets. Beyond it sets are found by giving pods back.
pub const EXACT_GUESTS_MAX: usize = 12;

/// A pod that may be evicted for another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guest {
    /// Its UID: the last word between equals.
    pub uid: String,
    /// Its priority.
    pub priority: i32,
    /// When its kubelet took it, as the API writes times; empty before, which counts as now.
    pub started_at: String,
    /// Whether its going breaks a disruption budget.
    pub is_protected: bool,
    /// Whether it is being deleted already: its going costs nothing.
    pub is_leaving: bool,
    /// Whether kube-scheduler would evict it: between equal sets its own choice stays.
    pub is_named: bool,
    /// Whether it goes in any case.
    pub must_go: bool,
    /// GPUs of which it holds anything.
    pub gpus: GpuSet,
}

impl Guest {
    /// The more important one is less. Source: k8s.io/kubernetes `pkg/scheduler/util/utils.go`, `MoreImportantPod`.
    fn importance(&self) -> (Reverse<i32>, bool, &str, &str) {
        (Reverse(self.priority), self.started_at.is_empty(), &self.started_at, &self.uid)
    }
}

/// Pods whose going makes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victims {
    /// Positions among the guests, the most important first: kube-scheduler takes the first for the highest priority.
    pub guests: Vec<usize>,
    /// How many of them are protected.
    pub violations: u32,
}

/// What a set costs; less is better, the first that differs decides.
///
/// Source: k8s.io/kubernetes `pkg/scheduler/framework/preemption/preemption.go`, `pickOneNodeForPreemption`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    violations: u32,
    highest: i32,
    /// Of priorities, each raised above zero: one more pod is never cheaper.
    sum: u64,
    count: u32,
    /// Those that leave anyway: named only where their room is needed.
    leaving: u32,
}

/// What decides between sets of one cost; more is better.
type Merit<'a> = (Score, (bool, &'a str), usize);

/// The best set of pods whose going lets the pod in; `None` where none does.
///
/// `fits` says how good the best plan is when the pods marked are gone, `None` where there is none. More room must never end a plan.
/// At most `tries` questions are asked, which is counted down. Up to [`EXACT_GUESTS_MAX`] pods that may stay, the answer is the best of all
/// sets; beyond that each pod is given back where the rest is enough, the most important first: once as kube-scheduler does it, and once for
/// each of `seeds`, where among pods of one priority those on the seed's GPUs are given back last. The best of these is taken.
pub fn choose(
    guests: &[Guest],
    seeds: &[GpuSet],
    tries: &mut u32,
    fits: &mut dyn FnMut(&[bool]) -> Option<Score>,
) -> Option<Victims> {
    let mut search = Search { guests, tries, fits };
    search.ask(&vec![true; guests.len()])?;
    let free: Vec<usize> = (0..).zip(guests).filter(|(_, guest)| !guest.must_go).map(|(at, _)| at).collect();
    let gone = if free.len() <= EXACT_GUESTS_MAX { search.all(&free) } else { search.given_back(&free, seeds) }?;
    Some(victims(guests, &gone))
}

fn victims(guests: &[Guest], gone: &[bool]) -> Victims {
    let mut chosen: Vec<(usize, &Guest)> =
        guests.iter().enumerate().zip(gone).filter(|(_, is_gone)| **is_gone).map(|(guest, _)| guest).collect();
    chosen.sort_by_key(|(_, guest)| guest.importance());
    Victims { violations: cost(guests, gone).violations, guests: chosen.into_iter().map(|(at, _)| at).collect() }
}

/// Those that are gone and were not leaving anyway.
fn paid<'g>(guests: &'g [Guest], gone: &[bool]) -> impl Iterator<Item = &'g Guest> {
    guests.iter().zip(gone).filter(|(guest, is_gone)| **is_gone && !guest.is_leaving).map(|(guest, _)| guest)
}

fn cost(guests: &[Guest], gone: &[bool]) -> Cost {
    let mut cost = Cost { violations: 0, highest: i32::MIN, sum: 0, count: 0, leaving: 0 };
    let all = guests.iter().zip(gone).filter(|(_, is_gone)| **is_gone).map(|(guest, _)| guest);
    for guest in all {
        if guest.is_leaving {
            cost.leaving = cost.leaving.saturating_add(1);
            continue;
        }
        let raised = i64::from(guest.priority).saturating_add(1 << 31);
        cost.violations = cost.violations.saturating_add(u32::from(guest.is_protected));
        cost.highest = cost.highest.max(guest.priority);
        cost.sum = cost.sum.saturating_add(u64::try_from(raised).unwrap_or(0));
        cost.count = cost.count.saturating_add(1);
    }
    cost
}

/// When the first of the most important began; the later the better, and who has not begun is latest.
fn start<'g>(guests: &'g [Guest], gone: &[bool]) -> (bool, &'g str) {
    let first = paid(guests, gone).min_by_key(|guest| guest.importance());
    first.map_or((true, ""), |guest| (guest.started_at.is_empty(), &guest.started_at))
}

fn named_count(guests: &[Guest], gone: &[bool]) -> usize {
    guests.iter().zip(gone).filter(|(guest, is_gone)| **is_gone && guest.is_named).count()
}

/// What decides between sets that were found by giving back; less is better.
type Rank<'a> = (Cost, Reverse<Merit<'a>>);

struct Search<'a> {
    guests: &'a [Guest],
    tries: &'a mut u32,
    fits: &'a mut dyn FnMut(&[bool]) -> Option<Score>,
}

impl<'a> Search<'a> {
    fn ask(&mut self, gone: &[bool]) -> Option<Score> {
        *self.tries = self.tries.checked_sub(1)?;
        (self.fits)(gone)
    }

    /// The best of all sets, cheapest first: of the first cost at which any set is enough, the one with the best plan.
    fn all(&mut self, free: &[usize]) -> Option<Vec<bool>> {
        let sets = 1_u32.checked_shl(u32::try_from(free.len()).ok()?)?;
        let must: Vec<bool> = self.guests.iter().map(|guest| guest.must_go).collect();
        let gone = |bits: u32| {
            let mut gone = must.clone();
            for (bit, at) in free.iter().enumerate() {
                if let Some(is_gone) = gone.get_mut(*at) {
                    *is_gone = bits.unbounded_shr(u32::try_from(bit).unwrap_or(u32::MAX)) & 1 == 1;
                }
            }
            gone
        };
        let mut ranked: Vec<(Cost, u32)> = (0..sets).map(|bits| (cost(self.guests, &gone(bits)), bits)).collect();
        ranked.sort_unstable();
        for equal in ranked.chunk_by(|(a, _), (b, _)| a == b) {
            let mut best: Option<(Merit<'a>, Vec<bool>)> = None;
            for (_, bits) in equal {
                let gone = gone(*bits);
                let Some(score) = self.ask(&gone) else { continue };
                let merit = (score, start(self.guests, &gone), named_count(self.guests, &gone));
                // Between sets that are alike in all, the first.
                if best.as_ref().is_none_or(|(known, _)| *known < merit) {
                    best = Some((merit, gone));
                }
            }
            if let Some((_, gone)) = best {
                return Some(gone);
            }
        }
        None
    }

    /// The best of some sets of which nobody can be given back.
    fn given_back(&mut self, free: &[usize], seeds: &[GpuSet]) -> Option<Vec<bool>> {
        let mut best: Option<(Rank<'a>, Vec<bool>)> = None;
        for seed in std::iter::once(GpuSet::EMPTY).chain(seeds.iter().copied()) {
            let is_affordable = u32::try_from(free.len()).is_ok_and(|count| count < *self.tries);
            if !is_affordable {
                break;
            }
            let Some((score, gone)) = self.give_back(free, seed) else { continue };
            let merit = (score, start(self.guests, &gone), named_count(self.guests, &gone));
            let worth = (cost(self.guests, &gone), Reverse(merit));
            if best.as_ref().is_none_or(|(known, _)| worth < *known) {
                best = Some((worth, gone));
            }
        }
        best.map(|(_, gone)| gone)
    }

    fn give_back(&mut self, free: &[usize], seed: GpuSet) -> Option<(Score, Vec<bool>)> {
        let guests = self.guests;
        let guest = |at: &usize| guests.get(*at);
        let mut order = free.to_vec();
        // Who leaves anyway costs nothing and is given back last; protected ones first, as kube-scheduler does it.
        order.sort_by_key(|at| {
            guest(at).map(|g| {
                let (priority, is_new, started_at, uid) = g.importance();
                (g.is_leaving, !g.is_protected, priority, !g.gpus.is_disjoint(seed), is_new, started_at, uid)
            })
        });
        let mut gone = vec![true; guests.len()];
        let mut score = self.ask(&gone)?;
        for at in order {
            set(&mut gone, at, false);
            match self.ask(&gone) {
                Some(enough) => score = enough,
                None => set(&mut gone, at, true),
            }
        }
        Some((score, gone))
    }
}

fn set(gone: &mut [bool], at: usize, is_gone: bool) {
    if let Some(place) = gone.get_mut(at) {
        *place = is_gone;
    }
}

#[cfg(test)]
mod tests;
