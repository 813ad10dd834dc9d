//! Owns a kubelet as device plugins see it: takes registrations, listens to devices, asks for allocations. Keeps no pods.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use berth_proto::kubelet::deviceplugin::device_plugin_client::DevicePluginClient;
use berth_proto::kubelet::deviceplugin::registration_server::{Registration, RegistrationServer};
use berth_proto::kubelet::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, ContainerPreferredAllocationRequest, Device,
    Empty, PreferredAllocationRequest, RegisterRequest,
};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

use crate::controlplane::Folder;

/// Version of the service.
const VERSION: &str = "v1beta1";

/// The kubelet's own socket in its folder.
const SOCKET: &str = "kubelet.sock";

/// The kubelet. Its socket is there while it is up.
#[derive(Debug)]
pub struct KubeletPlugins {
    folder: Folder,
    known: Arc<Mutex<BTreeMap<String, Plugin>>>,
    stop: CancellationToken,
}

/// A resource that was registered.
#[derive(Debug, Default)]
struct Plugin {
    /// How often.
    registrations: usize,
    socket: PathBuf,
    /// What it said last; `None` while it is not listened to.
    devices: Option<Vec<Device>>,
    /// Ends the listening of an earlier registration.
    stop: CancellationToken,
}

#[derive(Debug, Clone)]
struct Registry {
    folder: PathBuf,
    known: Arc<Mutex<BTreeMap<String, Plugin>>>,
    stop: CancellationToken,
}

fn lock(known: &Mutex<BTreeMap<String, Plugin>>) -> MutexGuard<'_, BTreeMap<String, Plugin>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl Registration for Registry {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let options = request.options.unwrap_or_default();
        if request.version != VERSION || !options.preferred_allocation_available {
            return Err(Status::invalid_argument(format!("{} {options:?}", request.version)));
        }
        let socket = self.folder.join(&request.endpoint);
        let stop = self.stop.child_token();
        {
            let mut known = lock(&self.known);
            let plugin = known.entry(request.resource_name.clone()).or_default();
            plugin.stop.cancel();
            plugin.stop = stop.clone();
            plugin.registrations += 1;
            (plugin.socket, plugin.devices) = (socket.clone(), None);
        }
        let known = Arc::clone(&self.known);
        tokio::spawn(async move {
            // As with the kubelet, a plugin that ends has no devices until it registers again.
            let listening = listen(&socket, &request.resource_name, &known);
            let _over = stop.run_until_cancelled(listening).await;
            if let Some(plugin) = lock(&known).get_mut(&request.resource_name).filter(|_| !stop.is_cancelled()) {
                plugin.devices = None;
            }
        });
        Ok(Response::new(Empty {}))
    }
}

async fn listen(socket: &Path, resource: &str, known: &Mutex<BTreeMap<String, Plugin>>) -> Result<()> {
    let mut devices = client(socket).list_and_watch(Empty {}).await?.into_inner();
    while let Some(told) = devices.message().await? {
        if let Some(plugin) = lock(known).get_mut(resource) {
            plugin.devices = Some(told.devices);
        }
    }
    Ok(())
}

fn client(socket: &Path) -> DevicePluginClient<Channel> {
    let socket = socket.to_owned();
    let connect = move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(connect));
    DevicePluginClient::new(channel)
}

impl KubeletPlugins {
    /// Starts with nothing registered.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start() -> Result<Self> {
        let mut made =
            Self { folder: Folder::new("berth-plugins-")?, known: Arc::default(), stop: CancellationToken::new() };
        made.serve()?;
        Ok(made)
    }

    /// The folder of plugins.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The kubelet is away: its socket stays, and nobody listens to devices.
    pub fn stop(&self) {
        self.stop.cancel();
        lock(&self.known).values_mut().for_each(|plugin| plugin.devices = None);
    }

    /// Starts again as the kubelet does: every socket in the folder is removed first.
    ///
    /// # Errors
    /// The folder cannot be emptied, or the socket not be made.
    pub fn serve(&mut self) -> Result<()> {
        for entry in std::fs::read_dir(self.folder())? {
            std::fs::remove_file(entry?.path())?;
        }
        self.stop = CancellationToken::new();
        let listener = UnixListener::bind(self.folder().join(SOCKET)).context("the kubelet's socket")?;
        let (folder, known) = (self.folder().to_owned(), Arc::clone(&self.known));
        let service = RegistrationServer::new(Registry { folder, known, stop: self.stop.clone() });
        let (incoming, stopped) = (UnixListenerStream::new(listener), self.stop.clone().cancelled_owned());
        let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, stopped);
        tokio::spawn(async move {
            let _over = serving.await;
        });
        Ok(())
    }

    /// The names of resources that are listened to now.
    #[must_use]
    pub fn resources(&self) -> Vec<String> {
        let known = lock(&self.known);
        known.iter().filter(|(_, plugin)| plugin.devices.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// What a resource said last: ids, whether healthy, zones. Nothing while it is not listened to.
    #[must_use]
    pub fn devices(&self, resource: &str) -> Vec<(String, bool, Option<i64>)> {
        let known = lock(&self.known);
        let devices = known.get(resource).and_then(|plugin| plugin.devices.clone()).unwrap_or_default();
        let zone = |device: &Device| device.topology.as_ref().and_then(|topology| topology.nodes.first()).map(|n| n.id);
        devices.iter().map(|device| (device.id.clone(), device.health == "Healthy", zone(device))).collect()
    }

    /// How often a resource was registered.
    #[must_use]
    pub fn registrations(&self, resource: &str) -> usize {
        lock(&self.known).get(resource).map_or(0, |plugin| plugin.registrations)
    }

    /// The socket of a resource.
    #[must_use]
    pub fn socket(&self, resource: &str) -> Option<PathBuf> {
        lock(&self.known).get(resource).map(|plugin| plugin.socket.clone())
    }

    /// Asks which devices a container should get, in order of id.
    ///
    /// # Errors
    /// The plugin does not answer, or answers an error: a kubelet would fail the pod.
    pub async fn prefer(&self, resource: &str, available: &[String], size: usize) -> Result<Vec<String>> {
        let request = ContainerPreferredAllocationRequest {
            available_ids: available.to_vec(),
            must_include_ids: Vec::new(),
            allocation_size: i32::try_from(size)?,
        };
        let socket = self.socket(resource).context("not registered")?;
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        let answer = client(&socket).get_preferred_allocation(request).await?.into_inner();
        ensure!(answer.container_responses.len() == 1, "{answer:?}");
        let mut ids: Vec<String> =
            answer.container_responses.into_iter().flat_map(|answer| answer.device_ids).collect();
        ids.sort();
        Ok(ids)
    }

    /// Gives a container these devices.
    ///
    /// # Errors
    /// As [`KubeletPlugins::prefer`].
    pub async fn allocate(&self, resource: &str, ids: &[String]) -> Result<ContainerAllocateResponse> {
        let socket = self.socket(resource).context("not registered")?;
        let request =
            AllocateRequest { container_requests: vec![ContainerAllocateRequest { device_ids: ids.to_vec() }] };
        let answer = client(&socket).allocate(request).await?.into_inner();
        answer.container_responses.into_iter().next().context("no answer for the container")
    }
}

impl Drop for KubeletPlugins {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
