//! The cards and instances of the node as leases need them: which are there, which are well, and which two devices exclude each other.

use std::collections::BTreeMap;

use berth_core::annotation::{Device, Mig};
use berth_model::{Gpu, GpuIndex, MigInstance};

/// How the names of resources begin whose ids may be the numbers of cards. NVIDIA's others have numbers of something else, such as groups of
/// the IOMMU.
const COUNTED: [&str; 2] = ["nvidia.com/gpu", "nvidia.com/mig-"];

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

    /// What a device plugin means by `id`; `None` where it is no card or instance of this node. Where all that is known is the card, all of
    /// it.
    ///
    /// Source: UUIDs, with `::` and a number for replicas: github.com/NVIDIA/k8s-device-plugin `internal/rm/device_map.go`; `MIG-GPU-UUID/GI/CI`
    /// are instances of drivers before 470; `nvidia0`, `nvidia0/gi1`: github.com/GoogleCloudPlatform/container-engine-accelerators
    /// `pkg/gpu/nvidia`; the numbers are those of `NVIDIA_VISIBLE_DEVICES`.
    pub(super) fn named(&self, resource: &str, id: &str) -> Option<Device> {
        let id = id.split_once("::").map_or(id, |(card, _)| card);
        if self.cards.contains_key(id) {
            return Some(Device::whole(id));
        }
        if let Some(found) = self.cards.iter().find_map(|(uuid, card)| card.with_id(uuid, id)) {
            return Some(found);
        }
        let old = id.strip_prefix("MIG-").and_then(|id| id.split('/').next());
        if let Some(uuid) = old.filter(|uuid| self.cards.contains_key(*uuid)) {
            return Some(Device::whole(uuid));
        }
        if !COUNTED.iter().any(|name| resource.starts_with(name)) {
            return None;
        }
        let is_it = |known: &Card| match id.strip_prefix("nvidia") {
            Some(minor) => known.minor.is_some() && minor.split('/').next().and_then(number) == known.minor,
            None => match id.split_once(':') {
                Some((index, instance)) => {
                    number(instance).is_some() && number(index) == Some(u32::from(known.index.0))
                }
                None => number(id) == Some(u32::from(known.index.0)),
            },
        };
        self.cards.iter().find(|(_, known)| is_it(known)).map(|(uuid, _)| Device::whole(uuid))
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
    /// The instance of which a device has this id.
    fn with_id(&self, uuid: &str, id: &str) -> Option<Device> {
        let found = self.instances.iter().find(|instance| instance.uuids.iter().any(|own| own == id))?;
        let (start, size) = (found.placement.start(), found.placement.size());
        let mig = Mig { uuid: Some(id.to_owned()), profile: found.profile.clone(), start, size };
        Some(Device { mig: Some(mig), ..Device::whole(uuid) })
    }

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

/// A number as kernel and driver write it; `+1` and `007` are none.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
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
