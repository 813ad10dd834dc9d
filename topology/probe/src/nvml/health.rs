//! What a GPU's memory has gone through, and how its PCIe link stands.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};

use super::{failure, ffi};
use crate::facts::gpu::{PcieFacts, WearFacts};

pub(super) fn read_wear(device: &Device<'_>) -> WearFacts {
    let ecc = |counter| device.total_ecc_errors(MemoryError::Uncorrected, counter).map_err(failure);
    WearFacts {
        ecc_volatile: ecc(EccCounter::Volatile),
        ecc_aggregate: ecc(EccCounter::Aggregate),
        retired_pages: ffi::retired_pages(device).map_err(failure),
        retirement_pending: device.are_pages_pending_retired().map_err(failure),
        remap: ffi::remapped_rows(device).map_err(failure),
    }
}

pub(super) fn read_pcie(device: &Device<'_>) -> PcieFacts {
    PcieFacts {
        generation: device.current_pcie_link_gen().map_err(failure),
        generation_max: device.max_pcie_link_gen().map_err(failure),
        width: device.current_pcie_link_width().map_err(failure),
        width_max: device.max_pcie_link_width().map_err(failure),
    }
}
