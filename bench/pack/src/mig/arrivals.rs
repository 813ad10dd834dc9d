//! Who asks for what, when and for how long.

use rand::Rng;

use crate::draw::draws;

/// Slots of the profiles of the bench, in their order: 1g, 1g with double memory, 2g, 3g, 4g, 7g.
pub const SLOTS: [u32; 6] = [1, 2, 2, 4, 4, 8];

/// How often each profile is asked for, in percent of a percent.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Name.
    pub name: &'static str,
    /// Shares in the order of the profiles. Only ratios count.
    pub shares: [u32; 6],
}

/// The mixes of the protocol.
pub const MIXES: [Mix; 5] = [
    Mix { name: "uniform", shares: [1, 1, 1, 1, 1, 1] },
    Mix { name: "small", shares: [30, 25, 20, 10, 10, 5] },
    Mix { name: "large", shares: [5, 10, 10, 20, 25, 30] },
    Mix { name: "bimodal", shares: [30, 15, 5, 5, 15, 30] },
    Mix { name: "no7g", shares: [30, 10, 25, 25, 10, 0] },
];

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Position of the profile in [`SLOTS`].
    pub profile: usize,
    /// When it comes, in billionths of a mean lifetime.
    pub at: u64,
    /// When it would end.
    pub until: u64,
}

impl Mix {
    fn total(self) -> u32 {
        self.shares.iter().sum()
    }

    /// Slots of a mean request.
    #[must_use]
    pub fn mean_slots(self) -> f64 {
        let slots: u32 = self.shares.iter().zip(SLOTS).map(|(share, slots)| share * slots).sum();
        f64::from(slots) / f64::from(self.total())
    }

    fn profile(self, mut at: u32) -> usize {
        for (profile, share) in self.shares.iter().enumerate() {
            if at < *share {
                return profile;
            }
            at -= share;
        }
        0
    }
}

/// The requests of a seed, in order of arrival.
#[must_use]
pub fn draw(mix: Mix, load_percent: u32, gpu_count: usize, count: usize, seed: u64) -> Vec<Request> {
    let mut rng = draws(seed);
    let mut exponential = |mean: f64| -mean * (1.0 - rng.random::<f64>()).ln();
    let installed = super::count(gpu_count) * 8.0;
    let gap = mix.mean_slots() / (f64::from(load_percent) / 100.0 * installed);
    let times: Vec<(f64, f64)> = (0..count).map(|_| (exponential(gap), exponential(1.0))).collect();
    let mut now = 0.0;
    let mut request = |(gap, life): (f64, f64)| {
        now += gap;
        Request { profile: mix.profile(rng.random_range(0..mix.total())), at: ticks(now), until: ticks(now + life) }
    };
    times.into_iter().map(&mut request).collect()
}

/// Whole ticks, so that the order of events is an order of integers.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are positive and below 2^40")]
fn ticks(time: f64) -> u64 {
    (time * 1e9) as u64
}
