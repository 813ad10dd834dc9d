//! MIG: profiles, the placements that a GPU offers for them, and the instances that exist.
//!
//! What NVML reported is the rule: a [`Placement`] comes out of a [`MigCapability`] only. An instance is an interval of memory slots;
//! a set of instances is valid when intervals are disjoint and no profile has more than its cap. That the compute slices fit follows from
//! NVIDIA's start lists, which the tests of [`catalog`] count out.

pub mod catalog;
pub mod slot;

use std::fmt;

pub use slot::SlotMask;

/// A run of memory slots that NVML offers for a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placement {
    start: u8,
    size: u8,
    mask: SlotMask,
}

impl Placement {
    /// First slot.
    #[must_use]
    pub fn start(self) -> u8 {
        self.start
    }

    /// Slots.
    #[must_use]
    pub fn size(self) -> u8 {
        self.size
    }

    /// The slots as a set.
    #[must_use]
    pub fn mask(self) -> SlotMask {
        self.mask
    }
}

/// A kind of GPU instance as NVML reported it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MigProfile {
    id: u32,
    name: String,
    slices: u8,
    memory_mib: u64,
    instances_max: u8,
    placements: Vec<Placement>,
}

/// Why parts are no profile or no table of profiles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigError {
    /// The name is no profile's.
    #[error("MIG profile {0:?} is not of the form 1g.10gb")]
    Name(String),
    /// A run of slots that no GPU has.
    #[error("MIG profile {name}: start {start}, size {size} is beyond {} slots", SlotMask::SLOTS_MAX)]
    Placement {
        /// The profile.
        name: String,
        /// First slot.
        start: u8,
        /// Slots.
        size: u8,
    },
    /// Two profiles of one name or id, or too many.
    #[error("MIG profile {0} stands twice, or the table is too long")]
    Table(String),
    /// Text that is not of the grammar.
    #[error("{0:?} is no MIG profile: \"1g.10gb 19 1 9856 7 1@0,1,2,3,4,5,6\" is the form")]
    Text(String),
}

/// Longest profile name. Source: `NVML_DEVICE_NAME_V2_BUFFER_SIZE` in `nvml.h`.
const NAME_BYTES_MAX: usize = 95;

impl MigProfile {
    /// A profile from what NVML says of it; placements as (start, size).
    ///
    /// # Errors
    /// [`MigError`] for a name that is none and for slots that no GPU has.
    pub fn try_new(
        id: u32,
        name: &str,
        slices: u8,
        memory_mib: u64,
        instances_max: u8,
        placements: impl IntoIterator<Item = (u8, u8)>,
    ) -> Result<Self, MigError> {
        let printable = name.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !printable {
            return Err(MigError::Name(name.chars().take(32).collect()));
        }
        let mut taken = Vec::new();
        for (start, size) in placements {
            let mask = SlotMask::span(start, size).ok_or_else(|| MigError::Placement {
                name: name.to_owned(),
                start,
                size,
            })?;
            taken.push(Placement { start, size, mask });
        }
        taken.sort_unstable();
        taken.dedup();
        Ok(Self { id, name: name.to_owned(), slices, memory_mib, instances_max, placements: taken })
    }

    /// The board's number of the profile, as `nvidia-smi mig -lgip` prints it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Name, e.g. `1g.10gb`. The figure moves with board and driver: print by it, never compare by it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute slices.
    #[must_use]
    pub fn slices(&self) -> u8 {
        self.slices
    }

    /// Memory of an instance in MiB.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        self.memory_mib
    }

    /// Most instances of it on an empty GPU.
    #[must_use]
    pub fn instances_max(&self) -> u8 {
        self.instances_max
    }

    /// Placements in ascending order of start.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// The offered placement with this start and size.
    #[must_use]
    pub fn placement(&self, start: u8, size: u8) -> Option<Placement> {
        self.placements.iter().copied().find(|p| (p.start, p.size) == (start, size))
    }

    /// Placements that use no slot of `taken`. The cap of the profile is the caller's to hold.
    pub fn free_placements(&self, taken: SlotMask) -> impl Iterator<Item = Placement> {
        self.placements.iter().copied().filter(move |p| p.mask.is_disjoint(taken))
    }

    /// Reads the one-line form: name, id, compute slices, MiB, cap, then `size@start,start` per size.
    ///
    /// # Errors
    /// [`MigError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, MigError> {
        let refusal = || MigError::Text(text.chars().take(64).collect());
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(refusal);
        let name = word()?;
        let id = word()?.parse().map_err(|_| refusal())?;
        let slices = word()?.parse().map_err(|_| refusal())?;
        let memory_mib = word()?.parse().map_err(|_| refusal())?;
        let instances_max = word()?.parse().map_err(|_| refusal())?;
        let mut placements = Vec::new();
        for run in words {
            let (size, starts) = run.split_once('@').ok_or_else(refusal)?;
            let size: u8 = size.parse().map_err(|_| refusal())?;
            for start in starts.split(',') {
                placements.push((start.parse().map_err(|_| refusal())?, size));
            }
        }
        Self::try_new(id, name, slices, memory_mib, instances_max, placements)
    }
}

impl fmt::Display for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.name, self.id, self.slices, self.memory_mib, self.instances_max)?;
        let mut sizes: Vec<u8> = self.placements.iter().map(|p| p.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for size in sizes {
            let same = self.placements.iter().filter(|p| p.size == size);
            let starts: Vec<String> = same.map(|p| p.start.to_string()).collect();
            write!(f, " {size}@{}", starts.join(","))?;
        }
        Ok(())
    }
}

/// What a GPU offers under MIG. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MigCapability {
    profiles: Vec<MigProfile>,
}

impl MigCapability {
    /// Most profiles of a board. Source: `NVML_GPU_INSTANCE_PROFILE_COUNT` is 17 in API 13; room for as many again.
    pub const PROFILES_MAX: usize = 34;

    /// A table in the order in which NVML lists it.
    ///
    /// # Errors
    /// [`MigError::Table`] for a name or id that stands twice, and for a table that is too long.
    pub fn try_new(profiles: Vec<MigProfile>) -> Result<Self, MigError> {
        for (i, profile) in profiles.iter().enumerate() {
            let twice = profiles.iter().take(i).any(|p| p.id == profile.id || p.name == profile.name);
            if twice || i >= Self::PROFILES_MAX {
                return Err(MigError::Table(profile.name.clone()));
            }
        }
        Ok(Self { profiles })
    }

    /// All profiles.
    #[must_use]
    pub fn profiles(&self) -> &[MigProfile] {
        &self.profiles
    }

    /// The profile of a name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&MigProfile> {
        self.profiles.iter().find(|p| p.name == name)
    }

    /// The profile of an id.
    #[must_use]
    pub fn by_id(&self, id: u32) -> Option<&MigProfile> {
        self.profiles.iter().find(|p| p.id == id)
    }
}

/// A GPU instance that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MigInstance {
    /// Where it lies.
    pub placement: Placement,
    /// Name of its profile.
    pub profile: String,
    /// UUIDs (`MIG-...`) of the devices in it, one per compute instance.
    pub uuids: Vec<String>,
}

impl MigInstance {
    /// Most devices of an instance: one per compute slice.
    pub const DEVICES_MAX: usize = 8;

    /// The slots that instances take; `None` where two overlap.
    #[must_use]
    pub fn slots(instances: &[Self]) -> Option<SlotMask> {
        instances.iter().try_fold(SlotMask::EMPTY, |taken, i| taken.join_disjoint(i.placement.mask))
    }

    /// Reads `1g.10gb@0+1 MIG-...`: profile, start, size, devices. The placement must be one that the GPU offers.
    #[must_use]
    pub fn parse(text: &str, capability: &MigCapability) -> Option<Self> {
        let mut words = text.split(' ');
        let (profile, run) = words.next()?.split_once('@')?;
        let (start, size) = run.split_once('+')?;
        let placement = capability.by_name(profile)?.placement(start.parse().ok()?, size.parse().ok()?)?;
        let uuids: Vec<String> = words.map(str::to_owned).collect();
        let fits = uuids.len() <= Self::DEVICES_MAX && uuids.iter().all(|u| crate::GpuUuid::parse(u).is_ok());
        fits.then(|| Self { placement, profile: profile.to_owned(), uuids })
    }
}

impl fmt::Display for MigInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}+{}", self.profile, self.placement.start, self.placement.size)?;
        self.uuids.iter().try_for_each(|uuid| write!(f, " {uuid}"))
    }
}

#[cfg(test)]
mod tests;
