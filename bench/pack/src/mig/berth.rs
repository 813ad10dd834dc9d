//! Berth itself, through `berth_core::place::mig`.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::place::mig::{Ask, Card, Occupied, Offer, Prices, Worth, choose};
use berth_model::{GpuIndex, Placement};

use super::cluster::{Board, Rule};

/// Choice by table.
#[derive(Debug)]
pub struct Table {
    board: Board,
    worth: Worth,
    /// Requests seen, by name of the profile; `None` where prices stay even.
    seen: Option<BTreeMap<String, u64>>,
    arrival_count: u64,
}

/// Most cards of one call.
const CARDS_PER_CALL: usize = 240;

/// After so many requests prices are made anew.
const PRICES_EVERY: u64 = 256;

impl Table {
    /// At even prices.
    #[must_use]
    pub fn even(board: &Board) -> Self {
        let worth = Worth::of(Arc::clone(&board.table), &Prices::even(&board.table));
        Self { board: board.clone(), worth, seen: None, arrival_count: 0 }
    }

    /// At prices from the demand seen so far, even ones at first.
    #[must_use]
    pub fn of_demand_seen(board: &Board) -> Self {
        Self { seen: Some(BTreeMap::new()), ..Self::even(board) }
    }
}

impl Rule for Table {
    fn place(&mut self, cards: &[Occupied], _gpus_per_node: usize, profile: usize) -> Option<(usize, Placement)> {
        let (name, _) = self.board.profiles.get(profile)?;
        let mut best: Option<(i64, usize, Placement)> = None;
        // What cards lose does not depend on their node: a call takes as many as there are numbers for.
        for (call, held) in cards.chunks(CARDS_PER_CALL).enumerate() {
            let card = |(occupied, gpu): (&Occupied, u8)| Card {
                gpu: GpuIndex(gpu),
                worth: &self.worth,
                occupied: *occupied,
                offer: Offer::Managed,
            };
            let cards: Vec<Card<'_>> = held.iter().zip(0_u8..).map(card).collect();
            let Some(choice) = choose(&cards, &[Ask { profile: name, count: 1 }]) else { continue };
            if let Some(given) = choice.given.first().filter(|_| best.is_none_or(|(score, ..)| choice.score > score)) {
                best = Some((choice.score, call * CARDS_PER_CALL + usize::from(given.gpu.0), given.placement));
            }
        }
        best.map(|(_, gpu, placement)| (gpu, placement))
    }

    fn seen(&mut self, profile: usize) {
        let Some((counts, (name, _))) = self.seen.as_mut().zip(self.board.profiles.get(profile)) else { return };
        *counts.entry((*name).to_owned()).or_default() += 1;
        self.arrival_count += 1;
        if self.arrival_count.is_multiple_of(PRICES_EVERY) {
            self.worth = Worth::of(Arc::clone(&self.board.table), &Prices::of(&self.board.table, counts));
        }
    }
}
