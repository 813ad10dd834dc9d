//! Facts of a GPU as a machine file writes them.

use berth_model::CpuSet;
use berth_model::gpu::detail::{
    Architecture, ComputeMode, FabricHealth, FabricState, HostVgpu, PcieLink, Virtualization,
};
use serde::Deserialize;

use crate::scalar::Fact;
use crate::scalar::function::{Functions, VgpuTypes};
use crate::scalar::gpu::{Cluster, LinkCounts, MigRows, MigTable};

macro_rules! gpu_spec {
    ($($(#[$about:meta])* $field:ident: $kind:ty,)+) => {
        /// Facts of a GPU. At the top of the file they hold for all GPUs, at a leaf for one. What is not said is unknown.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        pub(crate) struct GpuSpec {
            $($(#[$about])* pub(crate) $field: Option<Fact<$kind>>,)+
        }

        impl GpuSpec {
            /// The facts of a leaf, with those of all GPUs where it says nothing.
            pub(crate) fn over(&self, all: &Self) -> Self {
                Self { $($field: self.$field.clone().or_else(|| all.$field.clone()),)+ }
            }
        }
    };
}

gpu_spec! {
    uuid: String,
    product: String,
    memory_mib: u64,
    mig: bool,
    /// `numa_node` of sysfs, where it differs from the host bridge's.
    zone: u16,
    /// Zones that NVML calls nearest; the zone of the host bridge unless said.
    memory_affinity: CpuSet,
    /// The zone that the GPU's own memory is.
    memory_zone: u16,
    serial: String,
    board_part: String,
    /// The GPU's index unless said.
    minor: u32,
    architecture: Architecture,
    memory_reserved_mib: u64,
    ecc: bool,
    /// As `ecc` unless said.
    ecc_pending: bool,
    ecc_volatile: u64,
    ecc_aggregate: u64,
    retired_pages: u32,
    retirement_pending: bool,
    /// Rows remapped after correctable errors; the four of row remapping are known together.
    rows_correctable: u32,
    rows_uncorrectable: u32,
    remap_pending: bool,
    remap_failed: bool,
    persistence: bool,
    compute_mode: ComputeMode,
    virtualization: Virtualization,
    host_vgpu: HostVgpu,
    /// Whether it is in P0.
    fastest: bool,
    /// `4x16`: generation and lanes now; as `pcieMax` unless said.
    pcie: PcieLink,
    pcie_max: PcieLink,
    /// What the bridge above it allows, in sysfs.
    slot: PcieLink,
    nvlink_version: u32,
    /// `3:100 7:1`: errors by link; links that are not named have none.
    nvlink_errors: LinkCounts,
    fabric: FabricState,
    fabric_failed: bool,
    /// Zeros, a fabric inside one machine, unless said.
    fabric_cluster: Cluster,
    fabric_clique: u32,
    fabric_health: FabricHealth,
    fabric_degraded: bool,
    /// As `mig` unless said.
    mig_pending: bool,
    /// A known board (`h100-80`), or profiles in one-line form, separated by `;`.
    mig_profiles: MigTable,
    /// `3g.40gb@4+4; 1g.10gb@0+1`: instances that exist.
    mig_instances: MigRows,
    /// Types of vGPU as mediated devices (sysfs), at the GPU itself or its virtual functions.
    vgpu_mdev: VgpuTypes,
    /// Types of vGPU by the vendor's own vfio driver (sysfs), at its virtual functions.
    vgpu_vfio: VgpuTypes,
    /// Its virtual functions.
    vgpu_functions: Functions,
}
