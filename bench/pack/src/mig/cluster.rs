//! Many cards, a queue of endings, and a rule that says where a request goes. No rule can place anything illegal: cards grow through
//! `berth_core`'s own type.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use anyhow::{Context, Result};
use berth_core::place::mig::{MigTable, Occupied, ProfileIndex};
use berth_model::Placement;
use berth_model::mig::catalog::KnownBoard;

use super::arrivals::{Request, SLOTS};

/// The kind of card that everything runs on.
#[derive(Debug, Clone)]
pub struct Board {
    /// Its table.
    pub table: Arc<MigTable>,
    /// The profiles of the bench in its order, by name and position.
    pub profiles: [(&'static str, ProfileIndex); 6],
}

const NAMES: [&str; 6] = ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"];

impl Board {
    /// An A100 with 40 GB, with all its profiles: those of the bench and `1g.5gb+me`, for which nobody asks.
    ///
    /// # Errors
    /// The catalog lacks it: a defect.
    pub fn a100() -> Result<Self> {
        let capability = KnownBoard::by_name("a100-40").context("the catalog has no a100-40")?.capability()?;
        let table = MigTable::of(&capability).context("an A100 has no placements")?;
        let mut profiles = Vec::new();
        for name in NAMES {
            profiles.push((name, table.named(name).with_context(|| format!("no profile {name}"))?));
        }
        let profiles = profiles.try_into().ok().context("six profiles")?;
        Ok(Self { table, profiles })
    }

    /// Where an instance of a profile may lie.
    #[must_use]
    pub fn placements(&self, profile: usize) -> &[Placement] {
        self.profiles.get(profile).and_then(|(_, index)| self.table.kind(*index)).map_or(&[], |kind| kind.placements())
    }
}

/// Who decides.
pub trait Rule {
    /// The card and place for a request, or none. `cards` are in order, node by node.
    fn place(&mut self, cards: &[Occupied], gpus_per_node: usize, profile: usize) -> Option<(usize, Placement)>;

    /// A request has arrived, whether or not it will be placed.
    fn seen(&mut self, _profile: usize) {}
}

/// What came and what was turned away, by profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Requests.
    pub asked: [u64; 6],
    /// Those that were placed.
    pub placed: [u64; 6],
}

impl Tally {
    /// Counts one request.
    pub fn count(&mut self, profile: usize, is_placed: bool) {
        if let (Some(asked), Some(placed)) = (self.asked.get_mut(profile), self.placed.get_mut(profile)) {
            *asked += 1;
            *placed += u64::from(is_placed);
        }
    }

    /// Percent of the requests turned away.
    #[must_use]
    pub fn rejected_pct(&self) -> f64 {
        lost(self.placed.iter().sum(), self.asked.iter().sum())
    }

    /// Percent of the slots asked for that were turned away.
    #[must_use]
    pub fn rejected_slots_pct(&self) -> f64 {
        let slots = |counts: [u64; 6]| counts.iter().zip(SLOTS).map(|(c, s)| c * u64::from(s)).sum::<u64>();
        lost(slots(self.placed), slots(self.asked))
    }
}

fn lost(placed: u64, asked: u64) -> f64 {
    let float = |n: u64| u32::try_from(n).map_or(f64::MAX, f64::from);
    if asked == 0 { 0.0 } else { 100.0 * (1.0 - float(placed) / float(asked)) }
}

/// Runs the requests under a rule.
///
/// # Panics
/// Where the rule names a place that is not free or not legal: a defect of the rule that must not pass for a result.
pub fn run(board: &Board, requests: &[Request], gpu_count: usize, gpus_per_node: usize, rule: &mut dyn Rule) -> Tally {
    let mut cards = vec![Occupied::default(); gpu_count];
    let mut endings: BinaryHeap<Reverse<(u64, usize, u8)>> = BinaryHeap::new();
    let mut tally = Tally::default();
    let warm = requests.len() / 5;
    for (number, request) in requests.iter().enumerate() {
        while let Some(Reverse((_, gpu, start))) = endings.peek().copied().filter(|Reverse((at, ..))| *at <= request.at)
        {
            endings.pop();
            cards[gpu] = cards[gpu].without(start).unwrap_or(cards[gpu]);
        }
        rule.seen(request.profile);
        let place = rule.place(&cards, gpus_per_node, request.profile);
        if let Some((gpu, placement)) = place {
            let next = cards[gpu].with(&board.table, board.profiles[request.profile].1, placement);
            assert!(
                next.is_some(),
                "the rule placed {} at {} of {:?}",
                NAMES[request.profile],
                placement.start(),
                cards[gpu]
            );
            cards[gpu] = next.unwrap_or_default();
            endings.push(Reverse((request.until, gpu, placement.start())));
        }
        if number >= warm {
            tally.count(request.profile, place.is_some());
        }
    }
    tally
}
