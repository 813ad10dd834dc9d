//! The host of a machine file: its CPUs must be those of the zones.

use std::collections::BTreeSet;

use berth_model::{Cpu, CpuGroups};

use super::refuse;
use crate::machine::{MachineError, MachineHost, MachineZone};
use crate::scalar::Fact;
use crate::spec::HostFactsSpec;

pub(super) fn host(spec: HostFactsSpec, zones: &[MachineZone]) -> Result<MachineHost, MachineError> {
    let cpus: BTreeSet<u32> = zones.iter().flat_map(|z| &z.cpus).flat_map(|cpus| cpus.cpus()).collect();
    let groups = |field: &str, given: Option<Fact<CpuGroups>>| -> Result<Option<CpuGroups>, MachineError> {
        let groups = given.and_then(Fact::known);
        // A kernel shows each online CPU in one group of each kind, and no other CPU.
        let grouped = |g: &CpuGroups| g.groups().flat_map(|g| g.cpus().collect::<Vec<_>>()).collect::<BTreeSet<u32>>();
        match &groups {
            Some(wrong) if grouped(wrong) != cpus => {
                refuse(format!("host.{field}"), "every CPU of the zones, and no other, must be in a group")
            }
            _ => Ok(groups),
        }
    };
    Ok(MachineHost {
        cpu: Cpu {
            vendor: spec.cpu_vendor.and_then(Fact::known),
            model: spec.cpu_model.and_then(Fact::known),
            flags: spec.cpu_flags.and_then(Fact::known).map(|f| f.0),
            cores: groups("cores", spec.cores)?,
            sockets: groups("sockets", spec.sockets)?,
            l3_caches: groups("l3Caches", spec.l3_caches)?,
            isolated: spec.isolated.and_then(Fact::known),
            nohz_full: spec.nohz_full.and_then(Fact::known),
            governor: spec.governor.and_then(Fact::known),
        },
        transparent_huge_pages: spec.transparent_huge_pages.and_then(Fact::known),
        samepage_merging: spec.samepage_merging.and_then(Fact::known),
        kubelet_config: spec.kubelet_config.and_then(Fact::known).map(|d| d.0),
    })
}
