//! Pods that wait for a node, as the watch told of them last.
//!
//! kube-scheduler sends the whole pod with every call. Where the watch has told of the very same version of it, what was made of it then
//! is still right, and the pod of the call need not be read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::demand::PodRequest;
use berth_index::PodUid;

/// Most waiting pods remembered. A pod takes about a kilobyte; beyond it the oldest is forgotten and asked for again.
const WAITING_MAX: usize = 50_000;

/// Pods that wait for a node, with how often each came by.
#[derive(Debug, Default)]
pub struct Waiting {
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    by_uid: HashMap<PodUid, Entry>,
    by_age: BTreeMap<u64, PodUid>,
    by_name: HashMap<(String, String), PodUid>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    request: Arc<PodRequest>,
    /// The `resourceVersion` that the request was made of; empty where nobody knows it.
    version: String,
    attempts: u32,
    arrival: u64,
}

impl Waiting {
    /// Remembers a pod of which no version is known.
    pub fn remember(&self, request: PodRequest) {
        self.remember_version(request, String::new());
    }

    /// Remembers a pod as the API server told of it in a version; a newer form of a known one replaces it and keeps its count.
    pub fn remember_version(&self, request: PodRequest, version: String) {
        let uid = PodUid::new(&request.uid);
        let mut pods = self.lock();
        if let Some(entry) = pods.by_uid.get_mut(&uid) {
            entry.request = Arc::new(request);
            entry.version = version;
            return;
        }
        if pods.by_uid.len() >= WAITING_MAX
            && let Some((_, oldest)) = pods.by_age.pop_first()
        {
            pods.forget(&oldest);
        }
        pods.arrivals = pods.arrivals.saturating_add(1);
        let arrival = pods.arrivals;
        pods.by_age.insert(arrival, uid.clone());
        pods.by_name.insert((request.namespace.clone(), request.name.clone()), uid.clone());
        pods.by_uid.insert(uid, Entry { request: Arc::new(request), version, attempts: 0, arrival });
    }

    /// Forgets a pod: it is bound, or gone.
    pub fn forget(&self, uid: &PodUid) {
        self.lock().forget(uid);
    }

    /// Forgets every pod that `keep` does not want, as after a relist.
    pub fn retain(&self, keep: impl Fn(&PodUid) -> bool) {
        let mut pods = self.lock();
        let gone: Vec<PodUid> = pods.by_uid.keys().filter(|uid| !keep(uid)).cloned().collect();
        for uid in gone {
            pods.forget(&uid);
        }
    }

    /// How many pods wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().by_uid.len()
    }

    /// The pod with this UID.
    #[must_use]
    pub fn by_uid(&self, uid: &PodUid) -> Option<Arc<PodRequest>> {
        self.lock().by_uid.get(uid).map(|e| Arc::clone(&e.request))
    }

    /// The pod with this UID, where it is known in just this version: two versions can only be equal or not.
    ///
    /// Source: Kubernetes API concepts, "Resource versions".
    #[must_use]
    pub fn of_version(&self, uid: &str, version: &str) -> Option<Arc<PodRequest>> {
        let pods = self.lock();
        let entry = pods.by_uid.get(&PodUid::new(uid))?;
        (!version.is_empty() && entry.version == version).then(|| Arc::clone(&entry.request))
    }

    /// The pod with this name, as it came last.
    #[must_use]
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<PodRequest>> {
        let pods = self.lock();
        let uid = pods.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        pods.by_uid.get(uid).map(|e| Arc::clone(&e.request))
    }

    /// Counts one more short list that the pod was given, and says how many it had before.
    pub fn count_attempt(&self, uid: &PodUid) -> u32 {
        let mut pods = self.lock();
        let Some(entry) = pods.by_uid.get_mut(uid) else { return 0 };
        let before = entry.attempts;
        entry.attempts = before.saturating_add(1);
        before
    }

    /// How many short lists the pod was given.
    #[must_use]
    pub fn attempts(&self, uid: &PodUid) -> u32 {
        self.lock().by_uid.get(uid).map_or(0, |e| e.attempts)
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pods {
    fn forget(&mut self, uid: &PodUid) {
        let Some(entry) = self.by_uid.remove(uid) else { return };
        self.by_age.remove(&entry.arrival);
        let name = (entry.request.namespace.clone(), entry.request.name.clone());
        // A younger pod may have the same name by now.
        if self.by_name.get(&name) == Some(uid) {
            self.by_name.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uid: &str, name: &str) -> PodRequest {
        PodRequest { uid: uid.to_owned(), name: name.to_owned(), namespace: "ns".to_owned(), ..PodRequest::default() }
    }

    #[test]
    fn a_younger_pod_of_the_same_name_is_not_forgotten_with_the_older_one() {
        let waiting = Waiting::default();
        waiting.remember(request("u1", "web-0"));
        waiting.remember(request("u2", "web-0"));
        waiting.forget(&PodUid::new("u1"));
        assert_eq!(waiting.by_name("ns", "web-0").unwrap().uid, "u2");
    }

    #[test]
    fn attempts_are_counted_by_pod_and_survive_its_updates() {
        let waiting = Waiting::default();
        let uid = PodUid::new("u1");
        assert_eq!(waiting.count_attempt(&uid), 0, "nobody knows it");
        waiting.remember(request("u1", "a"));
        assert_eq!((waiting.count_attempt(&uid), waiting.count_attempt(&uid)), (0, 1));
        waiting.remember(request("u1", "a"));
        assert_eq!(waiting.attempts(&uid), 2);
    }

    #[test]
    fn a_pod_is_known_in_the_version_that_was_told_last_and_in_no_other() {
        let waiting = Waiting::default();
        let labelled = |version: &str| {
            let labels = [("version".to_owned(), version.to_owned())].into();
            waiting.remember_version(PodRequest { labels, ..request("u1", "a") }, version.to_owned());
        };
        let told = |uid: &str, version: &str| {
            waiting.of_version(uid, version).and_then(|request| request.labels.get("version").cloned())
        };
        labelled("7");
        assert_eq!((told("u1", "7").as_deref(), told("u1", "8"), told("u2", "7")), (Some("7"), None, None));
        labelled("8");
        assert_eq!((told("u1", "7"), told("u1", "8").as_deref()), (None, Some("8")));
        // Nobody says which version it is now.
        waiting.remember(request("u1", "a"));
        assert_eq!((told("u1", "8"), told("u1", "")), (None, None));
        labelled("9");
        waiting.forget(&PodUid::new("u1"));
        assert_eq!(told("u1", "9"), None);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let waiting = Waiting::default();
        for i in 0..=WAITING_MAX {
            waiting.remember(request(&format!("u{i}"), &format!("p{i}")));
        }
        assert!(waiting.by_uid(&PodUid::new("u0")).is_none());
        assert!(waiting.by_name("ns", "p0").is_none());
        assert!(waiting.by_uid(&PodUid::new(&format!("u{WAITING_MAX}"))).is_some());
    }
}
