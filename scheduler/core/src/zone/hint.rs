//! Hints and their merge: which zones a container's CPUs, memory and devices should share, as the kubelet reckons it.
//!
//! Source: `pkg/kubelet/cm/topologymanager/{policy,policy_*,numa_info}.go` of Kubernetes 1.36.3. There the merge walks every
//! combination of hints; here equal intermediate results are met once, which gives the same best hint.

use std::collections::BTreeSet;

use berth_model::kubelet::TopologyManagerPolicy;

use super::mask::ZoneMask;

/// Zones where one resource can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hint {
    /// The zones; `None` where any will do.
    pub zones: Option<ZoneMask>,
    /// Whether no fewer zones would do on the empty machine.
    pub is_preferred: bool,
}

/// What one resource says: it does not care, or these. No hint at all is a resource that cannot be had.
pub(crate) type Offer = Option<Vec<Hint>>;

/// How hints become one.
#[derive(Clone, Copy)]
pub(crate) struct Merger<'a> {
    /// The kubelet's policy.
    pub(crate) policy: TopologyManagerPolicy,
    /// All zones of the machine.
    pub(crate) all: ZoneMask,
    /// Sum of distances inside a set, where the nearest is preferred among equally narrow ones.
    pub(crate) distance: Option<&'a dyn Fn(ZoneMask) -> u64>,
}

impl Merger<'_> {
    /// The hint for a container or pod, and whether the kubelet admits it.
    pub(crate) fn merge(self, offers: &[Offer]) -> (Hint, bool) {
        let is_single = self.policy == TopologyManagerPolicy::SingleNumaNode;
        let lists: Vec<Vec<Hint>> = offers.iter().map(|offer| listed(offer, is_single)).collect();
        let best_count = lists.iter().filter_map(|hints| narrowest_count(hints)).max().unwrap_or(0);
        let mut best: Option<Hint> = None;
        for merged in self.combinations(&lists) {
            if best.is_none_or(|current| self.is_better(merged, current, best_count)) {
                best = Some(merged);
            }
        }
        let mut best = best.unwrap_or(Hint { zones: Some(self.all), is_preferred: false });
        if is_single && best.zones == Some(self.all) {
            best.zones = None;
        }
        let is_admitted = match self.policy {
            TopologyManagerPolicy::Restricted | TopologyManagerPolicy::SingleNumaNode => best.is_preferred,
            TopologyManagerPolicy::None | TopologyManagerPolicy::BestEffort | TopologyManagerPolicy::Other => true,
        };
        (best, is_admitted)
    }

    /// Every hint that one of each list makes together, without those that leave no zone.
    fn combinations(self, lists: &[Vec<Hint>]) -> Vec<Hint> {
        // What is preferred so far has the same zones in every part, so that the parts need not be kept.
        let mut so_far: BTreeSet<Hint> = [Hint { zones: None, is_preferred: true }].into();
        for hints in lists {
            so_far = so_far.iter().flat_map(|a| hints.iter().map(|b| joined(*a, *b))).collect();
        }
        let within = |h: Hint| Hint { zones: Some(h.zones.map_or(self.all, |z| z.and(self.all))), ..h };
        so_far.into_iter().map(within).filter(|h| h.zones.is_some_and(|z| !z.is_empty())).collect()
    }

    fn is_better(self, candidate: Hint, current: Hint, best_count: u32) -> bool {
        if candidate.is_preferred != current.is_preferred {
            return candidate.is_preferred;
        }
        let (new, old) = (candidate.zones.unwrap_or(self.all), current.zones.unwrap_or(self.all));
        if !candidate.is_preferred {
            let (new_rank, old_rank) = (rank(new.zone_count(), best_count), rank(old.zone_count(), best_count));
            if new_rank != old_rank {
                return new_rank < old_rank;
            }
        }
        let nearest = self.distance.filter(|_| new.zone_count() == old.zone_count());
        match nearest.map(|distance| distance(new).cmp(&distance(old))) {
            None | Some(std::cmp::Ordering::Equal) => new.is_narrower_than(old),
            Some(order) => order.is_lt(),
        }
    }
}

/// Hints that are not preferred: as many zones as the neediest resource takes at least, else fewer, as near to that as can be, else more.
fn rank(count: u32, best_count: u32) -> (u8, u32) {
    match count.cmp(&best_count) {
        std::cmp::Ordering::Equal => (0, 0),
        std::cmp::Ordering::Less => (1, best_count.saturating_sub(count)),
        std::cmp::Ordering::Greater => (2, count),
    }
}

fn joined(a: Hint, b: Hint) -> Hint {
    let (zones, is_equal) = match (a.zones, b.zones) {
        (None, other) | (other, None) => (other, true),
        (Some(a), Some(b)) => (Some(a.and(b)), a == b),
    };
    Hint { zones, is_preferred: a.is_preferred && b.is_preferred && is_equal }
}

fn listed(offer: &Offer, is_single: bool) -> Vec<Hint> {
    let hints = match offer {
        None => vec![Hint { zones: None, is_preferred: true }],
        Some(hints) if hints.is_empty() => vec![Hint { zones: None, is_preferred: false }],
        Some(hints) => hints.clone(),
    };
    let will_do = |h: &Hint| !is_single || h.is_preferred && h.zones.is_none_or(|z| z.zone_count() == 1);
    hints.into_iter().filter(will_do).collect()
}

fn narrowest_count(hints: &[Hint]) -> Option<u32> {
    hints.iter().filter_map(|h| h.zones).map(ZoneMask::zone_count).min()
}
