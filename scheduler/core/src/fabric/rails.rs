//! Rails: which NIC goes with which GPU, one NIC per GPU, under the same PCIe switch.
//!
//! GPUs and NICs under one switch form a component of their own; what a set of GPUs can get is the sum over the components. Inside
//! one the best matching is exact, by a table over its GPU sets that takes the NICs one after the other.

use berth_model::{GpuIndex, GpuSet, NicSet};

/// A NIC that is under the switch of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rail {
    pub(super) gpu: GpuIndex,
    /// Position in the report.
    pub(super) nic: usize,
    /// Whether one switch is all that is between them, not a chain of switches.
    pub(super) is_nearest: bool,
}

/// What the GPUs of a set get: how many of them a NIC of their own, and how many of those the nearest kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Matched {
    /// GPUs with a NIC of their own.
    pub gpu_count: u32,
    /// Those whose NIC is at most one switch away.
    pub nearest_count: u32,
}

/// Most GPUs of one component that are matched exactly: 65,536 sets. Beyond it every GPU takes the first free NIC.
const EXACT_GPUS_MAX: usize = 16;

/// A value of the table: matched GPUs in units of [`UNIT`] plus those matched nearest; zero is the empty matching.
type Value = u16;
const UNIT: Value = 64;
/// Not matchable as a whole.
const NONE: Value = Value::MAX;

/// What every GPU set can get of the NICs given.
#[derive(Debug, Clone)]
pub struct Rails {
    components: Vec<Component>,
}

#[derive(Debug, Clone)]
struct Component {
    gpus: GpuSet,
    rails: Vec<Rail>,
    /// By subset of `gpus`, packed: the best matching in it. Empty where the component is too large.
    best: Vec<Value>,
}

impl Rails {
    /// The rails whose NICs are in `free`.
    pub(super) fn of(rails: &[Rail], free: NicSet) -> Self {
        let mut left: Vec<Rail> = rails.iter().copied().filter(|r| free.contains(r.nic)).collect();
        let mut components = Vec::new();
        while let Some(first) = left.first().copied() {
            let (gpus, nics) = reach(&left, first);
            let (own, other): (Vec<Rail>, Vec<Rail>) = left.into_iter().partition(|r| nics.contains(r.nic));
            components.push(Component::of(gpus, own));
            left = other;
        }
        Self { components }
    }

    /// What the GPUs of the set get at best.
    #[must_use]
    pub fn matched(&self, set: GpuSet) -> Matched {
        self.components.iter().fold(Matched::default(), |sum, component| {
            let part = component.matched(set);
            Matched {
                gpu_count: sum.gpu_count.saturating_add(part.gpu_count),
                nearest_count: sum.nearest_count.saturating_add(part.nearest_count),
            }
        })
    }

    /// GPUs with at least one NIC.
    #[must_use]
    pub fn gpus(&self) -> GpuSet {
        self.components.iter().fold(GpuSet::EMPTY, |set, c| set.or(c.gpus))
    }

    /// Whether every GPU of the set gets a NIC of its own.
    #[must_use]
    pub fn serves(&self, set: GpuSet) -> bool {
        set.is_subset(self.gpus()) && self.matched(set).gpu_count == set.gpu_count()
    }

    /// The NICs of a best matching, each with its GPU, in the order of the GPUs: of equal ones that with the lowest NICs.
    #[must_use]
    pub fn assign(&self, set: GpuSet) -> Vec<(GpuIndex, usize)> {
        let mut assigned: Vec<_> = self.components.iter().flat_map(|c| c.assign(set)).collect();
        assigned.sort_unstable();
        assigned
    }
}

/// GPUs and NICs that hang together with the first rail.
fn reach(rails: &[Rail], first: Rail) -> (GpuSet, NicSet) {
    let (mut gpus, mut nics) = (GpuSet::EMPTY.with(first.gpu), NicSet::EMPTY.with(first.nic));
    // Every round adds a NIC or ends.
    loop {
        let before = (gpus, nics);
        for rail in rails {
            if gpus.contains(rail.gpu) || nics.contains(rail.nic) {
                gpus = gpus.with(rail.gpu);
                nics = nics.with(rail.nic);
            }
        }
        if before == (gpus, nics) {
            return before;
        }
    }
}

impl Component {
    fn of(gpus: GpuSet, rails: Vec<Rail>) -> Self {
        let mut component = Self { gpus, rails, best: Vec::new() };
        if let Some(whole) = component.layers().pop() {
            component.best = best_within(&whole);
        }
        component
    }

    fn place_of(&self, gpu: GpuIndex) -> usize {
        self.gpus.iter().position(|g| g == gpu).unwrap_or(usize::MAX)
    }

    /// The set's part of the component, packed.
    fn pack(&self, set: GpuSet) -> usize {
        let places = self.gpus.iter().enumerate().filter(|(_, g)| set.contains(*g)).map(|(place, _)| place);
        places.fold(0, |packed, place| packed | bit(place))
    }

    fn nics(&self) -> Vec<usize> {
        let mut nics: Vec<usize> = self.rails.iter().map(|r| r.nic).collect();
        nics.sort_unstable();
        nics.dedup();
        nics
    }

    /// After none, one, two, ... of the NICs: by set the most nearest rails when exactly that set is matched. Nothing where the
    /// component is too large.
    fn layers(&self) -> Vec<Vec<Value>> {
        let count = usize::try_from(self.gpus.gpu_count()).unwrap_or(usize::MAX);
        if count > EXACT_GPUS_MAX {
            return Vec::new();
        }
        let mut none = vec![NONE; bit(count)];
        if let Some(empty) = none.first_mut() {
            *empty = 0;
        }
        let mut layers = vec![none];
        for nic in self.nics() {
            let Some(before) = layers.last() else { break };
            let mut after = before.clone();
            for rail in self.rails.iter().filter(|r| r.nic == nic) {
                let own = bit(self.place_of(rail.gpu));
                for (set, value) in before.iter().enumerate().filter(|(set, v)| **v != NONE && set & own == 0) {
                    let grown = value.saturating_add(value_of(*rail));
                    if let Some(cell) = after.get_mut(set | own).filter(|c| **c == NONE || **c < grown) {
                        *cell = grown;
                    }
                }
            }
            layers.push(after);
        }
        layers
    }

    fn matched(&self, set: GpuSet) -> Matched {
        let set = set.and(self.gpus);
        if self.best.is_empty() {
            let count = u32::try_from(self.first_come(set).len()).unwrap_or(0);
            return Matched { gpu_count: count, nearest_count: 0 };
        }
        let value = self.best.get(self.pack(set)).copied().unwrap_or(0);
        Matched { gpu_count: u32::from(value / UNIT), nearest_count: u32::from(value % UNIT) }
    }

    fn assign(&self, set: GpuSet) -> Vec<(GpuIndex, usize)> {
        let set = set.and(self.gpus);
        let layers = self.layers();
        let Some(whole) = layers.last() else { return self.first_come(set) };
        let packed = self.pack(set);
        let wanted = self.best.get(packed).copied().unwrap_or(0);
        let is_best = |(part, value): &(usize, &Value)| part & !packed == 0 && **value == wanted;
        let mut part = whole.iter().enumerate().find(is_best).map_or(0, |(part, _)| part);
        let mut assigned = Vec::new();
        // From the last NIC to the first: one that the part can do without stays free.
        for (before, nic) in layers.iter().zip(self.nics()).rev() {
            let value = |set: usize| before.get(set).copied().filter(|v| *v != NONE);
            let now = assigned
                .iter()
                .fold(wanted, |left: Value, (rail, _): &(Rail, usize)| left.saturating_sub(value_of(*rail)));
            if value(part) == Some(now) {
                continue;
            }
            let takes = |rail: &&Rail| {
                let own = bit(self.place_of(rail.gpu));
                let rest = value(part & !own).map(|v| v.saturating_add(value_of(**rail)));
                rail.nic == nic && part & own != 0 && rest == Some(now)
            };
            if let Some(rail) = self.rails.iter().find(takes) {
                part &= !bit(self.place_of(rail.gpu));
                assigned.push((*rail, nic));
            }
        }
        assigned.into_iter().map(|(rail, nic)| (rail.gpu, nic)).collect()
    }

    /// Every GPU in order takes its first NIC that is still free.
    fn first_come(&self, set: GpuSet) -> Vec<(GpuIndex, usize)> {
        let mut taken = NicSet::EMPTY;
        let mut assigned = Vec::new();
        for gpu in set.iter() {
            if let Some(rail) = self.rails.iter().find(|r| r.gpu == gpu && !taken.contains(r.nic)) {
                taken = taken.with(rail.nic);
                assigned.push((gpu, rail.nic));
            }
        }
        assigned
    }
}

fn value_of(rail: Rail) -> Value {
    UNIT.saturating_add(Value::from(rail.is_nearest))
}

fn bit(place: usize) -> usize {
    u32::try_from(place).ok().and_then(|p| 1_usize.checked_shl(p)).unwrap_or(0)
}

/// By set the best of all its parts that can be matched as a whole.
fn best_within(whole: &[Value]) -> Vec<Value> {
    let mut best = vec![0; whole.len()];
    for (set, value) in whole.iter().enumerate() {
        let mut found = if *value == NONE { 0 } else { *value };
        let mut rest = set;
        while rest != 0 {
            let one = rest & rest.wrapping_neg();
            rest ^= one;
            found = found.max(best.get(set ^ one).copied().unwrap_or(0));
        }
        if let Some(cell) = best.get_mut(set) {
            *cell = found;
        }
    }
    best
}
