//! One resource as the kubelet asks it: its devices, which of them a container should get, and how. An error of any answer loses the pod,
//! so there is one only where a container must not start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::kubelet::deviceplugin as wire;
use berth_proto::kubelet::deviceplugin::device_plugin_server::DevicePlugin;
use berth_proto::kubelet::podresources::{ListPodResourcesRequest, ListPodResourcesResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::devices::{Device, Devices};
use super::prefer::{self, Kept, Wanted};
use super::{Giving, Shared, admission, allocate};

/// How long an answer may wait for what the API server knows of a pod: the kubelet learned of it from the same server and may be ahead by
/// the time that an event takes. All other pods of the node wait as long.
const PLAN_WITHIN: Duration = Duration::from_millis(500);

/// A kubelet that was asked too often answers again after this long: its limit is 100 in a second.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The service of one resource.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) resource: String,
    pub(super) shared: Arc<Shared>,
}

impl Service {
    fn devices(&self) -> Devices {
        self.shared.offer.borrow().get(&self.resource).cloned().unwrap_or_default()
    }

    /// The planned ids of the container at hand, as far as they can be known in time.
    async fn planned(&self, wanted: &Wanted, devices: &Devices) -> Option<BTreeSet<String>> {
        let until = Instant::now() + PLAN_WITHIN;
        let listed = self.listed(until).await?;
        let mut pods = self.shared.pods.clone();
        loop {
            let known = Arc::clone(&pods.borrow_and_update());
            let found = admission::planned(&listed, &known, &self.shared.node, &self.resource, wanted, devices);
            if found.is_sure || !matches!(timeout_at(until, pods.changed()).await, Ok(Ok(()))) {
                return found.ids;
            }
        }
    }

    async fn listed(&self, until: Instant) -> Option<ListPodResourcesResponse> {
        let mut client = self.shared.pod_resources.clone();
        loop {
            match timeout_at(until, client.list(ListPodResourcesRequest {})).await {
                Ok(Ok(listed)) => return Some(listed.into_inner()),
                Ok(Err(status)) if status.code() == Code::ResourceExhausted && Instant::now() < until => {
                    sleep(AGAIN_AFTER).await;
                }
                Ok(Err(status)) => {
                    tracing::warn!(error = status.message(), "the kubelet does not say which pod it admits");
                    return None;
                }
                Err(_) => {
                    tracing::warn!("the kubelet does not say in time which pod it admits");
                    return None;
                }
            }
        }
    }

    async fn preferred(&self, request: wire::ContainerPreferredAllocationRequest) -> Vec<String> {
        let wire::ContainerPreferredAllocationRequest { available_ids, must_include_ids, allocation_size } = request;
        let wanted = Wanted::new(available_ids, must_include_ids, allocation_size);
        let devices = self.devices();
        let planned = self.planned(&wanted, &devices).await;
        let promised = admission::promised(&self.shared.pods.borrow(), &self.shared.node, planned.as_ref(), &devices);
        let (ids, kept) = match self.shared.statement.topology() {
            Some(topology) => prefer::prefer(&wanted, planned.as_ref(), &promised, &devices, &topology),
            // Nothing is registered before the first reading.
            None => (Vec::new(), Kept::Unplanned),
        };
        self.shared.metrics.plugin.preferred(kept.word());
        tracing::debug!(resource = self.resource, ?ids, kept = kept.word(), "preferred devices");
        ids
    }

    fn allocated(&self, ids: &[String]) -> Result<wire::ContainerAllocateResponse, Status> {
        let answer = match &self.shared.giving {
            Giving::Preferred(preferred) => Ok(preferred.answer(ids, &self.devices())),
            Giving::Enforced(leases) => allocate::by_lease(leases, &self.resource, ids),
        };
        let answer = answer.map_err(|error| {
            tracing::error!(resource = self.resource, error = %error, "no lease; the pod fails");
            Status::internal(format!("berth-agent gives no lease: {error}"))
        });
        self.shared.metrics.plugin.allocated(if answer.is_ok() { "ok" } else { "refused" });
        answer
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = ReceiverStream<Result<wire::ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<wire::Empty>,
    ) -> Result<Response<wire::DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    async fn list_and_watch(&self, _: Request<wire::Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let (resource, shared) = (self.resource.clone(), Arc::clone(&self.shared));
        let listener = shared.listener(&resource);
        tokio::spawn(async move {
            let _listener = listener;
            let mut offer = shared.offer.subscribe();
            let mut told: Option<Devices> = None;
            loop {
                let devices = offer.borrow_and_update().get(&resource).cloned().unwrap_or_default();
                if told.as_ref() != Some(&devices) {
                    if sender.send(Ok(list(&devices))).await.is_err() {
                        return;
                    }
                    told = Some(devices);
                }
                tokio::select! {
                    changed = offer.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<wire::PreferredAllocationRequest>,
    ) -> Result<Response<wire::PreferredAllocationResponse>, Status> {
        let mut container_responses = Vec::new();
        for request in request.into_inner().container_requests {
            let device_ids = self.preferred(request).await;
            container_responses.push(wire::ContainerPreferredAllocationResponse { device_ids });
        }
        Ok(Response::new(wire::PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<wire::AllocateRequest>,
    ) -> Result<Response<wire::AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests;
        let answers = requests.iter().map(|request| self.allocated(&request.device_ids));
        Ok(Response::new(wire::AllocateResponse { container_responses: answers.collect::<Result<_, _>>()? }))
    }

    async fn pre_start_container(
        &self,
        _: Request<wire::PreStartContainerRequest>,
    ) -> Result<Response<wire::PreStartContainerResponse>, Status> {
        Ok(Response::new(wire::PreStartContainerResponse {}))
    }
}

/// What this plugin does of what it may.
pub(super) fn options() -> wire::DevicePluginOptions {
    wire::DevicePluginOptions { pre_start_required: false, preferred_allocation_available: true }
}

fn list(devices: &Devices) -> wire::ListAndWatchResponse {
    let device = |(id, device): (&String, &Device)| wire::Device {
        id: id.clone(),
        health: if device.is_healthy { "Healthy" } else { "Unhealthy" }.to_owned(),
        topology: device.zone.map(|zone| wire::TopologyInfo { nodes: vec![wire::NumaNode { id: zone.into() }] }),
    };
    wire::ListAndWatchResponse { devices: devices.iter().map(device).collect() }
}
