//! What others do, from their sources or papers, on the same draws.

use berth_core::place::mig::Occupied;
use berth_model::{Placement, SlotMask};

use super::arrivals::SLOTS;
use super::cluster::{Board, Rule};

/// A rule that looks at the slots in use only: for each profile and set of slots the best place and how good it is.
struct BySlots {
    /// Row per profile.
    best: [Vec<Option<(i64, Placement)>>; 6],
    /// Whether the node with the most free slots goes first, whatever the card.
    emptiest_node: bool,
}

/// Which of the free places is best: the profile, the slots in use, and the place. Among equals the lowest card and start.
type Value = Box<dyn Fn(usize, u8, Placement) -> i64>;

/// The rule of a name; `None` for one that is not here.
#[must_use]
pub fn by_name(name: &str, board: &Board) -> Option<Box<dyn Rule>> {
    let value: Value = match name {
        "first-fit" | "das" => Box::new(|_, _, p| -i64::from(p.start())),
        "best-fit" => Box::new(|_, taken, p| fullest(taken) - i64::from(p.start())),
        "hami" => Box::new(|profile, taken, p| fullest(taken) + from_the_top(profile, p)),
        "frag" => {
            let blocked = blocked(board);
            Box::new(move |_, taken, p| blocked[usize::from(taken)] - blocked[usize::from(taken | p.mask().bits())])
        }
        "cap" => {
            let room = room(board);
            Box::new(move |profile, taken, p| {
                // A sixth of the room lost, a tenth of the free slots, then the order of `hami`; all times 60,000.
                let lost = room[usize::from(taken)] - room[usize::from(taken | p.mask().bits())];
                -10_000 * lost - 6_000 * free(taken) + from_the_top(profile, p)
            })
        }
        _ => return None,
    };
    let row = |profile: usize| (0..=u8::MAX).map(|taken| best(board, profile, taken, &value)).collect();
    let mut rule = BySlots { best: [0, 1, 2, 3, 4, 5].map(row), emptiest_node: name == "das" };
    if name == "first-fit" {
        // Starts are compared, cards are not.
        let flat = rule.best.iter_mut().flatten().flatten();
        flat.for_each(|(value, _)| *value = 0);
    }
    Some(Box::new(rule))
}

fn best(board: &Board, profile: usize, taken: u8, value: &Value) -> Option<(i64, Placement)> {
    let free = board.placements(profile).iter().filter(|p| taken & p.mask().bits() == 0);
    let valued = free.map(|p| (value(profile, taken, *p), *p));
    valued.max_by_key(|(value, p)| (*value, std::cmp::Reverse(p.start())))
}

fn free(taken: u8) -> i64 {
    i64::from(taken.count_zeros())
}

fn fullest(taken: u8) -> i64 {
    -100 * free(taken)
}

/// HAMi tries 1g and 3g profiles from the highest start, all others from the lowest.
/// Source: github.com/Project-HAMi/HAMi `pkg/device/nvidia/mig_topology.go`.
fn from_the_top(profile: usize, p: Placement) -> i64 {
    if matches!(profile, 0 | 1 | 3) { i64::from(p.start()) } else { -i64::from(p.start()) }
}

/// By slots in use: for every profile that is small enough for what is free, its size times its starts that are blocked.
fn blocked(board: &Board) -> Vec<i64> {
    let of = |taken: u8| {
        let one = |profile: usize| {
            let blocked = board.placements(profile).iter().filter(|p| taken & p.mask().bits() != 0).count();
            let slots = i64::from(SLOTS[profile]);
            if slots <= free(taken) { slots * i64::try_from(blocked).unwrap_or(0) } else { 0 }
        };
        (0..6).map(one).sum()
    };
    (0..=u8::MAX).map(of).collect()
}

/// By slots in use: for every profile its size times how many more of it alone fit.
fn room(board: &Board) -> Vec<i64> {
    let of = |taken: u8| {
        let one = |profile: usize| {
            let mut used = taken;
            let mut fitted = 0;
            for p in board.placements(profile) {
                if used & p.mask().bits() == 0 {
                    used |= p.mask().bits();
                    fitted += i64::from(SLOTS[profile]);
                }
            }
            fitted
        };
        (0..6).map(one).sum()
    };
    (0..=u8::MAX).map(of).collect()
}

impl Rule for BySlots {
    fn place(&mut self, cards: &[Occupied], gpus_per_node: usize, profile: usize) -> Option<(usize, Placement)> {
        let node_free: Vec<i64> = if self.emptiest_node {
            let free = |node: &[Occupied]| node.iter().map(|c| free(c.slots().bits())).sum();
            cards.chunks(gpus_per_node).map(free).collect()
        } else {
            Vec::new()
        };
        let mut best: Option<(i64, usize, Placement)> = None;
        for (gpu, card) in cards.iter().enumerate() {
            let taken: SlotMask = card.slots();
            let Some((value, placement)) = self.best[profile][usize::from(taken.bits())] else { continue };
            let value = node_free.get(gpu / gpus_per_node).copied().unwrap_or(value);
            if best.is_none_or(|(highest, ..)| value > highest) {
                best = Some((value, gpu, placement));
            }
        }
        best.map(|(_, gpu, placement)| (gpu, placement))
    }
}
