//! Binding by way of an API server that refuses, loses answers, stalls and cuts connections: a real one behind a proxy, with a stock
//! kube-scheduler that tries again. Whatever fails, no device is in two plans, every pod is bound in the end, and nothing stays held.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use berth_tests::faulty::{Fault, On};
use berth_tests::running::{Running, plan_of};
use kube::api::ListParams;

/// Backoff of kube-scheduler, and a hold that has to end by its time.
const IN_THE_END: Duration = Duration::from_secs(90);
/// Longer than any bind waits.
const STALL: Duration = Duration::from_secs(10);
/// Pods per row, four GPUs each: with two nodes of eight they fill both.
const PODS: usize = 4;

/// One fault, met so often, and what binds say of it (label `result` of `berth_bind_results`).
struct Row {
    name: &'static str,
    on: On,
    fault: Fault,
    times: usize,
    /// Results of which at least one must be counted.
    told: &'static [&'static str],
}

const fn row(name: &'static str, on: On, fault: Fault, times: usize, told: &'static [&'static str]) -> Row {
    Row { name, on, fault, times, told }
}

/// Times are above the number of pods where retries must fail too.
const TABLE: [Row; 14] = [
    row("409 and not bound", On::Binding, Fault::Refuse(409), 6, &["conflict"]),
    row("409 after the write", On::Binding, Fault::ApplyAndRefuse(409), 2, &["ok"]),
    row("429 with Retry-After", On::Binding, Fault::Refuse(429), 6, &["api-busy"]),
    row("500 and not bound", On::Binding, Fault::Refuse(500), 2, &["unknown"]),
    row("500 after the write", On::Binding, Fault::ApplyAndRefuse(500), 4, &["ok"]),
    row("answer lost after the write", On::Binding, Fault::CutAfter, 4, &["ok"]),
    row("answer 10 s late", On::Binding, Fault::AnswerLate(STALL), 2, &["ok"]),
    row("write held back for 10 s", On::Binding, Fault::ApplyLate(STALL), 2, &["unknown"]),
    row("connection cut before the write", On::Binding, Fault::CutBefore, 2, &["unknown"]),
    row("list: 429", On::NodeList, Fault::Refuse(429), 6, &["api-refused"]),
    row("list: 500", On::NodeList, Fault::Refuse(500), 6, &["api-refused"]),
    row("list: stalls 10 s", On::NodeList, Fault::AnswerLate(STALL), 2, &["api-late"]),
    row("list: connection cut", On::NodeList, Fault::CutBefore, 6, &["api-unreachable"]),
    row("list: connection cut after it was read", On::NodeList, Fault::CutAfter, 6, &["api-unreachable"]),
];

/// Binds by result so far.
async fn results(running: &mut Running) -> Result<BTreeMap<String, u64>> {
    let metrics = running.metrics().await?;
    let series =
        metrics.lines().filter_map(|line| line.strip_prefix("berth_bind_results_total{result=\"")?.split_once("\"} "));
    Ok(series.map(|(result, count)| (result.to_owned(), count.parse().unwrap())).collect())
}

/// Who has which device by the plans of all bound pods. Fails when one is in two plans.
async fn devices(running: &Running) -> Result<BTreeMap<String, String>> {
    let mut held: BTreeMap<String, String> = BTreeMap::new();
    for pod in running.pods().list(&ListParams::default()).await?.items {
        if pod.spec.as_ref().is_none_or(|s| s.node_name.is_none()) {
            continue;
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        for device in plan_of(&pod)?.gpus()? {
            let other = held.insert(device.to_string(), name.clone());
            ensure!(other.is_none(), "{device} is in the plans of {other:?} and {name}");
        }
    }
    Ok(held)
}

/// No hold is left and no device taken.
async fn all_free(running: &mut Running) -> Result<()> {
    let until = Instant::now() + IN_THE_END;
    loop {
        let metrics = running.metrics().await?;
        if metrics.lines().any(|line| line == "berth_holds_active 0") {
            return Ok(());
        }
        ensure!(Instant::now() < until, "holds stay:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_between_us_and_the_api_server_no_device_is_given_twice_and_no_pod_is_lost() -> Result<()> {
    let mut running = Running::start_behind_a_proxy(&[("dgx-1v", "na"), ("dgx-1v", "nb")]).await?;
    for (number, row) in TABLE.iter().enumerate() {
        let began_at = Instant::now();
        let before = results(&mut running).await?;
        let met_before = running.proxy()?.met();
        running.proxy()?.fail(row.on, row.fault, row.times);
        let names: Vec<String> = (0..PODS).map(|i| format!("r{number}-{i}")).collect();
        for name in &names {
            running.submit(name, 4, &[]).await?;
        }
        for name in &names {
            running.until_bound(name, IN_THE_END).await.map_err(|error| error.context(row.name))?;
        }
        let held = devices(&running).await.map_err(|error| error.context(row.name))?;
        assert_eq!(held.len(), 4 * PODS, "{}", row.name);
        all_free(&mut running).await.map_err(|error| error.context(row.name))?;
        let met = running.proxy()?.met() - met_before;
        assert_eq!(met, row.times, "{}: the fault was not met as often as it should", row.name);
        let after = results(&mut running).await?;
        let count = |of: &BTreeMap<String, u64>, result: &str| of.get(result).copied().unwrap_or(0);
        for told in row.told {
            assert!(
                count(&after, told) > count(&before, told),
                "{}: no {told} in {after:?}, before {before:?}",
                row.name
            );
        }
        for name in &names {
            running.delete(name).await?;
        }
        let news: Vec<String> = after
            .iter()
            .filter(|(result, n)| **n > count(&before, result))
            .map(|(result, n)| format!("{result} {}", n - count(&before, result)))
            .collect();
        println!("{:40} {met} faults, {:5} ms: {}", row.name, began_at.elapsed().as_millis(), news.join(", "));
    }
    Ok(())
}
