//! Truths about any replay, on the synthetic trace.

use super::*;
use crate::openb::arrive::{churn, fill};
use crate::openb::peers::{NAMES, Peer, judge};
use crate::openb::synthetic;

fn filled(peer: Peer) -> Outcome {
    let trace = synthetic::trace(1);
    replay(&trace, &fill(&trace, 1.3, 42), &mut *judge(peer, &trace, 42))
}

#[test]
fn what_is_not_lost_is_allocated() {
    let trace = synthetic::trace(1);
    let arrivals = fill(&trace, 1.3, 42);
    for (name, peer) in NAMES {
        let outcome = replay(&trace, &arrivals, &mut *judge(peer, &trace, 42));
        let asked = trace.asked_milli(&arrivals.classes) as f64 / trace.installed_milli() as f64;
        assert!(outcome.allocated <= 1.0 && outcome.allocated > 0.7, "{name}: {outcome:?}");
        assert!(outcome.lost.sum() > 0 && outcome.allocated < asked, "{name}: 1.3 times the GPUs do not fit");
        assert!(outcome.first_loss.is_some_and(|at| at <= asked), "{name}: {outcome:?}");
    }
}

/// Remembers offers by hand: what the replay forgets too little of would show as a difference.
struct Pairs<'a>(Box<dyn Judge + 'a>);

impl Judge for Pairs<'_> {
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer> {
        self.0.offer(host, class)
    }

    fn arrived(&mut self, _hosts: &[Host], _class: &PodClass) -> Change {
        Change::All
    }
}

#[test]
fn remembered_offers_change_nothing() {
    let trace = synthetic::trace(2);
    for arrivals in [fill(&trace, 1.3, 7), churn(&trace, 1.0, 2000, 7)] {
        for peer in [Peer::Fgd, Peer::BestFit, Peer::GpuPacking, Peer::Hami] {
            let quick = replay(&trace, &arrivals, &mut *judge(peer, &trace, 7));
            let afresh = replay(&trace, &arrivals, &mut Pairs(judge(peer, &trace, 7)));
            assert!(quick.evaluations < afresh.evaluations / 1.5, "{peer:?}");
            assert_eq!(quick, Outcome { evaluations: quick.evaluations, ..afresh }, "{peer:?}");
        }
    }
}

#[test]
fn everybody_leaves_in_the_end() {
    let trace = synthetic::trace(1);
    let mut arrivals = churn(&trace, 0.5, 3000, 42);
    // A last pod long after all others: what is allocated then is its own.
    let last = trace.classes.iter().position(|c| c.gpu_count == 2).unwrap();
    let end = arrivals.classes.len();
    arrivals.classes.push(last);
    let lives = arrivals.lives.as_mut().unwrap();
    lives.iter_mut().enumerate().for_each(|(at, life)| *life = (*life).min(end - at));
    lives.push(1);
    let outcome = replay(&trace, &arrivals, &mut *judge(Peer::BestFit, &trace, 42));
    assert_eq!(outcome.allocated, 2000.0 / trace.installed_milli() as f64);
}

#[test]
fn whoever_looks_at_the_hosts_packs_better_than_chance() {
    let random = filled(Peer::Random).allocated;
    for peer in [Peer::Fgd, Peer::BestFit, Peer::FirstFit, Peer::Hami, Peer::HamiBinpack] {
        let looked = filled(peer).allocated;
        assert!(looked > random + 0.005, "{peer:?} {looked}, random {random}");
    }
}
