//! Owns a device plugin as the stock one behaves: it offers UUIDs with their zones, has wishes of its own that know no plan, and tells a
//! container by its environment and its device nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_proto::kubelet::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use berth_proto::kubelet::deviceplugin::registration_client::RegistrationClient;
use berth_proto::kubelet::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse, Device,
    DevicePluginOptions, DeviceSpec, Empty, ListAndWatchResponse, NumaNode, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest, TopologyInfo,
};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::net::UnixListener;
use tokio::time::Instant;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A kubelet that was just started serves its socket a little later.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// One device that the plugin offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id, as the kubelet names it to everybody.
    pub id: String,
    /// The zones that it is near; none that it says nothing of them.
    pub zones: Vec<u16>,
    /// Whether it may be given to pods.
    pub is_healthy: bool,
    /// Paths of the device nodes that a container needs for it.
    pub nodes: Vec<String>,
}

/// What a plugin wishes that the kubelet gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It is not asked.
    None,
    /// The last ones of those that the kubelet would give.
    LastFirst,
}

/// A registered plugin. Dropping it takes its devices away.
#[derive(Debug)]
pub struct StockPlugin {
    allocated: Arc<Mutex<Vec<Vec<String>>>>,
    folder: PathBuf,
    endpoint: String,
    resource: String,
    wish: Wish,
    _stop: DropGuard,
}

impl StockPlugin {
    /// Serves the offers under a resource's name to the kubelet whose device plugin folder this is, and registers.
    ///
    /// # Errors
    /// The socket cannot be made, or the kubelet does not take it in time.
    pub async fn start(folder: &Path, resource: &str, offers: &[Offer], wish: Wish) -> Result<Self> {
        let endpoint = format!("{}.sock", resource.replace('/', "-"));
        let socket = folder.join(&endpoint);
        if socket.exists() {
            std::fs::remove_file(&socket).with_context(|| format!("remove {}", socket.display()))?;
        }
        let listener = UnixListener::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
        let allocated = Arc::default();
        let served =
            Served { options: options(wish), offers: Arc::new(offers.to_vec()), allocated: Arc::clone(&allocated) };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let (service, incoming) = (DevicePluginServer::new(served), UnixListenerStream::new(listener));
        let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, stopped);
        tokio::spawn(async move {
            // A test that is over drops the plugin; nobody is left to tell.
            let _over = serving.await;
        });
        let made = Self {
            allocated,
            folder: folder.to_owned(),
            endpoint,
            resource: resource.to_owned(),
            wish,
            _stop: stop.drop_guard(),
        };
        made.register().await?;
        Ok(made)
    }

    /// The ids of every Allocate call so far.
    #[must_use]
    pub fn allocated(&self) -> Vec<Vec<String>> {
        self.allocated.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn register(&self) -> Result<()> {
        let deadline = Instant::now() + REGISTER_WITHIN;
        loop {
            match self.try_register().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("the kubelet takes no {} after {REGISTER_WITHIN:?}: {error:#}", self.resource);
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn try_register(&self) -> Result<()> {
        let kubelet = format!("unix:{}", self.folder.join("kubelet.sock").display());
        let mut client = RegistrationClient::connect(kubelet).await?;
        let request = RegisterRequest {
            version: "v1beta1".to_owned(),
            endpoint: self.endpoint.clone(),
            resource_name: self.resource.clone(),
            options: Some(options(self.wish)),
        };
        client.register(request).await?;
        Ok(())
    }
}

struct Served {
    options: DevicePluginOptions,
    offers: Arc<Vec<Offer>>,
    allocated: Arc<Mutex<Vec<Vec<String>>>>,
}

#[tonic::async_trait]
impl DevicePlugin for Served {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(self.options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let devices = self.offers.iter().map(|offer| Device {
            id: offer.id.clone(),
            health: if offer.is_healthy { "Healthy" } else { "Unhealthy" }.to_owned(),
            topology: (!offer.zones.is_empty())
                .then(|| TopologyInfo { nodes: offer.zones.iter().map(|z| NumaNode { id: i64::from(*z) }).collect() }),
        });
        let all = ListAndWatchResponse { devices: devices.collect() };
        // Said once; an end would take all devices away.
        Ok(Response::new(stream::iter([Ok(all)]).chain(stream::pending()).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let container_responses = request.into_inner().container_requests.into_iter().map(|container| {
            let last_first = self.offers.iter().rev().map(|offer| &offer.id);
            let free = last_first.filter(|id| container.available_ids.contains(id)).cloned();
            let count = usize::try_from(container.allocation_size).unwrap_or_default();
            ContainerPreferredAllocationResponse { device_ids: free.take(count).collect() }
        });
        Ok(Response::new(PreferredAllocationResponse { container_responses: container_responses.collect() }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let ids: BTreeSet<&String> = container.device_ids.iter().collect();
            let offers = self.offers.iter().filter(|offer| ids.contains(&offer.id));
            let nodes: BTreeSet<&String> = offers.flat_map(|offer| &offer.nodes).collect();
            let devices = nodes.into_iter().map(|path| DeviceSpec {
                container_path: path.clone(),
                host_path: path.clone(),
                permissions: "rw".to_owned(),
            });
            let said: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
            container_responses.push(ContainerAllocateResponse {
                envs: BTreeMap::from([("NVIDIA_VISIBLE_DEVICES".to_owned(), said.join(","))]),
                devices: devices.collect(),
                ..ContainerAllocateResponse::default()
            });
            self.allocated.lock().unwrap_or_else(PoisonError::into_inner).push(container.device_ids);
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::unimplemented("the options do not ask for it"))
    }
}

fn options(wish: Wish) -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: false, preferred_allocation_available: wish == Wish::LastFirst }
}
