//! What a machine file says of a GPU beside identity and place, as the answers of its driver.

use berth_model::gpu::detail::{PcieLink, RowRemap};
use berth_model::{MigCapability, mig::MigInstance};
use berth_probe::facts::gpu::{
    DeviceDetail, FabricAndMigFacts, FabricFacts, IdentityFacts, MigInstanceFacts, MigProfileFacts, ModeFacts,
    NowAndPending, PcieFacts, WearFacts,
};
use berth_probe::facts::{Answer, NvmlFailure};

use super::refuse;
use crate::machine::{MachineError, MachineGpu};
use crate::scalar::Fact;
use crate::scalar::gpu::Cluster;
use crate::spec::gpu::GpuSpec;

const BYTES_PER_MIB: u64 = 1024 * 1024;

/// The answers. `field` is the path of the facts, for an error.
pub(super) fn detail(field: &str, index: u8, spec: &GpuSpec) -> Result<DeviceDetail, MachineError> {
    let pcie_max = said(&spec.pcie_max);
    let pcie = if spec.pcie.is_some() { said(&spec.pcie) } else { pcie_max.clone() };
    let generation = |link: &Answer<PcieLink>| link.clone().map(|l| u32::from(l.generation));
    let width = |link: &Answer<PcieLink>| link.clone().map(|l| u32::from(l.width));
    Ok(DeviceDetail {
        identity: IdentityFacts {
            serial: said(&spec.serial),
            part_number: said(&spec.board_part),
            minor: if spec.minor.is_some() { said(&spec.minor) } else { Ok(index.into()) },
            architecture: said(&spec.architecture),
            // One call tells both; zero is what a driver cannot mean.
            memory_reserved_bytes: said(&spec.memory_mib)
                .map(|_| said(&spec.memory_reserved_mib).unwrap_or(0).saturating_mul(BYTES_PER_MIB)),
        },
        modes: ModeFacts {
            ecc: said(&spec.ecc).map(|now| NowAndPending { now, pending: said(&spec.ecc_pending).unwrap_or(now) }),
            persistence: said(&spec.persistence),
            compute: said(&spec.compute_mode),
            virtualization: said(&spec.virtualization),
            host_vgpu: said(&spec.host_vgpu),
            fastest: said(&spec.fastest),
        },
        wear: wear(spec),
        pcie: PcieFacts {
            generation: generation(&pcie),
            generation_max: generation(&pcie_max),
            width: width(&pcie),
            width_max: width(&pcie_max),
        },
        parts: parts(field, spec)?,
    })
}

/// A GPU of which the driver says these facts now. What it is and where it sits stays.
pub(crate) fn with_facts(
    field: &str,
    index: u8,
    gpu: &MachineGpu,
    facts: &GpuSpec,
) -> Result<MachineGpu, MachineError> {
    Ok(MachineGpu {
        mig_enabled: said(&facts.mig).ok(),
        detail: detail(field, index, facts)?,
        nvlink_version: said(&facts.nvlink_version).ok(),
        nvlink_errors: said(&facts.nvlink_errors).ok().map(|counts| counts.0),
        ..gpu.clone()
    })
}

fn said<T: Clone>(fact: &Option<Fact<T>>) -> Answer<T> {
    fact.clone().and_then(Fact::known).ok_or(NvmlFailure::NotSupported)
}

fn wear(spec: &GpuSpec) -> WearFacts {
    let rows = [&spec.rows_correctable, &spec.rows_uncorrectable];
    let flags = [&spec.remap_pending, &spec.remap_failed];
    let known = rows.into_iter().any(|r| said(r).is_ok()) || flags.into_iter().any(|f| said(f).is_ok());
    let remap = RowRemap {
        correctable: said(&spec.rows_correctable).unwrap_or(0),
        uncorrectable: said(&spec.rows_uncorrectable).unwrap_or(0),
        pending: said(&spec.remap_pending).unwrap_or(false),
        failed: said(&spec.remap_failed).unwrap_or(false),
    };
    WearFacts {
        ecc_volatile: said(&spec.ecc_volatile),
        ecc_aggregate: said(&spec.ecc_aggregate),
        retired_pages: said(&spec.retired_pages),
        retirement_pending: said(&spec.retirement_pending),
        remap: if known { Ok(remap) } else { Err(NvmlFailure::NotSupported) },
    }
}

fn parts(field: &str, spec: &GpuSpec) -> Result<FabricAndMigFacts, MachineError> {
    let mig = said(&spec.mig);
    let mig_pending = mig.clone().map(|now| said(&spec.mig_pending).unwrap_or(now));
    // The probe asks for the tables only where MIG is on or about to be.
    let wanted = mig == Ok(true) || mig_pending == Ok(true);
    let table = said(&spec.mig_profiles).map(|t| t.0).unwrap_or_default();
    let rows = said(&spec.mig_instances).map(|r| r.0).unwrap_or_default();
    let instances = instances(field, &rows, &table)?;
    let or_unasked = |answer: bool| if answer { Ok(()) } else { Err(NvmlFailure::NotSupported) };
    Ok(FabricAndMigFacts {
        fabric: said(&spec.fabric).map(|state| FabricFacts {
            state,
            failed: said(&spec.fabric_failed).unwrap_or(false),
            cluster: said(&spec.fabric_cluster).unwrap_or(Cluster([0; 16])).0,
            clique: said(&spec.fabric_clique).unwrap_or(0),
            degraded: said(&spec.fabric_degraded).ok(),
            health: said(&spec.fabric_health).ok(),
        }),
        mig_pending,
        mig_profiles: or_unasked(wanted).map(|()| profiles(&table)),
        mig_instances: or_unasked(wanted).map(|()| instances),
    })
}

fn profiles(table: &MigCapability) -> Vec<MigProfileFacts> {
    let placements = |p: &berth_model::MigProfile| {
        p.placements().iter().map(|p| (u32::from(p.start()), u32::from(p.size()))).collect::<Vec<_>>()
    };
    let facts = table.profiles().iter().map(|profile| MigProfileFacts {
        id: profile.id(),
        name: Some(profile.name().to_owned()),
        slices: profile.slices().into(),
        memory_mib: profile.memory_mib(),
        instances_max: profile.instances_max().into(),
        placements: Ok(placements(profile)),
    });
    facts.collect()
}

/// Instances in the order of their starts; ids count up from 1. UUIDs come with the salt.
fn instances(field: &str, rows: &[String], table: &MigCapability) -> Result<Vec<MigInstanceFacts>, MachineError> {
    let field = format!("{field}.migInstances");
    let mut taken: Vec<MigInstance> = Vec::new();
    for row in rows {
        let Some(instance) = MigInstance::parse(row, table) else {
            return refuse(field, format!("{row:?} is no instance at a placement of migProfiles"));
        };
        taken.push(instance);
    }
    if MigInstance::slots(&taken).is_none() {
        return refuse(field, "two instances share a memory slot");
    }
    taken.sort_by_key(|i| i.placement.start());
    let facts = (1_u32..).zip(&taken).map(|(id, instance)| MigInstanceFacts {
        id,
        profile_id: table.by_name(&instance.profile).map_or(0, berth_model::MigProfile::id),
        start: instance.placement.start().into(),
        size: instance.placement.size().into(),
        uuids: Vec::new(),
    });
    Ok(facts.collect())
}
