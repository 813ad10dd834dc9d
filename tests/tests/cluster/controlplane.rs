//! Holds the harness to what the other tests build on: a real control plane comes
//! up, keeps to itself, dies with us, and binds and authenticates as the decisions assume.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_tests::controlplane::{AGENT_ACCOUNT, ControlPlane, NAMESPACE, NodeSpec, Options, Process, ProcessSpec};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

async fn create_pod(client: Client, name: &str) -> Result<Pod> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"schedulerName": "nobody", "containers": [{
            "name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}},
        }]},
    }))?;
    Ok(Api::namespaced(client, "default").create(&PostParams::default(), &pod).await?)
}

/// What an extender's bind sends: the pod's name, the UID that it decided for, and its plan.
async fn bind(client: Client, pod: &str, uid: &str, plan: &str) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.to_owned()),
            uid: Some(uid.to_owned()),
            annotations: Some(BTreeMap::from([("topology.berth.dev/plan".to_owned(), plan.to_owned())])),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some("na".to_owned()),
            ..ObjectReference::default()
        },
    };
    let _: serde_json::Value = pods.create_subresource("binding", pod, &PostParams::default(), &binding).await?;
    Ok(())
}

#[tokio::test]
async fn a_binding_with_a_wrong_uid_answers_409_and_binds_nothing() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.create_node(&NodeSpec::gpus("na", 8)).await?;
    create_pod(plane.client(), "p").await?;

    let refused = bind(plane.client(), "p", "00000000-0000-0000-0000-000000000000", "{}").await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409), "{refused:?}");

    let pod = Api::<Pod>::namespaced(plane.client(), "default").get("p").await?;
    assert_eq!(pod.spec.and_then(|spec| spec.node_name), None);
    assert_eq!(pod.metadata.annotations, None);
    Ok(())
}

#[tokio::test]
async fn the_annotations_of_a_binding_arrive_in_the_write_that_binds() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.create_node(&NodeSpec::gpus("na", 8)).await?;
    let pod = create_pod(plane.client(), "p").await?;
    let before = pod.metadata.resource_version.context("a pod without a version")?;
    let pods: Api<Pod> = Api::namespaced(plane.client(), "default");
    // A watch from before the binding shows every write since, so it shows whether there were two.
    let mut events = Box::pin(pods.watch(&kube::api::WatchParams::default().fields("metadata.name=p"), &before).await?);

    bind(plane.client(), "p", &pod.metadata.uid.context("a pod without a UID")?, r#"{"v":1}"#).await?;

    let next = tokio::time::timeout(Duration::from_secs(10), futures::TryStreamExt::try_next(&mut events));
    let Some(kube::api::WatchEvent::Modified(bound)) = next.await?? else {
        panic!("the first event after the binding is not a change of the pod");
    };
    assert_eq!(bound.spec.and_then(|spec| spec.node_name).as_deref(), Some("na"));
    let annotations = bound.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations.get("topology.berth.dev/plan").map(String::as_str), Some(r#"{"v":1}"#));
    Ok(())
}

#[tokio::test]
async fn two_control_planes_run_side_by_side_and_share_nothing() -> Result<()> {
    let (one, two) =
        tokio::try_join!(ControlPlane::start(Options::default()), ControlPlane::start(Options::default()),)?;
    one.create_node(&NodeSpec::gpus("na", 8)).await?;

    let names = |said: String| said.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(one.kubectl(&["get", "nodes", "-o", "name"]).await?), ["node/na"]);
    assert_eq!(names(two.kubectl(&["get", "nodes", "-o", "name"]).await?), Vec::<String>::new());

    // One's administrator is a stranger to two: the authority differs, so not even TLS comes up.
    let config = std::fs::read_to_string(one.kubeconfig_path())?.replace(one.server(), two.server());
    let crossed = one.folder().join("crossed.kubeconfig");
    std::fs::write(&crossed, config)?;
    let crossed = crossed.to_str().context("path")?;
    let output = two.kubectl_output(&["--kubeconfig", crossed, "get", "nodes"]).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("certificate"), "{said}");
    Ok(())
}

#[tokio::test]
async fn an_agents_token_carries_the_name_of_its_node() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.create_node(&NodeSpec::gpus("na", 8)).await?;
    let kubeconfig = plane.agent_identity("na").await?;

    let user = format!("system:serviceaccount:{NAMESPACE}:{AGENT_ACCOUNT}");
    let said =
        plane.kubectl(&["--kubeconfig", kubeconfig.to_str().context("path")?, "auth", "whoami", "-o", "json"]).await?;
    let review: SelfSubjectReview = serde_json::from_str(&said)?;
    let seen = review.status.and_then(|status| status.user_info).context("no user")?;
    assert_eq!(seen.username.as_deref(), Some(user.as_str()));
    assert_eq!(seen.extra.unwrap_or_default().get(NODE_NAME), Some(&vec!["na".to_owned()]));

    // An unbound token of the same account names no node: that is what the policies tell apart.
    let token = plane.service_account_token(NAMESPACE, AGENT_ACCOUNT, None).await?;
    let review = TokenReview {
        spec: TokenReviewSpec { token: Some(token), ..TokenReviewSpec::default() },
        ..TokenReview::default()
    };
    let review = Api::<TokenReview>::all(plane.client()).create(&PostParams::default(), &review).await?;
    let status = review.status.context("no status")?;
    assert_eq!((status.authenticated, status.error), (Some(true), None));
    assert_eq!(status.user.and_then(|user| user.extra).unwrap_or_default().get(NODE_NAME), None);
    Ok(())
}

#[tokio::test]
async fn tokens_and_users_have_only_their_own_rights() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let code = |answer: kube::Result<_>| match answer {
        Err(kube::Error::Api(status)) => status.code,
        Err(_) => 0,
        Ok(kube::core::ObjectList::<Node> { .. }) => 200,
    };
    let list = async |client: Client| code(Api::<Node>::all(client).list(&ListParams::default()).await);

    plane.scheduler_identity().await?;
    let token = plane.service_account_token(NAMESPACE, "berth-scheduler", None).await?;
    assert_eq!(list(plane.client()).await, 200);
    assert_eq!(list(plane.client_for(&token)?).await, 403);
    assert_eq!(list(plane.client_for("never issued")?).await, 401);
    assert_eq!(list(plane.client_as("ada", &["researchers"])?).await, 403);
    assert_eq!(list(plane.client_as("ada", &["system:masters"])?).await, 200);
    Ok(())
}

#[tokio::test]
async fn the_stock_scheduler_binds_to_nodes_made_by_hand_and_survives_a_kill() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.create_nodes(&[NodeSpec::gpus("na", 1), NodeSpec::gpus("none", 0)]).await?;
    let mut scheduler = plane.start_kube_scheduler("profiles: [{schedulerName: nobody}]").await?;
    let bound_to = async |pod: &str| {
        plane.kubectl(&["wait", "--for=condition=PodScheduled", "--timeout=20s", &format!("pod/{pod}")]).await?;
        let pod = Api::<Pod>::namespaced(plane.client(), "default").get(pod).await?;
        anyhow::Ok(pod.spec.and_then(|spec| spec.node_name))
    };
    create_pod(plane.client(), "first").await?;
    assert_eq!(bound_to("first").await?.as_deref(), Some("na"));
    assert!(scheduler.metrics().await?.contains("scheduler_schedule_attempts_total"));

    scheduler.process.kill()?;
    plane.kubectl(&["delete", "pod", "first", "--grace-period=0", "--force"]).await?;
    create_pod(plane.client(), "second").await?;
    scheduler.process.restart()?;
    assert_eq!(bound_to("second").await?.as_deref(), Some("na"));
    Ok(())
}

#[tokio::test]
async fn a_refused_scheduler_configuration_is_told_with_the_log() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let refused = plane.start_kube_scheduler("profilez: []").await;
    let text = format!("{:#}", refused.err().context("it started")?);
    assert!(text.contains("profilez"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_kustomization_is_applied_and_its_definitions_are_served() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let folder = plane.folder().join("kustomization");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("kustomization.yaml"), "resources: [crd.yaml]\n")?;
    std::fs::write(
        folder.join("crd.yaml"),
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: Thing, plural: things}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
",
    )?;
    plane.apply_kustomize(&folder).await?;
    plane.kubectl(&["get", "things"]).await?;

    std::fs::write(folder.join("crd.yaml"), "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n")?;
    let text = format!("{:#}", plane.apply_kustomize(&folder).await.err().context("applied")?);
    assert!(text.contains("Nonsense"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_killed_harness_leaves_no_process_and_no_folder_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = ProcessSpec::new("cluster", env!("CARGO_BIN_EXE_cluster")).args(["--bare", "--nodes", "1"]);
    let mut cluster = Process::spawn(spec, folder.path())?;
    let line = cluster.wait_for_log("export KUBECONFIG=", Duration::from_secs(60)).await?;
    let (_, kubeconfig) = line.split_once('=').context("no path")?;
    let plane = Path::new(kubeconfig).parent().context("no folder")?;
    let mentions = |plane: &Path| -> Result<usize> {
        let plane = plane.to_str().context("path")?;
        let children =
            std::fs::read_dir("/proc")?.filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("cwd")).ok());
        Ok(children.filter(|cwd| cwd.starts_with(plane)).count())
    };
    assert_eq!(mentions(plane)?, 3, "etcd, kube-apiserver and kube-scheduler work in the plane's folder");

    cluster.kill()?;

    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while mentions(plane)? > 0 || plane.exists() {
        assert!(std::time::Instant::now() < deadline, "{} is still there", plane.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_live_cluster_of_the_readme_answers_and_goes_without_a_trace() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = ProcessSpec::new("cluster", env!("CARGO_BIN_EXE_cluster")).args(["--node", "na=bridged-pairs"]);
    let mut cluster = Process::spawn(spec.args(["--nodes", "1"]), folder.path())?;
    // Berth's programs may have to be built first.
    let line = cluster.wait_for_log("export KUBECONFIG=", Duration::from_secs(600)).await?;
    let (_, kubeconfig) = line.split_once('=').context("no path")?;
    let said = cluster.log()?;
    let kubectl = said.lines().find_map(|line| line.trim().strip_prefix("alias kubectl=")).context("no kubectl")?;
    let get = ["--kubeconfig", kubeconfig, "get", "nodetopologies", "-o", "name"];
    let output = std::process::Command::new(kubectl).args(get).output()?;
    let names = String::from_utf8(output.stdout)?;
    assert_eq!(names.lines().map(|name| name.rsplit('/').next()).collect::<Vec<_>>(), [Some("na"), Some("node-0")]);

    assert!(cluster.terminate(Duration::from_secs(20)).await?.success());
    assert!(!Path::new(kubeconfig).exists());
    Ok(())
}
