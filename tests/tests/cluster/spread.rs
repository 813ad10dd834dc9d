//! Holds Berth to what users of the stock scheduler rely on: soft spreads still spread, and a Deployment reaches all zones.
//!
//! The nodes of one zone are half full, so that bin-packing alone would send everything there; the list is shorter than the nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_tests::running::{Running, pod};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const ZONES: [&str; 3] = ["a", "b", "c"];
const NODES_PER_ZONE: usize = 8;
const ZONE: &str = "topology.kubernetes.io/zone";
/// Fewer nodes than there are, for pods of every kind; used nodes first, whatever comes.
const SHORT: &str = "apiVersion: config.berth.dev/v1alpha1
kind: Policy
shortList: {size: 4, sizeSoft: 8, perZone: 2}
left: {learnedPods: 0}
";

fn node_name(zone: &str, number: usize) -> String {
    format!("{zone}-{number}")
}

/// 24 nodes in three zones; half of the GPUs of each node of zone a are held.
async fn half_full_zone() -> Result<Running> {
    let mut running = Running::start(&[]).await?;
    running.set_policy(SHORT).await?;
    running.scheduler.wait_for_log("policy applied", SOON).await?;
    let names: Vec<String> =
        ZONES.iter().flat_map(|zone| (0..NODES_PER_ZONE).map(|number| node_name(zone, number))).collect();
    running.plane.create_reported_nodes("dgx-h100", &names).await?;
    let nodes: Api<Node> = Api::all(running.plane.client());
    for name in &names {
        let (zone, _) = name.split_once('-').context("a name of ours")?;
        let labels = json!({"metadata": {"labels": {ZONE: zone}}});
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(labels)).await?;
    }
    for number in 0..NODES_PER_ZONE {
        let mut holder = pod(&format!("holder-{number}"), 4, &[]);
        holder["spec"]["nodeName"] = json!(node_name("a", number));
        create(&running, holder).await?;
    }
    let plain = || async {
        // A pod that may go anywhere goes where it is fullest: then all that was made is known.
        running.submit("probe", 1, &[]).await?;
        let zone = zone_of(&running, "probe").await?;
        running.delete("probe").await?;
        Ok((zone == "a").then_some(()))
    };
    running.until(SOON, "pod in the fuller zone", plain).await?;
    Ok(running)
}

async fn create(running: &Running, object: Value) -> Result<()> {
    running.pods().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

async fn zone_of(running: &Running, name: &str) -> Result<String> {
    let bound = running.until_bound(name, SOON).await?;
    let node = bound.spec.and_then(|spec| spec.node_name).unwrap_or_default();
    Ok(node.split_once('-').context("a node of ours")?.0.to_owned())
}

/// Makes so many alike, one after the other, and counts them by zone.
async fn zones_of(running: &Running, count: usize, replica: impl Fn(&str) -> Value) -> Result<BTreeMap<String, usize>> {
    let mut zones = BTreeMap::new();
    for number in 0..count {
        let name = format!("replica-{number}");
        create(running, replica(&name)).await?;
        *zones.entry(zone_of(running, &name).await?).or_default() += 1;
    }
    Ok(zones)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_anyway_spread_over_zones_still_spreads() -> Result<()> {
    let running = half_full_zone().await?;
    let replica = |name: &str| {
        let mut replica = pod(name, 1, &[]);
        replica["metadata"]["labels"] = json!({"app": "web"});
        replica["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }]);
        replica
    };
    let zones = zones_of(&running, 6, replica).await?;
    assert_eq!(zones, ZONES.map(|zone| (zone.to_owned(), 2)).into());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_deployment_reach_all_zones_by_default() -> Result<()> {
    let running = half_full_zone().await?;
    let labels = json!({"app": "web"});
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]},
        }},
    });
    let sets: Api<ReplicaSet> = Api::default_namespaced(running.plane.client());
    let set = sets.create(&PostParams::default(), &serde_json::from_value(set)?).await?;
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": set.metadata.uid, "controller": true,
    }]);
    let replica = |name: &str| {
        let mut replica = pod(name, 1, &[]);
        replica["metadata"]["labels"] = labels.clone();
        replica["metadata"]["ownerReferences"] = owner.clone();
        replica
    };
    let zones = zones_of(&running, 9, replica).await?;
    assert_eq!(zones.len(), ZONES.len(), "{zones:?}");
    Ok(())
}
