//! One resource's socket: served, made anew where somebody removed it, and registered with every kubelet that comes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use berth_proto::kubelet::deviceplugin::RegisterRequest;
use berth_proto::kubelet::deviceplugin::device_plugin_server::DevicePluginServer;
use berth_proto::kubelet::deviceplugin::registration_client::RegistrationClient;
use tokio::net::UnixListener;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server as Tonic;

use super::KUBELET;
use super::serve::{Service, options};
use crate::holders;

/// Version of the kubelet's service.
const VERSION: &str = "v1beta1";

/// A kubelet answers a registration at once. Other resources wait for it.
const REGISTER_WITHIN: Duration = Duration::from_secs(2);

/// A kubelet that did not take a registration, or took it and does not listen, is asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Identity of a file. A new one may get the number of the old one, but not its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    changed_at: (i64, i64),
}

impl Seen {
    /// The file that is at this path now.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let facts = std::fs::symlink_metadata(path).ok()?;
        Some(Self { device: facts.dev(), inode: facts.ino(), changed_at: (facts.ctime(), facts.ctime_nsec()) })
    }
}

/// What is known of one resource's server.
#[derive(Debug, Default)]
pub(super) struct Server {
    served: Option<Served>,
    /// The kubelet that was told last, and when.
    told: Option<(Seen, Instant)>,
    /// What the log was told last.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Served {
    socket: Seen,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Serves where nothing is served, and registers where the kubelet does not know.
    pub(super) async fn keep(&mut self, folder: &Path, service: &Service, kubelet: Option<Seen>) {
        let path = path(folder, &service.resource);
        if self.served.as_ref().map(|served| served.socket) != Seen::of(&path) || self.served.is_none() {
            // The kubelet keeps what it opened, but a socket that is gone is one that it closed.
            self.told = None;
            match serve(&path, service) {
                Ok(served) => self.served = Some(served),
                Err(error) => return self.tell(service, Some(format!("{error:#}"))),
            }
        }
        let Some(kubelet) = kubelet else {
            return self.tell(service, Some(format!("no kubelet: {} is not there", folder.join(KUBELET).display())));
        };
        let now = Instant::now();
        let is_told = self.told.is_some_and(|(told, at)| {
            told == kubelet && (service.shared.is_heard(&service.resource) || now.duration_since(at) < AGAIN_AFTER)
        });
        if is_told {
            return;
        }
        self.told = Some((kubelet, now));
        let done = register(folder, &path, &service.resource).await;
        service.shared.metrics.plugin.registered(if done.is_ok() { "ok" } else { "failed" });
        match done {
            Ok(()) => {
                tracing::info!(resource = service.resource, "registered with the kubelet");
                self.trouble = None;
            }
            Err(error) => self.tell(service, Some(format!("{error:#}"))),
        }
    }

    /// Logs a trouble once.
    fn tell(&mut self, service: &Service, trouble: Option<String>) {
        if let Some(error) = trouble.as_ref().filter(|_| self.trouble != trouble) {
            tracing::warn!(resource = service.resource, error, "not registered with the kubelet; trying again");
        }
        self.trouble = trouble;
    }
}

/// The socket of a resource: `nvidia.com/gpu` is served on `berth-nvidia.com-gpu.sock`.
fn path(folder: &Path, resource: &str) -> PathBuf {
    folder.join(format!("berth-{}.sock", resource.replace('/', "-")))
}

fn serve(path: &Path, service: &Service) -> Result<Served> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the old {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("serve {}", path.display()))?;
    let socket = Seen::of(path).with_context(|| format!("{} is gone at once", path.display()))?;
    let stop = CancellationToken::new();
    let (incoming, stopped) = (UnixListenerStream::new(listener), stop.clone().cancelled_owned());
    let plugin = DevicePluginServer::new(service.clone());
    tokio::spawn(async move {
        if let Err(error) = Tonic::builder().serve_with_incoming_shutdown(plugin, incoming, stopped).await {
            tracing::warn!(%error, "a socket of the device plugin");
        }
    });
    Ok(Served { socket, stop })
}

async fn register(folder: &Path, path: &Path, resource: &str) -> Result<()> {
    let endpoint = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint,
        resource_name: resource.to_owned(),
        options: Some(options()),
    };
    let mut client = RegistrationClient::new(holders::channel(&folder.join(KUBELET)));
    let answer = timeout(REGISTER_WITHIN, client.register(request)).await;
    let answer = answer.map_err(|_| anyhow!("no answer within {REGISTER_WITHIN:?}"));
    let answer = answer.and_then(|answer| answer.map_err(|status| anyhow!("{}", holders::reason(&status))));
    answer.with_context(|| format!("register {resource} with the kubelet"))?;
    Ok(())
}
