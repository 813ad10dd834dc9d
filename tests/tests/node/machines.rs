//! `berth-scheduler --machines DIR` sees exactly what the agent reports of the same files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use anyhow::Result;
use berth_extender::cluster::Cluster;
use berth_extender::machines::{enter, read_dir};
use berth_extender::metrics::Metrics;
use berth_tests::binaries::binaries;
use berth_tests::made_node::{MadeNode, machine_file};

const MACHINES: [&str; 6] = ["dgx-h100", "dgx-1v", "pcie-8gpu-two-level", "bridged-pairs", "mig-a100", "cpu-only"];

#[test]
fn machines_sees_what_the_agent_reports_of_the_same_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for machine in MACHINES {
        std::fs::copy(machine_file(machine), dir.path().join(format!("node-{machine}.yaml")))?;
    }
    let cluster = Cluster::new(Arc::new(Metrics::new("test")));
    enter(&cluster, &read_dir(dir.path())?)?;
    let snapshot = cluster.index.snapshot();
    for machine in MACHINES {
        let name = format!("node-{machine}");
        let printed = MadeNode::new(machine, &name)?.once(&binaries()?.fake_nvml)?;
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let report: berth_proto::NodeTopology = serde_json::from_slice(&printed.stdout)?;
        let reported = berth_proto::decode(&name, &report.status.unwrap())?;
        let seen = &snapshot.node(&name).unwrap().view.hardware.as_ref().unwrap().topology;
        assert!(seen.same_facts(&reported), "{machine}:\n{seen:#?}\n{reported:#?}");
    }
    Ok(())
}
