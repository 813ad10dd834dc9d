//! Berth as the kubelet's device plugin: one server per resource in the kubelet's folder, registered for as long as this runs. What a
//! machine offers, which devices a container should get and how, decide the parts below.

mod admission;
mod allocate;
mod cdi;
mod devices;
mod prefer;
#[cfg(test)]
mod sample;
mod serve;
mod socket;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_model::{DevicePlugin, Level, NodeName};
use berth_proto::kubelet::podresources::pod_resources_lister_client::PodResourcesListerClient;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Channel;

use crate::holders;
use crate::lease::Leases;
use crate::metrics::Metrics;
use crate::pods::OnNode;
use crate::statement::Statement;

use allocate::Preferred;
pub(crate) use devices::MigStrategy;
use devices::Offer;
use socket::{Seen, Server};

/// How often the folder is looked at: three file lookups, and a kubelet that was started anew loses no more time than this.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The kubelet's own socket in its folder of plugins.
const KUBELET: &str = "kubelet.sock";

/// How the agent is the plugin.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) node: NodeName,
    /// What it promises; more than advice.
    pub(crate) level: Level,
    /// The kubelet's folder of plugins.
    pub(crate) folder: PathBuf,
    /// The kubelet's PodResources socket.
    pub(crate) pod_resources: PathBuf,
    pub(crate) strategy: MigStrategy,
    /// Folders of CDI specs, where the runtime takes CDI names.
    pub(crate) cdi: Option<Vec<PathBuf>>,
    /// Where the host's device files are seen.
    pub(crate) dev_root: PathBuf,
    /// Where leases are kept, at level enforced.
    pub(crate) lease_dir: PathBuf,
}

/// How a container gets its devices.
#[derive(Debug)]
enum Giving {
    Preferred(Preferred),
    Enforced(Arc<Leases>),
}

/// What the servers of all resources share.
#[derive(Debug)]
struct Shared {
    node: NodeName,
    /// All devices now.
    offer: watch::Sender<Offer>,
    /// How many streams of devices are open, by resource. The kubelet knows a resource for as long as it listens.
    listening: watch::Sender<BTreeMap<String, usize>>,
    pods: watch::Receiver<Arc<OnNode>>,
    pod_resources: PodResourcesListerClient<Channel>,
    statement: Arc<Statement>,
    metrics: Arc<Metrics>,
    giving: Giving,
}

/// An open stream of devices.
#[derive(Debug)]
struct Listener {
    resource: String,
    shared: Arc<Shared>,
}

impl Shared {
    fn listener(self: &Arc<Self>, resource: &str) -> Listener {
        self.listening.send_modify(|listening| {
            let count = listening.entry(resource.to_owned()).or_default();
            *count = count.saturating_add(1);
        });
        Listener { resource: resource.to_owned(), shared: Arc::clone(self) }
    }

    fn is_heard(&self, resource: &str) -> bool {
        self.listening.borrow().get(resource).is_some_and(|count| *count > 0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.listening.send_modify(|listening| {
            if let Some(count) = listening.get_mut(&self.resource) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

/// The loop that keeps the servers registered, and what it remembers.
#[derive(Debug)]
pub(crate) struct Plugin {
    config: Config,
    shared: Arc<Shared>,
    servers: BTreeMap<String, Server>,
}

impl Plugin {
    /// Nothing is served yet. With leases containers get what leases give, else what the kubelet chose.
    pub(crate) fn new(
        config: Config,
        leases: Option<Arc<Leases>>,
        pods: watch::Receiver<Arc<OnNode>>,
        statement: Arc<Statement>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.plugin.level(config.level);
        let giving = leases.map_or_else(
            || {
                let (cdi, dev_root) = (config.cdi.clone(), config.dev_root.clone());
                Giving::Preferred(Preferred { cdi, dev_root, specs: Mutex::default() })
            },
            Giving::Enforced,
        );
        let shared = Arc::new(Shared {
            node: config.node.clone(),
            offer: watch::Sender::new(Offer::new()),
            listening: watch::Sender::new(BTreeMap::new()),
            pods,
            pod_resources: holders::lister(&config.pod_resources),
            statement,
            metrics,
            giving,
        });
        Self { config, shared, servers: BTreeMap::new() }
    }

    /// Serves for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        self.say(false);
        tokio::spawn(offer(Arc::clone(&self.shared), self.config.strategy));
        let (mut offers, mut listening) = (self.shared.offer.subscribe(), self.shared.listening.subscribe());
        loop {
            self.look().await;
            // A sender that is gone has taken everything with it; the folder is looked at all the same.
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                Ok(()) = offers.changed() => {}
                Ok(()) = listening.changed() => {}
            }
        }
    }

    /// Puts right what is not as it should be: sockets that are gone, a kubelet that is new, a resource that nobody listens to.
    async fn look(&mut self) {
        let resources: Vec<String> = self.shared.offer.borrow().keys().cloned().collect();
        let kubelet = Seen::of(&self.config.folder.join(KUBELET));
        for resource in &resources {
            let server = self.servers.entry(resource.clone()).or_default();
            let service = serve::Service { resource: resource.clone(), shared: Arc::clone(&self.shared) };
            server.keep(&self.config.folder, &service, kubelet).await;
        }
        let is_heard = resources.iter().all(|resource| self.shared.is_heard(resource));
        let is_read = self.shared.statement.is_read();
        self.say(is_read && is_heard && kubelet.is_some());
    }

    fn say(&self, is_accepting: bool) {
        self.shared.metrics.plugin.accepting(is_accepting && !self.shared.statement.is_closed());
        self.shared.statement.plugs(DevicePlugin { level: self.config.level, is_accepting });
    }
}

/// Follows the readings: what they say the machine has is offered.
async fn offer(shared: Arc<Shared>, strategy: MigStrategy) {
    let mut said = shared.statement.said();
    loop {
        if let Some(topology) = shared.statement.topology() {
            shared.offer.send_if_modified(|offer| {
                let now = devices::with_gone(devices::offer(&topology, strategy), offer, &topology);
                let is_news = *offer != now;
                *offer = now;
                is_news
            });
        }
        if said.changed().await.is_err() {
            return;
        }
    }
}
