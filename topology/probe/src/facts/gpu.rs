//! Answers about one GPU beyond identity and place, each with the call that gives it.
//!
//! The call stands beside the field, so that "a library without this call" is one rule for all of them: [`DeviceDetail::hide`].

use berth_model::gpu::detail::{Architecture, ComputeMode, FabricState, HostVgpu, RowRemap, Virtualization};

use super::{Answer, NvmlFailure};

/// How a library refuses a call, whatever it is asked about; `None` where it answers.
pub type Refusals<'a> = &'a dyn Fn(&str) -> Option<NvmlFailure>;

/// What becomes of an answer that several calls give, newest first. An older one is asked only where the library lacks the newer.
#[must_use]
pub fn refused_of(refusals: Refusals<'_>, symbols: &[&str]) -> Option<NvmlFailure> {
    let mut why = None;
    for symbol in symbols {
        why = refusals(symbol);
        if why != Some(NvmlFailure::NoSymbol) {
            break;
        }
    }
    why
}

macro_rules! answers {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $answer:ty = $($symbol:literal)|+,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$about])* pub $field: Answer<$answer>,)+
        }

        impl $name {
            /// A device that answers every question with this failure.
            #[must_use]
            pub fn silent(why: &NvmlFailure) -> Self {
                Self { $($field: Err(why.clone()),)+ }
            }

            /// Takes away what a library that refuses some calls does not answer.
            pub fn hide(&mut self, refusals: Refusals<'_>) {
                $(if let Some(why) = refused_of(refusals, &[$($symbol),+]) {
                    self.$field = Err(why);
                })+
            }
        }
    };
}

answers! {
    /// What a GPU is.
    IdentityFacts {
        /// Serial number of the board.
        serial: String = "nvmlDeviceGetSerial",
        /// Part number of the board.
        part_number: String = "nvmlDeviceGetBoardPartNumber",
        /// Number of the device file.
        minor: u32 = "nvmlDeviceGetMinorNumber",
        /// Architecture.
        architecture: Architecture = "nvmlDeviceGetArchitecture",
        /// Frame buffer that the driver keeps for itself, in bytes.
        memory_reserved_bytes: u64 = "nvmlDeviceGetMemoryInfo_v2",
    }
}

answers! {
    /// How a GPU is set up.
    ModeFacts {
        /// Whether ECC is on now and after the next reset.
        ecc: NowAndPending = "nvmlDeviceGetEccMode",
        /// Whether the driver keeps the GPU initialised.
        persistence: bool = "nvmlDeviceGetPersistenceMode",
        /// Who may make CUDA contexts.
        compute: ComputeMode = "nvmlDeviceGetComputeMode",
        /// Guest, host or bare metal.
        virtualization: Virtualization = "nvmlDeviceGetVirtualizationMode",
        /// How it serves vGPUs.
        host_vgpu: HostVgpu = "nvmlDeviceGetHostVgpuMode",
        /// Whether it is in its fastest performance state, P0: only there its PCIe link shows what it can.
        fastest: bool = "nvmlDeviceGetPerformanceState",
    }
}

answers! {
    /// What a GPU's memory has gone through.
    WearFacts {
        /// Uncorrectable ECC errors since the driver was loaded.
        ecc_volatile: u64 = "nvmlDeviceGetTotalEccErrors",
        /// Uncorrectable ECC errors in the GPU's life.
        ecc_aggregate: u64 = "nvmlDeviceGetTotalEccErrors",
        /// Pages taken out of use.
        retired_pages: u32 = "nvmlDeviceGetRetiredPages_v2",
        /// Whether pages wait to be taken out.
        retirement_pending: bool = "nvmlDeviceGetRetiredPagesPendingStatus",
        /// Row remapping.
        remap: RowRemap = "nvmlDeviceGetRemappedRows",
    }
}

answers! {
    /// A GPU's PCIe link.
    PcieFacts {
        /// Generation now; an idle GPU lowers it.
        generation: u32 = "nvmlDeviceGetCurrPcieLinkGeneration",
        /// Highest generation of GPU and slot together.
        generation_max: u32 = "nvmlDeviceGetMaxPcieLinkGeneration",
        /// Lanes now.
        width: u32 = "nvmlDeviceGetCurrPcieLinkWidth",
        /// Most lanes.
        width_max: u32 = "nvmlDeviceGetMaxPcieLinkWidth",
    }
}

answers! {
    /// What a GPU says of fabric and MIG.
    FabricAndMigFacts {
        /// The NVSwitch fabric. `NotSupported` for a GPU without one.
        fabric: FabricFacts = "nvmlDeviceGetGpuFabricInfoV" | "nvmlDeviceGetGpuFabricInfo",
        /// Whether MIG is on after the next reset.
        mig_pending: bool = "nvmlDeviceGetMigMode",
        /// Profiles; asked for only where MIG is on or about to be.
        mig_profiles: Vec<MigProfileFacts> =
            "nvmlDeviceGetGpuInstanceProfileInfoV" | "nvmlDeviceGetGpuInstanceProfileInfo",
        /// GPU instances that exist; asked for as profiles are.
        mig_instances: Vec<MigInstanceFacts> = "nvmlDeviceGetGpuInstances",
    }
}

/// A mode that changes with the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NowAndPending {
    /// Now.
    pub now: bool,
    /// After the next reset.
    pub pending: bool,
}

/// All of the above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDetail {
    /// What it is.
    pub identity: IdentityFacts,
    /// How it is set up.
    pub modes: ModeFacts,
    /// What its memory has gone through.
    pub wear: WearFacts,
    /// Its PCIe link.
    pub pcie: PcieFacts,
    /// Fabric and MIG.
    pub parts: FabricAndMigFacts,
}

impl DeviceDetail {
    /// A device that answers every question with this failure.
    #[must_use]
    pub fn silent(why: &NvmlFailure) -> Self {
        Self {
            identity: IdentityFacts::silent(why),
            modes: ModeFacts::silent(why),
            wear: WearFacts::silent(why),
            pcie: PcieFacts::silent(why),
            parts: FabricAndMigFacts::silent(why),
        }
    }

    /// Takes away what a library that refuses some calls does not answer.
    pub fn hide(&mut self, refusals: Refusals<'_>) {
        let lacks = |symbol: &str| refusals(symbol) == Some(NvmlFailure::NoSymbol);
        self.identity.hide(refusals);
        self.modes.hide(refusals);
        self.wear.hide(refusals);
        self.pcie.hide(refusals);
        self.parts.hide(refusals);
        // Without the mode the tables are not asked for, and without profiles no instances.
        if let Some(why) = refusals("nvmlDeviceGetMigMode") {
            self.parts.mig_profiles = Err(why);
        }
        if let Some(why) = self.parts.mig_profiles.as_ref().err().cloned().or(refusals("nvmlGpuInstanceGetInfo")) {
            self.parts.mig_instances = Err(why);
        }
        const DEVICE_CALLS: [&str; 3] =
            ["nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId"];
        if DEVICE_CALLS.iter().any(|symbol| refusals(symbol).is_some()) {
            self.parts.mig_instances.iter_mut().flatten().for_each(|i| i.uuids.clear());
        }
        if let Ok(fabric) = &mut self.parts.fabric
            && lacks("nvmlDeviceGetGpuFabricInfoV")
        {
            // The first form of the call knows no health.
            (fabric.degraded, fabric.health) = (None, None);
        }
        if let Ok(fabric) = &mut self.parts.fabric
            && lacks("nvmlDeviceGetGpuFabricInfoV/v3")
        {
            // The second struct has no summary.
            fabric.health = None;
        }
        for profile in self.parts.mig_profiles.iter_mut().flatten() {
            if lacks("nvmlDeviceGetGpuInstanceProfileInfoV") {
                profile.name = None;
            }
            if let Some(why) = refusals("nvmlDeviceGetGpuInstancePossiblePlacements_v2") {
                profile.placements = Err(why);
            }
        }
    }
}

/// The NVSwitch fabric as a GPU sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricFacts {
    /// How far registration is.
    pub state: FabricState,
    /// Whether registration failed.
    pub failed: bool,
    /// UUID of the cluster; all zero on a fabric inside one machine.
    pub cluster: [u8; 16],
    /// Clique in the cluster.
    pub clique: u32,
    /// Whether bandwidth is degraded, where the mask says.
    pub degraded: Option<bool>,
    /// Health summary, where it is given.
    pub health: Option<berth_model::gpu::detail::FabricHealth>,
}

/// A GPU instance profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigProfileFacts {
    /// The board's number of it.
    pub id: u32,
    /// Name without the leading `MIG `; the first form of the call has none.
    pub name: Option<String>,
    /// Compute slices.
    pub slices: u32,
    /// Memory of an instance.
    pub memory_mib: u64,
    /// Most instances.
    pub instances_max: u32,
    /// Where an instance may lie: start and size in memory slots.
    pub placements: Answer<Vec<(u32, u32)>>,
}

/// A GPU instance that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigInstanceFacts {
    /// Number of the instance.
    pub id: u32,
    /// Its profile.
    pub profile_id: u32,
    /// First memory slot.
    pub start: u32,
    /// Memory slots.
    pub size: u32,
    /// UUIDs of the devices in it; empty where the library lacks a call for that.
    pub uuids: Vec<String>,
}
