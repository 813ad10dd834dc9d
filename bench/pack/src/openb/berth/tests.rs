//! Floors on the synthetic trace, and that the view of a host says what the host is.

use super::*;
use crate::openb::arrive::{churn, fill};
use crate::openb::peers::{self, Peer};
use crate::openb::replay::replay;
use crate::openb::synthetic;
use crate::openb::trace::Capacity;

#[test]
fn berth_leaves_fewer_gpus_idle_than_fgd() {
    let mut gain = 0.0;
    for seed in 1..=4 {
        let trace = synthetic::trace(seed);
        let arrivals = fill(&trace, 1.3, seed);
        let berth = replay(&trace, &arrivals, &mut Berth::of(&trace, Policy::default()).unwrap());
        let fgd = replay(&trace, &arrivals, &mut *peers::judge(Peer::Fgd, &trace, seed));
        gain += berth.allocated - fgd.allocated;
    }
    assert!(gain / 4.0 > 0.004, "mean gain {gain}");
}

#[test]
fn berth_loses_less_than_best_fit_when_pods_come_and_go_at_full_load() {
    let (mut berth, mut best_fit) = (0.0, 0.0);
    for seed in 1..=4 {
        let trace = synthetic::trace(seed);
        let arrivals = churn(&trace, 1.0, 8000, seed);
        berth += replay(&trace, &arrivals, &mut Berth::of(&trace, Policy::default()).unwrap()).late_loss;
        best_fit += replay(&trace, &arrivals, &mut *peers::judge(Peer::BestFit, &trace, seed)).late_loss;
    }
    assert!(berth <= 0.92 * best_fit, "{berth} of {best_fit}");
}

/// Knows nothing beforehand; `learned_pods: 0` never does.
fn unknowing(trace: &Trace, left: &str) -> Berth {
    let document = format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\nleft: {{{left}}}\n");
    Berth::learning(trace, berth_core::policy::parse(&document).unwrap()).unwrap()
}

#[test]
fn learning_from_the_pods_that_come_is_worth_most_of_knowing_them() {
    let (mut nothing, mut learning, mut knowing) = (0.0, 0.0, 0.0);
    for seed in 1..=4 {
        let trace = synthetic::trace(seed);
        let arrivals = churn(&trace, 1.0, 8000, seed);
        let loss = |mut berth: Berth| replay(&trace, &arrivals, &mut berth).late_loss / 4.0;
        nothing += loss(unknowing(&trace, "learnedPods: 0"));
        learning += loss(unknowing(&trace, ""));
        knowing += loss(Berth::of(&trace, Policy::default()).unwrap());
    }
    assert!(learning < 0.95 * nothing, "{nothing} {learning} {knowing}");
    assert!(learning < knowing + 0.3 * (nothing - knowing), "{nothing} {learning} {knowing}");
}

#[test]
fn what_is_learned_changes_so_seldom_that_few_hosts_are_asked_again() {
    let trace = synthetic::trace(1);
    let arrivals = churn(&trace, 1.0, 8000, 1);
    let asked = |mut berth: Berth| replay(&trace, &arrivals, &mut berth).evaluations;
    let (learning, knowing) = (asked(unknowing(&trace, "")), asked(Berth::of(&trace, Policy::default()).unwrap()));
    assert!(learning < 1.2 * knowing, "{learning} {knowing}");
}

#[test]
fn a_host_and_its_view_agree_on_what_fits() {
    let trace = synthetic::trace(1);
    let mut berth = Berth::of(&trace, Policy::default()).unwrap();
    for kind in 0..trace.models.len() {
        let found = *trace.hosts.iter().find(|h| h.model == kind).unwrap();
        // GPUs run out before anything else.
        let ample = Capacity { cpu_milli: found.cpu_milli * 20, memory_mib: found.memory_mib * 20, ..found };
        let (mut host, mut refused) = (Host::idle(ample), 0);
        for pod in &trace.pods {
            let class = &trace.classes[*pod];
            let offer = berth.offer(&host, class);
            if host.fits(class) {
                let offer = offer.unwrap_or_else(|| panic!("{class:?} fits {host:?}"));
                host.place(class, offer.cards);
            } else if host.cpu_milli >= class.cpu_milli && host.memory_mib >= class.memory_mib {
                assert_eq!(offer, None, "{class:?} does not fit {host:?}");
                refused += 1;
            }
        }
        assert!(refused > 0, "{host:?} was never full");
    }
}
