//! Details of GPUs for this crate's tests: those of a healthy GPU, and a strategy for all others.

use std::sync::Arc;

use berth_model::gpu::detail::{
    Architecture, Board, ComputeMode, Fabric, FabricClique, FabricHealth, FabricState, HostVgpu, NvLinkErrors,
    PcieLink, RowRemap, Virtualization, Wear,
};
use berth_model::mig::MigInstance;
use berth_model::mig::catalog::KnownBoard;
use berth_model::{GpuDetail, MiB};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A GPU of a DGX H100 with a driver that tells everything, and nothing wrong.
pub(crate) fn healthy(index: u8) -> GpuDetail {
    let full = PcieLink::new(5, 16);
    GpuDetail {
        board: Arc::new(Board {
            part_number: Some("692-2G520-0200-000".to_owned()),
            architecture: Some(Architecture::Hopper),
            memory_reserved: Some(MiB(551)),
            nvlink_count: Some(18),
            nvlink_version: Some(4),
            pcie_max: full,
            ecc: Some(true),
            persistence: Some(true),
            compute_mode: Some(ComputeMode::Default),
            virtualization: Some(Virtualization::None),
            host_vgpu: None,
            fabric: Some(Fabric {
                state: FabricState::Completed,
                failed: false,
                clique: None,
                health: Some(FabricHealth::Healthy),
                degraded: Some(false),
            }),
            mig: berth_model::MigCapability::default(),
        }),
        serial: Some(format!("165432300{index:04}")),
        minor: Some(index.into()),
        wear: Wear {
            ecc_volatile: Some(0),
            ecc_aggregate: Some(0),
            retired_pages: None,
            retirement_pending: None,
            remap: Some(RowRemap::default()),
        },
        nvlinks_down: Vec::new(),
        nvlink_errors: Some(Vec::new()),
        pcie: full,
        mig_pending: None,
        mig_instances: Vec::new(),
    }
}

fn link() -> impl Strategy<Value = Option<PcieLink>> {
    option::of((1_u8..7, select(vec![1_u8, 4, 8, 16])).prop_map(|(g, w)| PcieLink::new(g, w).unwrap()))
}

fn fabric() -> impl Strategy<Value = Fabric> {
    let clique = ("[0-9a-f-]{1,36}", 0_u32..100_000).prop_map(|(cluster, clique)| FabricClique { cluster, clique });
    let health = option::of(select(FabricHealth::ALL.to_vec()));
    let state = select(FabricState::ALL.to_vec());
    (state, any::<bool>(), option::of(clique), health, any::<Option<bool>>())
        .prop_map(|(state, failed, clique, health, degraded)| Fabric { state, failed, clique, health, degraded })
}

fn board() -> impl Strategy<Value = Board> {
    let what = (option::of("[!-~]{1,30}"), option::of(select(Architecture::ALL.to_vec())), option::of(0_u64..1 << 40));
    let links = (option::of(0_u8..19), option::of(1_u8..6), link());
    let modes = (
        any::<(Option<bool>, Option<bool>)>(),
        option::of(select(ComputeMode::ALL.to_vec())),
        option::of(select(Virtualization::ALL.to_vec())),
        option::of(select(HostVgpu::ALL.to_vec())),
    );
    let mig = select(vec!["", "h100-80", "a30"]);
    (what, links, modes, option::of(fabric()), mig).prop_map(|(what, links, modes, fabric, mig)| {
        let ((ecc, persistence), compute_mode, virtualization, host_vgpu) = modes;
        Board {
            part_number: what.0,
            architecture: what.1,
            memory_reserved: what.2.map(MiB),
            nvlink_count: links.0,
            nvlink_version: links.1,
            pcie_max: links.2,
            ecc,
            persistence,
            compute_mode,
            virtualization,
            host_vgpu,
            fabric,
            mig: KnownBoard::by_name(mig).map(|b| b.capability().unwrap()).unwrap_or_default(),
        }
    })
}

fn wear() -> impl Strategy<Value = Wear> {
    let remap = (0_u32..600, 0_u32..600, any::<(bool, bool)>()).prop_map(|(correctable, uncorrectable, flags)| {
        RowRemap { correctable, uncorrectable, pending: flags.0, failed: flags.1 }
    });
    let count = || option::of((0..=i64::MAX).prop_map(i64::cast_unsigned));
    (count(), count(), option::of(0_u32..100), any::<Option<bool>>(), option::of(remap)).prop_map(
        |(ecc_volatile, ecc_aggregate, retired_pages, retirement_pending, remap)| Wear {
            ecc_volatile,
            ecc_aggregate,
            retired_pages,
            retirement_pending,
            remap,
        },
    )
}

/// Instances of the first profile at every second slot that it offers.
fn instances(board: &Board, uuids: &[String]) -> Vec<MigInstance> {
    let profile = board.mig.profiles().first();
    let placements = profile.into_iter().flat_map(|p| p.placements().iter().map(|at| (p.name(), *at)));
    let spread = placements.step_by(2).zip(uuids);
    let instance = |((profile, placement), uuid): ((&str, _), &String)| MigInstance {
        placement,
        profile: profile.to_owned(),
        uuids: vec![uuid.clone()],
    };
    spread.map(instance).collect()
}

/// Every legal detail whose texts keep the limits.
pub(crate) fn detail() -> impl Strategy<Value = GpuDetail> {
    let errors = vec((0_u8..18, 1..u64::MAX).prop_map(|(l, c)| NvLinkErrors::of(l, c).unwrap()), 0..4);
    let own = (option::of("[A-Z0-9]{1,20}"), option::of(0_u32..300), any::<Option<bool>>());
    let links = (vec(0_u8..18, 0..4), option::of(errors), link(), vec("MIG-[0-9a-f]{1,36}", 0..5));
    (board(), own, wear(), links).prop_map(|(board, own, wear, (nvlinks_down, nvlink_errors, pcie, uuids))| GpuDetail {
        serial: own.0,
        minor: own.1,
        wear,
        nvlinks_down,
        nvlink_errors,
        // The best link is not known where the driver does not tell the link.
        pcie,
        mig_pending: own.2,
        mig_instances: instances(&board, &uuids),
        board: Arc::new(board),
    })
}
