//! Every metric of the scheduler, its name and its closed set of labels. Names are an API: a test pins them.
//!
//! Labels are `&'static str`, so that no pod or node name can become one.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// From well below the budget of one call to the default `httpTimeout`.
const SECONDS_BUCKETS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Labels of a call by kube-scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// `filter`, `prioritize`, `bind` or `explain`.
    pub verb: &'static str,
    /// How it ended, of a closed set.
    pub result: &'static str,
}

/// Label of a verb.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByVerb {
    /// `filter` or `prioritize`.
    pub verb: &'static str,
}

/// Label of a reason, of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    /// The reason's code.
    pub reason: &'static str,
}

/// Label of a result, of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByResult {
    /// The result's code.
    pub result: &'static str,
}

/// Label of an object kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByKind {
    /// `Node`, `Pod`, `NodeTopology`, `Agent`, `PodDisruptionBudget` or `ConfigMap`.
    pub kind: &'static str,
}

/// Builds the members of a histogram family.
#[derive(Debug, Clone, Copy)]
pub struct SecondsHistogram;

impl MetricConstructor<Histogram> for SecondsHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS_BUCKETS)
    }
}

/// The metrics, one handle each. Share it as an `Arc`.
pub struct Metrics {
    registry: Registry,
    /// Time from the request head to the answer.
    pub request_duration: Family<Call, Histogram, SecondsHistogram>,
    /// Nodes asked about.
    pub nodes_evaluated: Family<ByVerb, Counter>,
    /// Calls whose pod was read: the watch had not told of just this version of it.
    pub pods_read: Family<ByVerb, Counter>,
    /// Nodes refused by filter.
    pub filter_rejections: Family<ByReason, Counter>,
    /// Open connections of kube-scheduler.
    pub connections: Gauge,
    /// Connections ended by us before the client did.
    pub connections_cut: Family<ByReason, Counter>,
    /// Binds.
    pub bind_results: Family<ByResult, Counter>,
    /// Holds that have not expired.
    pub holds_active: Gauge,
    /// Topology reports that were refused.
    pub topology_reports_rejected: Family<ByReason, Counter>,
    /// Open report streams.
    pub report_streams: Gauge,
    /// Report streams that were not let in.
    pub report_streams_refused: Family<ByReason, Counter>,
    /// Reads of a changed certificate of the report port.
    pub report_certificate_reloads: Family<ByResult, Counter>,
    /// Nodes whose topology is stale.
    pub stale_nodes: Gauge,
    /// Nodes where counts and plans disagree.
    pub imprecise_nodes: Gauge,
    /// Pods to which the kubelet gave other devices than planned.
    pub drift_pods: Gauge,
    /// Pods with a GPU that is another pod's too.
    pub conflict_pods: Gauge,
    /// Pods that run though the kubelet gave them none of the devices that they ask for.
    pub pods_without_devices: Gauge,
    /// Pods that hold a GPU that is not healthy.
    pub unhealthy_gpu_pods: Gauge,
    /// Pods that get no devices on nodes that enforce plans.
    pub refused_pods: Gauge,
    /// Evictions of such pods.
    pub evictions: Family<ByResult, Counter>,
    /// Policy edits, taken or refused.
    pub policy_reloads: Family<ByResult, Counter>,
    /// When a policy was last taken, in Unix seconds.
    pub policy_last_success: Gauge<f64, AtomicU64>,
    /// Pods that the expectation was learned from.
    pub expected_pods: Gauge,
    /// Fingerprint of the expectation in force.
    pub expected_hash: Gauge,
    /// Expectations that came into force.
    pub expected_changes: Counter,
    /// Kinds of pods of several GPUs that the cluster has little room for.
    pub scarce_kinds: Gauge,
    /// Changes of that.
    pub scarce_changes: Counter,
    /// Full lists after the first one.
    pub watch_relists: Family<ByKind, Counter>,
    /// Nodes in the snapshot that decisions read.
    pub snapshot_nodes: Gauge,
    /// Panics caught at the edge of a request.
    pub panics: Counter,
    /// Nodes touched so that kube-scheduler tries pods again.
    pub requeue_touches: Family<ByResult, Counter>,
}

impl Metrics {
    /// All metrics at zero. `version` goes into `berth_build_info`.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("berth"),
            request_duration: Family::new_with_constructor(SecondsHistogram),
            nodes_evaluated: Family::default(),
            pods_read: Family::default(),
            filter_rejections: Family::default(),
            connections: Gauge::default(),
            connections_cut: Family::default(),
            bind_results: Family::default(),
            holds_active: Gauge::default(),
            topology_reports_rejected: Family::default(),
            report_streams: Gauge::default(),
            report_streams_refused: Family::default(),
            report_certificate_reloads: Family::default(),
            stale_nodes: Gauge::default(),
            imprecise_nodes: Gauge::default(),
            drift_pods: Gauge::default(),
            conflict_pods: Gauge::default(),
            pods_without_devices: Gauge::default(),
            unhealthy_gpu_pods: Gauge::default(),
            refused_pods: Gauge::default(),
            evictions: Family::default(),
            policy_reloads: Family::default(),
            policy_last_success: Gauge::default(),
            expected_pods: Gauge::default(),
            expected_hash: Gauge::default(),
            expected_changes: Counter::default(),
            scarce_kinds: Gauge::default(),
            scarce_changes: Counter::default(),
            watch_relists: Family::default(),
            snapshot_nodes: Gauge::default(),
            panics: Counter::default(),
            requeue_touches: Family::default(),
        };
        metrics.registry.register("build", "The running build", Info::new(vec![("version", version)]));
        metrics.register_edge();
        metrics.register_state();
        metrics
    }

    fn register_edge(&mut self) {
        let registry = &mut self.registry;
        let help = "Time from the request head to the answer";
        let name = "extender_request_duration";
        registry.register_with_unit(name, help, Unit::Seconds, self.request_duration.clone());
        let help = "Nodes asked about by kube-scheduler";
        registry.register("extender_nodes_evaluated", help, self.nodes_evaluated.clone());
        let help = "Calls whose pod was not known from the watch in the version sent, and was read";
        registry.register("extender_pods_read", help, self.pods_read.clone());
        let help = "Nodes refused by filter";
        registry.register("extender_filter_rejections", help, self.filter_rejections.clone());
        registry.register("extender_connections", "Open connections", self.connections.clone());
        let help = "Connections ended before the client did";
        registry.register("extender_connections_cut", help, self.connections_cut.clone());
        registry.register("panics", "Panics caught at the edge of a request", self.panics.clone());
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register("bind_results", "Binds by result", self.bind_results.clone());
        registry.register("holds_active", "Holds that have not expired", self.holds_active.clone());
        let help = "Topology reports that were refused";
        registry.register("topology_reports_rejected", help, self.topology_reports_rejected.clone());
        registry.register("report_streams", "Open report streams", self.report_streams.clone());
        let help = "Report streams that were not let in";
        registry.register("report_streams_refused", help, self.report_streams_refused.clone());
        let help = "Changed certificates of the report port by result";
        registry.register("report_certificate_reloads", help, self.report_certificate_reloads.clone());
        registry.register("stale_nodes", "Nodes whose topology is stale", self.stale_nodes.clone());
        let help = "Nodes where counts and plans disagree";
        registry.register("imprecise_nodes", help, self.imprecise_nodes.clone());
        let help = "Pods to which the kubelet gave other devices than planned";
        registry.register("drift_pods", help, self.drift_pods.clone());
        let help = "Pods with a GPU that is another pod's too";
        registry.register("conflict_pods", help, self.conflict_pods.clone());
        let help = "Pods that run though the kubelet gave them none of the devices that they ask for";
        registry.register("pods_without_devices", help, self.pods_without_devices.clone());
        let help = "Pods that hold a GPU that is not healthy";
        registry.register("unhealthy_gpu_pods", help, self.unhealthy_gpu_pods.clone());
        let help = "Pods that get no devices on nodes that enforce plans";
        registry.register("refused_pods", help, self.refused_pods.clone());
        let help = "Evictions of pods that get no devices, by result";
        registry.register("refusal_evictions", help, self.evictions.clone());
        registry.register("policy_reloads", "Policy edits by result", self.policy_reloads.clone());
        let help = "When a policy was last taken, in Unix time";
        let name = "policy_last_success_timestamp";
        registry.register_with_unit(name, help, Unit::Seconds, self.policy_last_success.clone());
        self.register_expected();
        let registry = &mut self.registry;
        registry.register("watch_relists", "Full lists after the first", self.watch_relists.clone());
        let help = "Nodes in the snapshot that decisions read";
        registry.register("snapshot_nodes", help, self.snapshot_nodes.clone());
        let help = "Nodes touched so that kube-scheduler tries pods again";
        registry.register("requeue_touches", help, self.requeue_touches.clone());
    }

    fn register_expected(&mut self) {
        let registry = &mut self.registry;
        let help = "Pods that the expectation of further pods was learned from";
        registry.register("expected_pods", help, self.expected_pods.clone());
        let help = "Fingerprint of the expectation in force: equal ones are equal expectations";
        registry.register("expected_hash", help, self.expected_hash.clone());
        let help = "Learned expectations that came into force";
        registry.register("expected_changes", help, self.expected_changes.clone());
        let help = "Expected kinds of pods of several GPUs that the cluster has little room for";
        registry.register("scarce_kinds", help, self.scarce_kinds.clone());
        let help = "Changes of which kinds of pods the cluster has little room for";
        registry.register("scarce_changes", help, self.scarce_changes.clone());
    }

    /// The OpenMetrics text of all metrics.
    ///
    /// # Errors
    /// None in practice: writing into a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and kind of each metric, as dashboards and alerts know them.
    const NAMES: &str = "\
berth_bind_results counter
berth_build info
berth_conflict_pods gauge
berth_drift_pods gauge
berth_expected_changes counter
berth_expected_hash gauge
berth_expected_pods gauge
berth_extender_connections gauge
berth_extender_connections_cut counter
berth_extender_filter_rejections counter
berth_extender_nodes_evaluated counter
berth_extender_pods_read counter
berth_extender_request_duration_seconds histogram
berth_holds_active gauge
berth_imprecise_nodes gauge
berth_panics counter
berth_pods_without_devices gauge
berth_policy_last_success_timestamp_seconds gauge
berth_policy_reloads counter
berth_refusal_evictions counter
berth_refused_pods gauge
berth_report_certificate_reloads counter
berth_report_streams gauge
berth_report_streams_refused counter
berth_requeue_touches counter
berth_scarce_changes counter
berth_scarce_kinds gauge
berth_snapshot_nodes gauge
berth_stale_nodes gauge
berth_topology_reports_rejected counter
berth_unhealthy_gpu_pods gauge
berth_watch_relists counter";

    fn filled() -> Metrics {
        let metrics = Metrics::new("1.2.3");
        metrics.request_duration.get_or_create(&Call { verb: "filter", result: "ok" }).observe(0.0002);
        metrics.nodes_evaluated.get_or_create(&ByVerb { verb: "filter" }).inc();
        metrics.pods_read.get_or_create(&ByVerb { verb: "filter" }).inc();
        let reasons = [&metrics.topology_reports_rejected, &metrics.report_streams_refused];
        for family in [&metrics.filter_rejections, &metrics.connections_cut].into_iter().chain(reasons) {
            family.get_or_create(&ByReason { reason: "gpus-busy" }).inc();
        }
        let reloads = [&metrics.policy_reloads, &metrics.report_certificate_reloads];
        for family in [&metrics.bind_results, &metrics.requeue_touches, &metrics.evictions].into_iter().chain(reloads) {
            family.get_or_create(&ByResult { result: "ok" }).inc();
        }
        metrics.watch_relists.get_or_create(&ByKind { kind: "Pod" }).inc();
        metrics
    }

    #[test]
    fn names_and_kinds_are_the_documented_ones() {
        let text = filled().encode().unwrap();
        let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        assert_eq!(names.join("\n"), NAMES);
    }

    #[test]
    fn series_carry_the_documented_labels_and_suffixes() {
        let text = filled().encode().unwrap();
        for line in [
            "berth_build_info{version=\"1.2.3\"} 1",
            "berth_extender_filter_rejections_total{reason=\"gpus-busy\"} 1",
            "berth_bind_results_total{result=\"ok\"} 1",
            "berth_watch_relists_total{kind=\"Pod\"} 1",
            "berth_extender_request_duration_seconds_bucket{le=\"0.0001\",verb=\"filter\",result=\"ok\"} 0",
            "berth_extender_request_duration_seconds_bucket{le=\"0.00025\",verb=\"filter\",result=\"ok\"} 1",
            "berth_extender_request_duration_seconds_bucket{le=\"5.0\",verb=\"filter\",result=\"ok\"} 1",
            "berth_panics_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
