//! The numbers behind a reason, for explain and logs.

use std::collections::BTreeSet;

use berth_model::{GpuSet, LinkClass, MiB};

use crate::demand::{Shape, ShareMemory, ShareSlot};
use crate::device::Portion;
use crate::level;
use crate::policy::Policy;
use crate::unfit::Reason;
use crate::view::NodeView;
use crate::zone::{Device, FirstOnes, Site, admit};

/// The numbers behind a reason, for explain and logs.
#[must_use]
pub fn detail(reason: Reason, view: &NodeView, shape: &Shape, policy: &Policy) -> String {
    let asked = shape.device_count();
    let cards = shape.card_count_min();
    let topology = view.hardware.as_ref().map(|h| &h.topology);
    let total = topology.map_or(0, |t| t.all_gpus().gpu_count());
    let usable = topology.map_or(GpuSet::EMPTY, |t| t.usable_gpus());
    let free = view.unheld(usable);
    match reason {
        Reason::BadWish => format!("class {:?} is not in the policy", shape.class),
        Reason::LevelUnmet => {
            let (demanded, promised) = (level::demanded(view, policy), level::promised(view));
            format!("{} demanded, the report says {}", demanded.word(), promised.word())
        }
        Reason::UnknownNode
        | Reason::NoTopology
        | Reason::StaleTopology
        | Reason::PluginAway
        | Reason::LeaseStray
        | Reason::NoGpu => String::new(),
        Reason::NotOffered => match view.offered_gpu_count(policy.gpu_resources()) {
            None => format!("{asked} asked, allocatable names none of the GPU resources"),
            Some(offered) => format!("{asked} asked, {offered} allocatable"),
        },
        Reason::TooFewGpus => format!("{cards} asked, {total} on the node"),
        Reason::GpusUnhealthy => format!("{cards} asked, {} of {total} healthy", usable.gpu_count()),
        Reason::ProductUnmet => format!(
            "wished {}, the node has {}",
            shape.products.join(","),
            topology.map_or_else(String::new, |t| t.products())
        ),
        Reason::MemoryUnmet => format!("wished {}", shape.gpu_memory.unwrap_or_default()),
        Reason::NamedGpusAbsent => format!("{} named, {cards} asked", shape.named.len()),
        Reason::GpusBusy => {
            let unplanned = view.unplanned_gpu_count;
            let free = free.gpu_count().saturating_sub(unplanned);
            format!("{asked} asked, {free} of {total} free, {unplanned} held without a plan")
        }
        Reason::ShareTooLarge | Reason::CoresBusy | Reason::GpuMemoryBusy | Reason::SharesBusy => shares(view, shape),
        Reason::MigAbsent => format!("{} asked", profiles(shape)),
        Reason::MigNotOffered | Reason::MigUnmet | Reason::MigBusy => mig(view, shape, policy),
        Reason::LinkUnmet => format!("{asked} asked, joined by {}", wished_link(shape)),
        Reason::LinkBusy => format!("{asked} asked, joined by {}; free are {free}", wished_link(shape)),
        Reason::RailUnmet | Reason::RailBusy => {
            let railed = view.hardware.as_ref().map_or(GpuSet::EMPTY, |h| h.fabric.railed());
            format!(
                "{asked} asked; with a rail are {railed}; free are {free}; {} of their NICs are held",
                view.nics_held.nic_count()
            )
        }
        Reason::ZoneUnmet => format!("{asked} asked in one zone"),
        Reason::ZoneBusy => format!("{asked} asked in one zone; free are {free}"),
        Reason::KubeletUnmet | Reason::KubeletBusy => kubelet(view, shape),
    }
}

/// What the kubelet would say, and the zones as it sees them.
fn kubelet(view: &NodeView, shape: &Shape) -> String {
    let Some(site) = &view.site else { return String::new() };
    let zones: Vec<String> = site
        .zones
        .iter()
        .map(|zone| {
            let gib = zone.memory.get("memory").map_or(0, |m| m.free_bytes >> 30);
            let free =
                |devices: &Vec<Device>| devices.iter().filter(|d| d.is_free && d.zones.contains(zone.id)).count();
            let asked: BTreeSet<&String> = shape.ask.containers.iter().flat_map(|c| c.devices.keys()).collect();
            let asked = asked.into_iter().filter_map(|name| Some((name, site.devices.get(name)?)));
            let devices: Vec<String> =
                asked.map(|(name, devices)| format!(", {} {}", free(devices), noun(name))).collect();
            format!("zone {}: {} CPUs, {gib} GiB{} free", zone.id.0, zone.free_cpu_count, devices.concat())
        })
        .collect();
    let said = match admit(&mut Site::clone(site), &shape.ask, &mut FirstOnes) {
        Ok(_) => "the wished devices are not where it will look".to_owned(),
        Err((container, refusal)) => format!("{} at container {container}", refusal.api_reason()),
    };
    format!("{}, scope {}: {said}; {}", site.rules.policy.word(), site.rules.scope.word(), zones.join("; "))
}

/// `GPUs` of `nvidia.com/gpu`, `mig-1g.10gb` of its resource.
fn noun(resource: &str) -> &str {
    let short = resource.rsplit_once('/').map_or(resource, |(_, short)| short);
    if short == "gpu" { "GPUs" } else { short }
}

fn wished_link(shape: &Shape) -> String {
    match shape.link.map(|l| l.least) {
        Some(LinkClass::NvLink(_)) => "NVLink".to_owned(),
        Some(least) => format!("{least} or nearer"),
        None => "anything".to_owned(),
    }
}

fn profiles(shape: &Shape) -> String {
    let asked = shape.mig.iter().map(|(profile, count)| format!("{count} x {profile}"));
    let asked: Vec<String> = asked.collect();
    if asked.is_empty() { format!("{} MIG devices", shape.gpu_count) } else { asked.join(", ") }
}

/// `2 x 1g.10gb asked, 4 allocatable; free are 1 of 4 x 1g.10gb, 0 of 1 x 3g.40gb`.
fn mig(view: &NodeView, shape: &Shape, policy: &Policy) -> String {
    let prefix = policy.resources().mig_prefix.as_deref().unwrap_or_default();
    let offered = shape.mig.keys().map(|p| view.offered.get(&format!("{prefix}{p}")).copied().unwrap_or(0).to_string());
    let offered: Vec<String> = offered.collect();
    let offered = if offered.is_empty() { String::new() } else { format!(", {} allocatable", offered.join(", ")) };
    let free = view.hardware.as_ref().map(|h| super::mig::free_by_profile(view, h)).unwrap_or_default();
    let free = free.iter().map(|(profile, (free, all))| format!("{free} of {all} x {profile}"));
    let free: Vec<String> = free.collect();
    let free = if free.is_empty() { "none".to_owned() } else { free.join(", ") };
    format!("{} asked{offered}; free are {free}", profiles(shape))
}

/// `50% cores + 8192 MiB asked; free are GPU 0: 20% + 1024 MiB, ...`.
fn shares(view: &NodeView, shape: &Shape) -> String {
    let asked = |slot: &ShareSlot| {
        let cores = Some(slot.share.cores_percent).filter(|c| *c > 0).map(|c| format!("{c}% cores"));
        let memory = match slot.share.memory {
            ShareMemory::Nothing => None,
            ShareMemory::Exactly(memory) => Some(memory.to_string()),
            ShareMemory::All => Some("all memory".to_owned()),
        };
        [cores, memory].into_iter().flatten().collect::<Vec<_>>().join(" + ")
    };
    let asked: Vec<String> = shape.shares.iter().map(asked).collect();
    let gpus = view.hardware.as_ref().map_or(&[][..], |h| &h.topology.parts().gpus);
    let free = gpus.iter().filter(|g| g.health.is_usable() && !view.held.contains(g.index)).map(|gpu| {
        let taken = view.shared_on(gpu.index).map_or_else(Portion::default, |s| s.taken);
        let memory =
            gpu.memory.map_or_else(|| "? MiB".to_owned(), |all| MiB(all.0.saturating_sub(taken.memory.0)).to_string());
        format!("{}: {}% + {memory}", gpu.index, 100_u32.saturating_sub(taken.cores_percent))
    });
    let free: Vec<String> = free.collect();
    let free = if free.is_empty() { "none".to_owned() } else { free.join(", ") };
    format!("asked {}; free are {free}", asked.join(", "))
}
