//! The agent's numbers. Labels are closed words; no node name and no UUID is one.

mod lease;
mod plugin;

use std::time::Duration;

use berth_model::{Driver, NodeTopology};
use berth_probe::facts::GpuEvent;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::report::{Summary, VERSION};

use lease::LeaseMetrics;
use plugin::PluginMetrics;

/// A probe of a CPU node takes a millisecond, the first one of eight sleeping GPUs many seconds.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HealthLabel {
    health: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// All metrics, shared by reference.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    publish: Family<ResultLabel, Counter>,
    probe: Family<ResultLabel, Counter>,
    probe_duration: Histogram,
    events: Family<KindLabel, Counter>,
    gpus: Family<HealthLabel, Gauge>,
    generation: Gauge,
    nvml_up: Gauge,
    streams: Gauge,
    stream_reports: Family<ResultLabel, Counter>,
    holders: Family<ResultLabel, Counter>,
    /// Those of leases.
    pub(crate) lease: LeaseMetrics,
    /// Those of the device plugin.
    pub(crate) plugin: PluginMetrics,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("berth_agent");
        let publish = Family::<ResultLabel, Counter>::default();
        registry.register(
            "publish",
            "Writes of the report by result: ok, conflict, refused, unreachable",
            publish.clone(),
        );
        let probe = Family::<ResultLabel, Counter>::default();
        registry.register("probe", "Readings of the hardware by result: ok, failed", probe.clone());
        let probe_duration = Histogram::new(DURATION_BUCKETS);
        let text = "Duration of a reading of the hardware";
        registry.register_with_unit("probe_duration", text, Unit::Seconds, probe_duration.clone());
        let events = Family::<KindLabel, Counter>::default();
        registry.register("gpu_events", "Events of the driver by kind: xid, other, failed", events.clone());
        let gpus = Family::<HealthLabel, Gauge>::default();
        registry.register("gpus", "GPUs of the last reading by health: healthy, unhealthy, unknown", gpus.clone());
        let generation = Gauge::default();
        registry.register("generation", "Generation of the published report", generation.clone());
        let nvml_up = Gauge::default();
        registry.register("nvml_up", "1 when the last reading found a driver", nvml_up.clone());
        registry.register("build", "Version of the agent", Info::new([("version", VERSION)]));
        let streams = Gauge::default();
        registry.register("streams", "Open report streams to schedulers", streams.clone());
        let stream_reports = Family::<ResultLabel, Counter>::default();
        let text = "Answers of schedulers to streamed reports by result: accepted, refused";
        registry.register("stream_reports", text, stream_reports.clone());
        let holders = Family::<ResultLabel, Counter>::default();
        let text = "Looks at who holds which devices by result: ok, failed";
        registry.register("holders", text, holders.clone());
        let lease = LeaseMetrics::new(&mut registry);
        let plugin = PluginMetrics::new(&mut registry);
        for result in ["accepted", "refused"] {
            stream_reports.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        // Shown from the start, so that a first refusal is a step from 0 and not a new series.
        for result in ["ok", "conflict", "refused", "unreachable"] {
            publish.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        for result in ["ok", "failed"] {
            probe.get_or_create(&ResultLabel { result }).inc_by(0);
            holders.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        for kind in ["xid", "other", "failed"] {
            events.get_or_create(&KindLabel { kind }).inc_by(0);
        }
        Self {
            registry,
            publish,
            probe,
            probe_duration,
            events,
            gpus,
            generation,
            nvml_up,
            streams,
            stream_reports,
            holders,
            lease,
            plugin,
        }
    }

    /// Counts a reading; a failed one leaves the gauges at the last good one.
    pub(crate) fn probed(&self, read: Option<&NodeTopology>, duration: Duration) {
        let result = if read.is_some() { "ok" } else { "failed" };
        self.probe.get_or_create(&ResultLabel { result }).inc();
        self.probe_duration.observe(duration.as_secs_f64());
        let Some(read) = read else { return };
        let summary = Summary::of(read);
        let counts = [("healthy", summary.healthy), ("unhealthy", summary.unhealthy), ("unknown", summary.unknown)];
        for (health, count) in counts {
            self.gpus.get_or_create(&HealthLabel { health }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.nvml_up.set(i64::from(matches!(read.parts().driver, Driver::Loaded(_))));
    }

    /// Counts what the driver told.
    pub(crate) fn event(&self, event: &GpuEvent) {
        let kind = match event {
            GpuEvent::Xid { .. } => "xid",
            GpuEvent::Other { .. } => "other",
            GpuEvent::WaitFailed(_) => "failed",
        };
        self.events.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts a write.
    pub(crate) fn published(&self, result: &'static str) {
        self.publish.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts streams that opened or ended.
    pub(crate) fn streams(&self, more: i64) {
        self.streams.inc_by(more);
    }

    /// Counts a scheduler's answer.
    pub(crate) fn answered(&self, is_accepted: bool) {
        let result = if is_accepted { "accepted" } else { "refused" };
        self.stream_reports.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a look at who holds what.
    pub(crate) fn holders_read(&self, result: &'static str) {
        self.holders.get_or_create(&ResultLabel { result }).inc();
    }

    /// Shows the generation that the API server holds.
    pub(crate) fn generation(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// The text form; empty if the encoder fails, which it does for no metric above.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones_from_the_start() {
        let metrics = Metrics::new();
        metrics.published("ok");
        metrics.probed(None, Duration::from_millis(3));
        metrics.event(&GpuEvent::Xid { uuid: None, xid: 79 });
        let text = metrics.text();
        for line in [
            "berth_agent_publish_total{result=\"ok\"} 1",
            "berth_agent_publish_total{result=\"refused\"} 0",
            "berth_agent_probe_total{result=\"failed\"} 1",
            "berth_agent_probe_duration_seconds_count 1",
            "berth_agent_gpu_events_total{kind=\"xid\"} 1",
            "berth_agent_gpu_events_total{kind=\"failed\"} 0",
            "berth_agent_holders_total{result=\"failed\"} 0",
            "berth_agent_leases{state=\"pending\"} 0",
            "berth_agent_leased_total{result=\"permuted\"} 0",
            "berth_agent_lease_duration_seconds_count 0",
            "berth_agent_lease_refusals{reason=\"no-plan\"} 0",
            "berth_agent_level{level=\"advice\"} 1",
            "berth_agent_level{level=\"enforced\"} 0",
            "berth_agent_plugin_accepting 0",
            "berth_agent_plugin_registrations_total{result=\"failed\"} 0",
            "berth_agent_plugin_preferred_total{devices=\"partly\"} 0",
            "berth_agent_plugin_allocations_total{result=\"refused\"} 0",
            "berth_agent_generation 0",
            "berth_agent_nvml_up 0",
            "berth_agent_streams 0",
            "berth_agent_stream_reports_total{result=\"refused\"} 0",
            &format!("berth_agent_build_info{{version=\"{VERSION}\"}} 1"),
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
