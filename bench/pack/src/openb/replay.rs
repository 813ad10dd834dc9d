//! The replay: one arrival after the other, each to the host that the policy likes best; what fits nowhere is lost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::arrive::Arrivals;
use super::host::{Cards, Host};
use super::judge::{Change, Judge, Offer};
use super::trace::{PodClass, Trace};

/// Pods that fitted nowhere, by what they asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// No GPU.
    pub cpu_only: usize,
    /// A part of one GPU.
    pub share: usize,
    /// One whole GPU.
    pub one: usize,
    /// Two GPUs or more.
    pub multi: usize,
}

impl Lost {
    fn count(&mut self, class: &PodClass) {
        match class.gpu_count {
            0 => self.cpu_only += 1,
            1 if class.is_share() => self.share += 1,
            1 => self.one += 1,
            _ => self.multi += 1,
        }
    }

    /// All of them.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.cpu_only + self.share + self.one + self.multi
    }
}

/// What came out of a replay. Shares of GPUs are of those installed, 1 being all.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// GPUs in use after the last arrival.
    pub allocated: f64,
    /// GPUs asked for when the first pod was lost; `None` when none was.
    pub first_loss: Option<f64>,
    /// What was lost.
    pub lost: Lost,
    /// Arrivals.
    pub pods: usize,
    /// Lost GPU demand in the second half, of the GPU demand of the second half.
    pub late_loss: f64,
    /// GPUs in use on average over the second half.
    pub late_allocated: f64,
    /// Hosts asked per arrival.
    pub evaluations: f64,
}

/// What the policy said of one host for one class, at one state of the host.
#[derive(Clone, Copy)]
struct Known {
    version: u64,
    offer: Option<Offer>,
}

/// The policy's answers that still hold: one arrival changes one host, so nearly all do.
struct Memory {
    known: Vec<Vec<Known>>,
    versions: Vec<u64>,
    evaluations: u64,
}

impl Memory {
    fn of(trace: &Trace) -> Self {
        let row = vec![Known { version: 0, offer: None }; trace.hosts.len()];
        Self { known: vec![row; trace.classes.len()], versions: vec![1; trace.hosts.len()], evaluations: 0 }
    }

    /// The best offer, the first of equal ones.
    fn best(&mut self, hosts: &[Host], at: usize, class: &PodClass, judge: &mut dyn Judge) -> Option<(usize, Offer)> {
        let mut best: Option<(usize, Offer)> = None;
        for ((n, known), version) in self.known[at].iter_mut().enumerate().zip(&self.versions) {
            if known.version != *version {
                self.evaluations += 1;
                let offer = if hosts[n].fits(class) { judge.offer(&hosts[n], class) } else { None };
                *known = Known { version: *version, offer };
            }
            if let Some(offer) = known.offer.filter(|o| best.is_none_or(|(_, b)| o.score > b.score)) {
                best = Some((n, offer));
            }
        }
        best
    }

    /// Changes a host and lets go of what no longer holds.
    fn change(&mut self, hosts: &mut [Host], at: usize, judge: &mut dyn Judge, change: impl FnOnce(&mut Host)) {
        let before = hosts[at].clone();
        change(&mut hosts[at]);
        self.versions[at] += 1;
        if judge.changed(&before, &hosts[at]) == Change::All {
            self.forget_all();
        }
    }

    fn forget_all(&mut self) {
        self.versions.iter_mut().for_each(|v| *v += 1);
    }
}

/// Where somebody is, and until which arrival.
type Guest = (usize, usize, usize, Cards);

/// Replays the arrivals under a policy.
pub fn replay(trace: &Trace, arrivals: &Arrivals, judge: &mut dyn Judge) -> Outcome {
    let mut hosts: Vec<Host> = arrivals.host_order.iter().map(|n| Host::idle(trace.hosts[*n])).collect();
    let mut memory = Memory::of(trace);
    judge.opened(&hosts);
    let mut guests: BinaryHeap<Reverse<Guest>> = BinaryHeap::new();
    let installed = trace.installed_milli() as f64;
    let half = arrivals.classes.len() / 2;
    let (mut asked, mut allocated, mut late_asked, mut late_lost) = (0_i64, 0_i64, 0_i64, 0_i64);
    let (mut first_loss, mut lost, mut late_allocated) = (None, Lost::default(), 0.0);
    for (now, class_at) in arrivals.classes.iter().enumerate() {
        while let Some(Reverse((_, host, class_at, cards))) = guests.peek().copied().filter(|g| g.0.0 <= now) {
            guests.pop();
            memory.change(&mut hosts, host, judge, |host| host.remove(&trace.classes[class_at], cards));
            allocated -= trace.classes[class_at].demand_milli();
        }
        let class = &trace.classes[*class_at];
        asked += class.demand_milli();
        late_asked += if now >= half { class.demand_milli() } else { 0 };
        if judge.arrived(&hosts, class) == Change::All {
            memory.forget_all();
        }
        if let Some((host, offer)) = memory.best(&hosts, *class_at, class, judge) {
            memory.change(&mut hosts, host, judge, |host| host.place(class, offer.cards));
            allocated += class.demand_milli();
            if let Some(lives) = &arrivals.lives {
                guests.push(Reverse((now + lives[now], host, *class_at, offer.cards)));
            }
        } else {
            lost.count(class);
            first_loss = first_loss.or(Some(asked as f64 / installed));
            late_lost += if now >= half { class.demand_milli() } else { 0 };
        }
        late_allocated += if now >= half { allocated as f64 / installed } else { 0.0 };
    }
    Outcome {
        allocated: allocated as f64 / installed,
        first_loss,
        lost,
        pods: arrivals.classes.len(),
        late_loss: late_lost as f64 / (late_asked as f64).max(1.0),
        late_allocated: late_allocated / ((arrivals.classes.len() - half) as f64).max(1.0),
        evaluations: memory.evaluations as f64 / (arrivals.classes.len() as f64).max(1.0),
    }
}

#[cfg(test)]
mod tests;
