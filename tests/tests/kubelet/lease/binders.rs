//! Two binders at once on a real node: two schedulers that live, and one that is killed with a bind on its way. The lease is the fence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_tests::controlplane::ask;
use berth_tests::faulty::{Fault, On};
use berth_tests::real_cluster::SOON;
use berth_tests::real_node::can_run;
use serde_json::json;

use super::stage::{NODE, Stage, gpu_pod, id, leases_in};

/// Half of the node: two such pods are no matter of counts.
const GPUS: u32 = 4;

/// How long a bind is on its way: long enough for another one, and within the time that a bind has.
const ON_ITS_WAY: Duration = Duration::from_millis(2000);

/// What a scheduler says that has just started: nothing is wrong, and it is asked again.
const NOT_YET: [&str; 3] = ["just started", "not ready", "not been listed"];

/// Looks at the leases all the time. No device may ever be in two of them.
struct Watch {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Result<usize>>,
}

impl Watch {
    fn start(folder: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let looking = std::thread::spawn(move || {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                exclusive(&folder)?;
                looks += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(looks)
        });
        Self { stop, looking }
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.looking.join().unwrap()?;
        println!("{looks} looks at the leases, no device in two of them");
        Ok(())
    }
}

fn exclusive(folder: &Path) -> Result<()> {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    for (pod, uid, devices) in leases_in(folder)? {
        for device in devices {
            if let Some(other) = holders.insert(id(&device), uid.clone()) {
                bail!("{} is leased to {pod} ({uid}) and to {other}", id(&device));
            }
        }
    }
    Ok(())
}

/// A bind as kube-scheduler asks for it, again while the scheduler has only just started.
async fn bind(port: u16, name: String, uid: String) -> Result<()> {
    let body = json!({"PodName": name, "PodNamespace": "default", "PodUID": uid, "Node": NODE});
    let asked_at = std::time::Instant::now();
    loop {
        let answer = ask(&format!("http://127.0.0.1:{port}/bind"), &body).await?;
        let error = answer["Error"].as_str().context("no Error")?;
        ensure!(asked_at.elapsed() < SOON, "{name}: {error}");
        match error {
            "" => return Ok(()),
            wait if NOT_YET.iter().any(|words| wait.contains(words)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            error => bail!("{name}: {error}"),
        }
    }
}

impl Stage {
    /// A pod that only this test binds; its UID.
    async fn unbound(&self, name: &str) -> Result<String> {
        self.0.create(&gpu_pod(name, GPUS)).await?;
        self.0.running.pods().get(name).await?.metadata.uid.context("a UID")
    }

    /// Asks the first scheduler for a bind, and returns when its write is on its way.
    async fn send_off(&self, name: &str) -> Result<tokio::task::JoinHandle<Result<()>>> {
        let (running, uid) = (&self.0.running, self.unbound(name).await?);
        let met = running.proxy()?.met();
        running.proxy()?.fail(On::Binding, Fault::ApplyLate(ON_ITS_WAY), 1);
        let sent = tokio::spawn(bind(running.extender_port, name.to_owned(), uid));
        let is_sent = || async { Ok((running.proxy()?.met() > met).then_some(())) };
        running.until(SOON, "a write on its way", is_sent).await?;
        Ok(sent)
    }

    /// Both pods are bound to the same devices: one has them, the other has none, is told whose they are, and goes.
    async fn one_has_them(&self, pods: [&str; 2]) -> Result<()> {
        let mut plans = Vec::new();
        for name in pods {
            plans.push(Stage::planned(&self.0.running.until_bound(name, SOON).await?)?);
        }
        ensure!(plans[0] == plans[1], "no conflict: {plans:?}");
        let first =
            || async { Ok(pods.into_iter().find(|name| self.leased().is_ok_and(|all| all.contains_key(*name)))) };
        let winner = self.0.running.until(SOON, "a lease", first).await?;
        let loser = pods.into_iter().find(|name| *name != winner).context("a loser")?;
        let told = self.is_refused(loser, "device-leased").await?;
        ensure!(told.contains(&format!("is leased to pod default/{winner}")), "{told}");
        self.is_evicted(loser).await?;
        self.holds_its_plan(winner).await?;
        self.0.delete(winner).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_binders_one_has_the_devices_and_the_other_is_named_and_evicted() -> Result<()> {
    if !can_run("of_two_binders_one_has_the_devices_and_the_other_is_named_and_evicted")? {
        return Ok(());
    }
    let mut stage = Stage::start_behind_a_proxy().await?;
    stage.allow_eviction().await?;
    stage.0.running.kube_scheduler.process.kill()?;
    let (_other, other_port, _) = stage.0.running.another_scheduler().await?;
    let watch = Watch::start(stage.0.nodes[0].folder().join("berth/leases"));

    // Both are past the time in which one that has just started waits.
    bind(other_port, "early".to_owned(), stage.unbound("early").await?).await?;
    stage.holds_its_plan("early").await?;
    stage.0.delete("early").await?;

    // Both live: while a write of one is on its way, the other one sees free devices.
    let sent = stage.send_off("slow").await?;
    bind(other_port, "quick".to_owned(), stage.unbound("quick").await?).await?;
    sent.await??;
    stage.one_has_them(["slow", "quick"]).await?;

    // The one with the write on its way is killed, and its peer goes on.
    let sent = stage.send_off("orphan").await?;
    stage.0.running.scheduler.kill()?;
    bind(other_port, "heir".to_owned(), stage.unbound("heir").await?).await?;
    assert!(sent.await?.is_err(), "its process is gone");
    stage.0.running.scheduler.restart()?;
    stage.one_has_them(["orphan", "heir"]).await?;

    // Its successor waits until the write must have landed, and plans around it.
    stage.0.running.metrics().await?;
    let sent = stage.send_off("before").await?;
    stage.0.running.scheduler.kill()?;
    assert!(sent.await?.is_err(), "its process is gone");
    stage.0.running.scheduler.restart()?;
    stage.0.running.metrics().await?;
    bind(stage.0.running.extender_port, "after".to_owned(), stage.unbound("after").await?).await?;
    for name in ["before", "after"] {
        stage.holds_its_plan(name).await?;
        stage.0.delete(name).await?;
    }
    watch.end()
}
