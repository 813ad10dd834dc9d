//! Disruption budgets, for preemption: kube-scheduler counts those that an eviction breaks, and so do we for pods of our own choice.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::Sinks;
use super::follow::Sink;
use crate::budgets::Budget;

/// Takes budgets into the shared state.
#[derive(Debug)]
pub(super) struct DisruptionBudgets {
    sinks: Sinks,
}

impl DisruptionBudgets {
    pub(super) fn new(sinks: Sinks) -> Self {
        Self { sinks }
    }
}

/// What is kept of a budget while a list is not complete.
pub(super) struct Seen {
    namespace: String,
    name: String,
    budget: Option<Budget>,
}

impl Sink<PodDisruptionBudget> for DisruptionBudgets {
    const KIND: &'static str = "PodDisruptionBudget";
    const NEEDS: &'static str = "get, list and watch on poddisruptionbudgets";
    type Item = Seen;

    fn read(&mut self, object: PodDisruptionBudget) -> Seen {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&object.metadata.namespace), text(&object.metadata.name));
        Seen { namespace, name, budget: Budget::of(object) }
    }

    fn replace(&mut self, items: Vec<Seen>) -> bool {
        self.sinks.cluster.budgets.reset(items.into_iter().filter_map(|seen| seen.budget));
        true
    }

    fn take(&mut self, item: Seen) -> bool {
        match item.budget {
            Some(budget) => self.sinks.cluster.budgets.take(budget),
            None => self.sinks.cluster.budgets.forget(&item.namespace, &item.name),
        }
        false
    }

    fn lose(&mut self, item: Seen) -> bool {
        self.sinks.cluster.budgets.forget(&item.namespace, &item.name);
        false
    }
}
