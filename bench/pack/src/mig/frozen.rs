//! Static MIG: every card is cut once, and requests choose among the instances that exist.

use anyhow::{Context, Result};
use berth_core::place::mig::{Ask, Card, Occupied, Offer, Prices, ProfileIndex, Worth, choose};
use berth_model::{GpuIndex, Placement};

use super::arrivals::{Mix, SLOTS};
use super::cluster::{Board, Rule};

/// How one card is cut: profile and start of every instance.
type Cut = &'static [(usize, u8)];

/// `all-balanced` of mig-parted. Source: github.com/NVIDIA/mig-parted `deployments/systemd/config-default.yaml`.
const BALANCED: Cut = &[(0, 0), (0, 1), (2, 2), (3, 4)];

/// For each profile the cut that has most of it, and of others what then fits.
const CUTS: [Cut; 6] = [
    &[(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6)],
    &[(1, 0), (1, 2), (1, 4), (1, 6)],
    &[(2, 0), (2, 2), (2, 4), (0, 6)],
    &[(3, 0), (3, 4)],
    &[(4, 0), (3, 4)],
    &[(5, 0)],
];

/// Cards that stay as they were cut.
#[derive(Debug)]
pub struct Frozen {
    board: Board,
    worth: Worth,
    cuts: Vec<Vec<(ProfileIndex, Placement)>>,
}

impl Frozen {
    /// Every card cut alike.
    ///
    /// # Errors
    /// A cut that the card does not allow: a defect.
    pub fn even(board: &Board, gpu_count: usize) -> Result<Self> {
        Self::of(board, &vec![BALANCED; gpu_count])
    }

    /// Cards cut for the mix, as an operator who knows it would: to each profile its part of the slots, largest profile first, and as
    /// many cards fewer for the 3g as those for the 4g already bring.
    ///
    /// # Errors
    /// A cut that the card does not allow: a defect.
    pub fn fitted(board: &Board, gpu_count: usize, mix: Mix) -> Result<Self> {
        let weight = |profile: usize| u64::from(mix.shares[profile] * SLOTS[profile]);
        // The 3g that come with 4g are taken off the 3g's own part.
        let own = |profile: usize| if profile == 3 { weight(3).saturating_sub(weight(4)) } else { weight(profile) };
        let whole: u64 = (0..6).map(|p| own(p) * if p == 4 { 2 } else { 1 }).sum();
        let mut cuts: Vec<Cut> = Vec::new();
        let mut sum = 0;
        for profile in [5, 4, 3, 2, 1, 0] {
            sum += own(profile) * if profile == 4 { 2 } else { 1 };
            let upto = u64::try_from(gpu_count)? * sum / whole.max(1);
            while u64::try_from(cuts.len())? < upto {
                cuts.push(CUTS[profile]);
            }
        }
        Self::of(board, &cuts)
    }

    fn of(board: &Board, cuts: &[Cut]) -> Result<Self> {
        let instance = |(profile, start): &(usize, u8)| {
            let placement = board.placements(*profile).iter().find(|p| p.start() == *start);
            Some((board.profiles.get(*profile)?.1, *placement?))
        };
        let card = |cut: &Cut| cut.iter().map(instance).collect::<Option<Vec<_>>>().context("no such placement");
        let cuts = cuts.iter().map(card).collect::<Result<_>>()?;
        let worth = Worth::of(board.table.clone(), &Prices::even(&board.table));
        Ok(Self { board: board.clone(), worth, cuts })
    }
}

impl Rule for Frozen {
    fn place(&mut self, cards: &[Occupied], gpus_per_node: usize, profile: usize) -> Option<(usize, Placement)> {
        let (name, _) = self.board.profiles.get(profile)?;
        for (node, held) in cards.chunks(gpus_per_node).enumerate() {
            let first = node * gpus_per_node;
            let card = |(position, occupied): (usize, &Occupied)| {
                let offer = Offer::Existing(self.cuts.get(first + position)?);
                Some(Card {
                    gpu: GpuIndex(u8::try_from(position).ok()?),
                    worth: &self.worth,
                    occupied: *occupied,
                    offer,
                })
            };
            let on_node: Vec<Card<'_>> = held.iter().enumerate().filter_map(card).collect();
            if let Some(given) =
                choose(&on_node, &[Ask { profile: name, count: 1 }]).and_then(|c| c.given.first().copied())
            {
                return Some((first + usize::from(given.gpu.0), given.placement));
            }
        }
        None
    }
}
