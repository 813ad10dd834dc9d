//! Holds files of the manifests to the code that they repeat. What needs an API server is in `manifests.rs`.

use anyhow::{Result, ensure};
use berth_extender::metrics::{self, Metrics};
use berth_tests::installed::overlay;
use serde_json::Value;

#[test]
fn the_shipped_policy_is_the_default_policy() -> Result<()> {
    let shipped = overlay("../scheduler/policy.yaml");
    assert_eq!(std::fs::read_to_string(shipped)?, berth_core::policy::DEFAULT_DOCUMENT);
    Ok(())
}

/// Every word of the alerts that can only be one of our metrics.
fn metrics_of(rules: &Value) -> Vec<String> {
    let rules = rules["spec"]["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|group| group["rules"].as_array())
        .flatten();
    let exprs = rules.filter_map(|rule| rule["expr"].as_str());
    let words = exprs.flat_map(|expr| expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.starts_with("berth_")).map(str::to_owned).collect()
}

#[test]
fn alerts_ask_for_metrics_that_exist() -> Result<()> {
    let rules: Value = serde_saphyr::from_str(&std::fs::read_to_string(overlay("../prometheus/rules.yaml"))?)?;
    let metrics = Metrics::new("test");
    // A family without a member is not printed.
    drop(metrics.request_duration.get_or_create(&metrics::Call { verb: "filter", result: "ok" }));
    drop(metrics.policy_reloads.get_or_create(&metrics::ByResult { result: "ok" }));
    drop(metrics.topology_reports_rejected.get_or_create(&metrics::ByReason { reason: "size" }));
    let said = metrics.encode()?;
    // `# TYPE berth_panics counter`: a counter's series end in _total, a histogram's in _bucket, an info's in _info.
    let series = |kind: &str, name: &str| match kind {
        "counter" => format!("{name}_total"),
        "histogram" => format!("{name}_bucket"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let kinds = said.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split_once(' '));
    let known: Vec<_> = kinds.map(|(name, kind)| series(kind, name)).collect();
    let asked = metrics_of(&rules);
    ensure!(asked.len() > 8, "{asked:?}");
    for metric in asked.iter().filter(|metric| !metric.starts_with("berth_agent_")) {
        ensure!(known.contains(metric), "{metric} is none of {known:?}");
    }
    Ok(())
}
