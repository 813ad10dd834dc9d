//! When to ask the kubelet next: quickly after a grant, slower and slower while nothing comes of it, and never as often as it refuses.

use std::time::Duration;

use tokio::time::Instant;

/// Looks after a grant: PodResources shows its devices about 10 ms after Allocate returned, and later looks wait for people.
const FIRST: Duration = Duration::from_millis(5);
const QUICK_LOOKS: u32 = 6;
const SLOWEST: Duration = Duration::from_secs(1);

/// The kubelet takes 100 calls a second with bursts of 10 (`DefaultPodResourcesQPS`, `DefaultPodResourcesBurstTokens` in
/// `pkg/kubelet/apis/podresources/constants.go`), ours and those of monitoring together: we take half.
const SPACING: Duration = Duration::from_millis(20);
const BURST: u32 = 5;

/// The rhythm.
#[derive(Debug)]
pub(super) struct Pace {
    looks: u32,
    /// When the next look would be due if looks were evenly spaced; it may lag behind by a burst.
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { looks: 0, due: now }
    }

    /// There is something new to look for.
    pub(super) fn hurry(&mut self) {
        self.looks = 0;
    }

    /// How long to wait after a look that left leases pending.
    pub(super) fn wait(&mut self) -> Duration {
        let slower = self.looks.saturating_sub(QUICK_LOOKS).min(16);
        self.looks = self.looks.saturating_add(1);
        FIRST.saturating_mul(1 << slower).min(SLOWEST)
    }

    /// When a look that is wanted `now` may be made.
    pub(super) fn admit(&mut self, now: Instant) -> Instant {
        let earliest = now.checked_sub(SPACING.saturating_mul(BURST)).unwrap_or(now);
        let due = self.due.max(earliest);
        self.due = due + SPACING;
        due.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_quick_at_first_and_then_rarer_up_to_a_second() {
        let mut pace = Pace::new(Instant::now());
        let waits: Vec<u128> = (0..16).map(|_| pace.wait().as_millis()).collect();
        assert_eq!(waits, [5, 5, 5, 5, 5, 5, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        pace.hurry();
        assert_eq!(pace.wait(), FIRST);
    }

    #[test]
    fn however_often_looks_are_wanted_the_kubelet_is_asked_fifty_times_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(10) {
            now = pace.admit(now) + Duration::from_micros(100);
            count += 1;
        }
        assert!((480..=510).contains(&count), "{count}");
        let later = now + Duration::from_secs(60);
        let burst: Vec<_> = (0..8).map(|_| pace.admit(later) - later).collect();
        assert_eq!(burst.iter().filter(|wait| wait.is_zero()).count(), 6, "a rest is worth one burst, not all of it");
    }
}
