//! Counts the system calls of a running process by strace, where the machine has it. Needs no right that the process's owner lacks.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::SystemCalls;
use super::idle::per_minute;
use crate::sample::round3;

const PROGRAM: &str = "strace";
/// How long strace may take to write its table.
const END_WITHIN: Duration = Duration::from_secs(20);
const END_POLL: Duration = Duration::from_millis(20);

/// Counts for so long; `None` where there is no strace.
///
/// # Errors
/// strace is there and does not count: it may not trace, or the process ended.
pub(super) async fn count(pid: u32, window: Duration) -> Result<Option<SystemCalls>> {
    if Command::new(PROGRAM).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("no {PROGRAM}: system calls are not counted");
        return Ok(None);
    }
    eprintln!("counting its system calls for {window:?}");
    let folder = tempfile::tempdir()?;
    let table = folder.path().join("table");
    let mut command = Command::new(PROGRAM);
    command.args(["-f", "-q", "-c", "-o"]).arg(&table).args(["-p", &pid.to_string()]);
    let mut tracer = command.stdin(Stdio::null()).spawn().context("start strace")?;
    let started = Instant::now();
    tokio::time::sleep(window).await;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(tracer.try_wait()?.is_none(), "strace ended before its time: may it trace process {pid}?");
    end(&mut tracer).await?;
    let by_name = parse(&std::fs::read_to_string(&table).context("read what strace counted")?);
    ensure!(!by_name.is_empty(), "strace counted nothing");
    let total = by_name.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    Ok(Some(SystemCalls {
        seconds: round3(seconds),
        per_minute: per_minute(total, seconds),
        by_name: by_name.into_iter().map(|(name, count)| (name, per_minute(count, seconds))).collect(),
    }))
}

/// Ends strace as a terminal would: it lets go of the process and writes its table.
async fn end(tracer: &mut Child) -> Result<()> {
    let pid = Pid::from_child(tracer);
    kill_process(pid, Signal::INT).context("end strace")?;
    let deadline = Instant::now() + END_WITHIN;
    while tracer.try_wait()?.is_none() {
        ensure!(Instant::now() < deadline, "strace does not end");
        tokio::time::sleep(END_POLL).await;
    }
    Ok(())
}

/// The calls by name of the table that `strace -c` writes: percent, seconds, microseconds, calls, errors where there were some, name.
pub(super) fn parse(table: &str) -> BTreeMap<String, u64> {
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = fields.last().filter(|name| **name != "total")?;
        Some(((*name).to_owned(), fields.get(3)?.parse::<u64>().ok()?))
    });
    rows.collect()
}
