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
