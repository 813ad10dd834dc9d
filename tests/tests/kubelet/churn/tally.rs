//! What became of the pods of a churn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

/// The first time a kubelet was asked.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Device files by container.
pub(super) type ByContainer = BTreeMap<String, BTreeSet<String>>;

/// Pods of which the kubelet names for every container what it sees.
#[derive(Debug, Default)]
struct Named {
    /// When it was first asked.
    at_once: usize,
    /// When it was asked some more times.
    later: usize,
    /// The longest from the first time to the last.
    longest: Duration,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_once, later, longest } = self;
        write!(f, "{}: {at_once} when it was first asked, {later} up to {longest:?} later", at_once + later)
    }
}

/// The counts, and every difference by name.
#[derive(Debug, Default)]
pub(super) struct Tally {
    level: &'static str,
    /// Pods that reached Running.
    pub(super) ran: usize,
    /// Of those, pods of which every container sees what was planned for it.
    pub(super) planned: usize,
    /// Containers with devices of those pods.
    pub(super) leases: usize,
    /// What the kubelet named of pods whose containers had just said what they see, and of pods that ran when it was started again.
    named: [Named; 2],
    /// Pods that failed, by reason.
    pub(super) failed: BTreeMap<String, usize>,
    /// The same, by what was done last before, and what the kubelet said of it.
    failures: BTreeMap<String, usize>,
    /// Devices that two living containers saw at once.
    pub(super) doubly_held: Vec<String>,
    /// Containers that started more than once and saw other devices then.
    pub(super) changed: Vec<String>,
    /// What was done to agents, kubelets and schedulers.
    faults: BTreeMap<&'static str, usize>,
    differences: Vec<String>,
    /// Time from Allocate to spec of each lease, in microseconds.
    waited_us: Vec<u64>,
    /// Leases that one agent gave and another found again: nobody knows how long they were pending.
    found_again: usize,
    /// Tries to create a container that had no spec yet, and how many containers had such a try.
    refused: (usize, usize),
    took: Duration,
}

impl Tally {
    pub(super) fn new(level: &'static str) -> Self {
        Self { level, ..Self::default() }
    }

    pub(super) fn ran(&mut self, name: &str, planned: &ByContainer, seen: &ByContainer) {
        self.ran += 1;
        self.leases += seen.len();
        if planned == seen {
            self.planned += 1;
        } else {
            self.differences.push(format!("{name}: planned {planned:?}, seen {seen:?}"));
        }
    }

    /// The kubelet says what the containers see, so long after it was first asked.
    pub(super) fn named(&mut self, is_again: bool, after: Duration) {
        let [first, again] = &mut self.named;
        let named = if is_again { again } else { first };
        if after < AT_ONCE {
            named.at_once += 1;
        } else {
            named.later += 1;
            named.longest = named.longest.max(after);
        }
    }

    /// The kubelet says something else, or nothing, to the end.
    pub(super) fn misnamed(&mut self, name: &str, held: &ByContainer, seen: &ByContainer) {
        self.differences.push(format!("{name}: the kubelet names {held:?}, seen {seen:?}"));
    }

    pub(super) fn failed(&mut self, reason: String, after: &str, message: &str) {
        *self.failures.entry(format!("{reason}, last {after}: {message}")).or_default() += 1;
        *self.failed.entry(reason).or_default() += 1;
    }

    pub(super) fn doubly_held(&mut self, what: String) {
        self.doubly_held.push(what);
    }

    pub(super) fn changed(&mut self, what: String) {
        self.changed.push(what);
    }

    pub(super) fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// What agents wrote into their log of the leases that they gave.
    pub(super) fn leased(&mut self, log: &str) {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for line in lines.filter(|line| line["message"] == "leased") {
            match line["waited_us"].as_u64() {
                Some(waited) => self.waited_us.push(waited),
                None => self.found_again += 1,
            }
        }
        self.waited_us.sort_unstable();
    }

    /// Tries to create containers whose lease had no spec yet, by container.
    pub(super) fn refused(&mut self, tries: &BTreeMap<String, usize>) {
        self.refused = (tries.values().sum(), tries.len());
    }

    pub(super) fn took(&mut self, took: Duration) {
        self.took = took;
    }

    /// The line of the bench.
    pub(super) fn line(&self) -> Result<String> {
        let percentile = |of: usize| {
            let last = self.waited_us.len().checked_sub(1)?;
            let micros = u32::try_from(*self.waited_us.get(last * of / 100)?).ok()?;
            Some(f64::from(micros) / 1000.0)
        };
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(json!({
            "bench": "leases",
            "v": 1,
            "host": {
                "cpus": std::thread::available_parallelism()?,
                "load_1m": load.split(' ').next().and_then(|load| load.parse::<f64>().ok()),
                "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            },
            "result": {
                "level": self.level,
                "pods": self.ran + self.failed.values().sum::<usize>(),
                "ran": self.ran,
                "planned": self.planned,
                "failed": self.failed,
                "leases": self.leases,
                "allocate_to_spec_ms": {"p50": percentile(50), "p99": percentile(99), "max": percentile(100)},
                "timed": self.waited_us.len(),
                "found_again": self.found_again,
                "create_container_errors": self.refused.0,
                "containers_with_such_errors": self.refused.1,
                "named_by_the_kubelet": self.named[0].at_once + self.named[0].later,
                "faults": self.faults,
                "seconds": self.took.as_secs(),
            },
        })
        .to_string())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, ran, planned, leases, named: [first, again], failed, .. } = self;
        writeln!(
            f,
            "level {level}: {ran} pods ran, {planned} with what was planned, in {leases} containers; failed: {failed:?}"
        )?;
        writeln!(f, "  the kubelet names what they see of {first}")?;
        writeln!(f, "  and, killed and started, again of {again}")?;
        writeln!(f, "  {:?} in {:?}", self.faults, self.took)?;
        self.failures.iter().try_for_each(|(failure, count)| writeln!(f, "  {count} {failure}"))?;
        self.differences.iter().take(8).try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}
