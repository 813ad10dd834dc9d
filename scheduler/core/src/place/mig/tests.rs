//! Claims about tables and choices of MIG. What is legal is checked against the plain lists of `hardware` facts, not against the code.

mod oracle;
mod steps;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::mig::catalog::KnownBoard;
use berth_model::{GpuIndex, MigCapability, MigProfile};

use super::*;

/// The instances of a card that is cut once.
type Cut = Vec<(ProfileIndex, berth_model::Placement)>;

/// The table of a known board.
fn table(board: &str) -> Arc<MigTable> {
    MigTable::of(&KnownBoard::by_name(board).unwrap().capability().unwrap()).unwrap()
}

/// Its worths at even prices.
fn worth(board: &str) -> Worth {
    let table = table(board);
    let prices = Prices::even(&table);
    Worth::of(table, &prices)
}

/// A table of profiles in the one-line form.
fn table_of(rows: &[&str]) -> Arc<MigTable> {
    let profiles = rows.iter().map(|row| MigProfile::parse(row).unwrap()).collect();
    MigTable::of(&MigCapability::try_new(profiles).unwrap()).unwrap()
}

/// A card with these instances: profile, start.
fn occupied(table: &MigTable, instances: &[(&str, u8)]) -> Occupied {
    instances.iter().fold(Occupied::default(), |card, (name, start)| {
        let profile = table.named(name).unwrap();
        let placement = table.kind(profile).unwrap().placements().iter().find(|p| p.start() == *start).unwrap();
        card.with(table, profile, *placement).unwrap()
    })
}

fn managed(worth: &Worth, gpu: u8, instances: &[(&str, u8)]) -> Card<'static> {
    // Tests keep their few tables for the whole run.
    let worth: &'static Worth = Box::leak(Box::new(Worth::of(Arc::clone(worth.table()), &Prices::even(worth.table()))));
    Card { gpu: GpuIndex(gpu), worth, occupied: occupied(worth.table(), instances), offer: Offer::Managed }
}

fn asks(list: &[(&'static str, u32)]) -> Vec<Ask<'static>> {
    list.iter().map(|(profile, count)| Ask { profile, count: *count }).collect()
}

/// Card and first slot of everything given.
fn places(choice: Option<Choice>) -> Option<Vec<(u8, u8)>> {
    choice.map(|c| c.given.iter().map(|g| (g.gpu.0, g.placement.start())).collect())
}

/// Every state that a card can be brought to with the named profiles.
fn states(table: &MigTable, names: &[&str]) -> BTreeSet<Occupied> {
    let profiles: Vec<ProfileIndex> = names.iter().map(|n| table.named(n).unwrap()).collect();
    let mut found = BTreeSet::from([Occupied::default()]);
    let mut open = vec![Occupied::default()];
    while let Some(card) = open.pop() {
        for profile in &profiles {
            for placement in table.kind(*profile).unwrap().placements() {
                if let Some(next) = card.with(table, *profile, *placement).filter(|next| found.insert(*next)) {
                    open.push(next);
                }
            }
        }
    }
    found
}

#[test]
fn a_card_has_as_many_states_as_were_counted_by_hand() {
    let plain = ["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
    let h100 = table("h100-80");
    assert_eq!(states(&h100, &plain).len(), 298);
    assert_eq!(states(&h100, &[&plain[..], &["1g.20gb"]].concat()).len(), 723);
    assert_eq!(states(&h100, &[&plain[..], &["1g.20gb", "1g.10gb.me"]].concat()).len(), 2319);
    assert_eq!(states(&table("a30"), &["1g.6gb", "2g.12gb", "4g.24gb"]).len(), 26);
}

#[test]
fn a_state_does_not_depend_on_the_order_in_which_instances_came_and_went() {
    let table = table("h100-80");
    let a = occupied(&table, &[("3g.40gb", 4), ("1g.10gb", 0), ("1g.10gb.me", 2)]);
    let b = occupied(&table, &[("1g.10gb.me", 2), ("2g.20gb", 0), ("3g.40gb", 4)]).without(0).unwrap();
    assert_eq!(a, occupied(&table, &[("1g.10gb", 0)]).with_all(&table, &b));
    assert_eq!(a.without(1), None);
    assert_eq!(a.without(0).unwrap(), b);
}

impl Occupied {
    /// With all instances of another card.
    fn with_all(self, table: &MigTable, other: &Self) -> Self {
        other.instances().fold(self, |card, (profile, placement)| card.with(table, profile, placement).unwrap())
    }
}

#[test]
fn what_overlaps_is_not_offered_or_is_beyond_a_cap_is_refused() {
    let table = table("h100-80");
    let card = occupied(&table, &[("1g.10gb.me", 6)]);
    let named = |name: &str| table.named(name).unwrap();
    let at = |name: &str, start, size| table.placement(named(name), start, size);
    assert_eq!(card.with(&table, named("3g.40gb"), at("3g.40gb", 4, 4).unwrap()), None, "slot 6 is taken");
    assert_eq!(card.with(&table, named("2g.20gb"), at("1g.20gb", 6, 2).unwrap()), None, "a 2g may not lie at 6");
    assert_eq!(card.with(&table, named("1g.10gb+me"), at("1g.10gb+me", 0, 1).unwrap()), None, "there is one extension");
    assert!(card.with(&table, named("1g.10gb"), at("1g.10gb", 0, 1).unwrap()).is_some());
    assert_eq!((table.named("1g.10gb.gfx"), table.named("1g.5gb"), table.named("")), (None, None, None));
}

#[test]
fn an_instance_with_all_media_engines_leaves_the_card_to_those_without() {
    let table = table_of(&[
        "1g.24gb 14 1 24192 4 1@0,1,2,3",
        "1g.24gb+me.all 65 1 24192 1 1@0,1,2,3",
        "1g.24gb-me 67 1 24192 4 1@0,1,2,3",
        "4g.96gb 0 4 97280 1 4@0",
    ]);
    let prices = Prices::even(&table);
    let worth = Worth::of(Arc::clone(&table), &prices);
    let card = managed(&worth, 0, &[("1g.24gb.me.all", 3)]);
    assert_eq!(choose(&[card], &asks(&[("1g.24gb", 1)])), None);
    assert_eq!(places(choose(&[card], &asks(&[("1g.24gb-me", 3)]))), Some(vec![(0, 0), (0, 1), (0, 2)]));
    let plain = managed(&worth, 0, &[("1g.24gb", 3)]);
    assert_eq!(choose(&[plain], &asks(&[("1g.24gb.me.all", 1)])), None);
    assert_eq!(choose(&[managed(&worth, 0, &[])], &asks(&[("1g.24gb.me.all", 1), ("1g.24gb", 1)])), None);
}

#[test]
fn a_three_goes_where_a_four_could_not() {
    let worth = worth("h100-80");
    let empty = managed(&worth, 3, &[]);
    assert_eq!(places(choose(&[empty], &asks(&[("3g.40gb", 1)]))), Some(vec![(3, 4)]));
    assert_eq!(places(choose(&[empty], &asks(&[("3g.40gb", 1), ("4g.40gb", 1)]))), Some(vec![(3, 4), (3, 0)]));
    assert_eq!(choose(&[empty], &asks(&[("4g.40gb", 2)])), None);
    assert_eq!(choose(&[empty], &asks(&[("7g.80gb", 1), ("1g.10gb", 1)])), None);
    let seven: Vec<(u8, u8)> = (0..7).map(|slot| (3, slot)).collect();
    assert_eq!(places(choose(&[empty], &asks(&[("1g.10gb", 7)]))), Some(seven));
    assert_eq!(choose(&[empty], &asks(&[("1g.10gb", 8)])), None);
}

#[test]
fn a_pod_stays_on_a_used_card_and_leaves_the_whole_one() {
    let worth = worth("a100-40");
    let cards = [managed(&worth, 0, &[]), managed(&worth, 1, &[("3g.20gb", 4)]), managed(&worth, 2, &[])];
    assert_eq!(places(choose(&cards, &asks(&[("1g.5gb", 1)]))).unwrap()[0].0, 1);
    assert!(places(choose(&cards, &asks(&[("1g.5gb", 2), ("2g.10gb", 1)]))).unwrap().iter().all(|(gpu, _)| *gpu == 1));
    assert_eq!(places(choose(&cards, &asks(&[("7g.40gb", 1)]))), Some(vec![(0, 0)]), "among equals the lowest");
    let split = places(choose(&cards, &asks(&[("4g.20gb", 2)]))).unwrap();
    assert_eq!(split, [(0, 0), (1, 0)], "one beside the 3g, one on another card");
}

#[test]
fn existing_instances_are_chosen_among_and_no_others_are_made() {
    let worth = worth("a100-40");
    let table = Arc::clone(worth.table());
    let layout = |instances: &[(&str, u8)]| -> &'static [(ProfileIndex, berth_model::Placement)] {
        Box::leak(occupied(&table, instances).instances().collect::<Vec<_>>().into_boxed_slice())
    };
    let balanced = [("1g.5gb", 0), ("1g.5gb", 1), ("2g.10gb", 2), ("3g.20gb", 4)];
    let card =
        |gpu, held: &[(&str, u8)]| Card { offer: Offer::Existing(layout(&balanced)), ..managed(&worth, gpu, held) };
    let cards = [card(0, &[]), card(1, &[("1g.5gb", 0), ("3g.20gb", 4)])];
    let one = asks(&[("1g.5gb", 1)]);
    assert_eq!(places(choose(&cards, &one)), Some(vec![(1, 1)]), "the card that is in use already");
    assert_eq!(places(choose(&cards[1..], &asks(&[("1g.5gb", 2)]))), None, "slots are free there, an instance is not");
    assert_eq!(places(choose(&cards, &asks(&[("1g.5gb", 3)]))).unwrap().len(), 3);
    assert_eq!(choose(&cards, &asks(&[("4g.20gb", 1)])), None);
}

#[test]
fn a_card_of_which_no_placement_is_known_takes_nothing_and_costs_no_other() {
    assert!(MigTable::of(&MigCapability::default()).is_none());
    let nameless = MigProfile::parse("1g.10gb 19 1 9856 7").unwrap();
    assert!(MigTable::of(&MigCapability::try_new(vec![nameless]).unwrap()).is_none());
    // One profile without placements beside others: only that one cannot be had.
    let part = table_of(&["1g.10gb 19 1 9856 7", "7g.80gb 0 7 80384 1 8@0"]);
    let part = Worth::of(Arc::clone(&part), &Prices::even(&part));
    let cards = [managed(&part, 0, &[]), managed(&worth("h100-80"), 1, &[])];
    assert_eq!(places(choose(&cards[..1], &asks(&[("1g.10gb", 1)]))), None);
    assert_eq!(places(choose(&cards, &asks(&[("1g.10gb", 1)]))).unwrap()[0].0, 1);
    assert_eq!(places(choose(&cards, &asks(&[("7g.80gb", 2)]))), Some(vec![(0, 0), (1, 0)]));
}

#[test]
fn a_workload_without_large_profiles_puts_no_price_on_room_for_them() {
    let table = table("h100-80");
    let counts = [("1g.10gb".to_owned(), 90), ("2g.20gb".to_owned(), 10), ("9g.1gb".to_owned(), 5)].into();
    let prices = Prices::of(&table, &counts);
    let price = |name: &str| prices.as_slice()[table.named(name).unwrap().at()];
    assert_eq!((price("7g.80gb"), price("3g.40gb"), price("1g.10gb.me")), (0, 0, 0));
    assert!(price("1g.10gb") > 0 && price("2g.20gb") > 0);
    assert_eq!(Prices::of(&table, &[("9g.1gb".to_owned(), 5)].into()), Prices::even(&table));
    let even = Prices::even(&table);
    assert_eq!(even.as_slice()[table.named("1g.10gb+me").unwrap().at()], 0, "it lies where 1g.10gb does");
}

#[test]
fn an_empty_card_is_worth_all_and_a_full_one_nothing_and_room_never_grows_by_an_instance() {
    for board in ["a100-40", "h100-80", "a30"] {
        let worth = worth(board);
        let table = Arc::clone(worth.table());
        let names: Vec<String> = table.profiles().map(|(_, kind)| kind.name().to_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(worth.left(&Occupied::default()), worth::EMPTY_CARD);
        for card in states(&table, &names) {
            for (profile, kind) in table.profiles() {
                for next in kind.placements().iter().filter_map(|p| card.with(&table, profile, *p)) {
                    assert!(worth.left(&next) <= worth.left(&card), "{board} {card:?} {next:?}");
                }
            }
        }
    }
}
