//! The MIG slots of a GPU as tree and picture show them: what lies where, what is free, and what still fits.

use berth_model::{Gpu, SlotMask};

use super::size::ranges;

/// A run of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// First slot.
    pub(crate) start: u8,
    /// Slots.
    pub(crate) size: u8,
    /// The instance that is there; `None` for free slots.
    pub(crate) instance: Option<Instance>,
}

/// A GPU instance in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Profile, e.g. `3g.40gb`.
    pub(crate) profile: String,
    /// Its devices.
    pub(crate) uuids: Vec<String>,
}

/// The slots of a GPU under MIG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slots {
    /// How many there are.
    pub(crate) count: u8,
    /// Instances and free runs in order, without gaps.
    pub(crate) runs: Vec<Run>,
    /// Names of the profiles of which one more instance fits.
    pub(crate) room: Vec<String>,
}

impl Run {
    /// `slots 4-7`, `slot 0`.
    pub(crate) fn text(&self) -> String {
        let word = if self.size == 1 { "slot" } else { "slots" };
        let end = u32::from(self.start) + u32::from(self.size);
        format!("{word} {}", ranges(u32::from(self.start)..end))
    }
}

/// The slots of a GPU; `None` where MIG is off or its slots are not known.
pub(crate) fn slots(gpu: &Gpu) -> Option<Slots> {
    let (instances, profiles) = (&gpu.detail.mig_instances, gpu.detail.board.mig.profiles());
    let ends = profiles.iter().flat_map(|p| p.placements()).chain(instances.iter().map(|i| &i.placement));
    let count = ends.map(|p| p.start() + p.size()).max().filter(|_| gpu.mig_enabled == Some(true))?;
    let mut runs: Vec<Run> = Vec::new();
    let mut taken = SlotMask::EMPTY;
    let mut next = 0;
    let free = |start: u8, end: u8| (start < end).then(|| Run { start, size: end - start, instance: None });
    for instance in instances {
        let (start, size) = (instance.placement.start(), instance.placement.size());
        runs.extend(free(next, start));
        let shown = Instance { profile: instance.profile.clone(), uuids: instance.uuids.clone() };
        runs.push(Run { start, size, instance: Some(shown) });
        taken = taken.join_disjoint(instance.placement.mask()).unwrap_or(taken);
        next = next.max(start + size);
    }
    runs.extend(free(next, count));
    let held = |name: &str| instances.iter().filter(|i| i.profile == name).count();
    let fits = profiles.iter().filter(|p| held(p.name()) < usize::from(p.instances_max()));
    let fits = fits.filter(|p| p.free_placements(taken).next().is_some());
    Some(Slots { count, runs, room: fits.map(|p| p.name().to_owned()).collect() })
}

impl Slots {
    /// A line for each instance, and one for what is free.
    pub(crate) fn lines(&self) -> Vec<String> {
        let told = |run: &Run| {
            let instance = run.instance.as_ref()?;
            let uuids: String = instance.uuids.iter().map(|uuid| format!("  {uuid}")).collect();
            Some(format!("{}  {}{uuids}", run.text(), instance.profile))
        };
        let mut lines: Vec<String> = self.runs.iter().filter_map(told).collect();
        let free: Vec<String> = self.runs.iter().filter(|r| r.instance.is_none()).map(Run::text).collect();
        if !free.is_empty() {
            let room = if self.room.is_empty() { "no profile".to_owned() } else { self.room.join(" ") };
            lines.push(format!("free: {}  room for {room}", free.join(", ")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_model::gpu::detail::Board;
    use berth_model::mig::MigInstance;
    use berth_model::mig::catalog::KnownBoard;

    use super::*;
    use crate::render::sample::Sample;

    fn gpu(instances: &[&str]) -> Gpu {
        let mut gpu = Sample::new(&["X"], &[0], &[]).parts.gpus.remove(0);
        let mig = KnownBoard::by_name("h100-80").unwrap().capability().unwrap();
        gpu.mig_enabled = Some(true);
        gpu.detail.mig_instances = instances.iter().map(|i| MigInstance::parse(i, &mig).unwrap()).collect();
        gpu.detail.board = Arc::new(Board { mig, ..Board::default() });
        gpu
    }

    #[test]
    fn instances_stand_at_their_slots_and_the_rest_is_free_with_what_fits() {
        let slots = slots(&gpu(&["1g.10gb@0+1 MIG-a", "3g.40gb@4+4 MIG-b"])).unwrap();
        let expected = [
            "slot 0  1g.10gb  MIG-a",
            "slots 4-7  3g.40gb  MIG-b",
            "free: slots 1-3  room for 1g.10gb 1g.10gb+me 1g.20gb 2g.20gb",
        ];
        assert_eq!(slots.lines(), expected);
        assert_eq!(slots.runs.iter().map(|r| r.size).sum::<u8>(), slots.count);
    }

    #[test]
    fn a_slot_that_no_profile_reaches_and_a_full_gpu_are_told_apart() {
        let ones: Vec<String> = (0..7).map(|i| format!("1g.10gb@{i}+1")).collect();
        let ones: Vec<&str> = ones.iter().map(String::as_str).collect();
        assert_eq!(slots(&gpu(&ones)).unwrap().lines()[7], "free: slot 7  room for no profile");
        assert_eq!(slots(&gpu(&["7g.80gb@0+8"])).unwrap().lines(), ["slots 0-7  7g.80gb"]);
        let empty = slots(&gpu(&[])).unwrap().lines();
        assert!(empty.len() == 1 && empty[0].starts_with("free: slots 0-7  room for 1g.10gb "), "{empty:?}");
    }

    #[test]
    fn slots_are_not_shown_where_mig_is_off_or_nothing_is_known_of_them() {
        let mut off = gpu(&[]);
        off.mig_enabled = Some(false);
        assert_eq!(slots(&off), None);
        let mut mute = Sample::new(&["X"], &[0], &[]).parts.gpus.remove(0);
        mute.mig_enabled = Some(true);
        assert_eq!(slots(&mute), None);
    }
}
