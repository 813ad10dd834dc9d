//! Holds a child process to its promises, with small shells as children.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Process, ProcessSpec};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_child_is_waited_for_ended_and_started_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "trap 'echo bye; exit 7' TERM; echo hello $A; while :; do sleep 0.05; done";
    let spec = ProcessSpec::new("child", "sh").args(["-c", script]).env("A", "b");
    let mut child = Process::spawn(spec, folder.path())?;
    assert_eq!(child.wait_for_log("hello", SOON).await?, "hello b");
    assert_eq!(child.terminate(SOON).await?.code(), Some(7));
    assert!(child.log()?.contains("bye"));
    let ended = child.wait_for_log("never", SOON).await.err().context("it came")?;
    assert!(format!("{ended:#}").contains("exit status 7"), "{ended:#}");

    child.restart()?;
    child.wait_for_log("hello", SOON).await?;
    assert!(!child.log()?.contains("bye"), "the log of the first start is not the second's");
    let late = child.wait_for_log("never", Duration::from_millis(50)).await.err().context("it came")?;
    assert!(format!("{late:#}").contains("in time"), "{late:#}");
    child.kill()?;
    assert!(child.ended()?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_reported_and_left_running() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
    let mut child = Process::spawn(ProcessSpec::new("child", "sh").args(["-c", script]), folder.path())?;
    child.wait_for_log("deaf", SOON).await?;
    let error = child.terminate(Duration::from_millis(100)).await.err().context("it ended")?;
    assert!(format!("{error:#}").contains("still runs"), "{error:#}");
    assert!(child.ended()?.is_none());
    Ok(())
}

#[tokio::test]
async fn dropping_a_child_kills_its_own_children_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "sleep 1000 & echo grandchild $!; wait";
    let mut child = Process::spawn(ProcessSpec::new("child", "sh").args(["-c", script]), folder.path())?;
    let line = child.wait_for_log("grandchild", SOON).await?;
    let pid = line.split(' ').nth(1).context("no pid")?;
    // Empty for a dead one that nobody has reaped yet, missing for a reaped one.
    let command = Path::new("/proc").join(pid).join("cmdline");
    assert!(!std::fs::read(&command)?.is_empty());

    drop(child);

    let deadline = Instant::now() + SOON;
    while std::fs::read(&command).is_ok_and(|text| !text.is_empty()) {
        assert!(Instant::now() < deadline, "{pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
