//! Which MIG instances a pod gets, or why there are none.
//!
//! Instances that exist are chosen among. Nothing is planned that would have to be made first: no report says yet that an agent would.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{Gpu, GpuIndex, GpuSet, MigInstance, Placement, ZoneId};

use super::filtered;
use crate::demand::Shape;
use crate::device::MigSlot;
use crate::place::mig::{Ask, Card, Choice, Given, Occupied, Offer, ProfileIndex, Worth, choose, name};
use crate::policy::Policy;
use crate::unfit::Reason;
use crate::view::{Hardware, NodeView};
use crate::wish::Force;
use crate::zone::Seat;

/// One instance for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenInstance {
    /// The profile as the pod names it; `None` for a device of the plain GPU resource, which is an instance on nodes of strategy single.
    pub asked: Option<String>,
    /// The GPU.
    pub index: GpuIndex,
    /// The instance.
    pub slot: MigSlot,
    /// UUID of its device.
    pub uuid: String,
}

impl ChosenInstance {
    /// Whether it is this one.
    pub(super) fn is_at(&self, seat: Seat) -> bool {
        let at = |placement: Placement| (placement.start(), placement.size()) == (self.slot.start, self.slot.size);
        self.index == seat.gpu && seat.placement.is_some_and(at)
    }
}

/// Whether the node's GPU resource means MIG devices: it offers some, and no GPU of it could be given whole.
///
/// Source: strategy `single` of github.com/NVIDIA/k8s-device-plugin, `internal/rm`. Checked: 2026-11-20.
pub(super) fn is_single(view: &NodeView, hardware: &Hardware, policy: &Policy) -> bool {
    hardware.topology.is_all_cut() && view.offered_gpu_count(policy.gpu_resources()).is_some_and(|count| count > 0)
}

/// Whether the pod asks for MIG devices, by whatever name.
pub(super) fn is_asked(view: &NodeView, hardware: &Hardware, shape: &Shape, policy: &Policy) -> bool {
    !shape.mig.is_empty() || (shape.gpu_count > 0 && is_single(view, hardware, policy))
}

/// Where instances may be: on these GPUs, and where only some instances of them will do, among these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within<'a> {
    pub(super) gpus: GpuSet,
    pub(super) seats: Option<&'a BTreeSet<Seat>>,
}

/// Chooses all instances together.
pub(super) fn instances(
    view: &NodeView,
    hardware: &Hardware,
    within: Within<'_>,
    shape: &Shape,
    policy: &Policy,
) -> Result<Vec<ChosenInstance>, Reason> {
    let gpus = &hardware.topology.parts().gpus;
    let cut: GpuSet = gpus.iter().filter(|g| g.mig_enabled == Some(true)).map(|g| g.index).collect();
    if cut.is_empty() {
        return Err(Reason::MigAbsent);
    }
    let wanted = wanted(view, hardware, shape, policy)?;
    let healthy: GpuSet =
        gpus.iter().filter(|g| cut.contains(g.index) && g.health.is_usable()).map(|g| g.index).collect();
    if healthy.is_empty() {
        return Err(Reason::GpusUnhealthy);
    }
    let mut among = filtered(hardware, shape, healthy, 1)?.and(within.gpus);
    if shape.rail == Force::Required {
        among = among.and(hardware.fabric.railed());
        if among.is_empty() {
            return Err(Reason::RailUnmet);
        }
    }
    let cards = Cards { view, hardware, among, seats: within.seats };
    for want in &wanted {
        let exist = cards.count(&want.profile, |_, _| true);
        let free = cards.count(&want.profile, |index, instance| !cards.is_taken(index, instance));
        let unknown = unplanned(view, &want.profile);
        if exist < want.count {
            return Err(Reason::MigUnmet);
        }
        if free.saturating_sub(unknown) < want.count {
            return Err(Reason::MigBusy);
        }
    }
    let in_one_zone = shape.zone == Force::Required;
    cards.best(&wanted, in_one_zone).ok_or_else(|| {
        let idle = NodeView { instances: Vec::new(), held: GpuSet::EMPTY, shared: Vec::new(), ..view.clone() };
        match (in_one_zone, Cards { view: &idle, ..cards }.best(&wanted, in_one_zone)) {
            (true, Some(_)) => Reason::ZoneBusy,
            (true, None) => Reason::ZoneUnmet,
            (false, _) => Reason::MigBusy,
        }
    })
}

/// Instances of one profile that the pod wants.
struct Wanted {
    asked: Option<String>,
    profile: String,
    count: u32,
}

fn wanted(view: &NodeView, hardware: &Hardware, shape: &Shape, policy: &Policy) -> Result<Vec<Wanted>, Reason> {
    let prefix = policy.resources().mig_prefix.as_deref().unwrap_or_default();
    let mut wanted = Vec::new();
    for (profile, count) in &shape.mig {
        let offered = view.offered.get(&format!("{prefix}{profile}")).copied().unwrap_or(0);
        if offered < u64::from(*count) {
            return Err(Reason::MigNotOffered);
        }
        wanted.push(Wanted { asked: Some(profile.clone()), profile: profile.clone(), count: *count });
    }
    if shape.gpu_count > 0 && is_single(view, hardware, policy) {
        if view.offered_gpu_count(policy.gpu_resources()).unwrap_or(0) < shape.gpu_count {
            return Err(Reason::NotOffered);
        }
        // The plugin refuses to start with several profiles under strategy single, so any instance tells which.
        let gpus = &hardware.topology.parts().gpus;
        let profile = gpus.iter().flat_map(|gpu| &gpu.detail.mig_instances).map(|i| i.profile.clone()).next();
        wanted.push(Wanted { asked: None, profile: profile.ok_or(Reason::MigUnmet)?, count: shape.gpu_count });
    }
    Ok(wanted)
}

/// Instances of a profile that pods hold and nobody can name.
fn unplanned(view: &NodeView, profile: &str) -> u32 {
    let same = view.unplanned_instances.iter().filter(|(asked, _)| name::means(asked, profile));
    same.fold(0_u32, |sum, (_, count)| sum.saturating_add(*count))
}

/// The cards that instances are chosen of.
#[derive(Clone, Copy)]
struct Cards<'a> {
    view: &'a NodeView,
    hardware: &'a Hardware,
    among: GpuSet,
    seats: Option<&'a BTreeSet<Seat>>,
}

/// An instance that a container can be given: the device plugin advertises those with one device only.
fn is_whole(instance: &&MigInstance) -> bool {
    instance.uuids.len() == 1
}

impl<'a> Cards<'a> {
    fn gpus(&self) -> impl Iterator<Item = &'a Gpu> + '_ {
        self.hardware.topology.parts().gpus.iter().filter(|gpu| self.among.contains(gpu.index))
    }

    fn count(&self, profile: &str, keep: impl Fn(GpuIndex, &MigInstance) -> bool) -> u32 {
        let of = |gpu: &Gpu| {
            let own = gpu.detail.mig_instances.iter().filter(is_whole);
            own.filter(|i| name::means(profile, &i.profile) && keep(gpu.index, i)).count()
        };
        u32::try_from(self.gpus().filter(|gpu| self.hardware.worth(gpu.index).is_some()).map(of).sum::<usize>())
            .unwrap_or(u32::MAX)
    }

    fn is_taken(&self, index: GpuIndex, instance: &MigInstance) -> bool {
        self.view.holds_slots(index, instance.placement.mask())
    }

    fn best(&self, wanted: &[Wanted], in_one_zone: bool) -> Option<Vec<ChosenInstance>> {
        let zones: BTreeSet<Option<ZoneId>> = self.gpus().map(|gpu| gpu.zone).collect();
        let mut best: Option<(i64, Vec<ChosenInstance>)> = None;
        let groups: Vec<Option<ZoneId>> = zones.into_iter().flatten().map(Some).collect();
        for zone in if in_one_zone { groups } else { vec![None] } {
            let gpus: Vec<&Gpu> = self.gpus().filter(|gpu| zone.is_none() || gpu.zone == zone).collect();
            let Some((score, chosen)) = self.choose(&gpus, wanted) else { continue };
            if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                best = Some((score, chosen));
            }
        }
        best.map(|(_, chosen)| chosen)
    }

    fn choose(&self, gpus: &[&Gpu], wanted: &[Wanted]) -> Option<(i64, Vec<ChosenInstance>)> {
        type Existing = Vec<(ProfileIndex, Placement)>;
        let mut offers: Vec<(GpuIndex, &Worth, Occupied, Existing)> = Vec::new();
        for gpu in gpus {
            let Some(worth) = self.hardware.worth(gpu.index) else { continue };
            let is_in = |i: &&MigInstance| {
                let seat = Seat { gpu: gpu.index, placement: Some(i.placement) };
                self.seats.is_none_or(|seats| seats.contains(&seat)) && !self.is_taken(gpu.index, i)
            };
            let free = gpu.detail.mig_instances.iter().filter(is_whole).filter(is_in);
            let free: Existing = free.filter_map(|i| Some((worth.table().named(&i.profile)?, i.placement))).collect();
            offers.push((gpu.index, worth, occupied(self.view, gpu.index, worth), free));
        }
        let open = offers.iter().map(|(gpu, worth, occupied, free)| Card {
            gpu: *gpu,
            worth,
            occupied: *occupied,
            offer: Offer::Existing(free),
        });
        let open: Vec<Card<'_>> = open.collect();
        let asks: Vec<Ask<'_>> = wanted.iter().map(|w| Ask { profile: &w.profile, count: w.count }).collect();
        let Choice { given, score } = choose(&open, &asks)?;
        let instance = |given: Given| {
            let gpu = gpus.iter().find(|gpu| gpu.index == given.gpu)?;
            let instance = gpu.detail.mig_instances.iter().find(|i| i.placement == given.placement)?;
            let (start, size) = (given.placement.start(), given.placement.size());
            Some(ChosenInstance {
                asked: wanted.get(given.ask)?.asked.clone(),
                index: given.gpu,
                slot: MigSlot { profile: instance.profile.clone(), start, size },
                uuid: instance.uuids.first()?.clone(),
            })
        };
        Some((score, given.into_iter().map(instance).collect::<Option<_>>()?))
    }
}

/// An instance that costs nothing and is on an empty card has this much; one that ruins a card for all others has about a quarter of it.
const NO_LOSS_PPM: i64 = 750_000;

/// How good it is for the cards to give these instances, per instance: between 0 and a million, the higher the less is lost. `None`
/// without instances, or where a card cannot be what it would become.
pub(super) fn gain(view: &NodeView, hardware: &Hardware, chosen: &[ChosenInstance]) -> Option<u32> {
    let cards: GpuSet = chosen.iter().map(|instance| instance.index).collect();
    let mut sum = 0_i64;
    for index in cards.iter() {
        let worth = hardware.worth(index)?;
        let table = worth.table();
        let before = occupied(view, index, worth);
        let mut after = before;
        for ChosenInstance { slot, .. } in chosen.iter().filter(|instance| instance.index == index) {
            let profile = table.named(&slot.profile)?;
            after = after.with_existing(profile, table.placement(profile, slot.start, slot.size)?)?;
        }
        sum = sum.saturating_add(worth.gain(&before, &after)?);
    }
    let count = i64::try_from(chosen.len()).ok().filter(|count| *count > 0)?;
    // Pods of one shape get equally many, so that the mean orders nodes as the sum does.
    let ppm = NO_LOSS_PPM.saturating_add(sum.checked_div(count.saturating_mul(2))?);
    u32::try_from(ppm.clamp(0, 1_000_000)).ok()
}

/// What pods hold of a card; what the card does not offer any more is left out.
fn occupied(view: &NodeView, index: GpuIndex, worth: &Worth) -> Occupied {
    let table = worth.table();
    let held = view.instances.iter().filter(|held| held.index == index);
    held.fold(Occupied::default(), |occupied, held| {
        let profile = table.named(&held.slot.profile);
        let placed = profile.and_then(|p| Some((p, table.placement(p, held.slot.start, held.slot.size)?)));
        placed.and_then(|(profile, placement)| occupied.with_existing(profile, placement)).unwrap_or(occupied)
    })
}

/// Free instances by profile, for explain.
pub(super) fn free_by_profile(view: &NodeView, hardware: &Hardware) -> BTreeMap<String, (u32, u32)> {
    let cards = Cards { view, hardware, among: hardware.topology.all_gpus(), seats: None };
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for gpu in cards.gpus().filter(|gpu| gpu.health.is_usable()) {
        for instance in gpu.detail.mig_instances.iter().filter(is_whole) {
            let (free, all) = counts.entry(instance.profile.clone()).or_default();
            *all = all.saturating_add(1);
            *free = free.saturating_add(u32::from(!cards.is_taken(gpu.index, instance)));
        }
    }
    counts
}

/// Whether a node without a report offers and has left as many MIG devices, by number alone.
pub(super) fn by_count(view: &NodeView, shape: &Shape, policy: &Policy) -> Result<(), Reason> {
    let prefix = policy.resources().mig_prefix.as_deref().unwrap_or_default();
    for (profile, count) in &shape.mig {
        let offered = view.offered.get(&format!("{prefix}{profile}")).copied().unwrap_or(0);
        if offered < u64::from(*count) {
            return Err(Reason::MigNotOffered);
        }
        if offered.saturating_sub(u64::from(unplanned(view, profile))) < u64::from(*count) {
            return Err(Reason::MigBusy);
        }
    }
    Ok(())
}
