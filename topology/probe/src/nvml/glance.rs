//! The few questions that tell whether a driver says anything new: how many GPUs it counts, who they are, and what their health hangs on.
//! What changed is for a reading to find out.

use berth_model::gpu::detail::RowRemap;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};

use super::{failure, ffi};
use crate::facts::Answer;
use crate::facts::gpu::FabricFacts;

/// What a look saw. Equal glances mean that nothing that they look at changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glance {
    /// There is no session, and this is why.
    NoDriver(String),
    /// A session that does not count its GPUs: it is to be opened anew.
    Broken,
    /// The driver does not return.
    Hung,
    /// One entry per GPU, in the driver's order.
    Counted(Vec<Answer<DeviceGlance>>),
}

/// What is looked at of one GPU. Everything that takes it from pods is among it, but for modes that an administrator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceGlance {
    uuid: Answer<String>,
    mig_mode: Answer<(u32, u32)>,
    ecc_volatile: Answer<u64>,
    retirement_pending: Answer<bool>,
    remap: Answer<RowRemap>,
    fabric: Answer<FabricFacts>,
}

pub(super) fn look_at(device: &Device<'_>) -> DeviceGlance {
    DeviceGlance {
        uuid: device.uuid().map_err(failure),
        mig_mode: device.mig_mode().map(|mode| (mode.current, mode.pending)).map_err(failure),
        ecc_volatile: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).map_err(failure),
        retirement_pending: device.are_pages_pending_retired().map_err(failure),
        remap: ffi::remapped_rows(device).map_err(failure),
        fabric: ffi::fabric(device).map_err(failure),
    }
}
