//! What is left behind: one number for how useful a node's remainder is to the pods that are expected.
//!
//! A placement is judged by the worth of the node after it, less the worth before. So the choice of node and the choice of
//! cards on it are one decision. All integers; the expectation is built once and then only read.

pub mod learned;
pub mod prices;

/// Milli-GPU of one GPU.
pub const GPU_MILLI: u32 = 1000;

/// A kind of pod that is expected, as far as it matters to what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Typical {
    /// GPUs; 0 for a pod that takes only CPU and memory.
    pub gpu_count: u32,
    /// Of each of its GPUs; 1000 is all of it.
    pub gpu_milli: u32,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
}

/// A kind of pod and its part of all that are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weighed {
    kind: Typical,
    /// Parts per million of all pods.
    chance: i64,
    /// What one more such pod counts in the room that is kept.
    keep: i64,
    /// The same for pods of several GPUs, however rare.
    keep_multi: i64,
}

/// How useful a remainder is. Only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// To all kinds, in millionths of a milli-GPU.
    all: i64,
    /// To kinds of several GPUs, before its weight.
    multi: i64,
}

/// Who takes from a remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// A pod of whole GPUs, or of none.
    Whole,
    /// A pod of shares.
    Share,
}

/// How much each part of the worth counts. What each does, and what was tried, stands in the policy's document and in bench/README.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Of the most frequent kinds: how many of a thousand pods they must cover.
    pub covered_permille: u32,
    /// Idle GPU that an expected pod could not use counts against the node.
    pub unusable_permille: u32,
    /// Room for further expected pods counts for it.
    pub room_permille: u32,
    /// How much more the room of pods of several GPUs counts, per further GPU.
    pub multi_permille: u32,
    /// The same where a share asks: it finds another card more easily than a pod of whole GPUs does.
    pub multi_share_permille: u32,
    /// Pieces of GPUs that no mix of expected shares fills.
    pub waste_permille: u32,
    /// Differences below so many milli-GPU do not count: then the fixed order of nodes decides, which keeps the last ones free.
    pub step_milli: u32,
}

/// What is expected. Equal expectations value everything alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    kinds: Vec<Weighed>,
    waste: Vec<i64>,
    tuning: Tuning,
}

/// What is free on a node.
#[derive(Debug, Clone, Copy)]
pub struct Remainder<'a> {
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Free milli of every usable GPU.
    pub gpus: &'a [u32],
}

impl Expected {
    /// From kinds of pods and how often each is expected. Memory is no part of it: it seldom binds first.
    #[must_use]
    pub fn of(counts: &[(Typical, u64)], tuning: Tuning) -> Self {
        let mut sorted: Vec<(Typical, u64)> = counts.to_vec();
        sorted.sort_by_key(|(kind, count)| std::cmp::Reverse((*count, *kind)));
        let all: u64 = sorted.iter().map(|(_, count)| *count).sum();
        let goal = all.saturating_mul(u64::from(tuning.covered_permille));
        let mut before = 0_u64;
        let mut is_covered = Vec::new();
        for (_, count) in &sorted {
            is_covered.push(before.saturating_mul(1000) < goal);
            before = before.saturating_add(*count);
        }
        let covered: u64 = sorted.iter().zip(&is_covered).filter(|(_, is)| **is).map(|((_, count), _)| count).sum();
        let ppm = |count: u64, of: u64| {
            i64::try_from(count.saturating_mul(1_000_000).checked_div(of).unwrap_or(0)).unwrap_or(0)
        };
        let weigh = |((kind, count), is_covered): (&(Typical, u64), &bool)| {
            let chance = if *is_covered { ppm(*count, covered) } else { 0 };
            let size = i64::from(kind.gpu_milli) * i64::from(kind.gpu_count);
            let further = i64::from(kind.gpu_count.saturating_sub(1));
            let keep = i64::from(tuning.room_permille) * chance * size / 1000;
            let keep_multi = ppm(*count, all) * size * further;
            (chance > 0 || keep_multi > 0).then_some(Weighed { kind: *kind, chance, keep, keep_multi })
        };
        let shares: Vec<(u32, u64)> = counts
            .iter()
            .filter(|(kind, _)| kind.gpu_count == 1 && kind.gpu_milli < GPU_MILLI)
            .fold(std::collections::BTreeMap::new(), |mut sums: std::collections::BTreeMap<u32, u64>, (kind, count)| {
                *sums.entry(kind.gpu_milli).or_default() += count;
                sums
            })
            .into_iter()
            .collect();
        Self {
            kinds: sorted.iter().zip(&is_covered).filter_map(weigh).collect(),
            waste: prices::waste(&shares),
            tuning,
        }
    }

    /// How useful the remainder is.
    #[must_use]
    pub fn worth(&self, left: Remainder<'_>) -> Worth {
        let all: i64 = left.gpus.iter().map(|f| i64::from(*f)).sum();
        let mut unusable = 0_i64;
        let (mut room, mut multi) = (0_i64, 0_i64);
        for Weighed { kind, chance, keep, keep_multi } in &self.kinds {
            if kind.gpu_count == 0 || kind.gpu_milli == 0 {
                unusable += chance * all;
                continue;
            }
            let (mut small, mut fitting, mut slots) = (0_i64, 0_u32, 0_u64);
            for free in left.gpus {
                if *free < kind.gpu_milli {
                    small += i64::from(*free);
                } else {
                    fitting += 1;
                    slots += u64::from(free.checked_div(kind.gpu_milli).unwrap_or(0));
                }
            }
            let is_met = fitting >= kind.gpu_count && left.cpu_milli >= kind.cpu_milli;
            unusable += chance * if is_met { small } else { all };
            let by_gpu = slots.checked_div(u64::from(kind.gpu_count)).unwrap_or(0);
            let by_cpu = left.cpu_milli.checked_div(kind.cpu_milli).unwrap_or(by_gpu);
            let count = i64::try_from(by_gpu.min(by_cpu)).unwrap_or(0);
            room += keep * count;
            multi += keep_multi * count;
        }
        let waste: i64 = left.gpus.iter().map(|f| self.waste_of(*f)).sum();
        let Tuning { unusable_permille, waste_permille, .. } = self.tuning;
        // The waste is in millionths of a GPU, which is a thousand millionths of a milli-GPU.
        let all = room - i64::from(unusable_permille) * unusable / 1000 - i64::from(waste_permille) * waste;
        Worth { all, multi }
    }

    /// What a placement does to the worth, in whole steps.
    #[must_use]
    pub fn steps(&self, taker: Taker, before: Worth, after: Worth) -> i64 {
        let permille = match taker {
            Taker::Whole => self.tuning.multi_permille,
            Taker::Share => self.tuning.multi_share_permille,
        };
        let multi = after.multi.saturating_sub(before.multi).saturating_mul(i64::from(permille)) / 1000;
        let step = i64::from(self.tuning.step_milli.max(1)).saturating_mul(1_000_000);
        after.all.saturating_sub(before.all).saturating_add(multi).div_euclid(step)
    }

    fn waste_of(&self, free: u32) -> i64 {
        usize::try_from(free).ok().and_then(|at| self.waste.get(at)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNING: Tuning = Tuning {
        covered_permille: 950,
        unusable_permille: 1000,
        room_permille: 100,
        multi_permille: 0,
        multi_share_permille: 0,
        waste_permille: 1500,
        step_milli: 40,
    };

    fn kind(gpu_count: u32, gpu_milli: u32, cpu_milli: u64) -> Typical {
        Typical { gpu_count, gpu_milli, cpu_milli }
    }

    fn expected(tuning: Tuning) -> Expected {
        let counts = [
            (kind(1, 1000, 8000), 40),
            (kind(1, 810, 4000), 18),
            (kind(1, 470, 6000), 12),
            (kind(1, 320, 6000), 8),
            (kind(0, 0, 4000), 10),
            (kind(8, 1000, 64_000), 1),
        ];
        Expected::of(&counts, tuning)
    }

    fn worth(expected: &Expected, gpus: &[u32], cpu_milli: u64) -> i64 {
        expected.worth(Remainder { cpu_milli, gpus }).all
    }

    #[test]
    fn a_free_gpu_without_cpu_is_worth_less_than_one_with() {
        let expected = expected(TUNING);
        assert!(worth(&expected, &[1000, 1000], 16_000) > worth(&expected, &[1000, 1000], 1000));
    }

    #[test]
    fn a_small_piece_costs_least_where_nothing_else_fits() {
        let expected = expected(TUNING);
        let loss = |before: &[u32], after: &[u32]| worth(&expected, before, 32_000) - worth(&expected, after, 32_000);
        let beside_810 = loss(&[190, 530], &[30, 530]);
        let beside_470 = loss(&[190, 530], &[190, 370]);
        assert!(beside_810 < beside_470, "{beside_810} {beside_470}");
    }

    #[test]
    fn the_order_of_gpus_and_of_kinds_does_not_matter() {
        let counts = [(kind(1, 470, 1), 3), (kind(1, 810, 1), 3), (kind(2, 1000, 1), 3)];
        let mut turned = counts;
        turned.reverse();
        assert_eq!(Expected::of(&counts, TUNING), Expected::of(&turned, TUNING));
        let expected = expected(TUNING);
        assert_eq!(worth(&expected, &[0, 190, 1000], 9000), worth(&expected, &[1000, 0, 190], 9000));
    }

    #[test]
    fn rare_kinds_are_left_out_but_those_of_several_gpus_may_count_in_full() {
        let idle = [1000; 8];
        let broken = [1000, 1000, 1000, 1000, 1000, 1000, 1000, 0];
        let broken_by = |taker| {
            let expected = expected(Tuning { multi_share_permille: 10_000, ..TUNING });
            let worth = |gpus| expected.worth(Remainder { cpu_milli: 96_000, gpus });
            expected.steps(taker, worth(&idle), worth(&broken))
        };
        assert!(broken_by(Taker::Share) < broken_by(Taker::Whole));
    }

    #[test]
    fn a_step_hides_what_is_smaller() {
        let expected = expected(TUNING);
        let steps = |all| expected.steps(Taker::Whole, Worth { all: 0, multi: 0 }, Worth { all, multi: 0 });
        assert_eq!(steps(39_999_999), 0);
        assert_eq!(steps(40_000_000), 1);
        assert_eq!(steps(-1), -1, "down is a step at once");
    }

    #[test]
    fn amounts_at_their_limits_do_not_overflow() {
        let all = Tuning {
            covered_permille: 1000,
            unusable_permille: 10_000,
            room_permille: 10_000,
            multi_permille: 10_000,
            multi_share_permille: 10_000,
            waste_permille: 10_000,
            step_milli: 1,
        };
        let counts: Vec<(Typical, u64)> =
            (1..=1000_u32).map(|milli| (kind(if milli == 1000 { 32 } else { 1 }, milli, 1), 1_000_000)).collect();
        let expected = Expected::of(&counts, all);
        worth(&expected, &[1000; 32], u64::MAX);
    }
}
