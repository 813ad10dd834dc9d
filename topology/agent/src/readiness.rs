//! Whether the published report can be trusted now. The scheduler takes an agent that is not Ready for a stale report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A report counts as current for this long after the poll that should have confirmed it: a slow driver call or a short outage of the
/// API server is no news about the hardware.
const GRACE: Duration = Duration::from_secs(60);

/// Shared between the reporting loop, which confirms, and the admin endpoint, which asks.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    fresh_for: Duration,
    confirmed_at: Arc<Mutex<Option<Instant>>>,
}

impl Readiness {
    /// Not ready yet.
    pub(crate) fn new(poll_interval: Duration) -> Self {
        Self { fresh_for: poll_interval.saturating_add(GRACE), confirmed_at: Arc::default() }
    }

    /// The hardware was just read and the published report says the same.
    pub(crate) fn confirm(&self, now: Instant) {
        *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Why the report cannot be trusted, or nothing.
    pub(crate) fn trouble(&self, now: Instant) -> Option<String> {
        let confirmed_at = *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(confirmed_at) = confirmed_at else {
            return Some("the first report is not published yet".to_owned());
        };
        let age = now.saturating_duration_since(confirmed_at);
        (age > self.fresh_for).then(|| format!("the published report was last confirmed {} s ago", age.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_from_its_first_report_until_it_is_no_longer_confirmed() {
        let start = Instant::now();
        let readiness = Readiness::new(Duration::from_secs(10));
        assert!(readiness.trouble(start).unwrap().contains("first report"));
        readiness.confirm(start);
        assert_eq!(readiness.trouble(start + Duration::from_secs(70)), None);
        assert!(readiness.trouble(start + Duration::from_secs(71)).unwrap().contains("71 s ago"));
        readiness.confirm(start + Duration::from_secs(80));
        assert_eq!(readiness.trouble(start + Duration::from_secs(81)), None);
    }
}
