//! Holds the overlays to what README.md of manifests/ says they install, on a real API server and with a real kube-scheduler: they
//! are accepted, they say the same twice, what they start could start, and nothing is left when they go.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_extender::args::{Args, ModeArg, ServeArgs};
use berth_tests::binaries::binaries;
use berth_tests::controlplane::{ControlPlane, NAMESPACE, NodeSpec, Options, ProcessSpec};
use berth_tests::installed::{Installed, NODES, PLAN, PODS, REPORTS, binding, overlay, pod, report};
use berth_tests::rest::Call;
use clap::Parser;
use serde_json::{Value, json};
use tokio::time::Instant;

const OVERLAYS: [&str; 7] = ["sidecar", "score", "stream", "holders", "agent-only", "preferred", "enforced"];

/// Scheduling takes milliseconds; this is for a machine that does much else.
const WITHIN: Duration = Duration::from_secs(30);

/// The objects of an overlay as the API server has them.
async fn objects(plane: &ControlPlane, name: &str) -> Result<Vec<Value>> {
    let folder = overlay(name);
    let said = plane.kubectl(&["get", "-k", folder.to_str().context("path")?, "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&said)?;
    list["items"].as_array().cloned().context("no list of objects")
}

fn identity(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    )
}

/// The pods that the overlay's workloads would make, by the workload's name.
fn pods_of(objects: &[Value]) -> BTreeMap<String, Value> {
    let workloads = objects.iter().filter(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet");
    workloads
        .map(|workload| {
            let name = workload["metadata"]["name"].as_str().unwrap_or_default();
            let mut made = workload["spec"]["template"].clone();
            made["apiVersion"] = json!("v1");
            made["kind"] = json!("Pod");
            made["metadata"]["name"] = json!(name);
            (name.to_owned(), made)
        })
        .collect()
}

/// The kube-scheduler configuration that the overlay's Deployment mounts.
fn scheduler_config(objects: &[Value]) -> Result<String> {
    let pods = pods_of(objects);
    let volumes =
        pods.get("berth-scheduler").and_then(|pod| pod["spec"]["volumes"].as_array()).context("no volumes")?;
    let volume = volumes.iter().find(|volume| volume["name"] == "config").context("no volume `config`")?;
    let map = objects
        .iter()
        .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == volume["configMap"]["name"]);
    let text = map.context("the Deployment mounts a ConfigMap that is not there")?["data"]["config.yaml"].as_str();
    Ok(text.context("no config.yaml in it")?.to_owned())
}

#[tokio::test]
async fn every_overlay_is_accepted_and_means_the_same_the_second_time() -> Result<()> {
    for name in OVERLAYS {
        let plane = ControlPlane::start(Options::default()).await?;
        let said = plane.apply_kustomize(&overlay(name)).await?;
        ensure!(said.lines().all(|line| line.ends_with(" created")), "{name}: {said}");
        let versions = async || -> Result<Vec<(String, Value)>> {
            let all = objects(&plane, name).await?;
            Ok(all.iter().map(|object| (identity(object), object["metadata"]["resourceVersion"].clone())).collect())
        };
        let before = versions().await?;
        plane.apply_kustomize(&overlay(name)).await?;
        assert_eq!(versions().await?, before, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn every_object_says_what_it_belongs_to() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    // Stream last but one: it has everything that the others before have.
    for name in ["agent-only", "score", "sidecar", "stream", "holders"] {
        plane.apply_kustomize(&overlay(name)).await?;
        for object in objects(&plane, name).await? {
            let (who, labels) = (identity(&object), &object["metadata"]["labels"]);
            assert_eq!(labels["app.kubernetes.io/name"], "berth", "{name}: {who}");
            assert_eq!(labels["app.kubernetes.io/part-of"], "berth", "{name}: {who}");
            assert_eq!(labels["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"), "{name}: {who}");
            // The one object outside is the RoleBinding to a Role that lives in kube-system.
            let namespace = object["metadata"]["namespace"].as_str();
            let fits = namespace.is_none_or(|namespace| {
                namespace == NAMESPACE || who == "RoleBinding berth-scheduler-authentication-reader"
            });
            ensure!(fits, "{name}: {who} is in {namespace:?}");
        }
        for (workload, pod) in pods_of(&objects(&plane, name).await?) {
            let component = workload.trim_start_matches("berth-");
            assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/component"], component);
            let tag = format!(":{}", env!("CARGO_PKG_VERSION"));
            let images = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
            let ours = images.into_iter().filter_map(Value::as_array).flatten().filter_map(|one| one["image"].as_str());
            let ours: Vec<_> = ours.filter(|image| image.starts_with("registry.invalid/berth/")).collect();
            ensure!(!ours.is_empty() && ours.iter().all(|image| image.ends_with(&tag)), "{workload}: {ours:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_namespace_admits_our_pods_and_none_with_more_privilege() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.apply_kustomize(&overlay("stream")).await?;
    let admin = plane.client();
    let runtime = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"});
    Call::create("/apis/node.k8s.io/v1/runtimeclasses", runtime).done(&admin).await?;
    let pods = pods_of(&objects(&plane, "stream").await?);
    assert_eq!(pods.keys().collect::<Vec<_>>(), ["berth-agent", "berth-scheduler"]);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for (name, pod) in pods {
        let made = until_done(&Call::create(&path, pod.clone()).dry_run(), &admin).await?;
        let volumes = made["spec"]["volumes"].as_array().context("no volumes")?;
        ensure!(volumes.iter().all(|volume| volume.get("hostPath").is_none()), "{name}: {volumes:?}");

        let mut bolder = pod;
        bolder["spec"]["containers"][0]["securityContext"]["capabilities"] = json!({"add": ["SYS_ADMIN"]});
        let refused = Call::create(&path, bolder).dry_run().done(&admin).await;
        let text = refused.err().context("a pod with SYS_ADMIN was admitted")?.to_string();
        ensure!(text.contains("violates PodSecurity \"restricted:latest\""), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_pool_of_a_level_has_agents_of_its_own_and_other_agents_keep_off() -> Result<()> {
    for level in ["preferred", "enforced"] {
        let plane = ControlPlane::start(Options::default()).await?;
        plane.apply_kustomize(&overlay(level)).await?;
        let admin = plane.client();
        let runtime = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"});
        Call::create("/apis/node.k8s.io/v1/runtimeclasses", runtime).done(&admin).await?;
        let pods = pods_of(&objects(&plane, level).await?);
        let pool = pods.get(&format!("berth-agent-{level}")).context("no agents of the pool")?;
        assert_eq!(pool["spec"]["nodeSelector"], json!({"berth.dev/level": level}));
        let env = pool["spec"]["containers"][0]["env"].as_array().context("no environment")?;
        ensure!(env.contains(&json!({"name": "BERTH_LEVEL", "value": level})), "{env:?}");
        until_done(&Call::create(format!("/api/v1/namespaces/{NAMESPACE}/pods"), pool.clone()).dry_run(), &admin)
            .await?;

        let others = pods.get("berth-agent").context("no other agents")?;
        let affinity = &others["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let terms = affinity["nodeSelectorTerms"].as_array().context("no terms")?;
        let is_out = json!({"key": "berth.dev/level", "operator": "NotIn", "values": [level]});
        let keeps_off = |term: &Value| term["matchExpressions"].as_array().is_some_and(|all| all.contains(&is_out));
        ensure!(terms.len() == 3 && terms.iter().all(keeps_off), "{terms:?}");
        let volumes = others["spec"]["volumes"].as_array().context("no volumes")?;
        ensure!(volumes.iter().all(|volume| volume.get("hostPath").is_none()), "{volumes:?}");

        let may = async |verb: &str| -> Result<bool> {
            let account = format!("--as=system:serviceaccount:{NAMESPACE}:berth-agent");
            let output = plane.kubectl_output(&["auth", "can-i", verb, "pods", "--all-namespaces", &account]).await?;
            Ok(output.status.success())
        };
        for (verb, granted) in [("list", true), ("watch", true), ("patch", false), ("delete", false)] {
            assert_eq!(may(verb).await?, granted, "{verb} pods");
        }
    }
    Ok(())
}

/// Caches inside the API server (priority classes, for one) may lag behind it by a moment.
async fn until_done(call: &Call, client: &kube::Client) -> Result<Value> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match call.done(client).await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn until(site: &Installed, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let now = site.read(path).await?;
        if holds(&now) {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "{what} does not come: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_berth_scheduler_gpu_pods_wait_and_other_pods_are_placed() -> Result<()> {
    let site = Installed::start("sidecar").await?;
    let installed = objects(&site.plane, "sidecar").await?;
    let args = scheduler_args(&installed)?;
    assert_eq!((args.listen.to_string(), args.mode), ("127.0.0.1:8888".to_owned(), ModeArg::Allocate));
    let shipped = scheduler_config(&installed)?;
    ensure!(shipped.contains("http://127.0.0.1:8888\n"), "{shipped}");
    // A port where nothing listens, whatever else runs on this machine.
    let config = shipped.replace("http://127.0.0.1:8888\n", "http://127.0.0.1:1\n");
    let account = site.plane.scheduler_identity().await?;
    let scheduler = site.plane.start_kube_scheduler_as(&account, &config).await?;

    let ours = |name: &str, limits: Value| {
        let mut made = pod(name, json!({}));
        made["spec"]["schedulerName"] = json!("berth");
        made["spec"]["containers"][0]["resources"] = json!({"limits": limits});
        Call::create(PODS, made)
    };
    ours("gpu", json!({"nvidia.com/gpu": "1"})).done(&site.plane.client()).await?;
    ours("cpu", json!({"cpu": "1"})).done(&site.plane.client()).await?;

    let placed =
        until(&site, &format!("{PODS}/cpu"), "a node for the CPU pod", |pod| pod["spec"]["nodeName"].is_string())
            .await?;
    assert_eq!(placed["metadata"]["annotations"], Value::Null, "{placed}");
    let condition = |pod: &Value| pod["status"]["conditions"][0]["reason"] == "SchedulerError";
    let waiting = until(&site, &format!("{PODS}/gpu"), "a condition on the GPU pod", condition).await?;
    assert_eq!(waiting["spec"]["nodeName"], Value::Null, "{waiting}");

    // It leads by the lease that the Role names, and lacks no right.
    let lease =
        site.read(&format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/berth-scheduler")).await?;
    ensure!(lease["spec"]["holderIdentity"].is_string(), "{lease}");
    let log = scheduler.process.log()?;
    let lacking: Vec<_> = log.lines().filter(|line| line.contains("forbidden")).collect();
    ensure!(lacking.is_empty(), "{lacking:?}");
    Ok(())
}

/// The arguments of one container of a workload.
fn args_of(pod: &Value, containers: &str) -> Vec<String> {
    let args = pod["spec"][containers][0]["args"].as_array();
    args.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What berth-scheduler makes of its arguments in the Deployment.
fn scheduler_args(objects: &[Value]) -> Result<ServeArgs> {
    let pods = pods_of(objects);
    let args = args_of(pods.get("berth-scheduler").context("no scheduler")?, "initContainers");
    Ok(Args::try_parse_from(["berth-scheduler".to_owned()].into_iter().chain(args))?.serve)
}

#[tokio::test]
async fn the_real_agent_publishes_with_the_arguments_and_rights_of_its_daemon_set() -> Result<()> {
    let site = Installed::start("agent-only").await?;
    site.plane.create_node(&NodeSpec::gpus("nc", 0)).await?;
    let identity = site.plane.agent_identity("nc").await?;
    let pods = pods_of(&objects(&site.plane, "agent-only").await?);
    let args = args_of(pods.get("berth-agent").context("no agent")?, "containers");
    // The port is the pod's; here it may be anybody's.
    let args = args.into_iter().map(|arg| arg.replace("0.0.0.0:8891", "127.0.0.1:0"));
    let agent = ProcessSpec::new("berth-agent-nc", binaries()?.agent.clone())
        .args(args)
        .arg(format!("--kubeconfig={}", identity.display()))
        .env("NODE_NAME", "nc");
    let agent = site.plane.spawn(agent)?;

    let path = format!("{REPORTS}/nc");
    let deadline = Instant::now() + WITHIN;
    let published = loop {
        match Call::get(&path).done(&site.agent_b).await {
            Ok(object) if object["status"].is_object() => break object,
            _ => ensure!(Instant::now() < deadline, "no report: {}", agent.log_tail()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let node = site.read(&format!("{NODES}/nc")).await?;
    assert_eq!(published["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"], "{published}");
    Ok(())
}

#[tokio::test]
async fn mode_score_differs_by_one_verb_and_leaves_plans_to_nobody() -> Result<()> {
    let site = Installed::start("score").await?;
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text);
    let installed = objects(&site.plane, "score").await?;
    assert_eq!(scheduler_args(&installed)?.mode, ModeArg::Score);
    let score = parse(&scheduler_config(&installed)?)?;
    let mut allocate = parse(&std::fs::read_to_string(overlay("sidecar").join("kube-scheduler.yaml"))?)?;
    let verbs = allocate["extenders"][0].as_object_mut().context("no extender")?;
    assert_eq!(verbs.remove("bindVerb"), Some(json!("bind")));
    assert_eq!(score, allocate);

    let path = site.pod("scored").await?;
    let planned = Call::create(format!("{path}/binding"), binding("scored", json!({"annotations": {PLAN: "x"}})));
    planned.refused_by_policy(&site.scheduler, "berth-plan", "written by berth-scheduler").await?;
    let requeue = json!({"metadata": {"annotations": {"berth.dev/requeue": "1"}}});
    Call::merge(format!("{NODES}/na"), requeue).refused_by_rights(&site.scheduler).await?;
    // This is kube-scheduler's right, and in this mode it is kube-scheduler that binds.
    Call::create(format!("{path}/binding"), binding("scored", json!({}))).done(&site.scheduler).await?;
    Ok(())
}

#[tokio::test]
async fn uninstalling_leaves_nothing_but_the_bound_pods() -> Result<()> {
    let site = Installed::start("sidecar").await?;
    let path = site.planned_pod("survivor", "the plan").await?;
    let installed = objects(&site.plane, "sidecar").await?;
    let folder = overlay("sidecar");
    site.plane.kubectl(&["delete", "--wait=false", "-k", folder.to_str().context("path")?]).await?;

    // There is no controller here that would empty the namespace, so its own deletion only begins; in it nothing may be left.
    let deadline = Instant::now() + WITHIN;
    loop {
        let left = site
            .plane
            .kubectl(&["get", "--ignore-not-found", "-o", "name", "-k", folder.to_str().context("path")?])
            .await;
        // Once the definition is gone, kubectl no longer knows the kind: that too is "nothing left".
        let left = left.unwrap_or_default();
        let left: Vec<_> = left.lines().filter(|line| *line != "namespace/berth-system").collect();
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "of {} objects are left: {left:?}", installed.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let namespace = site.read(&format!("/api/v1/namespaces/{NAMESPACE}")).await?;
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let survivor = site.read(&path).await?;
    assert_eq!(survivor["spec"]["nodeName"], "na");
    assert_eq!(survivor["metadata"]["annotations"], json!({PLAN: "the plan"}));
    Ok(())
}

#[tokio::test]
async fn reports_read_well_in_kubectl() -> Result<()> {
    let site = Installed::start("agent-only").await?;
    let mut full = report("na");
    full["status"] = json!({"generation": 7, "gpuCount": 8, "product": "NVIDIA H100 80GB HBM3", "linkClass": "NV18", "health": "healthy"});
    Call::apply(format!("{REPORTS}/na/status"), full).done(&site.agent_a).await?;
    let table = site.plane.kubectl(&["get", "ntopo"]).await?;
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.first().context("no head")?, &["NAME", "GPUS", "PRODUCT", "LINK", "HEALTH", "AGE"]);
    let row = rows.get(1).context("no row")?.join(" ");
    ensure!(row.starts_with("na 8 NVIDIA H100 80GB HBM3 NV18 healthy "), "{table}");

    for path in
        ["nodetopology.status", "nodetopology.status.gpus", "nodetopology.status.nics", "nodetopology.status.zones"]
    {
        let said = site.plane.kubectl(&["explain", path]).await?;
        let fields = said.split_once("FIELDS:\n").context("no fields")?.1;
        // A field is two blanks, its name, a tab and its type; its text is four blanks deep.
        let lines: Vec<_> = fields.lines().collect();
        let mut count = 0;
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  ") && line.contains("\t<")) {
            count += 1;
            let text = lines.iter().skip(at + 1).find(|line| line.starts_with("    ") && !line.contains("enum:"));
            let described = text.is_some_and(|text| !text.contains("<no description>") && text.trim().len() > 8);
            ensure!(described, "{path}: {line} says nothing");
        }
        ensure!(count > 2, "{said}");
    }
    let status = site.plane.kubectl(&["explain", "nodetopology.status"]).await?;
    for part in [
        "One node's hardware as its agent last read it.",
        "gpus\t<[]Object>",
        "links\t<[]string>",
        "nvidia-smi topo -m",
    ] {
        ensure!(status.contains(part), "{part:?} is not in {status}");
    }
    Ok(())
}
