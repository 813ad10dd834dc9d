//! What a run ran on, and what its process takes of it: from `/proc`, so that a figure is never read without them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The machine and the build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// CPUs that this process may use.
    pub(crate) cpus: usize,
    /// Model of the first of them; empty where the kernel does not say.
    pub(crate) cpu_model: String,
    /// Load average of the last minute when the run ended. Above the number of CPUs, the figures are of a busy machine.
    pub(crate) load_1m: f64,
    /// `release`, or `debug`, whose figures mean nothing.
    pub(crate) build: String,
    /// When the run ended, in seconds since 1970.
    pub(crate) ended_unix_seconds: u64,
}

impl Host {
    /// The machine as it is now.
    pub(crate) fn now() -> Self {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            cpu_model: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default().to_owned(),
            load_1m: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            ended_unix_seconds: since_1970.map_or(0, |time| time.as_secs()),
        }
    }
}

/// CPU time that this thread took so far; zero where the kernel does not count it.
pub(crate) fn thread_cpu() -> Duration {
    let nanoseconds = read("/proc/thread-self/schedstat").split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// Memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// All pages in memory, the program's own among them (`VmRSS`).
    pub(crate) rss_kib: u64,
    /// Of those, what it allocated (`RssAnon`).
    pub(crate) anon_kib: u64,
}

impl Memory {
    /// What this process takes now.
    pub(crate) fn now() -> Self {
        Self::parse(&read("/proc/self/status"))
    }

    /// What another process takes now; `None` when it is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    }

    fn parse(status: &str) -> Self {
        let kib = |key| field(status, key).and_then(|text| text.strip_suffix(" kB")?.trim().parse().ok());
        Self { rss_kib: kib("VmRSS").unwrap_or_default(), anon_kib: kib("RssAnon").unwrap_or_default() }
    }
}

/// A file of `/proc`; empty where there is none: a figure without its machine is still a figure.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `key: value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == key).map(|(_, v)| v.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tberth-bench\nVmRSS:\t  123456 kB\nRssAnon:\t   98765 kB\nRssFile:\t 1 kB\n";
        assert_eq!(Memory::parse(status), Memory { rss_kib: 123_456, anon_kib: 98_765 });
        assert_eq!(Memory::parse(""), Memory { rss_kib: 0, anon_kib: 0 });
    }

    #[test]
    fn this_process_takes_memory_and_runs_on_a_cpu() {
        assert!(Memory::now().anon_kib > 0);
        assert!(Host::now().cpus > 0);
    }
}
