//! What a policy is to a replay: a score and cards for one pod on one host.

use super::host::{Cards, Host};
use super::trace::PodClass;

/// A policy's answer for a host that the pod fits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The highest wins; equal ones go by the order of hosts.
    pub score: i64,
    /// The GPUs that the pod would get.
    pub cards: Cards,
}

/// A policy.
pub trait Judge {
    /// The offer of a host that the pod fits on; `None` when the policy would not put it there.
    fn offer(&mut self, host: &Host, class: &PodClass) -> Option<Offer>;

    /// Hears of all hosts before the first pod.
    fn opened(&mut self, _hosts: &[Host]) {}

    /// Hears of every host that changes, as it was and as it is.
    fn changed(&mut self, _before: &Host, _after: &Host) -> Change {
        Change::None
    }

    /// Hears of every pod once, when it arrives, and of the hosts as it finds them.
    fn arrived(&mut self, _hosts: &[Host], _class: &PodClass) -> Change {
        Change::None
    }
}

/// Whether what a policy said before still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// All of it.
    None,
    /// Nothing: every host must be asked again.
    All,
}

/// The whole number below, for scores that a peer computes in floats.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "scores of peers are small; a cast of floats saturates")]
pub fn floor(score: f64) -> i64 {
    score.floor() as i64
}
