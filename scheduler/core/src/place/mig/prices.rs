//! What room for one more instance of each profile is worth: the only thing about MIG that moves with the workload.

use std::collections::BTreeMap;

use super::table::{Kind, MigTable};

/// A price per profile of one kind of card. Only their ratios count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prices(Vec<u32>);

/// The price of room for an instance of one slot.
const ONE: u64 = 1024;

impl Prices {
    /// Prices for a workload of which nothing is known: every way to lie on the card counts once. Profiles that lie alike share one
    /// price, or a card would be valued by how many names its driver has.
    #[must_use]
    pub fn even(table: &MigTable) -> Self {
        let price = |kind: &Kind| if kind.is_first_of_geometry() { by_slots(kind) } else { 0 };
        Self(table.profiles().map(|(_, kind)| quantised(price(kind))).collect())
    }

    /// Prices for a workload that asks for profiles as often as counted, by the name that follows the resource's prefix. Names that the
    /// card does not know count for nothing; with no known name prices are even.
    ///
    /// A profile's price grows with the fourth root of its count only: by plain counts the small ones, which are many, would let no
    /// room be kept for the large ones. Source: `bench/README.md`, mig, "tried".
    #[must_use]
    pub fn of(table: &MigTable, counts: &BTreeMap<String, u64>) -> Self {
        let mut known = vec![0_u64; table.profiles().count()];
        for (name, count) in counts {
            if let Some(sum) = table.named(name).and_then(|index| known.get_mut(index.at())) {
                *sum = sum.saturating_add(*count);
            }
        }
        if known.iter().all(|count| *count == 0) {
            return Self::even(table);
        }
        let price = |(count, (_, kind)): (&u64, (_, &Kind))| {
            quantised(by_slots(kind).saturating_mul(fourth_root(*count)) / ONE)
        };
        Self(known.iter().zip(table.profiles()).map(price).collect())
    }

    /// The price of each profile, in the order of the table.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

/// Room for a larger instance is worth more, but less than its slots say. Source: `bench/README.md`, mig, "tried".
fn by_slots(kind: &Kind) -> u64 {
    fourth_root(u64::from(kind.slots()).saturating_pow(3))
}

/// The fourth root, in [`ONE`]ths.
fn fourth_root(of: u64) -> u64 {
    // 40 bits more under the root are 10 bits more of it, which is ONE; 24 bits are left for the number.
    of.min((1 << 24) - 1).wrapping_shl(40).isqrt().isqrt()
}

fn quantised(price: u64) -> u32 {
    u32::try_from(price).unwrap_or(u32::MAX)
}
