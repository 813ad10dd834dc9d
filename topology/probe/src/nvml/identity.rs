//! What a GPU is and how it is set up.

use berth_model::gpu::detail::{Architecture, ComputeMode, HostVgpu, Virtualization};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device as wrapped;
use nvml_wrapper::enums::device::DeviceArchitecture;

use super::failure;
use crate::facts::NvmlFailure;
use crate::facts::gpu::{IdentityFacts, ModeFacts, NowAndPending};

pub(super) fn read_identity(device: &Device<'_>) -> IdentityFacts {
    IdentityFacts {
        serial: device.serial().map_err(failure),
        part_number: device.board_part_number().map_err(failure),
        minor: device.minor_number().map_err(failure),
        architecture: device.architecture().map_err(failure).and_then(|known| architecture(&known)),
        memory_reserved_bytes: device.memory_info().map(|info| info.reserved).map_err(failure),
    }
}

fn architecture(known: &DeviceArchitecture) -> Result<Architecture, NvmlFailure> {
    Ok(match known {
        DeviceArchitecture::Kepler => Architecture::Kepler,
        DeviceArchitecture::Maxwell => Architecture::Maxwell,
        DeviceArchitecture::Pascal => Architecture::Pascal,
        DeviceArchitecture::Volta => Architecture::Volta,
        DeviceArchitecture::Turing => Architecture::Turing,
        DeviceArchitecture::Ampere => Architecture::Ampere,
        DeviceArchitecture::Ada => Architecture::Ada,
        DeviceArchitecture::Hopper => Architecture::Hopper,
        DeviceArchitecture::Blackwell => Architecture::Blackwell,
        DeviceArchitecture::Unknown => return Err(NvmlFailure::NotSupported),
    })
}

pub(super) fn read_modes(device: &Device<'_>) -> ModeFacts {
    let ecc = device.is_ecc_enabled().map_err(failure);
    ModeFacts {
        ecc: ecc.map(|e| NowAndPending { now: e.currently_enabled, pending: e.pending_enabled }),
        persistence: device.is_in_persistent_mode().map_err(failure),
        compute: device.compute_mode().map(compute_mode).map_err(failure),
        virtualization: device.virtualization_mode().map(|mode| virtualization(&mode)).map_err(failure),
        host_vgpu: device.vgpu_host_mode().map(host_vgpu).map_err(failure),
        fastest: device.performance_state().map(|s| s == wrapped::PerformanceState::Zero).map_err(failure),
    }
}

fn compute_mode(mode: wrapped::ComputeMode) -> ComputeMode {
    match mode {
        wrapped::ComputeMode::Default => ComputeMode::Default,
        wrapped::ComputeMode::ExclusiveThread => ComputeMode::ExclusiveThread,
        wrapped::ComputeMode::Prohibited => ComputeMode::Prohibited,
        wrapped::ComputeMode::ExclusiveProcess => ComputeMode::ExclusiveProcess,
    }
}

fn virtualization(mode: &wrapped::GpuVirtualizationMode) -> Virtualization {
    match mode {
        wrapped::GpuVirtualizationMode::Bare => Virtualization::None,
        wrapped::GpuVirtualizationMode::PassThrough => Virtualization::Passthrough,
        wrapped::GpuVirtualizationMode::Vgpu => Virtualization::Vgpu,
        wrapped::GpuVirtualizationMode::HostVgpu => Virtualization::HostVgpu,
        wrapped::GpuVirtualizationMode::HostVsga => Virtualization::HostVsga,
    }
}

fn host_vgpu(mode: wrapped::HostVgpuMode) -> HostVgpu {
    match mode {
        wrapped::HostVgpuMode::NonSriov => HostVgpu::NonSriov,
        wrapped::HostVgpuMode::Sriov => HostVgpu::Sriov,
    }
}
