//! Holds the unmodified agent to its promises, over made-up hardware: it reports what the machine file says, writes on change only, goes
//! on after every loss, and ends at once.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_model::{Driver, Health, LinkMatrix, NodeTopology as Topology};
use berth_proto::NodeTopology;
use berth_tests::binaries::binaries;
use berth_tests::controlplane::{ControlPlane, Options, Process};
use berth_tests::installed::{Installed, REPORTS};
use berth_tests::made_node::{MadeNode, admin_url};
use berth_tests::rest::Call;
use kube::api::{Api, DeleteParams};
use serde_json::json;

/// A change is seen within one poll; this is for a machine that does much else.
const WITHIN: Duration = Duration::from_secs(30);

/// What 5000 nodes' objects may each take, managedFields included.
const OBJECT_BYTES_MAX: usize = 6144;

const MACHINES: [&str; 5] = ["bridged-pairs", "cpu-only", "dgx-1v", "dgx-h100", "pcie-8gpu-two-level"];

/// The node that the tests' agent runs on.
const NODE: &str = "gpu-1";

/// The agent's manifests on a real control plane, a node made from a machine file, and its agent's kubeconfig.
async fn installed_with(machine: &str) -> Result<(Installed, MadeNode, PathBuf)> {
    let installed = Installed::start("agent-only").await?;
    let node = MadeNode::new(machine, NODE)?;
    installed.plane.create_node(&node.node_spec()?).await?;
    let kubeconfig = installed.plane.agent_identity(NODE).await?;
    Ok((installed, node, kubeconfig))
}

fn printed(output: &Output) -> Result<NodeTopology> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())
}

/// Reads the node's object until it holds what is waited for.
async fn report_when(plane: &ControlPlane, node: &str, wanted: impl Fn(&NodeTopology) -> bool) -> Result<NodeTopology> {
    let objects: Api<NodeTopology> = Api::all(plane.client());
    let deadline = Instant::now() + WITHIN;
    loop {
        let found = objects.get_opt(node).await?;
        if let Some(object) = found.as_ref().filter(|object| wanted(object)) {
            return Ok(object.clone());
        }
        ensure!(Instant::now() < deadline, "the report of {node} stays {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn generation(object: &NodeTopology) -> i64 {
    object.status.as_ref().map_or(0, |status| status.generation)
}

/// The value of a metric of an agent.
async fn metric(agent: &mut Process, url: &str, name: &str) -> Result<u64> {
    let text = agent.wait_for_http(&format!("{url}/metrics"), WITHIN).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name} in\n{text}"))?.parse().context("a metric that is no number")
}

/// Waits until an agent has read the hardware so many times more.
async fn wait_for_probes(agent: &mut Process, url: &str, more: u64) -> Result<()> {
    let name = "berth_agent_probe_total{result=\"ok\"}";
    let wanted = metric(agent, url, name).await? + more;
    let deadline = Instant::now() + WITHIN;
    while metric(agent, url, name).await? < wanted {
        ensure!(Instant::now() < deadline, "the hardware is not read any more:\n{}", agent.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[test]
fn what_is_printed_once_is_what_the_machine_file_says() -> Result<()> {
    for machine in MACHINES {
        let node = MadeNode::new(machine, NODE)?;
        let object = printed(&node.once(&binaries()?.fake_nvml)?)?;
        assert_eq!(object.topology()?, Some(node.topology(None)?), "{machine}");
    }
    Ok(())
}

#[test]
fn without_a_driver_the_report_has_the_rest_of_the_machine() -> Result<()> {
    let node = MadeNode::new("dgx-h100", NODE)?;
    let object = printed(&node.once(Path::new("/nowhere/libnvidia-ml.so.1"))?)?;
    let said = object.topology()?.context("no status")?.into_parts();
    let whole = node.topology(None)?.into_parts();
    assert!(
        matches!(&said.driver, Driver::Absent(why) if why.contains("/nowhere/libnvidia-ml.so.1")),
        "{:?}",
        said.driver
    );
    assert_eq!((said.gpus, said.zones, said.nics), (Vec::new(), whole.zones, whole.nics));
    assert_eq!(object.status.context("no status")?.health, "no-driver");
    Ok(())
}

#[test]
fn a_report_that_cannot_be_made_is_an_error_with_its_cause() -> Result<()> {
    let node = MadeNode::new("cpu-only", NODE)?;
    std::fs::remove_dir_all(node.root())?;
    let output = node.once(&binaries()?.fake_nvml)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    assert!(said.starts_with("berth-agent: read the hardware: ") && said.contains("holds no sys directory"), "{said}");
    Ok(())
}

#[tokio::test]
async fn one_lost_gpu_is_republished_alone_and_so_is_its_return() -> Result<()> {
    let (installed, mut node, kubeconfig) = installed_with("dgx-h100").await?;
    let plane = &installed.plane;
    let mut agent = plane.spawn(node.agent(&kubeconfig)?)?;
    let url = admin_url(&mut agent).await?;
    agent.wait_for_http(&format!("{url}/readyz"), WITHIN).await?;
    let first = report_when(plane, NODE, |o| generation(o) == 1).await?;
    let whole = node.topology(None)?;
    assert!(first.topology()?.context("no status")?.same_facts(&whole));

    node.set_faults("lost: [3]")?;
    let second = report_when(plane, NODE, |o| generation(o) != 1).await?.topology()?.context("no status")?;
    assert_eq!(second.parts().generation.0, 2);
    assert!(second.same_facts(&node.topology(Some(&whole))?), "{second:?}");
    let lost = &second.parts().gpus[3];
    assert!(matches!(&lost.health, Health::Unhealthy(_)), "{lost:?}");
    // With its health and its own links put back, it is the first report again.
    let mut healed = second.clone().into_parts();
    healed.gpus[3].health = Health::Healthy;
    healed.links = LinkMatrix::build(healed.links.device_count(), |a, b| {
        let links = if a == 3 || b == 3 { &whole.parts().links } else { &second.parts().links };
        links.link(a, b).unwrap_or_default()
    });
    assert!(Topology::try_new(healed)?.same_facts(&whole), "something else changed with it: {second:?}");

    node.set_faults("")?;
    let third = report_when(plane, NODE, |o| generation(o) > 2).await?.topology()?.context("no status")?;
    assert_eq!(third.parts().generation.0, 3);
    assert!(third.same_facts(&whole));
    let log = agent.log()?;
    assert!(log.contains("was healthy and is unhealthy: "), "{log}");
    Ok(())
}

#[tokio::test]
async fn unchanged_hardware_is_written_once_whoever_starts_how_often() -> Result<()> {
    let (installed, node, kubeconfig) = installed_with("pcie-8gpu-two-level").await?;
    let plane = &installed.plane;
    let mut agent = plane.spawn(node.agent(&kubeconfig)?.args(["--verify-interval", "200ms"]))?;
    let url = admin_url(&mut agent).await?;
    let first = report_when(plane, NODE, |o| o.status.is_some()).await?;
    wait_for_probes(&mut agent, &url, 10).await?;
    assert_eq!(metric(&mut agent, &url, "berth_agent_publish_total{result=\"ok\"}").await?, 1);
    assert_eq!(metric(&mut agent, &url, "berth_agent_gpus{health=\"healthy\"}").await?, 8);
    assert_eq!(metric(&mut agent, &url, "berth_agent_nvml_up").await?, 1);

    agent.restart()?;
    let url = admin_url(&mut agent).await?;
    wait_for_probes(&mut agent, &url, 3).await?;
    let later = report_when(plane, NODE, |_| true).await?;
    assert_eq!(later.metadata.resource_version, first.metadata.resource_version, "a write without news");
    assert_eq!(metric(&mut agent, &url, "berth_agent_generation").await?, 1);

    // What a reboot changes is the boot id, and the generation goes on.
    agent.kill()?;
    node.reboot("11111111-2222-3333-4444-555555555555")?;
    agent.restart()?;
    let rebooted = report_when(plane, NODE, |o| generation(o) > 1).await?;
    let status = rebooted.status.context("no status")?;
    assert_eq!((status.generation, status.boot_id.as_str()), (2, "11111111-2222-3333-4444-555555555555"));

    // Somebody deletes the object: the agent finds out and makes it again. It is the same report, so it keeps its generation; only a
    // report that differs must have a higher one.
    let url = admin_url(&mut agent).await?;
    agent.wait_for_http(&format!("{url}/readyz"), WITHIN).await?;
    Api::<NodeTopology>::all(plane.client()).delete(NODE, &DeleteParams::default()).await?;
    let again = report_when(plane, NODE, |o| o.status.is_some()).await?;
    assert_ne!(again.metadata.uid, rebooted.metadata.uid, "another object");
    assert_eq!(again.status, Some(status));
    Ok(())
}

/// The stored object without the NICs beyond the tenth: the budget is for 8 GPUs and 10 NICs, and the DGX H100 has 12.
fn with_ten_nics(raw: &str) -> Result<String> {
    let mut object: serde_json::Value = serde_json::from_str(raw)?;
    let status = &mut object["status"];
    status["nics"].as_array_mut().context("no NICs")?.truncate(10);
    let rows = status["links"].as_array_mut().context("no links")?;
    rows.truncate(18);
    for row in rows {
        let cells: Vec<&str> = row.as_str().unwrap_or_default().split(' ').take(18).collect();
        *row = json!(cells.join(" "));
    }
    Ok(object.to_string())
}

#[tokio::test]
async fn people_read_the_object_and_it_stays_small() -> Result<()> {
    let (installed, node, kubeconfig) = installed_with("dgx-h100").await?;
    let plane = &installed.plane;
    let _agent = plane.spawn(node.agent(&kubeconfig)?)?;
    let object = report_when(plane, NODE, |o| o.status.is_some()).await?;

    let owner = object.metadata.owner_references.as_deref().unwrap_or_default();
    let node_object = installed.read("/api/v1/nodes/gpu-1").await?;
    assert_eq!(owner.len(), 1);
    assert_eq!(node_object["metadata"]["uid"], owner[0].uid.as_str());

    let raw = plane.kubectl(&["get", "--raw", "/apis/topology.berth.dev/v1alpha1/nodetopologies/gpu-1"]).await?;
    println!("{} bytes for 8 GPUs and {} NICs", raw.trim_end().len(), node.topology(None)?.parts().nics.len());
    let bytes = with_ten_nics(&raw)?.len();
    assert!(bytes <= OBJECT_BYTES_MAX, "{bytes} bytes for 8 GPUs and 10 NICs:\n{raw}");

    let listed = plane.kubectl(&["get", "ntopo"]).await?;
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|row| row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["NAME", "GPUS", "PRODUCT", "LINK", "HEALTH", "AGE"], "{listed}");
    assert_eq!(rows[1][..5], [NODE, "8", "NVIDIA H100 80GB HBM3", "NV18", "healthy"], "{listed}");
    let explained = plane.kubectl(&["explain", "nodetopology.status.gpus.uuid"]).await?;
    assert!(explained.contains("Survives reboots and index shifts."), "{explained}");
    Ok(())
}

#[tokio::test]
async fn the_api_server_itself_refuses_an_absurd_report() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    plane.apply_kustomize(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crd")).await?;
    let object = serde_json::to_value(NodeTopology::new(NODE, None))?;
    Call::create(REPORTS, object).done(&plane.client()).await?;
    let gpus = |count: usize, health: &str| json!({"status": {"gpus": vec![json!({"uuid": "GPU-1", "health": health}); count]}});
    let status = format!("{REPORTS}/{NODE}/status");
    let refused = [
        (gpus(1, "fine"), "status.gpus[0].health: Unsupported value: \"fine\""),
        (gpus(33, "healthy"), "status.gpus: Too many: 33: must have at most 32 items"),
        (json!({"status": {"generation": -1}}), "status.generation: Invalid value: -1"),
        (json!({"status": {"bootID": "b".repeat(254)}}), "status.bootID: Too long"),
    ];
    for (report, why) in refused {
        let said = Call::merge(&status, report).done(&plane.client()).await.unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    Call::merge(&status, gpus(32, "healthy")).done(&plane.client()).await?;
    Ok(())
}

#[tokio::test]
async fn another_nodes_name_is_refused_told_and_survived() -> Result<()> {
    let (installed, node, _) = installed_with("cpu-only").await?;
    let plane = &installed.plane;
    let kubeconfig_of_b = plane.agent_identity("nb").await?;
    let mut agent = plane.spawn(node.agent(&kubeconfig_of_b)?)?;
    let line = agent.wait_for_log("may only write the NodeTopology of its own node", WITHIN).await?;
    assert!(line.contains("retry_in_ms"), "{line}");
    let url = admin_url(&mut agent).await?;
    agent.wait_for_http(&format!("{url}/livez"), WITHIN).await?;
    let said = agent.wait_for_http(&format!("{url}/readyz"), Duration::ZERO).await.unwrap_err().to_string();
    assert!(said.contains("503 the first report is not published yet"), "{said}");
    assert!(metric(&mut agent, &url, "berth_agent_publish_total{result=\"refused\"}").await? >= 1);
    assert!(Api::<NodeTopology>::all(plane.client()).get_opt(NODE).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn it_ends_at_once_when_told_to_also_without_an_api_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    // Port 9 (discard) is closed on any machine that tests run on; what counts is that nobody answers as an API server.
    std::fs::write(
        &kubeconfig,
        r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}], "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}"#,
    )?;
    let node = MadeNode::new("cpu-only", NODE)?;
    let mut agent = Process::spawn(node.agent(&kubeconfig)?, folder.path())?;
    let url = admin_url(&mut agent).await?;
    agent.wait_for_log("read the own NodeTopology", WITHIN).await?;
    agent.wait_for_http(&format!("{url}/livez"), WITHIN).await?;

    let told = Instant::now();
    let status = agent.terminate(WITHIN).await?;
    assert!(told.elapsed() < Duration::from_secs(1), "it took {:?}", told.elapsed());
    assert_eq!(status.code(), Some(0), "{}", agent.log_tail());
    assert!(agent.log()?.contains("\"signal\":\"SIGTERM\""));
    Ok(())
}

#[tokio::test]
async fn a_driver_that_hangs_holds_up_neither_the_probes_nor_the_end() -> Result<()> {
    let (installed, node, kubeconfig) = installed_with("dgx-h100").await?;
    // The fake library reads this file at every call. Whoever opens a pipe without a writer waits, and whoever reads one whose writer
    // is silent waits too.
    let pipe = node.faults_path();
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "no pipe");
    let mut agent = installed.plane.spawn(node.agent(&kubeconfig)?)?;
    let url = admin_url(&mut agent).await?;
    let deadline = Instant::now() + WITHIN;
    let _silent_writer = loop {
        // Without waiting, this succeeds only once the agent waits at the other end.
        match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe) {
            Ok(writer) => break writer,
            Err(error) => ensure!(Instant::now() < deadline, "the driver is not asked: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };

    agent.wait_for_http(&format!("{url}/livez"), WITHIN).await?;
    assert_eq!(metric(&mut agent, &url, "berth_agent_probe_duration_seconds_count").await?, 0);
    let told = Instant::now();
    let status = agent.terminate(WITHIN).await?;
    assert!(told.elapsed() < Duration::from_secs(1), "it took {:?}", told.elapsed());
    assert_eq!(status.code(), Some(0), "{}", agent.log_tail());
    Ok(())
}
