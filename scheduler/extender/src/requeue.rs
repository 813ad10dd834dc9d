//! Makes kube-scheduler look again at pods that did not fit, when capacity grew and no Node or Pod event says so.
//!
//! kube-scheduler sees neither our reports nor our policy. A touched annotation of one Node makes it retry every pod that an
//! extender refused; without it they wait up to five minutes. Touching costs a retry of all of them, so it is rare and rated.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_model::NodeName;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::metrics::ByResult;

/// The annotation that is touched. The guard of the scheduler's account lets this key through and no other.
pub const REQUEUE_KEY: &str = "berth.dev/requeue";
/// Least time between two touches: each makes kube-scheduler filter every refused pod again.
const TOUCH_INTERVAL: Duration = Duration::from_secs(5);
/// Time for one write.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(3);

/// What has grown since the last touch.
#[derive(Debug, Default)]
struct Grown {
    /// Whether anything has.
    any: bool,
    /// Whether pods may wait that nobody here knows, as after a policy that names new resources.
    may_wait_unknown: bool,
    /// The node that grew last: where a version of kube-scheduler checks the touched node first, this one passes.
    node: Option<NodeName>,
}

/// Where growth is told. Telling never waits.
#[derive(Debug, Default)]
pub struct Requeue {
    grown: Mutex<Grown>,
    told: Notify,
}

impl Requeue {
    /// A node can take more than before.
    pub fn node_grew(&self, node: &NodeName) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        grown.any = true;
        grown.node = Some(node.clone());
        self.told.notify_one();
    }

    /// Some node can take more than before.
    pub fn something_grew(&self) {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).any = true;
        self.told.notify_one();
    }

    /// Another policy is in force: any node may take more, and pods may be ours that were not.
    pub fn policy_changed(&self) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        grown.any = true;
        grown.may_wait_unknown = true;
        self.told.notify_one();
    }

    fn take(&self) -> Grown {
        std::mem::take(&mut *self.grown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, mut grown: Grown) {
        let mut newer = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        newer.any |= grown.any;
        newer.may_wait_unknown |= grown.may_wait_unknown;
        newer.node = newer.node.take().or(grown.node.take());
        self.told.notify_one();
    }

    /// Touches until `shutdown`, at most once per interval. Growth told within an interval is touched for at its end.
    pub async fn run(self: Arc<Self>, client: Client, cluster: Arc<Cluster>, shutdown: CancellationToken) {
        let nodes: Api<PartialObjectMeta<Node>> = Api::all(client);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.told.notified() => {}
            }
            let mut grown = self.take();
            if !grown.any {
                continue;
            }
            if !grown.may_wait_unknown && cluster.waiting.count() == 0 {
                // A pod may have been refused just before, and kube-scheduler has seen it before we have. Look once more.
                if !sleep_unless(TOUCH_INTERVAL, &shutdown).await {
                    return;
                }
                let newer = self.take();
                grown.may_wait_unknown |= newer.may_wait_unknown;
                grown.node = newer.node.or(grown.node);
                if !grown.may_wait_unknown && cluster.waiting.count() == 0 {
                    continue;
                }
            }
            let result = touch(&nodes, &cluster, grown.node.as_ref()).await;
            cluster.metrics.requeue_touches.get_or_create(&ByResult { result }).inc();
            if result == "failed" {
                self.put_back(Grown { any: true, ..grown });
            }
            if !sleep_unless(TOUCH_INTERVAL, &shutdown).await {
                return;
            }
        }
    }
}

/// Whether the time passed without a shutdown.
async fn sleep_unless(time: Duration, shutdown: &CancellationToken) -> bool {
    tokio::time::timeout(time, shutdown.cancelled()).await.is_err()
}

/// Touches one node, the named one if it still exists; says how it went, as the label of the metric.
async fn touch(nodes: &Api<PartialObjectMeta<Node>>, cluster: &Cluster, grown: Option<&NodeName>) -> &'static str {
    let snapshot = cluster.index.snapshot();
    let named = grown.and_then(|name| snapshot.node(name.as_str())).filter(|slot| slot.exists);
    let Some(slot) = named.or_else(|| snapshot.nodes().find(|slot| slot.exists)) else { return "no-node" };
    let name = slot.view.name.as_str();
    let value = jiff::Timestamp::now().to_string();
    let patch = serde_json::json!({"metadata": {"annotations": {REQUEUE_KEY: value}}});
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let failed = match tokio::time::timeout(TOUCH_TIMEOUT, nodes.patch(name, &params, &patch)).await {
        Ok(Ok(_)) => {
            tracing::info!(node = name, "capacity grew: touched the node so that waiting pods are tried again");
            return "ok";
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", TOUCH_TIMEOUT.as_secs()),
    };
    let right = "needs patch on nodes; until then pods that did not fit wait up to five minutes";
    tracing::warn!(node = name, error = failed, right, "a node could not be touched");
    "failed"
}

#[cfg(test)]
mod tests;
