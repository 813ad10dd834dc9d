//! Numbers of the device plugin. They are shown at level advice too, where they stay as they begin.

use berth_model::Level;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ResultLabel;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DevicesLabel {
    devices: &'static str,
}

/// The device plugin's metrics.
#[derive(Debug)]
pub(crate) struct PluginMetrics {
    level: Family<LevelLabel, Gauge>,
    accepting: Gauge,
    registrations: Family<ResultLabel, Counter>,
    preferred: Family<DevicesLabel, Counter>,
    allocations: Family<ResultLabel, Counter>,
}

impl PluginMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let level = Family::<LevelLabel, Gauge>::default();
        let text = "1 for what plans for this node promise: advice, preferred, enforced";
        registry.register("level", text, level.clone());
        let accepting = Gauge::default();
        let text = "1 while the kubelet knows all resources of the device plugin, it is not about to stop, and its runtime takes leases";
        registry.register("plugin_accepting", text, accepting.clone());
        let registrations = Family::<ResultLabel, Counter>::default();
        let text = "Registrations of resources with the kubelet by result: ok, failed";
        registry.register("plugin_registrations", text, registrations.clone());
        let preferred = Family::<DevicesLabel, Counter>::default();
        let text = "Answers to the kubelet which devices a container should get: planned, partly, unplanned";
        registry.register("plugin_preferred", text, preferred.clone());
        let allocations = Family::<ResultLabel, Counter>::default();
        let text = "Answers to the kubelet how a container gets its devices by result: ok, refused";
        registry.register("plugin_allocations", text, allocations.clone());
        for result in ["ok", "failed"] {
            registrations.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        for result in ["ok", "refused"] {
            allocations.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        for devices in ["planned", "partly", "unplanned"] {
            preferred.get_or_create(&DevicesLabel { devices }).inc_by(0);
        }
        let made = Self { level, accepting, registrations, preferred, allocations };
        made.level(Level::Advice);
        made
    }

    /// Shows the level.
    pub(crate) fn level(&self, now: Level) {
        for level in Level::ALL {
            self.level.get_or_create(&LevelLabel { level: level.word() }).set(i64::from(level == now));
        }
    }

    /// Shows whether pods may come.
    pub(crate) fn accepting(&self, is_accepting: bool) {
        self.accepting.set(i64::from(is_accepting));
    }

    /// Counts a registration.
    pub(crate) fn registered(&self, result: &'static str) {
        self.registrations.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts an answer to GetPreferredAllocation.
    pub(crate) fn preferred(&self, devices: &'static str) {
        self.preferred.get_or_create(&DevicesLabel { devices }).inc();
    }

    /// Counts an answer to Allocate.
    pub(crate) fn allocated(&self, result: &'static str) {
        self.allocations.get_or_create(&ResultLabel { result }).inc();
    }
}
