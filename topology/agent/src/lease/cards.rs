//! The cards and instances of the node as leases need them: which are there, which are well, and which two devices exclude each other.

use std::collections::BTreeMap;

use berth_core::annotation::{Device, Mig};
use berth_model::{Gpu, GpuIndex, MigInstance};

/// All that the last reading found, by UUID of the card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cards {
    cards: BTreeMap<String, Card>,
}

/// One card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    /// Its index, by which nvidia-ctk may name it.
    pub(super) index: GpuIndex,
    /// Number of its device file.
    pub(super) minor: Option<u32>,
    /// Why it must not get pods; `None` where it may.
    sick: Option<String>,
    is_cut: bool,
    instances: Vec<MigInstance>,
}

/// Why a device of a plan cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ungiven {
    /// It is not on the node.
    Unknown(String),
    /// It must not get pods.
    Sick(String),
}

impl Cards {
    /// The cards of a reading.
    pub(crate) fn of(gpus: &[Gpu]) -> Self {
        let cards = gpus.iter().map(|gpu| {
            let sick = (!gpu.health.is_usable()).then(|| gpu.health.reason().to_owned());
            let card = Card {
                index: gpu.index,
                minor: gpu.detail.minor,
                sick,
                is_cut: gpu.mig_enabled == Some(true),
                instances: gpu.detail.mig_instances.clone(),
            };
            (gpu.uuid.to_string(), card)
        });
        Self { cards: cards.collect() }
    }

    /// The card of this UUID.
    pub(super) fn get(&self, uuid: &str) -> Option<&Card> {
        self.cards.get(uuid)
    }

    /// The device as it is on the node now, an instance with the id of its device.
    pub(super) fn find(&self, planned: &Device) -> Result<Device, Ungiven> {
        let uuid = &planned.uuid;
        let card = self.cards.get(uuid).ok_or_else(|| Ungiven::Unknown(format!("{uuid} is not on this node")))?;
        let found = match &planned.mig {
            None if card.is_cut => {
                Err(Ungiven::Unknown(format!("{uuid} is in MIG mode, and the plan names all of it")))
            }
            None => Ok(planned.clone()),
            Some(mig) => card.instance(uuid, mig).map(|mig| Device { mig: Some(mig), ..planned.clone() }),
        }?;
        match &card.sick {
            Some(reason) => Err(Ungiven::Sick(format!("{uuid}: {reason}"))),
            None => Ok(found),
        }
    }
}

impl Card {
    fn instance(&self, uuid: &str, planned: &Mig) -> Result<Mig, Ungiven> {
        let (start, size) = (planned.start, planned.size);
        let is_it = |i: &&MigInstance| {
            i.profile == planned.profile && i.placement.start() == start && i.placement.size() == size
        };
        let device = self.instances.iter().find(is_it).and_then(|instance| match instance.uuids.as_slice() {
            [only] if planned.uuid.as_ref().is_none_or(|planned| planned == only) => Some(only.clone()),
            _ => None,
        });
        let none = || {
            let named = planned.uuid.as_ref().map(|uuid| format!(" ({uuid})")).unwrap_or_default();
            Ungiven::Unknown(format!("{uuid} has no instance {}@{start}+{size}{named}", planned.profile))
        };
        device.map(|device| Mig { uuid: Some(device), ..planned.clone() }).ok_or_else(none)
    }
}

/// The id by which kubelet, driver and program know a device.
pub(super) fn id(device: &Device) -> &str {
    device.mig.as_ref().and_then(|mig| mig.uuid.as_deref()).unwrap_or(&device.uuid)
}

/// Whether two devices cannot be given to two containers at once. Two shares can, as long as somebody counts them.
pub(super) fn exclude(one: &Device, other: &Device) -> bool {
    if one.uuid != other.uuid {
        return false;
    }
    match (&one.mig, &other.mig) {
        (Some(a), Some(b)) => {
            let ends = |mig: &Mig| (u16::from(mig.start), u16::from(mig.start) + u16::from(mig.size));
            let ((from_a, to_a), (from_b, to_b)) = (ends(a), ends(b));
            from_a < to_b && from_b < to_a
        }
        (None, None) => one.share.is_none() || other.share.is_none(),
        _ => true,
    }
}
