//! Numbers of leases. They are shown below level enforced too, where they stay at zero.

use std::time::Duration;

use berth_model::{Refusal, RefusalReason};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::ResultLabel;

/// From Allocate to spec: about 10 ms where all is well, minutes where a person must act.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The metrics of leases.
#[derive(Debug)]
pub(crate) struct LeaseMetrics {
    live: Family<StateLabel, Gauge>,
    given: Family<ResultLabel, Counter>,
    duration: Histogram,
    refusals: Family<ReasonLabel, Gauge>,
    without_cdi: Gauge,
}

impl LeaseMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let live = Family::<StateLabel, Gauge>::default();
        registry.register("leases", "Leases by state: pending, held", live.clone());
        let given = Family::<ResultLabel, Counter>::default();
        let text = "Leases given by result: planned, permuted (the kubelet gave other devices than the lease)";
        registry.register("leased", text, given.clone());
        let duration = Histogram::new(DURATION_BUCKETS);
        let text = "Time from the answer to Allocate to the spec of the lease";
        registry.register_with_unit("lease_duration", text, Unit::Seconds, duration.clone());
        let refusals = Family::<ReasonLabel, Gauge>::default();
        let text = "Containers that wait without devices by reason of the refusal";
        registry.register("lease_refusals", text, refusals.clone());
        let without_cdi = Gauge::default();
        let text = "1 where plans are to be enforced and the container runtime gives containers no CDI devices";
        registry.register("runtime_without_cdi", text, without_cdi.clone());
        for result in ["planned", "permuted"] {
            given.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        let made = Self { live, given, duration, refusals, without_cdi };
        made.live(0, 0);
        made.refused(&[]);
        made
    }

    /// Shows how many leases there are.
    pub(crate) fn live(&self, pending: usize, held: usize) {
        for (state, count) in [("pending", pending), ("held", held)] {
            self.live.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a lease that was given, and how long it was pending.
    pub(crate) fn given(&self, is_permuted: bool, waited: Option<Duration>) {
        let result = if is_permuted { "permuted" } else { "planned" };
        self.given.get_or_create(&ResultLabel { result }).inc();
        if let Some(waited) = waited {
            self.duration.observe(waited.as_secs_f64());
        }
    }

    /// Shows that the container runtime gives no CDI devices.
    pub(crate) fn lacks_cdi(&self) {
        self.without_cdi.set(1);
    }

    /// Shows what is refused.
    pub(crate) fn refused(&self, refusals: &[Refusal]) {
        for reason in RefusalReason::ALL {
            let count = refusals.iter().filter(|refusal| refusal.reason == reason).count();
            let gauge = self.refusals.get_or_create(&ReasonLabel { reason: reason.word() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
