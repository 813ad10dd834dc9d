//! The binder and the watchers against a real API server: what the unit tests' own server pretends, here the real one does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use berth_extender::admin::Gates;
use berth_extender::bind::Bind;
use berth_extender::bind::api::{ApiBinder, client};
use berth_extender::cluster::Cluster;
use berth_extender::events;
use berth_extender::metrics::Metrics;
use berth_extender::requeue::{REQUEUE_KEY, Requeue};
use berth_extender::watch::{self, PodOrder, Settings, Sinks};
use berth_extender::wire::BindArgs;
use berth_tests::controlplane::{ControlPlane, Options};
use berth_tests::installed::overlay;
use berth_tests::running::{plan_of, pod};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(30);

/// The parts of a scheduler over a real API server, under the scheduler's own account. No kube-scheduler asks it.
struct Rig {
    plane: ControlPlane,
    sinks: Sinks,
    binder: Arc<ApiBinder>,
    _tasks: JoinSet<&'static str>,
}

async fn config(path: &std::path::Path) -> Result<kube::Config> {
    Ok(kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?)
}

async fn rig(nodes: &[&str]) -> Result<Rig> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.apply_kustomize(&overlay("sidecar")).await?;
    let names: Vec<String> = nodes.iter().map(|&n| n.to_owned()).collect();
    plane.create_reported_nodes("bridged-pairs", &names).await?;
    let config = config(&plane.scheduler_identity().await?).await?;
    let (events, writer) = events::channel();
    let cluster = Arc::new(Cluster::new(Arc::new(Metrics::new("test"))));
    let (requeue, order) = (Arc::new(Requeue::default()), Arc::new(PodOrder::default()));
    let sinks =
        Sinks { cluster: Arc::clone(&cluster), requeue: Arc::clone(&requeue), events, order: Arc::clone(&order) };
    let (gates, stop) = (Gates::new(), CancellationToken::new());
    let watching = watch::client(config.clone())?;
    let mut tasks = watch::start(&watching, &sinks, &gates, &Settings::default(), &stop);
    let telling = writer.run(watching.clone(), stop.clone());
    let touching = requeue.run(watching, Arc::clone(&cluster), stop);
    tasks.spawn(async move {
        tokio::join!(telling, touching);
        "the rest"
    });
    let binder = ApiBinder::new(cluster, client(config)?, order, Some("berth".to_owned()));
    let rig = Rig { plane, sinks, binder: Arc::new(binder), _tasks: tasks };
    eventually("ready", async || gates.is_ready()).await;
    // The window of two binders.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(rig)
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let until = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < until, "{what}: not in {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Rig {
    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.plane.client())
    }

    async fn create(&self, object: Value) -> Result<String> {
        let pod = self.pods().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(pod.metadata.uid.unwrap())
    }

    async fn bind(&self, pod: &str, uid: &str, node: &str) -> Result<(), (&'static str, String)> {
        let args = BindArgs {
            pod_name: pod.to_owned(),
            pod_namespace: "default".to_owned(),
            pod_uid: uid.to_owned(),
            node: node.to_owned(),
        };
        Arc::clone(&self.binder).bind(args).await.map_err(|failure| (failure.code, failure.text))
    }

    fn held(&self, node: &str) -> u32 {
        self.sinks.cluster.index.snapshot().node(node).map_or(0, |slot| slot.view.taken_gpu_count())
    }

    fn hold_count(&self) -> usize {
        self.sinks.cluster.index.snapshot().hold_count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_answers_binds_as_the_binder_takes_it() -> Result<()> {
    let rig = rig(&["n1", "n2"]).await?;

    let uid = rig.create(pod("a", 2, &[])).await?;
    rig.bind("a", &uid, "n1").await.unwrap();
    let bound = rig.pods().get("a").await?;
    assert_eq!(bound.spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));
    let plan = plan_of(&bound)?;
    assert_eq!((plan.pod_uid.as_str(), plan.devices()?.len()), (uid.as_str(), 2));
    eventually("the watch shows it bound", async || rig.hold_count() == 0).await;
    assert_eq!(rig.held("n1"), 2);

    rig.bind("a", &uid, "n1").await.expect("once more is no failure");
    let version = |pod: &Pod| pod.metadata.resource_version.clone();
    assert_eq!(version(&rig.pods().get("a").await?), version(&bound), "and no write");
    assert_eq!(rig.bind("a", &uid, "n2").await.unwrap_err().0, "bound-elsewhere");
    assert_eq!(rig.bind("a", "another-uid", "n2").await.unwrap_err().0, "pod-gone");
    assert_eq!(rig.bind("nobody", "some-uid", "n2").await.unwrap_err().0, "pod-gone");

    let mut gated = pod("gated", 1, &[]);
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    let uid = rig.create(gated).await?;
    let (code, text) = rig.bind("gated", &uid, "n2").await.unwrap_err();
    assert_eq!(code, "conflict", "{text}");

    let mut leaving = pod("leaving", 1, &[]);
    leaving["metadata"]["finalizers"] = json!(["example.com/stay"]);
    let uid = rig.create(leaving).await?;
    rig.pods().delete("leaving", &DeleteParams::default()).await?;
    assert_eq!(rig.bind("leaving", &uid, "n2").await.unwrap_err().0, "pod-leaving");
    assert_eq!((rig.hold_count(), rig.held("n2")), (0, 0), "what failed holds nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_in_the_api_servers_words() -> Result<()> {
    let rig = rig(&["n1"]).await?;
    let uid = rig.create(pod("a", 1, &[])).await?;
    let binder = |client| {
        let Sinks { cluster, order, .. } = rig.sinks.clone();
        Arc::new(ApiBinder::new(cluster, client, order, None))
    };
    // An account without rights, and one with all of them that may not write plans.
    let agent = client(config(&rig.plane.agent_identity("n1").await?).await?)?;
    for (binder, words) in [
        (binder(agent), "system:serviceaccount:berth-system:berth-agent"),
        (binder(rig.plane.client()), "are written by berth-scheduler when it binds the pod"),
    ] {
        let args = |uid: &str| BindArgs {
            pod_name: "a".to_owned(),
            pod_namespace: "default".to_owned(),
            pod_uid: uid.to_owned(),
            node: "n1".to_owned(),
        };
        let failure = binder.bind(args(&uid)).await.unwrap_err();
        assert_eq!(failure.code, "forbidden", "{failure}");
        assert!(failure.text.contains(words), "{failure}");
        assert_eq!(rig.hold_count(), 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_at_once_fill_a_node_exactly() -> Result<()> {
    let rig = rig(&["n1", "n2"]).await?;
    let gpus = rig
        .sinks
        .cluster
        .index
        .snapshot()
        .node("n1")
        .unwrap()
        .view
        .hardware
        .as_ref()
        .unwrap()
        .topology
        .parts()
        .gpus
        .len();
    let mut pods = Vec::new();
    for i in 0..2 * gpus + 6 {
        let name = format!("p{i}");
        pods.push((rig.create(pod(&name, 1, &[])).await?, name));
    }
    let binds =
        pods.iter().enumerate().map(|(i, (uid, name))| rig.bind(name, uid, if i % 3 == 0 { "n1" } else { "n2" }));
    let results = futures::future::join_all(binds).await;
    let mut devices = BTreeSet::new();
    let mut bound = 0;
    for ((_, name), result) in pods.iter().zip(&results) {
        match result {
            Ok(()) => {
                bound += 1;
                for device in plan_of(&rig.pods().get(name).await?)?.gpus()? {
                    assert!(devices.insert(device.to_string()), "{device} is in two plans");
                }
            }
            Err((code, text)) => assert_eq!(*code, "gpus-busy", "{text}"),
        }
    }
    assert!(bound >= gpus, "{bound}");
    eventually("the ledger is the pods'", async || {
        rig.hold_count() == 0 && usize::try_from(rig.held("n1") + rig.held("n2")).unwrap() == bound
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_pods_and_agents_reaches_the_ledger() -> Result<()> {
    let rig = rig(&["n1"]).await?;
    let nodes: Api<Node> = Api::all(rig.plane.client());
    for name in ["ends", "deleted"] {
        let uid = rig.create(pod(name, 1, &[])).await?;
        rig.bind(name, &uid, "n1").await.unwrap();
    }
    eventually("bound", async || rig.held("n1") == 2 && rig.hold_count() == 0).await;
    let ended = json!({"status": {"phase": "Succeeded"}});
    rig.pods().patch_status("ends", &PatchParams::default(), &Patch::Merge(ended)).await?;
    eventually("an ended pod holds nothing", async || rig.held("n1") == 1).await;
    rig.pods().delete("deleted", &DeleteParams::default().grace_period(0)).await?;
    eventually("a deleted pod holds nothing", async || rig.held("n1") == 0).await;

    // Growth that kube-scheduler cannot see touches the node, for a pod that waits.
    rig.create(pod("waits", 8, &[])).await?;
    let touched = async || nodes.get("n1").await.unwrap().metadata.annotations.unwrap_or_default().remove(REQUEUE_KEY);
    eventually("what the start brought was touched for", async || touched().await.is_some()).await;
    let before = touched().await;
    let policy = "apiVersion: config.berth.dev/v1alpha1\nkind: Policy\ntopology: {staleAfterSeconds: 2}\n";
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(rig.plane.client(), "berth-system");
    let patch = Patch::Merge(json!({"data": {"policy.yaml": policy}}));
    maps.patch("berth-policy", &PatchParams::default(), &patch).await?;
    eventually("the policy is in force", async || rig.sinks.cluster.policy().stale_after_seconds() == 2).await;
    eventually("it was touched for", async || touched().await != before).await;
    let knowledge = || rig.sinks.cluster.index.snapshot().node("n1").unwrap().view.knowledge;
    rig.plane.set_agent_ready("n1", false).await?;
    eventually("the report is stale", async || knowledge() == berth_core::Knowledge::Stale).await;
    let before = touched().await;
    rig.plane.set_agent_ready("n1", true).await?;
    eventually("the report is current", async || knowledge() == berth_core::Knowledge::Current).await;
    eventually("that was touched for", async || touched().await != before).await;
    Ok(())
}
