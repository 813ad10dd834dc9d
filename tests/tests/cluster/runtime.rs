//! A node whose container runtime takes no CDI devices cannot enforce plans: its agent goes on reporting, is no device plugin, and says why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Context, Result};
use berth_proto::{NodeTopology, Status};
use berth_tests::controlplane::fetch;
use berth_tests::installed::overlay;
use berth_tests::kubelet_plugins::KubeletPlugins;
use berth_tests::kubelet_socket::KubeletSocket;
use berth_tests::made_node::{MadeNode, admin_url};
use berth_tests::running::Running;
use kube::api::Api;

const SOON: Duration = Duration::from_secs(60);
const NODE: &str = "pairs";

/// Says which runtime the node has, as its kubelet would.
async fn set_runtime(running: &Running, version: &str) -> Result<()> {
    let patch = format!(r#"{{"status":{{"nodeInfo":{{"containerRuntimeVersion":"{version}"}}}}}}"#);
    running.plane.kubectl(&["patch", "node", NODE, "--subresource=status", "--type=merge", "-p", &patch]).await?;
    Ok(())
}

async fn until_reported<T>(running: &Running, what: &str, look: impl Fn(Status) -> Option<T>) -> Result<T> {
    let reports: Api<NodeTopology> = Api::all(running.plane.client());
    let look = || async { Ok(reports.get_opt(NODE).await?.and_then(|object| object.status).and_then(&look)) };
    running.until(SOON, what, look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_without_cdi_keeps_pods_away_and_is_told_until_it_is_another_one() -> Result<()> {
    let running = Running::start(&[]).await?;
    running.plane.apply_kustomize(&overlay("enforced")).await?;
    let node = MadeNode::new("bridged-pairs", NODE)?;
    running.plane.create_node(&node.node_spec()?).await?;
    set_runtime(&running, "containerd://1.7.27").await?;
    let pool = format!("levels: [{{nodeSelector: {{kubernetes.io/hostname: {NODE}}}, level: enforced}}]");
    running.set_policy(&format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n{pool}\n")).await?;
    let kubeconfig = running.plane.agent_identity(NODE).await?;
    let (kubelet, pods, own) = (KubeletPlugins::start()?, KubeletSocket::start()?, tempfile::tempdir()?);
    let agent = node.agent(&kubeconfig)?.args(["--level", "enforced", "--device-plugin-dir"]).arg(kubelet.folder());
    let agent = agent.arg("--pod-resources").arg(pods.path()).arg("--cdi-dir").arg(own.path().join("cdi"));
    let mut agent = running.plane.spawn(agent.arg("--lease-dir").arg(own.path().join("leases")))?;

    let report = until_reported(&running, "a report with a finding", |report| {
        report.findings.iter().any(|finding| finding.code == "runtime-without-cdi").then_some(report)
    });
    let report = report.await?;
    let told = report.findings.into_iter().find(|finding| finding.code == "runtime-without-cdi").context("told")?;
    let words = "containerd 1.7.27 takes CDI devices from 2.0 on; where it is switched on, --runtime-has-cdi says so";
    assert_eq!(told.text, words);
    assert_eq!((report.gpu_count, report.device_plugin), (8, None), "the hardware is reported, and no promise");
    let metrics = fetch(&format!("{}/metrics", admin_url(&mut agent).await?)).await?;
    assert!(metrics.lines().any(|line| line == "berth_agent_runtime_without_cdi 1"), "{metrics}");
    running.submit("first", 1, &[]).await?;
    let words = "berth: device plugin of the node promises less than its pool demands";
    running.until_failed_scheduling("first", words, SOON).await?;
    assert!(kubelet.resources().is_empty(), "{:?}", kubelet.resources());

    // Upgraded: the agent ends, and the one after it is the device plugin.
    set_runtime(&running, "containerd://2.1.4").await?;
    assert!(agent.wait_for_end(SOON).await?.success());
    agent.restart()?;
    let accepts = |report: Status| report.device_plugin.filter(|plugin| plugin.accepting && plugin.level == "enforced");
    until_reported(&running, "a device plugin", accepts).await?;
    running.until_bound("first", SOON).await?;
    until_reported(&running, "no finding", |report| report.findings.is_empty().then_some(())).await
}
