//! Disruption budgets: which pods of a node kube-scheduler counts as violations when they are evicted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_index::{PodFacts, PodUid};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt};

/// One budget.
#[derive(Debug, Clone)]
pub struct Budget {
    namespace: String,
    name: String,
    selector: Selector,
    /// How many of its pods may go now.
    allowed: i32,
    /// Pods whose going it has counted already.
    disrupted: Vec<String>,
}

impl Budget {
    /// What a budget object says; `None` for one that selects nothing: without a selector, or with one that cannot be read.
    #[must_use]
    pub fn of(object: PodDisruptionBudget) -> Option<Self> {
        let selector: Selector = object.spec?.selector?.try_into().ok()?;
        let status = object.status.unwrap_or_default();
        Some(Self {
            namespace: object.metadata.namespace?,
            name: object.metadata.name?,
            selector,
            allowed: status.disruptions_allowed,
            disrupted: status.disrupted_pods.unwrap_or_default().into_keys().collect(),
        })
        .filter(|budget| !budget.selector.selects_all())
    }

    fn covers(&self, pod: &PodFacts) -> bool {
        !pod.rank.labels.is_empty() && self.selector.matches(&pod.rank.labels) && !self.disrupted.contains(&pod.name)
    }
}

/// All budgets, by namespace.
#[derive(Debug, Default)]
pub struct Budgets {
    by_namespace: Mutex<HashMap<String, Vec<Arc<Budget>>>>,
}

impl Budgets {
    /// Takes a budget; a newer form of a known one replaces it.
    pub fn take(&self, budget: Budget) {
        let mut all = self.lock();
        let known = all.entry(budget.namespace.clone()).or_default();
        known.retain(|other| other.name != budget.name);
        known.push(Arc::new(budget));
    }

    /// Forgets a budget.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(namespace) {
            known.retain(|budget| budget.name != name);
            if known.is_empty() {
                all.remove(namespace);
            }
        }
    }

    /// Replaces all at once, as after a relist.
    pub fn reset(&self, budgets: impl Iterator<Item = Budget>) {
        let mut all: HashMap<String, Vec<Arc<Budget>>> = HashMap::new();
        for budget in budgets {
            all.entry(budget.namespace.clone()).or_default().push(Arc::new(budget));
        }
        *self.lock() = all;
    }

    /// Those of the pods whose going breaks a budget, if they all went in this order: the most important first, as kube-scheduler
    /// counts.
    ///
    /// Source: k8s.io/kubernetes `pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go`,
    /// `filterPodsWithPDBViolation`.
    #[must_use]
    pub fn broken_by<'p>(&self, pods: impl Iterator<Item = &'p PodFacts>) -> Vec<PodUid> {
        let all = self.lock();
        let mut left: HashMap<(&str, &str), i32> = HashMap::new();
        let mut broken = Vec::new();
        for pod in pods {
            let own = all.get(&pod.namespace).map_or(&[][..], Vec::as_slice);
            let mut breaks = false;
            for budget in own.iter().filter(|budget| budget.covers(pod)) {
                let left = left.entry((&budget.namespace, &budget.name)).or_insert(budget.allowed);
                *left = left.saturating_sub(1);
                breaks |= *left < 0;
            }
            if breaks {
                broken.push(pod.uid.clone());
            }
        }
        broken
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Budget>>>> {
        self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_core::demand::Totals;
    use berth_index::{PlanNote, Rank};
    use serde_json::json;

    use super::*;
    use crate::fixture::name;

    fn budget(name: &str, selector: &serde_json::Value, allowed: i32, disrupted: &[&str]) -> Option<Budget> {
        let disrupted: BTreeMap<&str, &str> = disrupted.iter().map(|pod| (*pod, "2026-01-01T00:00:00Z")).collect();
        let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"selector": selector},
            "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted,
                "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
        Budget::of(serde_json::from_value(object).unwrap())
    }

    fn pod(uid: &str, namespace: &str, labels: &[(&str, &str)]) -> PodFacts {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        PodFacts {
            uid: PodUid::new(uid),
            namespace: namespace.to_owned(),
            name: uid.to_owned(),
            node: Some(name("n")),
            is_ended: false,
            expects_devices: false,
            totals: Totals::default(),
            rank: Rank { labels, ..Rank::default() },
            note: PlanNote::Absent,
            is_enforced: false,
            truth: BTreeMap::new(),
        }
    }

    fn broken(budgets: &Budgets, pods: &[PodFacts]) -> Vec<String> {
        budgets.broken_by(pods.iter()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_budget_is_broken_by_those_beyond_what_it_allows_the_most_important_first() {
        let budgets = Budgets::default();
        budgets.take(budget("b", &json!({"matchLabels": {"app": "x"}}), 1, &["done"]).unwrap());
        let x = [("app", "x")];
        let pods = [
            pod("first", "ns", &x),
            pod("other", "ns", &[("app", "y")]),
            pod("plain", "ns", &[]),
            pod("far", "elsewhere", &x),
            pod("done", "ns", &x),
            pod("second", "ns", &x),
            pod("third", "ns", &x),
        ];
        assert_eq!(broken(&budgets, &pods), ["second", "third"]);
        budgets.take(budget("b", &json!({"matchLabels": {"app": "x"}}), 2, &["done"]).unwrap());
        assert_eq!(broken(&budgets, &pods), ["third"]);
        budgets
            .take(budget("c", &json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), 0, &[]).unwrap());
        assert_eq!(broken(&budgets, &pods), ["first", "other", "done", "second", "third"]);
        budgets.forget("ns", "c");
        budgets.forget("ns", "b");
        assert_eq!(broken(&budgets, &pods), [""; 0]);
    }

    #[test]
    fn a_budget_without_a_selector_or_with_an_unreadable_one_covers_nobody() {
        for selector in [json!(null), json!({}), json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})] {
            assert!(budget("b", &selector, 0, &[]).is_none(), "{selector}");
        }
    }
}
