//! Choices against brute force over all legal answers.

use super::*;

/// Splitmix64: enough chance for cases, the same on every machine.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// Grows a card by random legal instances.
fn random_state(table: &MigTable, chance: &mut Chance) -> Occupied {
    let mut card = Occupied::default();
    for _ in 0..chance.below(7) {
        let profiles: Vec<ProfileIndex> = table.profiles().map(|(p, _)| p).collect();
        let profile = profiles[chance.below(profiles.len())];
        let placements = table.kind(profile).unwrap().placements();
        if let Some(next) = card.with(table, profile, placements[chance.below(placements.len())]) {
            card = next;
        }
    }
    card
}

/// The highest sum of scores over every way to place the list, one instance after the other on any card in any slots.
fn brute(cards: &[Card<'_>], now: &mut Vec<Occupied>, list: &[&str]) -> Option<i64> {
    let Some((first, rest)) = list.split_first() else {
        let touched = cards.iter().zip(now.iter()).filter(|(card, now)| card.occupied != **now);
        let score = |(card, now): (&Card<'_>, &Occupied)| {
            card.worth.score(table::LayoutKey::of(&card.occupied), table::LayoutKey::of(now)).unwrap()
        };
        return Some(touched.map(score).sum());
    };
    let mut best = None;
    for (position, card) in cards.iter().enumerate() {
        let table = card.worth.table();
        let Some(profile) = table.named(first) else { continue };
        let held = now[position];
        let options: Vec<Occupied> = match card.offer {
            Offer::Managed => {
                let placements = table.kind(profile).unwrap().placements().iter();
                placements.filter_map(|p| held.with(table, profile, *p)).collect()
            }
            Offer::Existing(list) => {
                let same = list.iter().filter(|(p, _)| *p == profile);
                same.filter_map(|(p, placement)| held.with_existing(*p, *placement)).collect()
            }
        };
        for next in options {
            now[position] = next;
            best = best.max(brute(cards, now, rest));
        }
        now[position] = held;
    }
    best
}

/// Applies a choice; fails where anything in it is illegal or not what was asked for.
fn apply(cards: &[Card<'_>], asks: &[Ask<'_>], choice: &Choice) -> Vec<Occupied> {
    let mut now: Vec<Occupied> = cards.iter().map(|c| c.occupied).collect();
    for given in &choice.given {
        let position = cards.iter().position(|c| c.gpu == given.gpu).unwrap();
        let table = cards[position].worth.table();
        assert_eq!(table.named(asks[given.ask].profile), Some(given.profile));
        now[position] = match cards[position].offer {
            Offer::Managed => now[position].with(table, given.profile, given.placement).unwrap(),
            Offer::Existing(list) => {
                assert!(list.contains(&(given.profile, given.placement)));
                now[position].with_existing(given.profile, given.placement).unwrap()
            }
        };
    }
    for (position, ask) in asks.iter().enumerate() {
        let given = choice.given.iter().filter(|g| g.ask == position).count();
        assert_eq!(u32::try_from(given).unwrap(), ask.count);
    }
    now
}

#[test]
fn joint_choices_equal_brute_force_over_all_legal_answers() {
    let boards: Vec<Worth> = ["a100-40", "h100-80", "a30"].iter().map(|b| worth(b)).collect();
    let chance = &mut Chance(42);
    let mut placed = 0;
    for case in 0..40_000 {
        let layouts: Vec<(usize, Occupied, Cut)> = (0..=chance.below(3))
            .map(|_| {
                let board = if chance.below(5) == 0 { 2 } else { case % 2 };
                let state = random_state(boards[board].table(), chance);
                (board, state, state.instances().collect())
            })
            .collect();
        let cards: Vec<Card<'_>> = layouts
            .iter()
            .zip(0_u8..)
            .map(|((board, state, instances), gpu)| {
                let mut card =
                    Card { gpu: GpuIndex(gpu), worth: &boards[*board], occupied: *state, offer: Offer::Managed };
                if chance.below(4) == 0 {
                    // The layout stays as it is; some of its instances are in use.
                    let held = instances.iter().filter(|_| chance.below(2) == 0);
                    card.occupied = held.fold(Occupied::default(), |c, (p, at)| c.with_existing(*p, *at).unwrap());
                    card.offer = Offer::Existing(instances);
                }
                card
            })
            .collect();
        let names: Vec<String> =
            boards[case % 2].table().profiles().map(|(_, k)| name::resource_form(k.name())).collect();
        let mut wanted: Vec<(usize, u32)> = Vec::new();
        for _ in 0..=chance.below(3) {
            // Small profiles more often, or nearly nothing fits.
            let profile = chance.below(names.len()).min(chance.below(names.len()));
            match wanted.iter_mut().find(|(p, _)| *p == profile) {
                Some((_, count)) => *count += 1,
                None => wanted.push((profile, 1)),
            }
        }
        let asks: Vec<Ask<'_>> = wanted.iter().map(|(p, count)| Ask { profile: &names[*p], count: *count }).collect();
        let list: Vec<&str> = asks.iter().flat_map(|a| (0..a.count).map(|_| a.profile)).collect();
        let choice = choose(&cards, &asks);
        let mut now: Vec<Occupied> = cards.iter().map(|c| c.occupied).collect();
        assert_eq!(choice.as_ref().map(|c| c.score), brute(&cards, &mut now, &list), "case {case}: {cards:?} {asks:?}");
        if let Some(choice) = choice {
            placed += 1;
            let after = apply(&cards, &asks, &choice);
            let touched = cards.iter().zip(&after).filter(|(card, after)| card.occupied != **after);
            let score = |(card, after): (&Card<'_>, &Occupied)| {
                card.worth.score(table::LayoutKey::of(&card.occupied), table::LayoutKey::of(after)).unwrap()
            };
            assert_eq!(touched.map(score).sum::<i64>(), choice.score, "case {case}");
        }
    }
    assert!(placed > 10_000, "{placed} of the cases have an answer: they test little");
}

#[test]
fn the_table_names_the_best_place_of_every_profile_beside_every_layout() {
    for board in ["a100-80", "a30"] {
        let worth = worth(board);
        let table = Arc::clone(worth.table());
        let names: Vec<String> = table.profiles().map(|(_, k)| k.name().to_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for state in states(&table, &names) {
            for (profile, kind) in table.profiles() {
                let before = table::LayoutKey::of(&state);
                let score = |p: &berth_model::Placement| {
                    let next = state.with_existing(profile, *p)?;
                    Some((worth.score(before, table::LayoutKey::of(&next))?, p.start()))
                };
                let best = kind.placements().iter().filter_map(score).max();
                assert_eq!(worth.best(&state, profile).map(|b| (b.score, b.placement.start())), best);
            }
        }
    }
}

#[test]
fn a_pod_of_more_kinds_than_are_told_apart_is_still_placed_legally() {
    let worth = worth("h100-80");
    let cards: Vec<Card<'_>> = (0..32).map(|gpu| managed(&worth, gpu, &[])).collect();
    let asks = asks(&[("1g.10gb", 20), ("1g.10gb.me", 9), ("1g.20gb", 11), ("2g.20gb", 9), ("3g.40gb", 7)]);
    assert!(asks.iter().map(|a| usize::try_from(a.count).unwrap() + 1).product::<usize>() > joint::PARTS_MAX);
    let choice = choose(&cards, &asks).unwrap();
    apply(&cards, &asks, &choice);
}
