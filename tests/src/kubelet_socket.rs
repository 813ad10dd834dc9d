//! Owns a kubelet's PodResources service as its clients see it: the kubelet's wire form on a Unix socket, with the pods that a test says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use berth_proto::kubelet::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use berth_proto::kubelet::podresources::{
    ContainerDevices, ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::controlplane::Folder;

/// The service. The socket is there while it is served.
#[derive(Debug)]
pub struct KubeletSocket {
    folder: Folder,
    pods: Arc<Mutex<Vec<PodResources>>>,
    /// Ends the service, and with it connections that are open.
    stop: CancellationToken,
}

struct Lister(Arc<Mutex<Vec<PodResources>>>);

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(&self, _: Request<ListPodResourcesRequest>) -> Result<Response<ListPodResourcesResponse>, Status> {
        let pod_resources = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }
}

impl KubeletSocket {
    /// Serves no pods.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start() -> Result<Self> {
        let mut made =
            Self { folder: Folder::new("berth-kubelet-")?, pods: Arc::default(), stop: CancellationToken::new() };
        made.serve()?;
        Ok(made)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// Says what the containers `main` of pods hold: namespace, name, resource and ids of each.
    pub fn set(&self, held: &[(&str, &str, &str, &[String])]) {
        let pods = held.iter().map(|(namespace, name, resource, ids)| {
            // As the kubelet does: one entry per device.
            let devices = ids
                .iter()
                .map(|id| ContainerDevices { resource_name: (*resource).to_owned(), device_ids: vec![id.clone()] });
            let container = ContainerResources { name: "main".to_owned(), devices: devices.collect() };
            PodResources { name: (*name).to_owned(), namespace: (*namespace).to_owned(), containers: vec![container] }
        });
        *self.pods.lock().unwrap_or_else(PoisonError::into_inner) = pods.collect();
    }

    /// Takes the service away, as when the kubelet stops.
    ///
    /// # Errors
    /// The socket cannot be removed.
    pub fn stop(&mut self) -> Result<()> {
        self.stop.cancel();
        std::fs::remove_file(self.path()).context("remove the socket")
    }

    /// Serves again, on another socket of the same name.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn serve(&mut self) -> Result<()> {
        let listener = UnixListener::bind(self.path()).context("the kubelet's socket")?;
        let service = PodResourcesListerServer::new(Lister(Arc::clone(&self.pods)));
        self.stop = CancellationToken::new();
        let (incoming, stopped) = (UnixListenerStream::new(listener), self.stop.clone().cancelled_owned());
        let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, stopped);
        tokio::spawn(async move {
            // A test that is over drops the service; nobody is left to tell.
            let _over = serving.await;
        });
        Ok(())
    }
}

impl Drop for KubeletSocket {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("kubelet.sock")
}
