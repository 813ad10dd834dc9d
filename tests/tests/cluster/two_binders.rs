//! Two binders at once. Nothing in the API fences a node, so what holds is said here: one that starts waits until a bind of the one before
//! must have ended, and sees it; two that live see each other through lists, and what falls between is seen and told. At level
//! `enforced` the agent's lease is the fence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_tests::controlplane::{ask, fetch};
use berth_tests::faulty::{Fault, On};
use berth_tests::running::{Running, plan_of, pod};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const ROUNDS: usize = 25;

async fn create(running: &Running, name: &str, gpus: u32) -> Result<String> {
    let object = serde_json::from_value(pod(name, gpus, &[]))?;
    let made = running.pods().create(&PostParams::default(), &object).await?;
    made.metadata.uid.context("no UID")
}

/// A bind as kube-scheduler asks for it; the text of the refusal, where it is one.
async fn bind(port: u16, name: &str, uid: &str, node: &str) -> Result<Option<String>> {
    let body = json!({"PodName": name, "PodNamespace": "default", "PodUID": uid, "Node": node});
    let answer = ask(&format!("http://127.0.0.1:{port}/bind"), &body).await?;
    let error = answer["Error"].as_str().context("no Error")?;
    Ok((!error.is_empty()).then(|| error.to_owned()))
}

async fn gauge(admin_port: u16, name: &str) -> Result<u64> {
    let metrics = fetch(&format!("http://127.0.0.1:{admin_port}/metrics")).await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).context("no such gauge")?;
    Ok(line.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_in_flight_while_its_process_is_killed_is_seen_by_the_next_one() -> Result<()> {
    let mut running = Running::start_behind_a_proxy(&[("dgx-1v", "na")]).await?;
    running.kube_scheduler.process.kill()?;
    let (first, second) = (create(&running, "first", 8).await?, create(&running, "second", 8).await?);
    // The write leaves the process and is on its way for longer than the next process takes to start.
    running.proxy()?.fail(On::Binding, Fault::ApplyLate(Duration::from_millis(2500)), 1);
    let port = running.extender_port;
    let in_flight = tokio::spawn(async move {
        loop {
            match bind(port, "first", &first, "na").await? {
                Some(text) if text.contains("just started") => tokio::time::sleep(Duration::from_millis(20)).await,
                answer => return Ok::<_, anyhow::Error>(answer),
            }
        }
    });
    let left = || async { Ok((running.proxy()?.met() == 1).then_some(())) };
    running.until(SOON, "a write on its way", left).await?;
    running.scheduler.kill()?;
    assert!(in_flight.await?.is_err(), "its process is gone");
    running.scheduler.restart()?;
    running.metrics().await?;
    let asked_at = Instant::now();
    let refused = loop {
        match bind(port, "second", &second, "na").await {
            Ok(Some(text))
                if text.contains("just started") || text.contains("not ready") || text.contains("not been listed") => {}
            Ok(Some(text)) => break text,
            Ok(None) => panic!("both pods have all GPUs of the node"),
            Err(_) => {}
        }
        assert!(asked_at.elapsed() < SOON, "no answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(refused.contains("too few free GPUs (8 asked, 0 of 8 free"), "{refused}");
    assert_eq!(plan_of(&running.until_bound("first", SOON).await?)?.gpus()?.len(), 8);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_live_binders_do_within_one_window_is_seen_and_told() -> Result<()> {
    let mut running = Running::start(&[("dgx-1v", "na")]).await?;
    running.kube_scheduler.process.kill()?;
    let (_other, other_port, other_admin) = running.another_scheduler().await?;
    // Both are past the time in which one that has just started waits.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let admins = [running.admin_port, other_admin];
    let (mut alone, mut both) = (0, 0);
    for round in 0..ROUNDS {
        let names = [format!("a{round}"), format!("b{round}")];
        let uids = [create(&running, &names[0], 8).await?, create(&running, &names[1], 8).await?];
        let (a, b) = tokio::join!(
            bind(running.extender_port, &names[0], &uids[0], "na"),
            bind(other_port, &names[1], &uids[1], "na")
        );
        let bound: Vec<&String> =
            names.iter().zip([&a, &b]).filter(|(_, r)| matches!(r, Ok(None))).map(|(n, _)| n).collect();
        let refused = [a, b].into_iter().filter_map(|r| r.unwrap()).collect::<Vec<_>>();
        assert!(refused.iter().all(|text| text.contains("too few free GPUs")), "{refused:?}");
        match bound.len() {
            1 => alone += 1,
            2 => {
                both += 1;
                told(&running, &names, admins).await?;
            }
            _ => panic!("nobody was bound: {refused:?}"),
        }
        for name in &names {
            running.delete(name).await?;
        }
        for admin in admins {
            let calm = || async { Ok((gauge(admin, "berth_conflict_pods").await? == 0).then_some(())) };
            running.until(SOON, "ledger without conflicts", calm).await?;
            let free = || async { Ok((gauge(admin, "berth_imprecise_nodes").await? == 0).then_some(())) };
            running.until(SOON, "precise ledger", free).await?;
        }
    }
    println!(
        "{ROUNDS} races of two live binders for one node: {alone} times one was bound, {both} times both, and that was told"
    );
    Ok(())
}

/// Both schedulers see that the pods have the same GPUs, and an Event says so on one of them.
async fn told(running: &Running, names: &[String; 2], admins: [u16; 2]) -> Result<()> {
    let plans: Vec<BTreeSet<String>> = {
        let mut plans = Vec::new();
        for name in names {
            let gpus = plan_of(&running.pods().get(name).await?)?.gpus()?;
            plans.push(gpus.iter().map(ToString::to_string).collect());
        }
        plans
    };
    assert_eq!(plans[0], plans[1], "all GPUs of the node");
    for admin in admins {
        let seen = || async {
            let (nodes, pods) =
                (gauge(admin, "berth_imprecise_nodes").await?, gauge(admin, "berth_conflict_pods").await?);
            Ok((nodes == 1 && pods == 1).then_some(()))
        };
        running.until(Duration::from_secs(10), "conflict in the metrics", seen).await?;
    }
    let events: Api<Event> = Api::default_namespaced(running.plane.client());
    let look = || async {
        let all = events.list(&ListParams::default()).await?.items;
        let about = |event: &Event| names.iter().any(|name| event.involved_object.name.as_ref() == Some(name));
        let of = all.into_iter().filter(|event| event.reason.as_deref() == Some("DeviceConflict") && about(event));
        Ok(of.filter_map(|event| event.message).next())
    };
    let message = running.until(Duration::from_secs(10), "Event DeviceConflict", look).await?;
    assert!(message.starts_with("On node na: GPUs 0,1,2,3,4,5,6,7 are another pod's too"), "{message}");
    Ok(())
}
