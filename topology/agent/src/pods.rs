//! The pods bound to this node, as the API server tells: who they are, what their containers ask for, and their plans. Judges none.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use berth_core::annotation::PLAN_KEY;
use k8s_openapi::api::core::v1 as api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

/// Most pods kept: a kubelet admits 110 unless told otherwise, and pods that have ended stay for a while.
const PODS_MAX: usize = 4096;

/// Most containers kept of a pod; a pod of 1.5 MiB has room for more, but nobody runs it.
const CONTAINERS_MAX: usize = 256;

/// Most resources kept of a container.
const RESOURCES_MAX: usize = 32;

/// One pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// UID; a pod that is made anew under the name has another one.
    pub(crate) uid: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether its phase is final: it runs no container any more.
    pub(crate) is_ended: bool,
    /// Whether somebody asked for its deletion.
    pub(crate) is_deleting: bool,
    /// Whether the kubelet has written a status for this UID, which it does once it has taken the pod in.
    pub(crate) is_acknowledged: bool,
    /// Init containers and sidecars in their order, then the others in theirs: the order in which the kubelet admits them.
    pub(crate) containers: Vec<Container>,
    /// Those of them that run and ask for extended resources, as the kubelet told last.
    pub(crate) running: BTreeSet<String>,
    /// The text of its plan.
    pub(crate) plan: Option<String>,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// When it runs.
    pub(crate) kind: Kind,
    /// Extended resources that it asks for, by name.
    pub(crate) resources: BTreeMap<String, usize>,
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Before the others, to its end: these get its devices afterwards.
    Init,
    /// Started before the others, and stays.
    Sidecar,
    /// Beside the others.
    Main,
}

/// The pods of the node at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnNode {
    /// Whether a list of them was complete once; before that, a pod that is not here is not gone.
    pub(crate) is_listed: bool,
    /// By namespace and name, of which the API server has each once.
    pods: BTreeMap<(String, String), Arc<Pod>>,
}

impl OnNode {
    /// The pod of this name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The pod of this UID.
    pub(crate) fn of_uid(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.values().find(|pod| pod.uid == uid)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// The pods of a list.
    pub(crate) fn listed(pods: impl IntoIterator<Item = Pod>) -> Self {
        let mut on_node = Self { is_listed: true, pods: BTreeMap::new() };
        pods.into_iter().for_each(|pod| on_node.put(pod));
        on_node
    }

    fn put(&mut self, pod: Pod) {
        let name = (pod.namespace.clone(), pod.name.clone());
        if self.pods.len() < PODS_MAX || self.pods.contains_key(&name) {
            self.pods.insert(name, Arc::new(pod));
        }
    }

    /// A deletion that comes late must not take the next pod of the name with it.
    fn lose(&mut self, pod: &Pod) {
        let name = (pod.namespace.clone(), pod.name.clone());
        if self.pods.get(&name).is_some_and(|known| known.uid == pod.uid) {
            self.pods.remove(&name);
        }
    }
}

/// The pods from now on; before the first list is complete, none and not listed. Ends when nobody listens.
pub(crate) fn watch(client: Client, node: &str) -> watch::Receiver<Arc<OnNode>> {
    let (said, pods) = watch::channel(Arc::default());
    tokio::spawn(follow(client, node.to_owned(), said));
    pods
}

async fn follow(client: Client, node: String, said: watch::Sender<Arc<OnNode>>) -> Infallible {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut events = std::pin::pin!(watcher(Api::<api::Pod>::all(client), config).default_backoff());
    let mut list: Option<OnNode> = None;
    let mut told: Option<String> = None;
    loop {
        match events.next().await {
            Some(Ok(event)) => {
                if told.take().is_some() {
                    tracing::info!("the pods of this node are watched again");
                }
                take(event, &mut list, &said);
            }
            Some(Err(error)) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "the pods of this node are not watched; what is known of them stays");
                }
                told = Some(error);
            }
            // kube's watcher never ends.
            None => std::future::pending().await,
        }
    }
}

fn take(event: Event<api::Pod>, list: &mut Option<OnNode>, said: &watch::Sender<Arc<OnNode>>) {
    match event {
        Event::Init => *list = Some(OnNode::listed([])),
        Event::InitApply(object) => {
            if let Some(list) = list {
                list.put(read(object));
            }
        }
        Event::InitDone => {
            let Some(list) = list.take() else { return };
            said.send_if_modified(|known| {
                let is_news = **known != list;
                if is_news {
                    *known = Arc::new(list);
                }
                is_news
            });
        }
        Event::Apply(object) => {
            let pod = read(object);
            said.send_if_modified(|known| {
                // Most changes of a pod are of its conditions, which nobody here reads.
                let is_news = known.named(&pod.namespace, &pod.name).is_none_or(|before| **before != pod);
                if is_news {
                    Arc::make_mut(known).put(pod);
                }
                is_news
            });
        }
        Event::Delete(object) => {
            let pod = read(object);
            said.send_modify(|known| Arc::make_mut(known).lose(&pod));
        }
    }
}

/// What is kept of a pod.
pub(crate) fn read(object: api::Pod) -> Pod {
    let api::Pod { metadata, spec, status } = object;
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let before = spec.init_containers.unwrap_or_default().into_iter().map(|container| {
        let kind = if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init };
        (kind, container)
    });
    let beside = spec.containers.into_iter().map(|container| (Kind::Main, container));
    let containers = before.chain(beside).take(CONTAINERS_MAX).map(|(kind, container)| Container {
        name: container.name,
        kind,
        resources: resources(container.resources.unwrap_or_default()),
    });
    let containers: Vec<Container> = containers.collect();
    let statuses = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    let running = statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let asks = |name: &String| containers.iter().any(|own| own.name == *name && !own.resources.is_empty());
    let running = running.map(|status| status.name).filter(asks).collect();
    Pod {
        uid: metadata.uid.unwrap_or_default(),
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        is_ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        is_deleting: metadata.deletion_timestamp.is_some(),
        is_acknowledged: status.start_time.is_some(),
        containers,
        running,
        plan: metadata.annotations.unwrap_or_default().remove(PLAN_KEY),
    }
}

/// The extended resources: their names have a domain, and their limits are whole numbers that count.
fn resources(resources: api::ResourceRequirements) -> BTreeMap<String, usize> {
    let limits = resources.limits.unwrap_or_default().into_iter().filter(|(name, _)| name.contains('/'));
    let counts = limits.filter_map(|(name, count)| count.0.parse().ok().filter(|count| *count > 0).map(|c| (name, c)));
    counts.take(RESOURCES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str, status: &str) -> api::Pod {
        let json = format!(
            r#"{{"metadata":{{"namespace":"n","name":"{name}","uid":"{uid}","annotations":{{"topology.berth.dev/plan":"P","x":"y"}}}},
            "spec":{{"initContainers":[{{"name":"pull","resources":{{"limits":{{"nvidia.com/gpu":"1"}}}}}},
                {{"name":"side","restartPolicy":"Always"}}],
            "containers":[{{"name":"main","resources":{{"limits":{{"nvidia.com/gpu":"2","cpu":"1","rdma/hca":"1k","a.b/c":"0"}}}}}}]}},
            "status":{status}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_pod_is_read_with_its_containers_in_the_order_of_their_admission() {
        let state = |name: &str, state: &str| {
            format!(
                r#"{{"name":"{name}","image":"","imageID":"","ready":false,"restartCount":0,"state":{{"{state}":{{}}}}}}"#
            )
        };
        let (main, other) = (state("main", "running"), state("other", "running"));
        let init = [state("pull", "waiting"), state("side", "running")].join(",");
        let status = format!(
            r#"{{"phase":"Pending","startTime":"2026-11-21T00:00:00Z","initContainerStatuses":[{init}],"containerStatuses":[{main},{other}]}}"#
        );
        let read = read(pod("p", "u", &status));
        let gpus = |count| BTreeMap::from([("nvidia.com/gpu".to_owned(), count)]);
        let container = |name: &str, kind, resources| Container { name: name.to_owned(), kind, resources };
        let containers = vec![
            container("pull", Kind::Init, gpus(1)),
            container("side", Kind::Sidecar, BTreeMap::new()),
            container("main", Kind::Main, gpus(2)),
        ];
        let (uid, namespace, name) = ("u".to_owned(), "n".to_owned(), "p".to_owned());
        let (is_ended, is_deleting, is_acknowledged, plan) = (false, false, true, Some("P".to_owned()));
        let running = BTreeSet::from(["main".to_owned()]);
        assert_eq!(
            read,
            Pod { uid, namespace, name, is_ended, is_deleting, is_acknowledged, containers, running, plan }
        );
    }

    #[test]
    fn events_are_folded_and_a_late_deletion_spares_the_next_pod_of_the_name() {
        let (said, pods) = watch::channel(Arc::default());
        let mut list = None;
        let mut take = |event| {
            take(event, &mut list, &said);
            let now = pods.borrow().clone();
            let names: Vec<String> = now.iter().map(|pod| format!("{}={}", pod.name, pod.uid)).collect();
            (now.is_listed, names.join(" "))
        };
        assert_eq!(take(Event::Init), (false, String::new()));
        assert_eq!(take(Event::InitApply(pod("a", "1", "{}"))), (false, String::new()), "half a list is none");
        assert_eq!(take(Event::InitDone), (true, "a=1".to_owned()));
        assert_eq!(take(Event::Apply(pod("b", "2", "{}"))).1, "a=1 b=2");
        assert_eq!(take(Event::Apply(pod("a", "3", "{}"))).1, "a=3 b=2");
        assert_eq!(take(Event::Delete(pod("a", "1", "{}"))).1, "a=3 b=2");
        assert_eq!(take(Event::Init).1, "a=3 b=2", "what is known stays while a list is on its way");
        assert_eq!(take(Event::InitDone), (true, String::new()));
    }

    #[test]
    fn a_change_that_nobody_reads_wakes_nobody() {
        let (said, mut pods) = watch::channel(Arc::default());
        let mut list = None;
        take(Event::Apply(pod("a", "1", r#"{"phase":"Pending"}"#)), &mut list, &said);
        pods.borrow_and_update();
        take(Event::Apply(pod("a", "1", r#"{"phase":"Running"}"#)), &mut list, &said);
        assert!(!pods.has_changed().unwrap());
        take(Event::Apply(pod("a", "1", r#"{"phase":"Failed"}"#)), &mut list, &said);
        assert!(pods.has_changed().unwrap() && pods.borrow().of_uid("1").unwrap().is_ended);
    }
}
