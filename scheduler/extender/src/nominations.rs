//! Pods for which kube-scheduler keeps room on a node, whoever schedules them: their devices are left alone by pods that come after.
//!
//! kube-scheduler accounts for nominations in its own filters and tells extenders nothing of them, so they are watched.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::demand::{PodRequest, Totals};
use berth_core::{Demand, Policy};
use berth_index::{Nominee, PodUid};

/// Pods with a nominated node, none of them bound.
#[derive(Debug, Default)]
pub struct Nominations {
    pods: Mutex<Pods>,
    /// How many there are: mostly none, and then nobody takes the lock.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pods {
    /// By node, in the order in which they came.
    by_node: HashMap<String, Vec<Arc<PodRequest>>>,
    node_of: HashMap<PodUid, String>,
}

impl Nominations {
    /// Takes what a pod says of its nomination; one without ends it.
    pub fn note(&self, request: &PodRequest) {
        if request.nominated_node.is_empty() && self.is_empty() {
            return;
        }
        let uid = PodUid::new(&request.uid);
        let mut pods = self.lock();
        let place = pods.node_of.get(&uid).filter(|node| **node == request.nominated_node).cloned();
        // A newer form of a known one keeps its place.
        if let Some(known) = place.and_then(|node| pods.by_node.get_mut(&node)) {
            known.iter_mut().filter(|r| r.uid == request.uid).for_each(|r| *r = Arc::new(request.clone()));
            return;
        }
        pods.forget(&uid);
        if !request.nominated_node.is_empty() {
            let node = request.nominated_node.clone();
            pods.by_node.entry(node.clone()).or_default().push(Arc::new(request.clone()));
            pods.node_of.insert(uid, node);
        }
        self.count.store(pods.node_of.len(), Ordering::Release);
    }

    /// Forgets a pod: it is bound, or gone.
    pub fn forget(&self, uid: &PodUid) {
        if self.is_empty() {
            return;
        }
        let mut pods = self.lock();
        pods.forget(uid);
        self.count.store(pods.node_of.len(), Ordering::Release);
    }

    /// Forgets every pod that `keep` does not want, as after a relist.
    pub fn retain(&self, keep: impl Fn(&PodUid) -> bool) {
        let gone: Vec<PodUid> = self.lock().node_of.keys().filter(|uid| !keep(uid)).cloned().collect();
        gone.iter().for_each(|uid| self.forget(uid));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether room is kept anywhere that the pod must leave alone.
    #[must_use]
    pub fn concern(&self, pod: &PodRequest) -> bool {
        if self.is_empty() {
            return false;
        }
        let pods = self.lock();
        pods.by_node.keys().any(|node| !pods.ahead(node, pod).is_empty())
    }

    /// The pods that go before this one on a node: more important ones, and of equal ones those that were nominated before it. Of two
    /// equal ones each would else wait for the other.
    #[must_use]
    pub fn ahead(&self, node: &str, pod: &PodRequest, policy: &Policy) -> Vec<Nominee> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut ahead = self.lock().ahead(node, pod);
        ahead.sort_by_key(|request| std::cmp::Reverse(request.priority));
        ahead.iter().filter_map(|request| nominee(request, policy)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` for one that asks for no devices, or whose wishes cannot be read: no node is kept for it here.
fn nominee(request: &PodRequest, policy: &Policy) -> Option<Nominee> {
    let demand = Demand::parse(request, policy).ok().filter(|demand| demand.shape.asks_for_devices())?;
    let uid = PodUid::new(&request.uid);
    Some(Nominee { uid, priority: request.priority, demand, totals: Totals::of(request) })
}

impl Pods {
    fn ahead(&self, node: &str, pod: &PodRequest) -> Vec<Arc<PodRequest>> {
        let known = self.by_node.get(node).map_or(&[][..], Vec::as_slice);
        let own = known.iter().position(|request| request.uid == pod.uid).unwrap_or(known.len());
        let is_ahead = |(at, other): &(usize, &Arc<PodRequest>)| {
            other.uid != pod.uid && (other.priority > pod.priority || (other.priority == pod.priority && *at < own))
        };
        known.iter().enumerate().filter(is_ahead).map(|(_, request)| Arc::clone(request)).collect()
    }

    fn forget(&mut self, uid: &PodUid) {
        let Some(node) = self.node_of.remove(uid) else { return };
        if let Some(known) = self.by_node.get_mut(&node) {
            known.retain(|request| request.uid != uid.as_str());
            if known.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_core::demand::ContainerRequest;

    fn pod(uid: &str, priority: i32, node: &str) -> PodRequest {
        let requests = [("nvidia.com/gpu".to_owned(), "1".to_owned())].into();
        PodRequest {
            uid: uid.to_owned(),
            priority,
            nominated_node: node.to_owned(),
            containers: vec![ContainerRequest { name: "c".to_owned(), requests, ..ContainerRequest::default() }],
            ..PodRequest::default()
        }
    }

    fn ahead(of: &Nominations, node: &str, pod: &PodRequest) -> Vec<String> {
        of.ahead(node, pod, &Policy::default()).iter().map(|n| n.uid.to_string()).collect()
    }

    #[test]
    fn equal_and_more_important_pods_go_ahead_and_less_important_ones_do_not() {
        let known = Nominations::default();
        for request in [pod("low", 1, "n1"), pod("same", 5, "n1"), pod("high", 9, "n1"), pod("other", 9, "n2")] {
            known.note(&request);
        }
        let own = pod("own", 5, "");
        assert_eq!(ahead(&known, "n1", &own), ["high", "same"]);
        assert_eq!(ahead(&known, "n3", &own), [""; 0]);
        assert!(known.concern(&own) && !known.concern(&pod("top", 10, "")));
    }

    #[test]
    fn of_two_equal_ones_only_the_later_waits_for_the_other() {
        let known = Nominations::default();
        let (first, second) = (pod("a", 5, "n1"), pod("b", 5, "n1"));
        known.note(&first);
        known.note(&second);
        known.note(&first);
        assert_eq!((ahead(&known, "n1", &first), ahead(&known, "n1", &second)), (vec![], vec!["a".to_owned()]));
    }

    #[test]
    fn a_nomination_ends_when_it_is_withdrawn_moved_or_its_pod_is_gone() {
        let known = Nominations::default();
        let own = pod("own", 0, "");
        known.note(&pod("a", 5, "n1"));
        known.note(&pod("a", 5, "n2"));
        assert_eq!((ahead(&known, "n1", &own).len(), ahead(&known, "n2", &own).len()), (0, 1));
        known.note(&pod("a", 5, ""));
        assert!(known.is_empty());
        known.note(&pod("b", 5, "n1"));
        known.forget(&PodUid::new("b"));
        assert!(known.is_empty());
        known.note(&pod("c", 5, "n1"));
        known.note(&pod("d", 5, "n1"));
        known.retain(|uid| uid.as_str() == "d");
        assert_eq!(ahead(&known, "n1", &own), ["d"]);
    }
}
