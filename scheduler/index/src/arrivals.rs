//! The pods that came, for what they say of those that will: the newest so many, in order of creation.
//!
//! A pod counts once, by its UID, and as long as it is among the newest, whether it lives or not. After a full list only listed ones
//! count, so that replicas agree then whatever they saw before.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_core::demand::PodRequest;
use berth_core::value::Typical;
use berth_core::value::learned::{Ask, Mix};
use berth_core::{Demand, Policy};
use berth_model::MiB;

use crate::event::PodUid;

/// When a pod was made, as the API writes times, which is how they sort; those of one second by UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    created: String,
    uid: PodUid,
}

/// What is kept of a pod.
#[derive(Debug)]
struct Came {
    /// As far as it tells devices: another policy may read it otherwise.
    request: PodRequest,
    ask: Option<Ask>,
}

impl Came {
    fn of(request: &PodRequest, policy: &Policy) -> Self {
        // Wishes say nothing of how much is asked for, and a wish that cannot be read does not make a pod less one of its kind.
        let request = PodRequest {
            containers: request.containers.clone(),
            init_containers: request.init_containers.clone(),
            ..PodRequest::default()
        };
        let ask = ask(&request, policy);
        Self { request, ask }
    }
}

fn ask(request: &PodRequest, policy: &Policy) -> Option<Ask> {
    Demand::parse(request, policy).ok().and_then(|demand| Ask::of(&demand.shape))
}

/// The newest pods that asked for devices.
#[derive(Debug, Default)]
pub struct Arrivals {
    by_age: BTreeMap<Age, Came>,
}

impl Arrivals {
    /// Takes a pod; says whether it was not known.
    pub fn take(&mut self, created: &str, request: &PodRequest, policy: &Policy) -> bool {
        let age = Age { created: created.to_owned(), uid: PodUid::new(&request.uid) };
        if self.by_age.contains_key(&age) {
            return false;
        }
        self.by_age.insert(age.clone(), Came::of(request, policy));
        while self.by_age.len() > policy.learned_pods() {
            self.by_age.pop_first();
        }
        self.by_age.contains_key(&age)
    }

    /// Replaces all by those of a full list: when each was made, and what it asks for.
    pub fn replace<'p>(&mut self, pods: impl Iterator<Item = (&'p str, &'p PodRequest)>, policy: &Policy) {
        self.by_age.clear();
        let mut newest_first: Vec<(&str, &PodRequest)> = pods.collect();
        newest_first.sort_unstable_by_key(|(created, request)| Reverse((*created, request.uid.as_str())));
        for (created, request) in newest_first.into_iter().take(policy.learned_pods()) {
            self.take(created, request, policy);
        }
    }

    /// Reads all pods anew: under another policy other resources mean GPUs, or fewer pods count.
    pub fn read_anew(&mut self, policy: &Policy) {
        while self.by_age.len() > policy.learned_pods() {
            self.by_age.pop_first();
        }
        for came in self.by_age.values_mut() {
            came.ask = ask(&came.request, policy);
        }
    }

    /// How many pods tell something.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_age.values().filter(|came| came.ask.is_some()).count()
    }

    /// Whether some pod asks for memory of a GPU, of which only a card's size tells how much that is.
    #[must_use]
    pub fn asks_for_memory(&self) -> bool {
        self.by_age.values().filter_map(|came| came.ask).any(|ask| ask.memory.is_some())
    }

    /// The mix that they make with what the policy expected beforehand, on cards with `card` of memory.
    #[must_use]
    pub fn mix(&self, policy: &Policy, card: Option<MiB>) -> Mix {
        let kind = |came: &Came| -> Option<Typical> { came.ask?.kind(card) };
        Mix::of(self.by_age.values().rev().filter_map(kind), policy.learned_pods(), policy.seed())
    }
}
