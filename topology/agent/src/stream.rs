//! The quick path of reports: one stream to every scheduler that the endpoint's name stands for. It follows what the publisher says and
//! never holds it up; the object is written whether or not any stream is open.

mod endpoint;
mod peer;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_proto::Status;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use endpoint::{Credentials, Endpoint};

use crate::metrics::Metrics;

/// How often the name is looked up while every stream is open: a further replica is found after this long at the latest.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// The same while one is not: a replica that moved has a new address.
const RESOLVE_SOON: Duration = Duration::from_secs(2);
/// A lookup without an answer is given up.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Most schedulers that get a stream. The shipped manifests have two.
const PEERS_MAX: usize = 8;

/// Whom to tell, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    /// What the endpoint's name stands for; empty where it is to be looked up.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) credentials: Credentials,
    pub(crate) node: String,
}

/// What every stream of this agent shares.
#[derive(Debug)]
struct Shared {
    target: Target,
    /// Highest generation that a scheduler held against ours.
    outdone: Arc<watch::Sender<u64>>,
    metrics: Arc<Metrics>,
    /// Told when a stream ends.
    lost: Notify,
}

/// One scheduler's stream.
#[derive(Debug)]
struct Peer {
    task: JoinHandle<Infallible>,
    is_open: Arc<AtomicBool>,
}

/// Keeps a stream to every address of the name, for ever.
pub(crate) async fn keep_all(
    target: Target,
    said: watch::Receiver<Option<Status>>,
    outdone: Arc<watch::Sender<u64>>,
    metrics: Arc<Metrics>,
) -> Infallible {
    let shared = Arc::new(Shared { target, outdone, metrics, lost: Notify::new() });
    let mut peers: BTreeMap<SocketAddr, Peer> = BTreeMap::new();
    let mut is_failing = false;
    loop {
        match resolve(&shared.target).await {
            Ok(addresses) => {
                is_failing = false;
                follow(&mut peers, &addresses, &shared, &said);
            }
            // Said once; the streams that are open stay.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(endpoint = %shared.target.endpoint, error, "no address of schedulers; asking again");
            }
            Err(_) => {}
        }
        let all_open = !peers.is_empty() && peers.values().all(|peer| peer.is_open.load(Ordering::Relaxed));
        if all_open {
            let _ = timeout(RESOLVE_EVERY, shared.lost.notified()).await;
        } else {
            tokio::time::sleep(RESOLVE_SOON).await;
        }
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, String> {
    if !target.addresses.is_empty() {
        return Ok(target.addresses.iter().copied().take(PEERS_MAX).collect());
    }
    let endpoint = &target.endpoint;
    let looking = tokio::net::lookup_host((endpoint.host(), endpoint.port()));
    let found = timeout(RESOLVE_WITHIN, looking).await.map_err(|_| format!("no answer within {RESOLVE_WITHIN:?}"))?;
    let mut addresses: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    addresses.truncate(PEERS_MAX);
    Ok(addresses)
}

/// Starts streams to new addresses and ends those to addresses that the name no longer has.
fn follow(
    peers: &mut BTreeMap<SocketAddr, Peer>,
    addresses: &[SocketAddr],
    shared: &Arc<Shared>,
    said: &watch::Receiver<Option<Status>>,
) {
    peers.retain(|address, peer| {
        // An open stream is proof enough: the name may be ahead of a scheduler that still drains.
        let stays = addresses.contains(address) || peer.is_open.load(Ordering::Relaxed);
        if !stays {
            peer.task.abort();
        }
        stays
    });
    for address in addresses {
        if !peers.contains_key(address) {
            let is_open = Arc::new(AtomicBool::new(false));
            let keeping = peer::keep(*address, Arc::clone(shared), said.clone(), Arc::clone(&is_open));
            peers.insert(*address, Peer { task: tokio::spawn(keeping), is_open });
        }
    }
}
