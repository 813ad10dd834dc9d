//! Runs the CLI as a person does, against a real API server: what it shows, and which right it names when one is missing.

use std::path::PathBuf;
use std::process::Output;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_core::annotation::{Container, Device, Level, Note, VERSION};
use berth_machine::{Machine, Salt};
use berth_model::{BootId, NodeName, NodeTopology};
use berth_tests::binaries::binaries;
use berth_tests::controlplane::{Process, ProcessSpec, free_port};
use berth_tests::installed::{Installed, NODES, PODS, REPORTS, binding};
use berth_tests::rest::Call;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
/// Longer than the CLI's own deadline for one call.
const WITHIN: Duration = Duration::from_secs(60);

/// A cluster with a DGX H100 of which two pods hold parts, one with and one without a plan, and a node whose report says nothing.
struct Site {
    runtime: Runtime,
    installed: Installed,
}

static SITE: LazyLock<Result<Site>> = LazyLock::new(|| {
    let runtime = Runtime::new()?;
    let installed = runtime.block_on(furnished())?;
    Ok(Site { runtime, installed })
});

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

async fn furnished() -> Result<Installed> {
    let site = Installed::start("sidecar").await?;
    let topology = dgx()?;
    let status = json!({"status": berth_proto::encode(&topology, "test")});
    Call::merge(format!("{REPORTS}/na/status"), status).done(&site.agent_a).await?;
    Call::merge(format!("{REPORTS}/nb/status"), json!({"status": {"gpuCount": 0}})).done(&site.agent_b).await?;
    for node in ["na", "nb"] {
        site.plane.set_agent_ready(node, true).await?;
    }
    let mig = json!({"status": {"allocatable": {"nvidia.com/mig-1g.10gb": "7"}, "capacity": {"nvidia.com/mig-1g.10gb": "7"}}});
    Call::merge(format!("{NODES}/nb/status"), mig).done(&site.plane.client()).await?;

    let admin = site.plane.client();
    let planned = Call::create(PODS, gpu_pod("planned", 2, None)).done(&admin).await?;
    let uid = planned["metadata"]["uid"].as_str().context("no UID")?;
    let annotations = json!({"annotations": {"topology.berth.dev/plan": plan(&topology, uid)?}});
    Call::create(format!("{PODS}/planned/binding"), binding("planned", annotations)).done(&site.scheduler).await?;
    Call::create(PODS, gpu_pod("stray", 1, Some("na"))).done(&admin).await?;
    Call::create(PODS, gpu_pod("waiting", 8, None)).done(&admin).await?;

    // Ada may read the pods of her namespace and nothing else.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "ada"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    Call::create(format!("{RBAC}/roles"), role).done(&admin).await?;
    let grant = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "ada"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ada"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada"}]});
    Call::create(format!("{RBAC}/rolebindings"), grant).done(&admin).await?;
    Ok(site)
}

fn dgx() -> Result<NodeTopology> {
    let machine = Machine::parse(&std::fs::read_to_string(fixture("machines/dgx-h100.yaml"))?)?;
    let mut parts = berth_machine::topology(&machine, &NodeName::parse("na")?, &Salt::default())?.into_parts();
    parts.boot_id = BootId::parse("boot-na")?;
    parts.generation.0 = 7;
    Ok(NodeTopology::try_new(parts)?)
}

fn plan(topology: &NodeTopology, uid: &str) -> Result<String> {
    let devices = topology.parts().gpus.iter().take(2).map(|g| Device::whole(g.uuid.as_str())).collect();
    let note = Note {
        v: VERSION,
        pod_uid: uid.to_owned(),
        node: "na".to_owned(),
        level: Level::Advice,
        containers: vec![Container {
            name: "main".to_owned(),
            resource: "nvidia.com/gpu".to_owned(),
            init: false,
            devices,
        }],
        nics: vec!["mlx5_0".to_owned()],
        zone: Some(0),
        topology_generation: 7,
        score: 1,
        why: "because".to_owned(),
    };
    Ok(note.to_json()?)
}

fn gpu_pod(name: &str, gpu_count: u32, node: Option<&str>) -> Value {
    let limits = json!({"nvidia.com/gpu": gpu_count.to_string()});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "schedulerName": "berth", "nodeName": node,
        "containers": [{"name": "main", "image": "none", "resources": {"limits": limits}}],
    }})
}

/// Starts berth-scheduler with its own account, and waits until it has seen the cluster. Ends when dropped.
async fn scheduler(site: &Installed) -> Result<(Process, String)> {
    let account = site.plane.scheduler_identity().await?;
    let (port, admin) = (free_port()?, free_port()?);
    let spec = ProcessSpec::new("berth-scheduler", &binaries()?.scheduler)
        .arg("--kubeconfig")
        .arg(account)
        .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
        .args(["--admin-listen".to_owned(), format!("127.0.0.1:{admin}")]);
    let mut process = site.plane.spawn(spec)?;
    process.wait_for_http(&format!("http://127.0.0.1:{admin}/readyz"), WITHIN).await?;
    Ok((process, format!("http://127.0.0.1:{port}")))
}

fn site() -> Result<&'static Site> {
    SITE.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// Runs the CLI as administrator, or as whom `--as` names.
fn berth(arguments: &[&str]) -> Result<Output> {
    let site = site()?;
    let mut command = tokio::process::Command::new(&binaries()?.cli);
    let kubeconfig = site.installed.plane.kubeconfig_path();
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments).env("NO_COLOR", "1").kill_on_drop(true);
    site.runtime.block_on(async { Ok(tokio::time::timeout(WITHIN, command.output()).await??) })
}

/// What a command that succeeds prints.
fn printed(arguments: &[&str]) -> Result<String> {
    let output = berth(arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What a command that fails says, in one line.
fn refused(arguments: &[&str]) -> Result<String> {
    let output = berth(arguments)?;
    ensure!(output.status.code() == Some(1), "{arguments:?} ended with {}", output.status);
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.lines().count() == 1, "{said}");
    Ok(said)
}

/// The lines of a table with one blank between columns, so that their widths do not matter.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_report_is_shown_as_the_machine_it_was_made_of() -> Result<()> {
    let capture = std::fs::read_to_string(fixture("captures/dgx-h100-8gpu-12nic.txt"))?;
    let capture: String = capture.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    assert_eq!(printed(&["topo", "--node", "na", "-m"])?, capture);
    let object: Value = serde_json::from_str(&printed(&["topo", "--node", "na", "-o", "json"])?)?;
    assert_eq!((&object["kind"], &object["status"]["generation"]), (&json!("NodeTopology"), &json!(7)));
    assert_eq!(object["metadata"].get("managedFields"), None);
    Ok(())
}

#[test]
fn a_report_that_cannot_be_read_is_named_with_its_field_and_still_printed() -> Result<()> {
    let said = refused(&["topo", "--node", "nb"])?;
    ensure!(said.contains("the report of node nb cannot be shown") && said.contains("bootID"), "{said}");
    let object: Value = serde_json::from_str(&printed(&["topo", "--node", "nb", "-o", "json"])?)?;
    assert_eq!(object["status"]["gpuCount"], 0);
    let said = refused(&["topo", "--node", "nowhere"])?;
    ensure!(said.contains("node nowhere has no report"), "{said}");
    Ok(())
}

#[test]
fn pods_with_and_without_a_plan_are_counted_and_doubt_is_said() -> Result<()> {
    let output = berth(&["nodes", "-o", "wide"])?;
    let (text, notes) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let expected = [
        "NAME GPUS FREE UNHEALTHY LINK FREE-ISLAND STATUS LEVEL PRODUCT HOLDERS",
        "* 16 13 0 - - 0/2-ok - 2 nodes 2 pods",
        "na 8 5 0 NV18 ? imprecise advice NVIDIA-H100-80GB-HBM3 default/planned:0-1 default/stray:+1?",
        "nb 8 8 0 - - bad-report - - -",
    ];
    assert_eq!(lines(&text), expected);
    ensure!(notes.lines().count() == 1 && notes.contains("the report of node nb cannot be used"), "{notes}");
    assert_eq!(printed(&["nodes", "-o", "name", "-l", "topology.kubernetes.io/zone=z1"])?, "node/na\n");
    ensure!(refused(&["nodes", "nowhere"])?.contains("no node \"nowhere\""));
    Ok(())
}

#[test]
fn a_bound_pod_is_explained_by_its_plan() -> Result<()> {
    let text = printed(&["explain", "planned", "--extender-url", "http://127.0.0.1:1"])?;
    for said in
        ["on node na", "asks   2 x nvidia.com/gpu (main)", "GPU0 (GPU-", "GPU1 (GPU-", "why: because", "refused"]
    {
        ensure!(text.contains(said), "no {said:?} in\n{text}");
    }
    let text = printed(&["explain", "stray"])?;
    ensure!(text.contains("none: the pod was bound without Berth"), "{text}");
    ensure!(text.contains("no ready pod of berth-scheduler in namespace berth-system"), "{text}");
    Ok(())
}

#[test]
fn a_waiting_pod_is_explained_by_the_scheduler_itself() -> Result<()> {
    let site = site()?;
    let (_scheduler, url) = site.runtime.block_on(scheduler(&site.installed))?;
    let text = printed(&["explain", "waiting", "--extender-url", &url])?;
    let answer = text.split("What the scheduler says\n").nth(1).context("no answer")?;
    for said in ["fits none of 2 nodes", "1 node   berth: too few free GPUs  (na)", "what helps: "] {
        ensure!(answer.contains(said), "no {said:?} in\n{text}");
    }
    let text = printed(&["explain", "planned", "--extender-url", &url])?;
    ensure!(text.contains("holds on na: GPUs 0,1\n"), "{text}");
    Ok(())
}

#[test]
fn a_person_who_may_only_read_pods_gets_the_plan_and_the_names_of_the_missing_rights() -> Result<()> {
    let text = printed(&["explain", "planned", "--as", "ada"])?;
    for said in [
        "why: because",
        "missing right: list events in namespace default",
        "UUIDs without indexes: missing right: get nodetopologies.topology.berth.dev",
        "missing right: list pods in namespace berth-system",
    ] {
        ensure!(text.contains(said), "no {said:?} in\n{text}");
    }
    let said = refused(&["explain", "planned", "--as", "bob"])?;
    assert_eq!(said, "error: missing right: get pods in namespace default\n");
    let said = refused(&["nodes", "--as", "ada"])?;
    assert_eq!(
        said,
        "error: nothing to show: missing right: list nodes; missing right: list nodetopologies.topology.berth.dev\n"
    );
    ensure!(refused(&["explain", "nobody"])?.contains("no pod nobody in namespace default"));
    Ok(())
}

#[test]
fn the_scheduler_configuration_names_what_the_nodes_offer() -> Result<()> {
    let config: Value = serde_saphyr::from_str(&printed(&["policy", "scheduler-config", "--from-cluster"])?)?;
    let managed = json!([
        {"name": "nvidia.com/gpu"},
        {"name": "nvidia.com/mig-1g.10gb"},
        {"name": "nvidia.com/gpucores", "ignoredByScheduler": true},
        {"name": "nvidia.com/gpumem", "ignoredByScheduler": true},
    ]);
    assert_eq!(config["extenders"][0]["managedResources"], managed);
    Ok(())
}
