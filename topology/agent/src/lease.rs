//! CDI leases: what an Allocate answer names, and who has it. A lease is a device name that was never used before; its CDI spec does not
//! exist until it is known which pod holds it, so a container without a plan does not start. Asks nobody; who steers asks.

mod book;
mod cards;
mod edits;
mod folder;
mod listing;
mod pace;
mod record;
mod running;
mod runtime;
mod spec;
mod steer;
#[cfg(test)]
mod testing;
mod unleased;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_model::{Drift, NodeName};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::Instant;

use book::Book;
pub(crate) use cards::Cards;
use folder::Folder;
use record::{Holder, Lease, LeaseName};
pub(crate) use steer::{Places, Steering};

/// Vendor and class of our CDI devices.
const KIND: &str = "berth.dev/gpu";

/// Most leases of a node: 16 GPUs of seven instances, each with plain init containers before it, are a tenth of it.
const LEASES_MAX: usize = 4096;

/// Most ids of one lease.
const IDS_MAX: usize = Drift::DEVICES_MAX;

/// Longest resource name: a DNS name of 253 bytes, a slash and a name of 63 bytes.
const RESOURCE_BYTES_MAX: usize = 317;

/// Longest device id: `GPU-` or `MIG-` with a UUID is 40 bytes, the older form of an instance has two numbers behind it.
const ID_BYTES_MAX: usize = 128;

/// Where the kernel gives random bytes.
const RANDOM: &str = "/dev/urandom";

/// Why a lease was not given, or the leases not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// The state folder does not work.
    #[error("{}: the folder of leases must be readable and writable", .path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// What the kubelet asked for is nothing that it asks for.
    #[error("{0}")]
    Asked(String),
    /// More than any node has.
    #[error("{LEASES_MAX} leases are live, and no node holds more")]
    Full,
    /// No random name.
    #[error("{RANDOM} must give the bytes of a new name")]
    Random(#[source] io::Error),
}

/// Why the node's container runtime takes no leases; `None` where it does, or is not known.
///
/// # Errors
/// The API server does not say.
pub(crate) async fn runtime_lack(client: Client, node: &NodeName) -> kube::Result<Option<String>> {
    let status = Api::<Node>::all(client).get_opt(node.as_str()).await?.and_then(|node| node.status);
    let version = status.and_then(|status| status.node_info).map(|info| info.container_runtime_version);
    let lack = version.as_deref().and_then(runtime::lacks_cdi);
    Ok(lack.map(|lack| format!("{lack}; where it is switched on, --runtime-has-cdi says so")))
}

/// A qualified CDI device name, `berth.dev/gpu=lease-<32 hexadecimal digits>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CdiName(String);

impl CdiName {
    fn of(lease: &LeaseName) -> Self {
        Self(format!("{KIND}={lease}"))
    }

    /// The name as Allocate answers it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CdiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The leases of this node, in memory and in the state folder.
#[derive(Debug)]
pub(crate) struct Leases {
    folder: Folder,
    known: Mutex<Known>,
    /// Told at every grant.
    granted: Notify,
}

#[derive(Debug)]
struct Known {
    leases: Book,
    /// Sequence number of the next lease.
    next: u64,
    /// When those pending were given, as far as this process gave them.
    given_at: BTreeMap<LeaseName, Instant>,
}

impl Leases {
    /// Reads what an earlier agent left in `folder`, which is made where there is none. A file that cannot be read loses itself only.
    ///
    /// # Errors
    /// [`LeaseError::Folder`].
    pub(crate) fn open(folder: &Path) -> Result<Self, LeaseError> {
        let folder = Folder::open(folder)?;
        let leases: Book = folder.read()?.into_iter().map(|lease| (lease.name.clone(), lease)).collect();
        let next = leases.values().map(|lease| lease.sequence).max().map_or(0, |last| last.saturating_add(1));
        Ok(Self {
            folder,
            known: Mutex::new(Known { leases, next, given_at: BTreeMap::new() }),
            granted: Notify::new(),
        })
    }

    /// The leases that a node has left from when it enforced plans; `None` where there are none.
    ///
    /// # Errors
    /// [`LeaseError::Folder`].
    pub(crate) fn left(folder: &Path) -> Result<Option<Self>, LeaseError> {
        if !folder.exists() {
            return Ok(None);
        }
        let left = Self::open(folder)?;
        let is_any = !left.known().leases.is_empty();
        Ok(is_any.then_some(left))
    }

    /// A new lease on what the kubelet gave, pending until it is known to whom; returns once it is on disk.
    ///
    /// # Errors
    /// [`LeaseError`]: nothing was given, and an Allocate without it must fail.
    pub(crate) fn grant(&self, resource: &str, ids: &[String]) -> Result<CdiName, LeaseError> {
        check(resource, ids)?;
        let name = LeaseName::new(random()?);
        let mut ids = ids.to_vec();
        ids.sort();
        let mut known = self.known();
        if known.leases.len() >= LEASES_MAX {
            return Err(LeaseError::Full);
        }
        let lease = Lease { name, sequence: known.next, resource: resource.to_owned(), ids, holder: None };
        // Under the lock, so that whoever looks at the leases sees none that a crash would lose.
        self.folder.write(&lease)?;
        known.next = known.next.saturating_add(1);
        let cdi = CdiName::of(&lease.name);
        known.given_at.insert(lease.name.clone(), Instant::now());
        known.leases.insert(lease.name.clone(), lease);
        drop(known);
        self.granted.notify_one();
        Ok(cdi)
    }

    /// The leases now, and the sequence number of the next one.
    fn book(&self) -> (Book, u64) {
        let known = self.known();
        (known.leases.clone(), known.next)
    }

    /// Gives a pending lease to its holder, on disk when this returns; says when it was granted, where this process knows.
    fn hold(&self, name: &LeaseName, holder: Holder) -> Result<Option<Instant>, LeaseError> {
        let mut known = self.known();
        let Some(lease) = known.leases.get(name) else { return Ok(None) };
        let lease = Lease { holder: Some(holder), ..lease.clone() };
        self.folder.write(&lease)?;
        known.leases.insert(name.clone(), lease);
        Ok(known.given_at.remove(name))
    }

    /// Ends a lease.
    fn release(&self, name: &LeaseName) {
        let mut known = self.known();
        self.folder.remove(name);
        known.leases.remove(name);
        known.given_at.remove(name);
    }

    /// Waits for a grant.
    async fn granted(&self) {
        self.granted.notified().await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one insertion or removal after the write, so a panic under the lock left whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(resource: &str, ids: &[String]) -> Result<(), LeaseError> {
    let wrong = |problem: String| Err(LeaseError::Asked(problem));
    if resource.is_empty() || resource.len() > RESOURCE_BYTES_MAX {
        return wrong(format!("resource name of {} bytes, 1 to {RESOURCE_BYTES_MAX} are right", resource.len()));
    }
    if ids.is_empty() || ids.len() > IDS_MAX {
        return wrong(format!("{} device ids, 1 to {IDS_MAX} are right", ids.len()));
    }
    match ids.iter().find(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
        Some(id) => wrong(format!("device id of {} bytes, 1 to {ID_BYTES_MAX} are right", id.len())),
        None => Ok(()),
    }
}

fn random() -> Result<[u8; 16], LeaseError> {
    let mut bytes = [0; 16];
    std::fs::File::open(RANDOM).and_then(|mut file| file.read_exact(&mut bytes)).map_err(LeaseError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
