//! What is called, and what a case's rounds say. No call is made here.

use berth_core::{Policy, policy};
use serde::{Deserialize, Serialize};

use crate::sample::{Latency, median, ratio};

/// A policy whose short list is all nodes that fit.
pub(crate) const ALL: &str = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n\
    shortList: {size: all, sizeSoft: all}\n";

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    /// Asked with all names of the case.
    Filter,
    /// Asked with the names that filter answers, as kube-scheduler does.
    Prioritize,
}

impl Verb {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Filter => "/filter",
            Self::Prioritize => "/prioritize",
        }
    }
}

/// How many nodes filter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum List {
    /// The best few, as the default policy says.
    Short,
    /// All that fit.
    All,
}

impl List {
    /// The policy that says so.
    pub(super) fn policy(self) -> Result<Policy, policy::PolicyError> {
        match self {
            Self::Short => Ok(Policy::default()),
            Self::All => policy::parse(ALL),
        }
    }
}

/// One combination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) verb: Verb,
    pub(super) names: usize,
    pub(super) list: List,
    pub(super) churn: bool,
}

/// One round of a case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) extender: Latency,
    pub(super) echo: Latency,
}

/// What the sides sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) names_asked: usize,
    pub(super) request_bytes: usize,
    pub(super) answer_bytes: usize,
}

/// The figures of a case.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFigures {
    pub(crate) verb: Verb,
    /// Names in the scheduling cycle; filter is asked with all of them.
    pub(crate) names: usize,
    pub(crate) list: List,
    /// Whether one node changed before every call.
    pub(crate) churn: bool,
    /// Names in this call.
    pub(crate) names_asked: usize,
    pub(crate) request_bytes: usize,
    /// Of both arms.
    pub(crate) answer_bytes: usize,
    /// Medians of the rounds' percentiles.
    pub(crate) extender: Latency,
    pub(crate) echo: Latency,
    /// Extender over echo, round by round; the median of those.
    pub(crate) p50_ratio: f64,
    pub(crate) p99_ratio: f64,
    /// Node evaluations per timed call of the extender.
    pub(crate) evaluations_per_call: f64,
}

impl CaseFigures {
    pub(super) fn of(case: Case, sizes: Sizes, rounds: &[Round], evaluations_per_call: f64) -> Self {
        let pick = |of: fn(&Round) -> Latency| rounds.iter().map(of).collect::<Vec<_>>();
        let ratios = |of: fn(&Latency) -> f64| {
            median(&rounds.iter().map(|r| ratio(of(&r.extender), of(&r.echo))).collect::<Vec<_>>())
        };
        Self {
            verb: case.verb,
            names: case.names,
            list: case.list,
            churn: case.churn,
            names_asked: sizes.names_asked,
            request_bytes: sizes.request_bytes,
            answer_bytes: sizes.answer_bytes,
            extender: Latency::median(&pick(|r| r.extender)),
            echo: Latency::median(&pick(|r| r.echo)),
            p50_ratio: ratios(|l| l.p50_us),
            p99_ratio: ratios(|l| l.p99_us),
            evaluations_per_call,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() {
        let round = |extender, echo| Round {
            extender: Latency { p50_us: extender, p99_us: extender },
            echo: Latency { p50_us: echo, p99_us: echo },
        };
        let case = Case { verb: Verb::Filter, names: 1, list: List::Short, churn: false };
        let sizes = Sizes { names_asked: 1, request_bytes: 1, answer_bytes: 1 };
        // A busy second hits both arms of its round alike.
        let rounds = [round(2.0, 1.0), round(20.0, 10.0), round(3.0, 1.0)];
        let figures = CaseFigures::of(case, sizes, &rounds, 0.0);
        assert_eq!((figures.p50_ratio, figures.p99_ratio), (2.0, 2.0));
        assert_eq!((figures.extender.p50_us, figures.echo.p50_us), (3.0, 1.0));
    }

    #[test]
    fn the_policy_of_all_has_no_list_size() {
        assert_eq!(List::All.policy().unwrap().short_list().size, None);
        assert_eq!(List::Short.policy().unwrap().short_list().size, Some(32));
    }
}
