//! `berth topo --node`, `diff node/A node/B` and `lint --all-nodes` against a real API server that holds the reports of two nodes of one make.

use std::process::Output;
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_machine::{Faults, Machine, Salt, topology_with};
use berth_model::{BootId, NodeName, NodeTopology};
use berth_tests::binaries::binaries;
use berth_tests::installed::{Installed, REPORTS};
use berth_tests::made_node::machine_file;
use berth_tests::rest::Call;
use serde_json::{Value, json};

/// Longer than the CLI's own deadline for one call.
const WITHIN: Duration = Duration::from_secs(60);

/// The report of a DGX H100 that was changed and broken.
fn report(node: &str, changes: &[(&str, &str)], faults: &str) -> Result<Value> {
    let mut text = std::fs::read_to_string(machine_file("dgx-h100"))?;
    for (from, to) in changes {
        ensure!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let machine = Machine::parse(&text)?;
    let faults = Faults::parse(&format!("apiVersion: {}\n{faults}\n", Faults::API_VERSION), &machine)?;
    let topology = topology_with(&machine, &NodeName::parse(node)?, &Salt::new(node), &faults, None)?;
    let mut parts = topology.into_parts();
    parts.boot_id = BootId::parse("boot")?;
    parts.generation.0 = 7;
    Ok(json!({"status": berth_proto::encode(&NodeTopology::try_new(parts)?, "test")}))
}

async fn berth(site: &Installed, arguments: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::new(&binaries()?.cli);
    command
        .arg("--kubeconfig")
        .arg(site.plane.kubeconfig_path())
        .args(arguments)
        .env("NO_COLOR", "1")
        .kill_on_drop(true);
    Ok(tokio::time::timeout(WITHIN, command.output()).await??)
}

/// What a command prints that ends with this status.
async fn printed(site: &Installed, status: i32, arguments: &[&str]) -> Result<String> {
    let output = berth(site, arguments).await?;
    let (text, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.code() == Some(status), "{arguments:?} ended with {}: {text}{error}", output.status);
    Ok(text + &error)
}

#[tokio::test]
async fn nodes_of_a_cluster_are_shown_compared_and_looked_through() -> Result<()> {
    let site = Installed::start("agent-only").await?;
    let write = |node: &'static str, status: Value| Call::merge(format!("{REPORTS}/{node}/status"), status);
    write("na", report("na", &[], "")?).done(&site.agent_a).await?;
    write("nb", report("nb", &[], "")?).done(&site.agent_b).await?;
    assert_eq!(printed(&site, 0, &["topo", "lint", "--all-nodes"]).await?, "2 nodes: nothing found\n");
    assert_eq!(printed(&site, 0, &["topo", "diff", "node/na", "node/nb"]).await?, "na and nb are alike\n");

    let lame = ("fabric: nvswitch, links: 18", "fabric: nvswitch, links: 18, except: [{gpu: 3, links: 16}]");
    let old = ("driver: 580.126.20", "driver: 570.1");
    write("nb", report("nb", &[lame, old], "portsDown: [mlx5_5]")?).done(&site.agent_b).await?;
    let told = printed(&site, 3, &["topo", "diff", "node/na", "node/nb"]).await?;
    assert_eq!(told, "driver 580.126.20 -> 570.1\nNIC5 (mlx5_5) is down\nGPU3 lost 2 NVLinks (18 -> 16)\n");
    let tree = printed(&site, 0, &["topo", "--node", "nb"]).await?;
    ensure!(tree.contains("mlx5_5  InfiniBand 400 Gbit/s  down"), "{tree}");
    ensure!(tree.contains("kubelet  CPUs static (full-pcpus-only=true), memory none, topology restricted"), "{tree}");
    let found = printed(&site, 3, &["topo", "lint", "--all-nodes", "-o", "json"]).await?;
    let found: Value = serde_json::from_str(&found)?;
    let items = found["items"].as_array().cloned().unwrap_or_default();
    let seen: Vec<[&str; 3]> =
        items.iter().map(|i| ["node", "code", "device"].map(|key| i[key].as_str().unwrap_or_default())).collect();
    // Of two nodes neither is the usual one: the later is compared with the earlier.
    let expected = [
        ["nb", "driver-differs", ""],
        ["nb", "fabric-differs", ""],
        ["nb", "nic-down", "NIC5"],
        ["nb", "nvlink-fewer", "GPU3"],
    ];
    assert_eq!(seen, expected);
    let named = printed(&site, 0, &["topo", "lint", "node/na"]).await?;
    assert_eq!(named, "1 node: nothing found\n", "a node by itself has no others to differ from");

    write("nb", json!({"status": {"bootID": null}})).done(&site.agent_b).await?;
    let told = printed(&site, 3, &["topo", "lint", "--all-nodes"]).await?;
    ensure!(told.contains("error    report-unreadable  the report of node nb"), "{told}");
    ensure!(printed(&site, 1, &["topo", "diff", "node/na", "node/nb"]).await?.contains("node nb"));
    let told = printed(&site, 1, &["topo", "lint", "--all-nodes", "--as", "bob"]).await?;
    ensure!(told.contains("missing right: list nodetopologies.topology.berth.dev"), "{told}");
    let told = printed(&site, 1, &["topo", "diff", "node/na", "node/nb", "--as", "bob"]).await?;
    ensure!(told.contains("missing right: get nodetopologies.topology.berth.dev"), "{told}");
    Ok(())
}
