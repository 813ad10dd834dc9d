//! What of a GPU somebody gets: all of it, a share, or a MIG instance.

use berth_model::{GpuUuid, MiB, NicName};

/// An amount of one GPU: what a share takes, or what several take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Portion {
    /// Percent of its compute; 0 where no claim is made on it.
    pub cores_percent: u32,
    /// Its memory; 0 where no claim is made on it.
    pub memory: MiB,
}

impl Portion {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cores_percent: self.cores_percent.saturating_add(other.cores_percent),
            memory: MiB(self.memory.0.saturating_add(other.memory.0)),
        }
    }

    /// What is left of it; nothing where more was taken.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cores_percent: self.cores_percent.saturating_sub(other.cores_percent),
            memory: MiB(self.memory.0.saturating_sub(other.memory.0)),
        }
    }

    /// The larger of each amount: what one needs who is first the one and then the other.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { cores_percent: self.cores_percent.max(other.cores_percent), memory: self.memory.max(other.memory) }
    }
}

/// A MIG instance, or the place for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigSlot {
    /// Name of its profile, e.g. `1g.10gb`.
    pub profile: String,
    /// First memory slot.
    pub start: u8,
    /// Memory slots.
    pub size: u8,
}

/// How much of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// All of it, for nobody else.
    Whole,
    /// A share beside others. Placement, not isolation: what keeps to it is the program inside.
    Share(Portion),
    /// A MIG instance.
    Mig(MigSlot),
}

/// What one pod holds by its plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holding {
    /// GPUs, shares and instances, of each GPU and in order.
    pub devices: Vec<HeldDevice>,
    /// NICs.
    pub nics: Vec<NicName>,
}

impl FromIterator<HeldDevice> for Holding {
    fn from_iter<T: IntoIterator<Item = HeldDevice>>(devices: T) -> Self {
        Self { devices: devices.into_iter().collect(), nics: Vec::new() }
    }
}

/// What one pod holds of one GPU. A pod with several MIG instances on a GPU has several of these, and else one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldDevice {
    /// The GPU.
    pub uuid: GpuUuid,
    /// How much of it.
    pub extent: Extent,
    /// As how many devices the kubelet counts it: the shares of several containers on one GPU are several.
    pub device_count: u32,
}

impl HeldDevice {
    /// A whole GPU.
    #[must_use]
    pub fn whole(uuid: GpuUuid) -> Self {
        Self { uuid, extent: Extent::Whole, device_count: 1 }
    }
}
