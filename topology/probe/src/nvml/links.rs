//! The NVLinks of a GPU.

use berth_model::Link;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;

use super::{failure, ffi, parse_address};
use crate::facts::{Answer, NvLinkFacts, NvmlFailure};

/// What is counted against a link. ECC errors of link memory are left out: few GPUs have the counter.
const COUNTERS: [ErrorCounter; 4] =
    [ErrorCounter::DlReplay, ErrorCounter::DlRecovery, ErrorCounter::DlCrcFlit, ErrorCounter::DlCrcData];

/// Every link number is tried: boards have gaps. A refusal of number 0 that is not "no such link" stands for all.
pub(super) fn read(device: &Device<'_>) -> Answer<Vec<NvLinkFacts>> {
    let mut links = Vec::new();
    for number in 0..Link::NVLINKS_MAX {
        let active = match device.link_wrapper_for(number.into()).is_active() {
            Err(NvmlError::InvalidArg | NvmlError::NotSupported) => continue,
            answer => answer.map_err(failure),
        };
        match active {
            Err(why) if number == 0 => return Err(why),
            active => links.push(read_one(device, number, active)),
        }
    }
    Ok(links)
}

/// A link that is down knows nothing of its far end.
fn read_one(device: &Device<'_>, number: u8, active: Answer<bool>) -> NvLinkFacts {
    if active != Ok(true) {
        return NvLinkFacts {
            number,
            active,
            remote: Err(NvmlFailure::NotSupported),
            remote_pci: Err(NvmlFailure::NotSupported),
            version: Err(NvmlFailure::NotSupported),
            errors: Err(NvmlFailure::NotSupported),
        };
    }
    let link = device.link_wrapper_for(number.into());
    NvLinkFacts {
        number,
        active,
        remote: ffi::remote_device_type(device, number.into()).map_err(failure),
        remote_pci: link.remote_pci_info().map_err(failure).and_then(|info| parse_address(&info.bus_id)),
        version: link.version().map_err(failure),
        errors: read_errors(|counter| link.error_counter(counter).map_err(failure)),
    }
}

/// The sum of the counters that the GPU has; a failure where it has none.
fn read_errors(read: impl Fn(ErrorCounter) -> Answer<u64>) -> Answer<u64> {
    let mut sum: Answer<u64> = Err(NvmlFailure::NotSupported);
    for counter in COUNTERS {
        match read(counter) {
            Ok(count) => sum = Ok(sum.unwrap_or(0).saturating_add(count)),
            Err(NvmlFailure::NotSupported) => {}
            Err(why) => sum = sum.or(Err(why)),
        }
    }
    sum
}
