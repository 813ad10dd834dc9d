//! `berth explain POD`: first what anybody may read who may read the pod (conditions, Events, the plan), then what the scheduler says.
//!
//! A right that is missing costs its own part of the answer and nothing else.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use berth_core::annotation::{Note, PLAN_KEY};
use berth_model::{GpuIndex, GpuUuid, NodeName};
use berth_proto::NodeTopology as Object;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::ListParams;

use crate::api::{ApiError, Cluster, Right};
use crate::args::{ClusterFlags, ExplainArgs};
use crate::render::explain::{Happening, PlanState, Story, story};
use crate::run::Outcome;

mod extender;
mod pod;

/// Events shown: the newest say why, older ones repeat them.
const EVENTS_MAX: usize = 10;

/// Gathers the story of the pod and tells it.
pub(crate) async fn run(args: &ExplainArgs, flags: &ClusterFlags) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(flags).await?;
    let namespace = cluster.namespace().to_owned();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    let pod = match cluster.get(&pods, &args.pod, &Right::within("get", "pods", &namespace)).await {
        Err(ApiError::Missing(_)) => bail!("no pod {} in namespace {namespace} (-n names another one)", args.pod),
        read => read?,
    };

    let plan = plan_of(&cluster, &pod).await;
    let told = Story {
        pod: pod::summary(&pod),
        events: events_of(&cluster, &namespace, &pod).await.map_err(|e| e.to_string()),
        plan,
        scheduler: extender::ask(&cluster, args.extender_url.as_deref(), &namespace, &args.pod)
            .await
            .map_err(|e| format!("{e:#}")),
    };
    Ok(Outcome::Text(story(&told, jiff::Timestamp::now())))
}

async fn events_of(cluster: &Cluster, namespace: &str, pod: &Pod) -> Result<Vec<Happening>, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    // The UID keeps out Events of an earlier pod with the same name.
    let fields = format!("involvedObject.kind=Pod,involvedObject.name={name},involvedObject.uid={uid}");
    let api: Api<Event> = Api::namespaced(cluster.client(), namespace);
    let right = Right::within("list", "events", namespace);
    let mut events = Vec::new();
    cluster.list(&api, ListParams::default().fields(&fields), &right, |e| events.push(pod::happening(e))).await?;
    events.sort_by_key(|e| e.last);
    Ok(events.split_off(events.len().saturating_sub(EVENTS_MAX)))
}

async fn plan_of(cluster: &Cluster, pod: &Pod) -> PlanState {
    let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) else {
        return PlanState::NotBound;
    };
    let Some(text) = pod.metadata.annotations.as_ref().and_then(|a| a.get(PLAN_KEY)) else {
        return PlanState::Absent;
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let read = NodeName::parse(node).context("spec.nodeName").and_then(|n| Ok(Note::parse(text, uid, &n)?));
    match read {
        Ok(note) => {
            let indexes = indexes_of(cluster, node).await.map_err(|e| e.to_string());
            PlanState::Known { note: Box::new(note), indexes }
        }
        Err(error) => PlanState::Void(format!("{error:#}")),
    }
}

/// The GPUs of a node by UUID, because people know them by index.
async fn indexes_of(cluster: &Cluster, node: &str) -> anyhow::Result<BTreeMap<GpuUuid, GpuIndex>> {
    let api: Api<Object> = Api::all(cluster.client());
    let right = Right::everywhere("get", "nodetopologies.topology.berth.dev");
    let object = cluster.get(&api, node, &right).await?;
    let topology = object.topology().with_context(|| format!("the report of node {node}"))?;
    let gpus = topology.map(|t| t.into_parts().gpus).unwrap_or_default();
    Ok(gpus.into_iter().map(|g| (g.uuid, g.index)).collect())
}
