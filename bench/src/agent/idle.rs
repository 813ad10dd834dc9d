//! What is counted of a running agent without touching it: from `/proc`, its log, and the fake driver's own counts.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use berth_tests::controlplane::Process;
use berth_tests::made_node::MadeNode;

use super::Idle;
use crate::sample::{number, round3};

/// Length of a tick of `/proc/PID/stat`: the kernel's interface has 100 a second on every machine that Berth runs on.
const TICK_MS: u64 = 10;

/// Counts at one moment.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    at: Instant,
    cpu_ticks: u64,
    switches: u64,
    pub(super) threads: usize,
    log_lines: usize,
    nvml_calls: BTreeMap<&'static str, u64>,
}

impl Watched {
    /// The counts of now.
    pub(super) fn now(node: &MadeNode, agent: &Process) -> Result<Self> {
        let folder = format!("/proc/{}", agent.pid());
        let stat = std::fs::read_to_string(format!("{folder}/stat")).context("the agent is gone")?;
        let mut switches = 0_u64;
        let mut threads = 0;
        for task in std::fs::read_dir(format!("{folder}/task"))? {
            // A thread may end while it is looked at.
            let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
            switches = switches.saturating_add(context_switches(&status));
            threads += 1;
        }
        Ok(Self {
            at: Instant::now(),
            cpu_ticks: cpu_ticks(&stat).context("/proc/PID/stat without times")?,
            switches,
            threads,
            log_lines: agent.log()?.lines().count(),
            nvml_calls: node.nvml_calls()?,
        })
    }

    /// What happened since then.
    pub(super) fn since(&self, before: &Self) -> Idle {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let cpu_ms = self.cpu_ticks.saturating_sub(before.cpu_ticks).saturating_mul(TICK_MS);
        let minute = |count: u64| per_minute(count, seconds);
        let calls = self.nvml_calls.iter().map(|(name, count)| {
            let more = count.saturating_sub(before.nvml_calls.get(name).copied().unwrap_or_default());
            ((*name).to_owned(), minute(more))
        });
        Idle {
            seconds: round3(seconds),
            cpu_ms,
            cpu_percent: round3(count_of(cpu_ms) / 10.0 / seconds),
            context_switches_per_minute: minute(self.switches.saturating_sub(before.switches)),
            log_lines: self.log_lines.saturating_sub(before.log_lines),
            nvml_calls_per_minute: calls.filter(|(_, count)| *count > 0.0).collect(),
        }
    }
}

/// A count of some seconds as one of a minute.
pub(super) fn per_minute(count: u64, seconds: f64) -> f64 {
    round3(count_of(count) * 60.0 / seconds)
}

fn count_of(count: u64) -> f64 {
    number(usize::try_from(count).unwrap_or(usize::MAX))
}

/// User and system time of all threads, also of those that ended. The program's name may hold anything, so what counts begins after it.
pub(super) fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    // Fields 14 and 15 of proc_pid_stat(5); the first one after the name is field 3.
    let mut times = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()?.saturating_add(times.next()?.ok()?))
}

/// How often a thread gave the CPU away or lost it.
pub(super) fn context_switches(status: &str) -> u64 {
    let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok());
    counts.sum()
}
