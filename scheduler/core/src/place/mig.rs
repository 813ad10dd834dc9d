//! MIG: which memory slots of which cards a pod's instances get.
//!
//! Everything comes from the placements that a report gives for a card, so no kind of card has code of its own. [`MigTable`] is made once
//! per kind of card, [`Worth`] once per kind and [`Prices`], and [`choose`] looks up. What is legal is held by types: [`Occupied`] can
//! only be grown by [`Occupied::with`], which refuses what overlaps, what the card never offered, and what its caps forbid.
//!
//! A card's worth is what could still be put on it: for every profile, how many more instances of it alone fit, now and after some of
//! the instances there have ended, times the profile's price. An instance goes where worth falls least. Why that and not another
//! rule is measured in `bench/README.md`.

pub mod joint;
pub mod name;
pub mod occupied;
pub mod prices;
pub mod table;
pub mod worth;

pub use joint::{Ask, Card, Choice, Given, Offer, choose};
pub use occupied::Occupied;
pub use prices::Prices;
pub use table::{MigTable, ProfileIndex};
pub use worth::{Best, Worth};

#[cfg(test)]
mod tests;
