//! A driver library (`libnvidia-ml.so.1`) without a driver: answers NVML calls as a machine file says.
//!
//! What it serves comes from three files, found by environment variable or else beside the library itself:
//! `BERTH_FAKE_MACHINE` or `machine.yaml` (the machine), `BERTH_FAKE_FAULTS` or `faults.yaml` (what is broken; read anew when something
//! in its folder changes, may be missing), and `BERTH_FAKE_NODE` or the text of `node` (the salt of identities; may be missing). Calls are
//! counted in the file `BERTH_FAKE_CALLS`, or `calls`, where there is one.
//!
//! Exported are the calls that a topology agent makes. What is not exported is missing, as on an old driver. A call named in
//! `symbolsAbsent` of the faults answers "function not found", one in `callsFailing` "unknown error". No panic crosses the C boundary: it becomes "unknown error".
#![allow(unsafe_code, reason = "the C interface of NVML is made of raw pointers")]

pub mod calls;
mod changes;
pub mod detail;
pub mod device;
pub mod events;
pub mod mig;
pub mod nvlink;
mod out;
mod state;
pub mod system;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND, nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT, nvmlReturn_enum_NVML_ERROR_NO_PERMISSION,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED, nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED, nvmlReturn_enum_NVML_ERROR_UNKNOWN, nvmlReturn_enum_NVML_SUCCESS,
    nvmlReturn_t,
};

use berth_probe::facts::NvmlFailure;
use state::{Session, State};

/// Every call that the library exports.
pub const SYMBOLS: &[&str] = &[
    "nvmlInit_v2",
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlErrorString",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetCpuAffinity",
    "nvmlDeviceGetCpuAffinityWithinScope",
    "nvmlDeviceGetMemoryAffinity",
    "nvmlDeviceGetNumaNodeId",
    "nvmlDeviceGetTopologyCommonAncestor",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetCreate",
    "nvmlEventSetWait_v2",
    "nvmlEventSetFree",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkRemotePciInfo_v2",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetNvLinkVersion",
    "nvmlDeviceGetNvLinkErrorCounter",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetBoardPartNumber",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceGetHostVgpuMode",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRetiredPages_v2",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetGpuFabricInfo",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetGpuInstanceProfileInfoV",
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
    "nvmlDeviceGetGpuInstances",
    "nvmlGpuInstanceGetInfo",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
];

/// Why a call is refused: NVML's own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal(nvmlReturn_t);

impl Refusal {
    pub(crate) const INVALID_ARGUMENT: Self = Self(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    /// No answer yet: the call is tried again until the GPU no longer hangs. Never leaves this library.
    pub(crate) const HANGS: Self = Self(nvmlReturn_t::MAX);
    pub(crate) const UNKNOWN: Self = Self(nvmlReturn_enum_NVML_ERROR_UNKNOWN);
    const UNINITIALIZED: Self = Self(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);

    pub(crate) fn code(code: nvmlReturn_t) -> Self {
        Self(code)
    }
}

impl From<&NvmlFailure> for Refusal {
    fn from(failure: &NvmlFailure) -> Self {
        Self(match failure {
            NvmlFailure::NotSupported => nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
            NvmlFailure::NoSymbol => nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
            NvmlFailure::Lost => nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST,
            NvmlFailure::ResetRequired => nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED,
            NvmlFailure::NoPermission => nvmlReturn_enum_NVML_ERROR_NO_PERMISSION,
            NvmlFailure::Hung => return Self::HANGS,
            NvmlFailure::Other(_) => nvmlReturn_enum_NVML_ERROR_UNKNOWN,
        })
    }
}

/// Runs the body of an exported call.
fn guarded(body: impl FnOnce(&mut State) -> Result<(), Refusal>) -> nvmlReturn_t {
    let run = || body(&mut State::lock());
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => nvmlReturn_enum_NVML_SUCCESS,
        Ok(Err(Refusal(code))) => code,
        Err(_) => nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}

/// How often a call that hangs looks whether it still should.
const HANGS_POLL: Duration = Duration::from_millis(10);

/// Makes a call again as long as it hangs: it does not return before, and holds up no other call meanwhile.
fn until_answered(call: impl Fn() -> nvmlReturn_t) -> nvmlReturn_t {
    loop {
        let code = call();
        if Refusal(code) != Refusal::HANGS {
            return code;
        }
        std::thread::sleep(HANGS_POLL);
    }
}

/// Runs the body of a call that needs an initialised library and may be declared absent. It does not return while its GPU or driver
/// hangs.
fn answered(symbol: &str, body: impl Fn(&Session) -> Result<(), Refusal>) -> nvmlReturn_t {
    calls::count(symbol);
    until_answered(|| {
        guarded(|state| {
            let session = state.session().ok_or(Refusal::UNINITIALIZED)?;
            match session.refusal(symbol) {
                Some(refused) => Err(refused),
                None => body(session),
            }
        })
    })
}

#[cfg(test)]
mod tests;
