//! Who really holds what, where the cluster does not tell: asks the kubelet at intervals, compares with the pods' plans, and says the
//! differences. A kubelet or API server that is away leaves what was said last.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_core::annotation::{Note, PLAN_KEY};
use berth_model::{Drift, NodeName};
use berth_proto::kubelet::podresources::ListPodResourcesRequest;
use berth_proto::kubelet::podresources::pod_resources_lister_client::PodResourcesListerClient;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::metrics::Metrics;
use crate::statement::Statement;

use held::{Devices, PodName};
pub(crate) use held::{Instances, instances};

/// A kubelet answers within milliseconds; one that takes longer is in trouble, and so is its node.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest list taken: 1000 pods with 100 ids each are a tenth of it.
const LIST_BYTES_MAX: usize = 16 << 20;

/// A pod is asked for again after this long though it holds the same devices: one that was made anew under its name, between two looks
/// and with the same devices, is another pod.
const POD_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// The loop that asks, and what it remembers.
pub(crate) struct Holders {
    node: NodeName,
    socket: PathBuf,
    interval: Duration,
    pods: Client,
    statement: Arc<Statement>,
    metrics: Arc<Metrics>,
    /// Pods whose plans were read.
    known: BTreeMap<PodName, Known>,
    /// What the log was told last.
    told: Option<String>,
}

/// A pod as it was when it was asked for.
#[derive(Debug, Clone)]
struct Known {
    /// What it held then.
    devices: Devices,
    uid: String,
    /// Its own, if it has one.
    plan: Option<Note>,
    at: Instant,
}

impl Holders {
    pub(crate) fn new(
        node: NodeName,
        socket: PathBuf,
        interval: Duration,
        pods: Client,
        statement: Arc<Statement>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { node, socket, interval, pods, statement, metrics, known: BTreeMap::new(), told: None }
    }

    /// Asks for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut client = lister(&self.socket);
        loop {
            match self.look(&mut client).await {
                Ok(drifts) => {
                    self.metrics.holders_read("ok");
                    self.tell(None);
                    self.statement.drifted(drifts);
                }
                Err(error) => {
                    self.metrics.holders_read("failed");
                    self.tell(Some(format!("{error:#}")));
                }
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    /// Logs a trouble once, and its end.
    fn tell(&mut self, error: Option<String>) {
        match &error {
            Some(error) if self.told.as_ref() != Some(error) => {
                tracing::warn!(error, "holders of devices not read; what was said last stays");
            }
            None if self.told.is_some() => tracing::info!("holders of devices are read again"),
            _ => {}
        }
        self.told = error;
    }

    async fn look(&mut self, client: &mut PodResourcesListerClient<Channel>) -> Result<Vec<Drift>> {
        let request = client.list(ListPodResourcesRequest {});
        let answer =
            timeout(CALL_TIMEOUT, request).await.map_err(|_| anyhow::anyhow!("no answer within {CALL_TIMEOUT:?}"));
        let answer = answer.and_then(|answer| answer.map_err(|status| anyhow::anyhow!("{}", reason(&status))));
        let list = answer.with_context(|| format!("list of {}", self.socket.display()))?;
        let held = held::held(list.into_inner());
        self.known.retain(|pod, known| held.get(pod) == Some(&known.devices));
        let instances = self.statement.instances();
        let mut drifts = Vec::new();
        for (pod, devices) in &held {
            let Some(known) = self.pod(pod, devices).await? else { continue };
            if held::is_enforced(known.plan.as_ref()) {
                continue;
            }
            let planned = held::planned(known.plan.as_ref());
            drifts.extend(held::drifts(pod, &known.uid, devices, &planned, &instances));
        }
        drifts.truncate(Drift::DRIFTS_MAX);
        Ok(drifts)
    }

    /// The pod of this name, read again where it holds something else than before; `None` where the API server knows none.
    async fn pod(&mut self, pod: &PodName, devices: &Devices) -> Result<Option<Known>> {
        let now = Instant::now();
        if let Some(known) = self.known.get(pod).filter(|known| now.duration_since(known.at) < POD_AGAIN_AFTER) {
            return Ok(Some(known.clone()));
        }
        let (namespace, name) = pod;
        let pods: Api<Pod> = Api::namespaced(self.pods.clone(), namespace);
        let found = timeout(CALL_TIMEOUT, pods.get_metadata_opt(name)).await;
        let found = found.map_err(|_| anyhow::anyhow!("no answer within {CALL_TIMEOUT:?}")).and_then(|f| Ok(f?));
        let found = found.with_context(|| format!("read the plan of pod {namespace}/{name} from the API server"))?;
        let Some(metadata) = found.map(|found| found.metadata) else { return Ok(None) };
        let uid = metadata.uid.unwrap_or_default();
        let text = metadata.annotations.unwrap_or_default().remove(PLAN_KEY);
        let plan = held::plan(text.as_deref(), &uid, &self.node);
        let known = Known { devices: devices.clone(), uid, plan, at: now };
        self.known.insert(pod.clone(), known.clone());
        Ok(Some(known))
    }
}

/// A client of the PodResources service on a socket.
pub(crate) fn lister(socket: &Path) -> PodResourcesListerClient<Channel> {
    PodResourcesListerClient::new(channel(socket)).max_decoding_message_size(LIST_BYTES_MAX)
}

/// What a person can act on: tonic's own words for a socket that is not there are `transport error`.
pub(crate) fn reason(status: &tonic::Status) -> String {
    let mut causes: BTreeSet<String> = BTreeSet::new();
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if causes.insert(error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text
}

/// Connects at the first call, and again after the kubelet was away.
pub(crate) fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connect = move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    // The address is looked at by nobody: the connector knows its socket.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CALL_TIMEOUT);
    endpoint.connect_with_connector_lazy(tower::service_fn(connect))
}
