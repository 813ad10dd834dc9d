//! A long life of cards: instances come and go by choice and chance, and none is ever illegal.

use super::oracle::Chance;
use super::*;

/// What a kind of card allows, from NVIDIA's lists and not from the tables under test: name, cap, size, starts.
type Rule = (&'static str, usize, u8, &'static [u8]);

const A100: &[Rule] = &[
    ("1g.5gb", 7, 1, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.5gb+me", 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.10gb", 4, 2, &[0, 2, 4, 6]),
    ("2g.10gb", 3, 2, &[0, 2, 4]),
    ("3g.20gb", 2, 4, &[0, 4]),
    ("4g.20gb", 1, 4, &[0]),
    ("7g.40gb", 1, 8, &[0]),
];

const A30: &[Rule] = &[
    ("1g.6gb", 4, 1, &[0, 1, 2, 3]),
    ("1g.6gb+me", 1, 1, &[0, 1, 2, 3]),
    ("2g.12gb", 2, 2, &[0, 2]),
    ("4g.24gb", 1, 4, &[0]),
];

/// Owner of every slot of a card, and the instances by number.
#[derive(Default)]
struct Slots {
    owner: [Option<usize>; 8],
    live: Vec<(usize, &'static str, u8)>,
}

impl Slots {
    fn put(&mut self, number: usize, rules: &'static [Rule], name: &str, start: u8, size: u8) {
        let (known, cap, wanted, starts) = rules.iter().find(|rule| rule.0 == name).unwrap();
        assert_eq!(size, *wanted, "{name}");
        assert!(starts.contains(&start), "{name} at {start}");
        assert!(self.live.iter().filter(|(_, other, _)| other == known).count() < *cap, "{name}: one too many");
        for slot in start..start + size {
            assert_eq!(self.owner[usize::from(slot)].replace(number), None, "slot {slot} has two owners");
        }
        self.live.push((number, known, start));
    }

    fn free(&mut self, at: usize) -> u8 {
        let (number, _, start) = self.live.swap_remove(at);
        self.owner.iter_mut().filter(|owner| **owner == Some(number)).for_each(|owner| *owner = None);
        start
    }
}

#[test]
fn a_million_steps_leave_nothing_illegal_or_overlapping() {
    let kinds = [(worth("a100-40"), A100), (worth("a30"), A30)];
    let of = |gpu: usize| &kinds[usize::from(gpu >= 6)];
    let mut states = [Occupied::default(); 8];
    let mut slots: [Slots; 8] = Default::default();
    let chance = &mut Chance(7);
    let (mut placed, mut refused) = (0_u32, 0_u32);
    for step in 0..1_000_000 {
        let gpu = chance.below(8);
        if chance.below(2) == 0 && !slots[gpu].live.is_empty() {
            let at = chance.below(slots[gpu].live.len());
            let start = slots[gpu].free(at);
            states[gpu] = states[gpu].without(start).unwrap();
            continue;
        }
        let rules = of(chance.below(8)).1;
        let mut wanted: Vec<Ask<'_>> = vec![Ask { profile: rules[chance.below(rules.len())].0, count: 1 }];
        if chance.below(16) == 0 {
            wanted.push(Ask { profile: rules[chance.below(rules.len())].0, count: 2 });
        }
        let card = |gpu: usize| Card {
            gpu: GpuIndex(u8::try_from(gpu).unwrap()),
            worth: &of(gpu).0,
            occupied: states[gpu],
            offer: Offer::Managed,
        };
        let cards: Vec<Card<'_>> = (0..8).map(card).collect();
        let Some(choice) = choose(&cards, &wanted) else {
            refused += 1;
            continue;
        };
        for (number, given) in choice.given.iter().enumerate() {
            let gpu = usize::from(given.gpu.0);
            let table = of(gpu).0.table();
            let name = table.kind(given.profile).unwrap().name();
            assert_eq!(name, wanted[given.ask].profile);
            slots[gpu].put(step * 8 + number, of(gpu).1, name, given.placement.start(), given.placement.size());
            states[gpu] = states[gpu].with(table, given.profile, given.placement).unwrap();
            placed += 1;
        }
    }
    assert!(placed > 200_000 && refused > 50_000, "{placed} placed, {refused} refused: too one-sided to show much");
}
