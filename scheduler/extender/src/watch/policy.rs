//! The policy's ConfigMap: a good document takes effect at once, a broken one changes nothing and says where it is broken.

use std::time::{SystemTime, UNIX_EPOCH};

use berth_core::policy;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::Resource;

use super::follow::Sink;
use super::{Settings, Sinks};
use crate::admin::Gate;
use crate::events::Told;
use crate::metrics::ByResult;

/// Key of the document in the ConfigMap.
const KEY: &str = "policy.yaml";

/// Takes policies into force.
#[derive(Debug)]
pub(super) struct PolicyDocument {
    sinks: Sinks,
    /// `namespace/name`, for the log.
    place: String,
    /// The document that was judged last, so that a touched ConfigMap is no news.
    judged: Option<Option<String>>,
    gate: Gate,
    /// Whether a policy may be relied on: one was taken, or there was none to take at the start.
    is_settled: bool,
}

/// What is kept of the ConfigMap.
pub(super) struct Seen {
    about: ObjectReference,
    document: Option<String>,
}

impl PolicyDocument {
    pub(super) fn new(sinks: Sinks, settings: &Settings, gate: Gate) -> Self {
        let place = format!("{}/{}", settings.namespace, settings.policy_name);
        Self { sinks, place, judged: None, gate, is_settled: false }
    }

    fn count(&self, result: &'static str) {
        self.sinks.cluster.metrics.policy_reloads.get_or_create(&ByResult { result }).inc();
    }

    /// Judges a document. Says whether there is a policy to rely on.
    fn judge(&mut self, seen: Seen) -> bool {
        if self.judged.as_ref() == Some(&seen.document) {
            return self.is_settled;
        }
        self.judged = Some(seen.document.clone());
        let parsed = match &seen.document {
            Some(document) => policy::parse(document).map_err(|error| (error.line, error.column, error.to_string())),
            None => Err((0, 0, format!("key {KEY} is missing: the policy stands under it"))),
        };
        match parsed {
            Ok(policy) => self.apply(policy, seen.about),
            Err((line, column, text)) => self.refuse(line, column, &text, seen.about),
        }
        self.is_settled
    }

    fn apply(&mut self, policy: policy::Policy, about: ObjectReference) {
        self.is_settled = true;
        self.count("ok");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.sinks.cluster.metrics.policy_last_success.set(now.as_secs_f64());
        if *self.sinks.cluster.policy_said() == policy {
            tracing::info!(policy = self.place, "the policy says what is in force already");
            return;
        }
        self.sinks.cluster.set_policy(policy);
        self.sinks.requeue.policy_changed();
        tracing::info!(policy = self.place, "policy applied");
        let note = "The policy is in force from the next pod on.".to_owned();
        self.sinks.events.tell(Told { about, is_warning: false, reason: "PolicyApplied", action: "Reload", note });
    }

    fn refuse(&self, line: u64, column: u64, error: &str, about: ObjectReference) {
        self.count("rejected");
        let outcome = if self.is_settled {
            "The last good policy stays in force."
        } else {
            "No policy was in force before, so the scheduler is not ready until this one is corrected."
        };
        tracing::error!(policy = self.place, line, column, error, outcome, "policy rejected");
        self.gate.say(format!("ConfigMap {}, {KEY}: {error}", self.place));
        let note = format!("{KEY}: {error}. {outcome}");
        self.sinks.events.tell(Told { about, is_warning: true, reason: "PolicyRejected", action: "Reload", note });
    }

    /// There is no ConfigMap, or not any more.
    fn miss(&mut self) -> bool {
        let was_there = self.judged.take().is_some();
        if self.is_settled && was_there {
            tracing::warn!(policy = self.place, "the policy is gone: the last good one stays in force");
        } else if !self.is_settled {
            tracing::warn!(policy = self.place, "there is no policy: the built-in defaults are in force");
        }
        self.is_settled = true;
        true
    }
}

impl Sink<ConfigMap> for PolicyDocument {
    const KIND: &'static str = "ConfigMap";
    const NEEDS: &'static str = "get, list and watch on configmaps in the scheduler's namespace";
    type Item = Seen;

    fn read(&mut self, map: ConfigMap) -> Seen {
        let about = map.object_ref(&());
        Seen { about, document: map.data.and_then(|mut data| data.remove(KEY)) }
    }

    fn replace(&mut self, items: Vec<Seen>) -> bool {
        // The selection is one name in one namespace.
        match items.into_iter().next() {
            Some(seen) => self.judge(seen),
            None => self.miss(),
        }
    }

    fn take(&mut self, item: Seen) -> bool {
        self.judge(item)
    }

    fn lose(&mut self, _item: Seen) -> bool {
        self.miss()
    }
}
