//! What containers ask of GPUs, and what the pod needs for all of them: init containers reuse what others hold later.

use std::collections::BTreeMap;

use berth_model::MiB;

use super::{ContainerRequest, PodRequest};
use crate::policy::{Policy, UnnamedMemory};
use crate::quantity;
use crate::unfit::{Reason, Unfit};

/// What a share asks of a card's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareMemory {
    /// No claim.
    Nothing,
    /// So much.
    Exactly(MiB),
    /// All of whichever card it is.
    All,
}

/// A part of one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    /// Percent of the card's compute, at most 100; 0 for no claim.
    pub cores_percent: u32,
    /// Its memory.
    pub memory: ShareMemory,
}

impl Share {
    fn max(self, other: Self) -> Self {
        Self { cores_percent: self.cores_percent.max(other.cores_percent), memory: self.memory.max(other.memory) }
    }
}

/// A share that the pod holds at any moment of its life, on one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareSlot {
    /// What must fit.
    pub share: Share,
    /// So many slots just before it must lie on other cards: one container gets each card once.
    pub apart_from: u32,
}

/// A kind of device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Whole GPUs.
    Whole,
    /// A share of each of so many cards.
    Share(Share),
    /// MIG devices of a profile.
    Mig(String),
}

/// What one container gets of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDemand {
    /// Container name.
    pub name: String,
    /// Extended resource asked for.
    pub resource: String,
    /// Of what.
    pub kind: Kind,
    /// How many devices.
    pub device_count: u32,
    /// App containers and sidecars hold their devices side by side; plain init containers reuse them.
    pub reuses: bool,
}

/// What the pod needs for all its containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Needs {
    pub(super) gpu_count: u32,
    pub(super) shares: Vec<ShareSlot>,
    pub(super) mig: BTreeMap<String, u32>,
}

/// Most devices of one kind that a pod may ask for on one node: no node has more GPUs, and a GPU has at most seven instances.
const DEVICES_MAX: u64 = 32;
/// Largest memory of a share: no card has as much, and who writes bytes is found out.
const SHARE_MEMORY_MIB_MAX: u64 = 4 << 20;

/// What every container asks for, in the order in which devices are dealt.
pub(super) fn containers(pod: &PodRequest, policy: &Policy) -> Result<Vec<ContainerDemand>, Unfit> {
    let inits = pod.init_containers.iter().map(|c| ("initContainers", c, !c.is_sidecar));
    let apps = pod.containers.iter().map(|c| ("containers", c, false));
    let mut wanted = Vec::new();
    for (list, container, reuses) in inits.chain(apps) {
        let asked = of_container(container, policy).map_err(|e| {
            Unfit::new(Reason::BadWish, format!("spec.{list}[{}].resources.requests: {e}", container.name))
        })?;
        let one = |(resource, kind, count)| ContainerDemand {
            name: container.name.clone(),
            resource,
            kind,
            device_count: u32::try_from(count).unwrap_or(u32::MAX),
            reuses,
        };
        wanted.extend(asked.into_iter().map(one));
    }
    Ok(wanted)
}

fn of_container(container: &ContainerRequest, policy: &Policy) -> Result<Vec<(String, Kind, u64)>, String> {
    let requests = &container.requests;
    let mut asked = Vec::new();
    let share = share_of(requests, policy)?;
    match (gpus_of(requests, policy)?, share) {
        (None, None) => {}
        (Some((resource, count)), None) => asked.push((resource, Kind::Whole, count)),
        (Some((resource, count)), Some((share, _))) => asked.push((resource, Kind::Share(share), count)),
        (None, Some((_, name))) => {
            let gpu = policy.gpu_resources().next().unwrap_or_default();
            return Err(format!("{name}: without {gpu} the container would get no GPU; {gpu}: 1 beside it is right"));
        }
    }
    for name in requests.keys() {
        let Some(profile) = policy.resources().mig_profile(name) else { continue };
        let count = amount(requests, name)?;
        if count > DEVICES_MAX {
            return Err(format!("{name}: {count}, at most {DEVICES_MAX} MIG devices are taken"));
        }
        if count > 0 {
            asked.push((name.clone(), Kind::Mig(profile.to_owned()), count));
        }
    }
    Ok(asked)
}

fn amount(requests: &BTreeMap<String, String>, name: &str) -> Result<u64, String> {
    super::quantity_of(requests, name, quantity::parse_units)
}

/// The GPU resource a container names, and how many it wants.
fn gpus_of(requests: &BTreeMap<String, String>, policy: &Policy) -> Result<Option<(String, u64)>, String> {
    let mut found: Option<(String, u64)> = None;
    for name in policy.gpu_resources() {
        let count = amount(requests, name)?;
        if count == 0 {
            continue;
        }
        if count > DEVICES_MAX {
            return Err(format!("{name}: {count}, at most {DEVICES_MAX} GPUs fit on any node"));
        }
        if let Some((other, _)) = found {
            return Err(format!("{name}: one container may name one GPU resource, {other} is another"));
        }
        found = Some((name.to_owned(), count));
    }
    Ok(found)
}

/// The share a container names, and the first resource that names it.
fn share_of<'p>(requests: &BTreeMap<String, String>, policy: &'p Policy) -> Result<Option<(Share, &'p str)>, String> {
    let names = policy.resources();
    let of = |name: &Option<String>| name.as_ref().map_or(Ok(0), |name| amount(requests, name));
    let (cores, memory) = (of(&names.gpu_cores)?, of(&names.gpu_memory)?);
    let named = |name: &'p Option<String>| name.as_deref().unwrap_or_default();
    if cores > 100 {
        return Err(format!("{}: {cores}, at most 100 percent of each GPU are there", named(&names.gpu_cores)));
    }
    if memory > SHARE_MEMORY_MIB_MAX {
        return Err(format!("{}: {memory}, it counts MiB: 16384 for 16 GiB is right", named(&names.gpu_memory)));
    }
    let cores_percent = u32::try_from(cores).unwrap_or(u32::MAX);
    let share_memory = match (memory, policy.shares().unnamed_memory) {
        (0, UnnamedMemory::Nothing) => ShareMemory::Nothing,
        (0, UnnamedMemory::All) => ShareMemory::All,
        (mib, _) => ShareMemory::Exactly(MiB(mib)),
    };
    Ok(match (cores, memory) {
        (0, 0) => None,
        (0, _) => Some((Share { cores_percent, memory: share_memory }, named(&names.gpu_memory))),
        (_, _) => Some((Share { cores_percent, memory: share_memory }, named(&names.gpu_cores))),
    })
}

/// What must be there so that every container gets its devices when its turn comes. Kinds do not lend to each other.
pub(super) fn needs(containers: &[ContainerDemand]) -> Needs {
    let mut needs = Needs::default();
    let mut dealt_whole = 0_u32;
    let mut dealt_shares = 0_u32;
    let mut dealt_mig: BTreeMap<&str, u32> = BTreeMap::new();
    for demand in containers {
        let count = demand.device_count;
        let dealt = match &demand.kind {
            Kind::Whole => {
                needs.gpu_count = needs.gpu_count.max(dealt_whole.saturating_add(count));
                &mut dealt_whole
            }
            Kind::Share(share) => {
                cover(&mut needs.shares, dealt_shares, count, *share);
                &mut dealt_shares
            }
            Kind::Mig(profile) => {
                let dealt = dealt_mig.entry(profile).or_default();
                let need = needs.mig.entry(profile.clone()).or_default();
                *need = (*need).max(dealt.saturating_add(count));
                dealt
            }
        };
        if !demand.reuses {
            *dealt = dealt.saturating_add(count);
        }
    }
    needs
}

/// Makes room for `count` shares from slot `first` on.
fn cover(slots: &mut Vec<ShareSlot>, first: u32, count: u32, share: Share) {
    for nth in 0..count {
        let at = usize::try_from(first.saturating_add(nth)).unwrap_or(usize::MAX);
        match slots.get_mut(at) {
            Some(slot) => {
                *slot = ShareSlot { share: slot.share.max(share), apart_from: slot.apart_from.max(nth) };
            }
            None => slots.push(ShareSlot { share, apart_from: nth }),
        }
    }
}
