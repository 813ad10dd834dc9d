//! Statistics of a run: percentiles of times, medians of ratios. Knows nothing of what was timed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Times of equal work, in ascending order.
#[derive(Debug, Clone)]
pub(crate) struct Sample(Vec<Duration>);

/// What a sample says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    /// Half of the times are at most this.
    pub(crate) p50_us: f64,
    /// 99 of 100 times are at most this.
    pub(crate) p99_us: f64,
}

impl Sample {
    /// A sample of the given times.
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The least time that at least `percent` of all times do not exceed; zero when there are none.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// Its percentiles.
    pub(crate) fn latency(&self) -> Latency {
        let us = |time: Duration| round3(time.as_secs_f64() * 1e6);
        Latency { p50_us: us(self.percentile(50)), p99_us: us(self.percentile(99)) }
    }
}

impl Latency {
    /// The medians of several rounds.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
        Self { p50_us: of(|l| l.p50_us), p99_us: of(|l| l.p99_us) }
    }
}

/// The middle value, or the mean of the two middle ones; zero when there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let value = if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) };
    round3(value)
}

/// The quotient; zero where there is nothing to divide by.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { round3(part / whole) } else { 0.0 }
}

/// A number as it stands in a line: more digits than three would be noise.
pub(crate) fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A count as a number to calculate with. Counts here are far below 2^52.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(times_us: impl IntoIterator<Item = u64>) -> Sample {
        Sample::new(times_us.into_iter().map(Duration::from_micros).collect())
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let latency = sample((1..=200).rev()).latency();
        assert_eq!(latency, Latency { p50_us: 100.0, p99_us: 198.0 });
        assert_eq!(sample([7]).latency(), Latency { p50_us: 7.0, p99_us: 7.0 });
        assert_eq!(sample([]).latency(), Latency { p50_us: 0.0, p99_us: 0.0 });
    }

    #[test]
    fn one_slow_call_in_a_hundred_does_not_move_p99_and_two_do() {
        let calm = |slow: usize| sample((0..100).map(|i| if i < slow { 5000 } else { 10 })).latency();
        assert_eq!(calm(1).p99_us, 10.0);
        assert_eq!(calm(2).p99_us, 5000.0);
        assert_eq!(calm(2).p50_us, 10.0);
    }

    #[test]
    fn a_median_shrugs_off_one_bad_round() {
        assert_eq!(median(&[1.5, 90.0, 1.4]), 1.5);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(ratio(3.0, 0.0), 0.0);
        assert_eq!(ratio(2.0, 3.0), 0.667);
    }

    #[test]
    fn rounds_are_joined_percentile_by_percentile() {
        let round = |p50_us, p99_us| Latency { p50_us, p99_us };
        let joined = Latency::median(&[round(1.0, 30.0), round(2.0, 10.0), round(3.0, 20.0)]);
        assert_eq!(joined, round(2.0, 20.0));
    }
}
