//! Set choice on random machines against brute force. The judge below reads the topology itself, walks every ring and every matching,
//! and shares nothing with the tables but the weights that are documented there.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::{Link, LinkMatrix, NodeTopology, PortState, ZoneId};

use super::*;
use crate::fabric::SIZES;
use crate::score::Ppm;
use crate::testing::bare;

/// A small generator: the cases must be the same on every machine.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const LEVELS: [Option<PcieLevel>; 6] = [
    None,
    Some(PcieLevel::Sys),
    Some(PcieLevel::Node),
    Some(PcieLevel::Phb),
    Some(PcieLevel::Pxb),
    Some(PcieLevel::Pix),
];

/// A machine of any links, zones and rails; half of them regular (blocks of two and four), half without any order.
fn machine(draws: &mut Draws, gpus: usize) -> NodeTopology {
    let nics = draws.below(gpus + 2);
    let is_regular = draws.below(2) == 0;
    let counts: Vec<u8> = (0..3).map(|_| draws.of(&[0, 0, 1, 2, 4, 18])).collect();
    let levels: Vec<Option<PcieLevel>> = (0..3).map(|_| draws.of(&LEVELS)).collect();
    let zones = 1 + draws.below(3);
    let mut parts = bare(gpus, nics).into_parts();
    for (i, gpu) in parts.gpus.iter_mut().enumerate() {
        let zone = if is_regular { i * zones / gpus } else { draws.below(zones) };
        gpu.zone = (is_regular || draws.below(8) > 0).then(|| ZoneId(u16::try_from(zone).unwrap()));
    }
    for nic in &mut parts.nics {
        nic.state = if draws.below(6) == 0 { PortState::Down } else { PortState::Active };
    }
    parts.links = LinkMatrix::build(gpus + nics, |a, b| {
        if b < gpus && is_regular {
            let tier = if a / 2 == b / 2 {
                0
            } else if a / 4 == b / 4 {
                1
            } else {
                2
            };
            return Link { nvlinks: counts[tier], pcie: levels[tier] };
        }
        if b < gpus {
            return Link { nvlinks: draws.of(&counts), pcie: draws.of(&LEVELS) };
        }
        let own = is_regular && (b - gpus) % gpus.div_ceil(2) == a / 2;
        let pcie = if own { draws.of(&LEVELS[4..]) } else { draws.of(&LEVELS[if is_regular { 1..4 } else { 0..6 }]) };
        Link { nvlinks: 0, pcie }
    });
    NodeTopology::try_new(parts).unwrap()
}

/// What brute force knows of a machine.
struct Judge {
    topology: NodeTopology,
    count: usize,
    quality: Vec<u32>,
    kept: Vec<u32>,
}

fn members(set: usize) -> Vec<usize> {
    (0..32).filter(|i| set >> i & 1 == 1).collect()
}

fn best_path(speed: &dyn Fn(usize, usize) -> u32, path: &mut Vec<usize>, left: &[usize]) -> u32 {
    let (first, last) = (path[0], *path.last().unwrap());
    if left.is_empty() {
        return speed(last, first);
    }
    let mut best = 0;
    for next in left {
        let rest: Vec<usize> = left.iter().copied().filter(|g| g != next).collect();
        path.push(*next);
        best = best.max(speed(last, *next).min(best_path(speed, path, &rest)));
        path.pop();
    }
    best
}

/// Most GPUs with a NIC of their own, and most nearest ones among those, by trying every NIC for every GPU.
fn most_matched(rails: &[Vec<(usize, bool)>], gpus: &[usize], used: u128) -> (u32, u32) {
    let Some((gpu, rest)) = gpus.split_first() else { return (0, 0) };
    let mut best = most_matched(rails, rest, used);
    for (nic, near) in rails[*gpu].iter().filter(|(n, _)| used >> n & 1 == 0) {
        let (count, nearest) = most_matched(rails, rest, used | 1 << nic);
        best = best.max((count + 1, nearest + u32::from(*near)));
    }
    best
}

impl Judge {
    fn of(topology: NodeTopology) -> Self {
        let count = topology.parts().gpus.len();
        let mut judge = Self { topology, count, quality: Vec::new(), kept: Vec::new() };
        judge.quality = judge.qualities();
        judge.kept = (0..1 << count).map(|free| judge.kept(free)).collect();
        judge
    }

    fn link(&self, a: usize, b: usize) -> Link {
        self.topology.parts().links.link(a, b).unwrap()
    }

    fn speed(&self, a: usize, b: usize) -> u32 {
        match self.link(a, b) {
            Link { nvlinks: 0, pcie } => {
                let order = LEVELS.iter().position(|l| *l == pcie).unwrap();
                [10_000, 10_000, 13_000, 16_000, 20_000, 22_000][order]
            }
            Link { nvlinks, .. } => u32::from(nvlinks) * 25_000,
        }
    }

    /// NICs of every GPU, those of `held` left out.
    fn rails(&self, held: u128) -> Vec<Vec<(usize, bool)>> {
        let nics = &self.topology.parts().nics;
        let one = |gpu: usize| {
            let level = |n: usize| self.link(gpu, self.count + n).pcie;
            let active = (0..nics.len()).filter(|n| nics[*n].state == PortState::Active && held >> n & 1 == 0);
            active
                .filter(|n| level(*n) >= Some(PcieLevel::Pxb))
                .map(|n| (n, level(n) == Some(PcieLevel::Pix)))
                .collect()
        };
        (0..self.count).map(one).collect()
    }

    fn zones(&self, gpus: &[usize]) -> BTreeSet<ZoneId> {
        gpus.iter().filter_map(|g| self.topology.parts().gpus[*g].zone).collect()
    }

    fn has_one_zone(&self, gpus: &[usize]) -> bool {
        self.zones(gpus).len() == 1 && gpus.iter().all(|g| self.topology.parts().gpus[*g].zone.is_some())
    }

    /// Ring, zones, rails and sum of links of a set.
    fn facts(&self, set: usize, rails: &[Vec<(usize, bool)>]) -> [u64; 4] {
        let gpus = members(set);
        let mut facts = [0, 0, u64::try_from(self.zones(&gpus).len().max(1)).unwrap(), 0];
        if gpus.len() < 2 {
            return facts;
        }
        facts[0] = u64::from(best_path(&|a, b| self.speed(a, b), &mut vec![gpus[0]], &gpus[1..]));
        facts[1] = u64::from(most_matched(rails, &gpus, 0).0);
        for (i, a) in gpus.iter().enumerate() {
            for b in &gpus[i + 1..] {
                let link = self.link(*a, *b);
                let order = LEVELS.iter().position(|l| *l == link.pcie).unwrap();
                facts[3] += u64::from(link.nvlinks) * 100 + u64::try_from(order).unwrap() * 10;
            }
        }
        facts
    }

    fn qualities(&self) -> Vec<u32> {
        let rails = self.rails(0);
        let facts: Vec<[u64; 4]> = (0..1_usize << self.count).map(|set| self.facts(set, &rails)).collect();
        let mut by_size: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for set in 0..facts.len() {
            by_size.entry(set.count_ones()).or_default().push(set);
        }
        let mut quality = vec![0; facts.len()];
        for sets in by_size.values() {
            let better = |s: usize| {
                let [ring, rails, zones, inside] = facts[s];
                [ring, 1_000_000 / zones, rails, inside]
            };
            let share =
                |part: u64, whole: u64| u64::from(if whole == 0 { Ppm::ONE } else { Ppm::ratio(part, whole) }.0);
            let raw = |s: usize| {
                let (mut sum, mut weight) = (0, 0);
                for (i, own) in [80, 10, 5, 5].into_iter().enumerate() {
                    weight += own;
                    let most = sets.iter().map(|s| better(*s)[i]).max().unwrap();
                    if sets.iter().any(|s| better(*s)[i] != most) {
                        sum += weight * share(better(s)[i], most);
                        weight = 0;
                    }
                }
                sum
            };
            let best = sets.iter().map(|s| raw(*s)).max().unwrap();
            for set in sets {
                // Where nothing tells the sets apart, all are as good as can be.
                quality[*set] = if best == 0 { Ppm::ONE.0 } else { Ppm::ratio(raw(*set), best).0 };
            }
        }
        quality
    }

    fn kept(&self, free: usize) -> u32 {
        let sizes: Vec<(u32, u64)> =
            SIZES.into_iter().filter(|(size, _)| usize::try_from(*size).unwrap() <= self.count).collect();
        let best = |size: u32| {
            let sets = (0..=free).filter(|s| s & !free == 0 && s.count_ones() == size);
            u64::from(sets.map(|s| self.quality[s]).max().unwrap_or(0))
        };
        let all: u64 = sizes.iter().map(|(_, share)| share).sum();
        u32::try_from(sizes.iter().map(|(size, share)| share * best(*size)).sum::<u64>() / all).unwrap()
    }

    fn choose(&self, free: usize, nics_held: u128, rule: Rule) -> Option<GpuSet> {
        let rails = self.rails(nics_held);
        let mut best: Option<(usize, _)> = None;
        for set in (0..=free).filter(|s| s & !free == 0 && s.count_ones() == rule.size) {
            let gpus = members(set);
            let worst = gpus
                .iter()
                .flat_map(|a| gpus.iter().filter(move |b| *b > a).map(move |b| self.link(*a, *b).class()))
                .min();
            let (matched, nearest) = most_matched(&rails, &gpus, 0);
            let (is_railed, one_zone) = (matched == rule.size, self.has_one_zone(&gpus));
            let linked = |l: LinkWish| worst.is_none_or(|w| w >= l.least);
            let hard = rule.link.is_none_or(|l| l.force != Force::Required || linked(l))
                && (rule.rail != Force::Required || is_railed)
                && (rule.zone != Force::Required || one_zone);
            if !hard {
                continue;
            }
            let soft = u32::from(rule.link.is_some_and(|l| l.force == Force::Preferred && linked(l)))
                + u32::from(rule.rail == Force::Preferred && is_railed)
                + u32::from(rule.zone == Force::Preferred && one_zone);
            let (matched, nearest) = if rule.rail == Force::Off { (0, 0) } else { (matched, nearest) };
            let worth = (soft, matched, 2 * self.quality[set] + self.kept[free & !set], nearest, Reverse(set));
            if best.as_ref().is_none_or(|(_, most)| worth > *most) {
                best = Some((set, worth));
            }
        }
        best.map(|(set, _)| GpuSet::from_bits(u32::try_from(set).unwrap()))
    }
}

impl Judge {
    /// The NICs of a set are each another one, free and under the GPU's switch, and no other matching has more or nearer ones.
    fn check_nics(&self, fabric: &Fabric, set: GpuSet, held: u128, rule: Rule) {
        let rails = self.rails(held);
        let free = (0..96).filter(|n| held >> n & 1 == 0).collect();
        let given = super::super::Judge::of(fabric, rule, free).nics(set);
        let gpus: BTreeSet<GpuIndex> = given.iter().map(|(gpu, _)| *gpu).collect();
        let nics: BTreeSet<usize> = given.iter().map(|(_, nic)| *nic).collect();
        assert_eq!((gpus.len(), nics.len()), (given.len(), given.len()), "{given:?}");
        let mut nearest = 0;
        for (gpu, nic) in &given {
            let rail = rails[usize::from(gpu.0)].iter().find(|(n, _)| n == nic);
            nearest += u32::from(rail.expect("a NIC that is no rail of the GPU, or is held").1);
            assert!(set.contains(*gpu));
        }
        let members: Vec<usize> = set.iter().map(|gpu| usize::from(gpu.0)).collect();
        assert_eq!((u32::try_from(given.len()).unwrap(), nearest), most_matched(&rails, &members, 0));
    }
}

fn rule(draws: &mut Draws, gpus: usize) -> Rule {
    let links = ["nvlink", "nvlink:preferred", "pix", "pxb:preferred", "phb", "node", "node:preferred", "any"];
    let forces = [Force::Off, Force::Off, Force::Preferred, Force::Required];
    let link = if draws.below(3) == 0 { LinkWish::parse(draws.of(&links)) } else { None };
    let size = u32::try_from(1 + draws.below(gpus)).unwrap();
    Rule { size, link, rail: draws.of(&forces), zone: draws.of(&forces) }
}

#[test]
fn a_choice_on_any_machine_of_eight_equals_brute_force() {
    let mut draws = Draws(11);
    let (mut cases, mut refused) = (0, 0);
    while cases < 60_000 {
        let gpus = 1 + draws.below(8);
        let judge = Judge::of(machine(&mut draws, gpus));
        let fabric = Fabric::of(&judge.topology);
        for set in 0..1_usize << gpus {
            let bits = GpuSet::from_bits(u32::try_from(set).unwrap());
            assert_eq!(fabric.quality(bits).0, judge.quality[set], "quality of {bits}, {:?}", judge.topology);
            assert_eq!(fabric.kept(bits).0, judge.kept[set], "kept with {bits}, {:?}", judge.topology);
        }
        for _ in 0..60 {
            let rule = rule(&mut draws, gpus);
            let free = draws.below(1 << gpus);
            let nic_count = judge.topology.parts().nics.len();
            let held = u128::try_from(draws.below(1 << nic_count) & draws.below(1 << nic_count)).unwrap();
            let expected = judge.choose(free, held, rule);
            let nics: NicSet = (0..nic_count).filter(|n| held >> n & 1 == 0).collect();
            let found = choose(&fabric, Free { gpus: GpuSet::from_bits(u32::try_from(free).unwrap()), nics }, rule);
            assert_eq!(found, expected, "free {free:b} NICs {nics} {rule:?} {:?}", judge.topology.parts());
            if let Some(set) = found.filter(|_| rule.rail != Force::Off) {
                judge.check_nics(&fabric, set, held, rule);
            }
            cases += 1;
            refused += usize::from(found.is_none());
        }
    }
    assert!(refused > cases / 10 && refused < cases * 9 / 10, "{refused} of {cases} had no answer");
}

#[test]
fn the_table_of_sixteen_gpus_equals_the_exhaustive_answer() {
    let mut draws = Draws(5);
    for _ in 0..6 {
        let fabric = Fabric::of(&machine(&mut draws, 16));
        for _ in 0..40 {
            let free = GpuSet::from_bits(u32::try_from(draws.below(1 << 16)).unwrap());
            let size = u32::try_from(1 + draws.below(16)).unwrap();
            let plain = Rule { size, link: None, rail: Force::Off, zone: Force::Off };
            let worth =
                |set: &GpuSet| (2 * fabric.quality(*set).0 + fabric.kept(free.minus(*set)).0, Reverse(set.bits()));
            let exhaustive = free.subsets(size).max_by_key(worth);
            assert_eq!(choose(&fabric, all_nics_and(free), plain), exhaustive, "free {free} size {size}");
            assert_eq!(choose(&fabric, all_nics_and(free), plain), exhaustive, "the second answer is the load");
        }
    }
}

/// How good sets are is taken from the tables here: the ring of sixteen GPUs is beyond brute force. Which sets are legal, and who gets
/// which NIC, is not.
#[test]
fn sampled_choices_on_sixteen_gpus_with_wishes_equal_brute_force() {
    let mut draws = Draws(23);
    let (mut cases, mut refused) = (0, 0);
    for _ in 0..10 {
        let topology = machine(&mut draws, 16);
        let fabric = Fabric::of(&topology);
        let bits = |set: usize| GpuSet::from_bits(u32::try_from(set).unwrap());
        let quality = (0..1 << 16).map(|set| fabric.quality(bits(set)).0).collect();
        let kept = (0..1 << 16).map(|set| fabric.kept(bits(set)).0).collect();
        let judge = Judge { topology, count: 16, quality, kept };
        let nic_count = judge.topology.parts().nics.len();
        for _ in 0..60 {
            let size = u32::try_from(1 + draws.below(5)).unwrap();
            let rule = Rule { size, ..rule(&mut draws, 16) };
            let free = draws.below(1 << 16);
            let held = u128::try_from(draws.below(1 << nic_count) & draws.below(1 << nic_count)).unwrap();
            let nics: NicSet = (0..nic_count).filter(|n| held >> n & 1 == 0).collect();
            let found = choose(&fabric, Free { gpus: bits(free), nics }, rule);
            assert_eq!(found, judge.choose(free, held, rule), "free {free:b} NICs {nics} {rule:?}");
            if let Some(set) = found.filter(|_| rule.rail != Force::Off) {
                judge.check_nics(&fabric, set, held, rule);
            }
            cases += 1;
            refused += usize::from(found.is_none());
        }
    }
    assert!(refused > cases / 10 && refused < cases * 9 / 10, "{refused} of {cases} had no answer");
}
