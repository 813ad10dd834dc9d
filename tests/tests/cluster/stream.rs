//! The quick path of reports on a real control plane: unmodified agents over a fake driver, their streams to berth-schedulers by TLS, and
//! tokens that the real API server reviews.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_proto::NodeTopology;
use berth_tests::binaries::binaries;
use berth_tests::controlplane::{Process, ProcessSpec};
use berth_tests::made_node::{MadeNode, admin_url, machine_file};
use berth_tests::streaming::{Replica, Streaming, WITHIN, fields};
use kube::Api;
use kube::api::ListParams;

const NODE: &str = "h100";
const MACHINE: &str = "dgx-h100";
/// Start of a process on a busy machine, and the longest wait of an agent between two tries.
const AGAIN_WITHIN: Duration = Duration::from_secs(15);
/// What an agent says when a stream does not come about.
const NO_STREAM: &str = "report stream; the object is written all the same";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_gpu_reaches_every_replica_by_its_own_stream_and_the_object_says_the_same() -> Result<()> {
    let site = Streaming::start().await?;
    let (one, two) = (site.replica(1).await?, site.replica(2).await?);
    let mut node = MadeNode::new(MACHINE, NODE)?;
    let agent = site.agent(&node).await?;
    let token = site.plane.reports_token(Some(NODE)).await?;
    let agent = site.plane.spawn(site.streaming(agent, &[&one, &two], &token).await?)?;
    for replica in [&one, &two] {
        replica.until_metric("berth_report_streams 1").await.with_context(|| agent.log_tail())?;
        replica.until_fits(NODE, 8, true).await?;
    }
    node.set_faults("lost: [3]")?;
    for replica in [&one, &two] {
        replica.until_fits(NODE, 8, false).await?;
        replica.until_fits(NODE, 7, true).await?;
    }
    let objects: Api<NodeTopology> = Api::all(site.plane.client());
    let deadline = tokio::time::Instant::now() + WITHIN;
    // The object is made by another task than the stream, so a replica may know the node before it is there.
    while objects.get_opt(NODE).await?.and_then(|object| object.status).is_none_or(|status| status.generation < 2) {
        ensure!(tokio::time::Instant::now() < deadline, "the object never follows\n{}", agent.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for replica in [&one, &two] {
        let said = replica.metrics().await?;
        ensure!(!said.contains("berth_topology_reports_rejected_total{"), "a carrier's report was refused: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_no_token_of_the_node_brings_nothing_and_the_object_goes_on() -> Result<()> {
    let site = Streaming::start().await?;
    let replica = site.replica(1).await?;
    let node = MadeNode::new(MACHINE, NODE)?;
    let agent = site.agent(&node).await?;
    let other = MadeNode::new(MACHINE, "other")?;
    site.agent(&other).await?;
    let for_api = site.plane.service_account_token("berth-system", "berth-agent", Some("berth-agent-h100")).await?;
    let cases = [
        (site.plane.reports_token(Some("other")).await?, "this stream is node other's"),
        (site.plane.reports_token(None).await?, "names no node"),
        (for_api, "the API server does not know the token"),
        ("no token at all".to_owned(), "the API server does not know the token"),
    ];
    for (token, words) in cases {
        let mut agent = site.plane.spawn(site.streaming(agent.clone(), &[&replica], &token).await?)?;
        let line = agent.wait_for_log(words, WITHIN).await?;
        let said = fields(&line)?;
        ensure!(
            [NO_STREAM, "a scheduler refuses the report; it keeps the last good one"]
                .iter()
                .any(|m| said["message"] == **m),
            "{line}"
        );
        replica.until_fits(NODE, 8, true).await.context("the object goes on")?;
        agent.terminate(WITHIN).await?;
    }
    let said = replica.metrics().await?;
    ensure!(said.contains("berth_topology_reports_rejected_total{reason=\"node\"} 1"), "{said}");
    ensure!(said.contains("berth_report_streams_refused_total{reason=\"no-node\"}"), "{said}");
    ensure!(said.contains("berth_report_streams_refused_total{reason=\"bad-token\"}"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_scheduler_has_every_report_again_within_seconds_and_nothing_is_written() -> Result<()> {
    let site = Streaming::start().await?;
    let mut replica = site.replica(1).await?;
    let names = ["a", "b", "c"];
    let mut agents = Vec::new();
    for name in names {
        let node = MadeNode::new(MACHINE, name)?;
        let agent = site.agent(&node).await?;
        let token = site.plane.reports_token(Some(name)).await?;
        agents.push((site.plane.spawn(site.streaming(agent, &[&replica], &token).await?)?, node));
    }
    replica.until_metric("berth_report_streams 3").await?;
    let objects: Api<NodeTopology> = Api::all(site.plane.client());
    let versions = async || -> Result<Vec<Option<String>>> {
        let mut all = Vec::new();
        for name in names {
            all.push(objects.get(name).await?.metadata.resource_version);
        }
        Ok(all)
    };
    for name in names {
        replica.until_fits(name, 8, true).await?;
    }
    // The stream brings a report before its object is written.
    let deadline = tokio::time::Instant::now() + WITHIN;
    while objects.list(&ListParams::default()).await?.items.iter().filter(|o| o.status.is_some()).count() < names.len()
    {
        ensure!(tokio::time::Instant::now() < deadline, "not every agent has written its object after {WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = versions().await?;
    replica.process.restart()?;
    let started = tokio::time::Instant::now();
    replica.until_metric("berth_report_streams 3").await?;
    let took = started.elapsed();
    println!("scheduler killed and started again -> the streams of 3 agents are back: {took:?}");
    ensure!(took < AGAIN_WITHIN, "{took:?}");
    for name in names {
        replica.until_fits(name, 8, true).await?;
    }
    assert_eq!(versions().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_handshakes_and_open_streams_stay() -> Result<()> {
    let site = Streaming::start().await?;
    let mut replica = site.replica(1).await?;
    let mut first = MadeNode::new(MACHINE, "first")?;
    let agent = site.agent(&first).await?;
    let token = site.plane.reports_token(Some("first")).await?;
    let early = site.plane.spawn(site.streaming(agent, &[&replica], &token).await?)?;
    replica.until_metric("berth_report_streams 1").await?;
    replica.until_fits("first", 8, true).await?;

    // Another authority altogether: who believes only that one can have been shown nothing else.
    site.certify().await?;
    site.mount_certificate().await?;
    replica.process.wait_for_log("a new certificate is in force", WITHIN).await?;
    let second = MadeNode::new(MACHINE, "second")?;
    let agent = site.agent(&second).await?;
    let token = site.plane.reports_token(Some("second")).await?;
    let late = site.plane.spawn(site.streaming(agent, &[&replica], &token).await?)?;
    replica.until_metric("berth_report_streams 2").await.with_context(|| late.log_tail())?;
    first.set_faults("lost: [3]")?;
    replica.until_fits("first", 8, false).await?;
    ensure!(!early.log()?.contains(NO_STREAM), "the open stream was cut: {}", early.log_tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_knows_another_authority_tells_the_scheduler_nothing() -> Result<()> {
    let site = Streaming::start().await?;
    let replica = site.replica(1).await?;
    // The agents' authority is changed, the scheduler's certificate not yet.
    site.certify().await?;
    let node = MadeNode::new(MACHINE, NODE)?;
    let agent = site.agent(&node).await?;
    let token = site.plane.reports_token(Some(NODE)).await?;
    let mut agent = site.plane.spawn(site.streaming(agent, &[&replica], &token).await?)?;
    let line = agent.wait_for_log(NO_STREAM, WITHIN).await?;
    ensure!(fields(&line)?["error"].as_str().is_some_and(|error| error.contains("certificate")), "{line}");
    replica.until_fits(NODE, 8, true).await.context("the object goes on")?;
    replica.until_metric("berth_report_streams 0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_counts_and_an_agent_starts_while_the_api_server_answers_nothing() -> Result<()> {
    let site = Streaming::start().await?;
    let replica = site.replica(1).await?;
    let mut node = MadeNode::new(MACHINE, NODE)?;
    let agent = site.agent(&node).await?;
    let token = site.plane.reports_token(Some(NODE)).await?;
    let mut agent = site.plane.spawn(site.streaming(agent, &[&replica], &token).await?)?;
    replica.until_metric("berth_report_streams 1").await.with_context(|| agent.log_tail())?;
    replica.until_fits(NODE, 8, true).await?;
    agent.wait_for_log("report published", WITHIN).await?;

    site.plane.freeze()?;
    node.set_faults("lost: [3]")?;
    replica.until_fits(NODE, 8, false).await.with_context(|| agent.log_tail())?;
    // While a write of the object hangs, the next change is as quick.
    node.set_faults("lost: [3, 4]")?;
    replica.until_fits(NODE, 7, false).await.with_context(|| agent.log_tail())?;
    // This one has read no object, so its first report is outdone by what the scheduler knows of its own former life.
    agent.restart()?;
    node.set_faults("")?;
    replica.until_fits(NODE, 8, true).await.with_context(|| agent.log_tail())?;

    site.plane.thaw()?;
    let objects: Api<NodeTopology> = Api::all(site.plane.client());
    let deadline = tokio::time::Instant::now() + WITHIN;
    // Said three times at least: whole, then one lost, then two lost.
    let is_told =
        |status: &berth_proto::Status| status.generation > 3 && status.gpus.iter().all(|gpu| gpu.health == "healthy");
    while !objects.get(NODE).await?.status.as_ref().is_some_and(is_told) {
        ensure!(tokio::time::Instant::now() < deadline, "the object never follows\n{}", agent.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_an_agent_brings_its_node_to_a_scheduler_by_stream() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let machines = folder.path().join("machines");
    std::fs::create_dir(&machines)?;
    let replica = Replica::without_api(&machines, folder.path()).await?;
    ensure!(!replica.fits("laptop", 1).await?);
    let mut node = MadeNode::new(MACHINE, "laptop")?;
    let agent = node.agent_without_api()?.arg(format!("--reports-endpoint=http://{}", replica.reports));
    let mut agent = Process::spawn(agent, folder.path())?;
    replica.until_fits("laptop", 8, true).await.with_context(|| agent.log_tail())?;
    let admin = admin_url(&mut agent).await?;
    agent.wait_for_http(&format!("{admin}/readyz"), WITHIN).await?;
    node.set_faults("lost: [3]")?;
    replica.until_fits("laptop", 8, false).await?;
    replica.until_fits("laptop", 7, true).await?;

    // A machine file beside it is one more node, and leaves the agent's alone.
    std::fs::copy(machine_file("dgx-1v"), machines.join("drawn.yaml"))?;
    replica.until_fits("drawn", 8, true).await?;
    ensure!(!replica.fits("laptop", 8).await? && replica.fits("laptop", 7).await?);

    // It comes back with the GPU healed, and its generations start below what the scheduler knows.
    agent.kill()?;
    node.set_faults("")?;
    agent.restart()?;
    replica.until_fits("laptop", 8, true).await.with_context(|| agent.log_tail())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_beyond_loopback_is_refused_by_both_ends_before_anything_is_sent() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let machine = machine_file(MACHINE);
    let scheduler = ProcessSpec::new("scheduler", &binaries()?.scheduler)
        .arg("--machines")
        .arg(machine.parent().context("a folder")?)
        .args(["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--reports-listen=0.0.0.0:0"]);
    let mut scheduler = Process::spawn(scheduler, folder.path())?;
    ensure!(!scheduler.wait_for_end(WITHIN).await?.success());
    let said = scheduler.log()?;
    ensure!(
        said.contains("0.0.0.0:0 is not loopback, and plain text is for loopback only: give --reports-cert"),
        "{said}"
    );
    let agent = ProcessSpec::new("agent", &binaries()?.agent)
        .args(["--node-name=n", "--reports-endpoint=http://10.0.0.1:8890"]);
    let mut agent = Process::spawn(agent, folder.path())?;
    ensure!(!agent.wait_for_end(WITHIN).await?.success());
    let said = agent.log()?;
    ensure!(said.contains("10.0.0.1 is not this machine, and plain text is for loopback only"), "{said}");
    Ok(())
}
