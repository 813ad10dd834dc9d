//! The bench of the two carriers of a report: from a driver's error (Xid 79) to the first answer of filter that knows it, through an
//! unmodified agent, a real API server, TLS and berth-scheduler.
//!
//! On each node the eight GPUs fail one by one, and filter is asked for as many GPUs as were healthy before. Nothing but the driver's
//! event tells the agent: its next look by the clock is later than any figure here.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_tests::controlplane::Process;
use berth_tests::made_node::MadeNode;
use berth_tests::running::pod;
use berth_tests::streaming::{Replica, Streaming};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::CarriersArgs;
use crate::call::Caller;
use crate::sample::{Latency, Sample};

/// Machine file of all nodes.
const MACHINE: &str = "dgx-h100";
const GPUS: u32 = 8;
/// The clock of the agents: longer than any run.
const NEVER: &str = "60m";
/// Between two questions to filter: what the figures are off by at most.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// An agent tells the events of a quarter of a second together; a fault that comes alone is what is measured.
const BETWEEN: Duration = Duration::from_millis(400);
/// A change that takes longer is lost, not slow.
const WITHIN: Duration = Duration::from_secs(30);

/// What came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// The arguments.
    pub(crate) options: Value,
    /// With a stream beside the object.
    pub(crate) stream: Reaction,
    /// By the object alone.
    pub(crate) object: Reaction,
}

/// Times from a fault to a changed answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reaction {
    /// Faults measured.
    pub(crate) faults: usize,
    /// Of all faults.
    pub(crate) latency: Latency,
    /// The slowest.
    pub(crate) worst_us: f64,
    /// Of `latency`, what reading the hardware took by the agent's own count: mean of all readings.
    pub(crate) reading_mean_us: f64,
}

/// How a report travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Stream,
    Object,
}

/// Runs the bench.
///
/// # Errors
/// A part does not come up, or a fault never reaches filter.
pub(crate) fn run(args: &CarriersArgs) -> Result<Figures> {
    ensure!(args.nodes > 0, "--nodes must be above zero");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        eprintln!("starting a control plane with overlay stream");
        let site = Streaming::start().await?;
        let replica = site.replica(1).await?;
        let options = serde_json::to_value(args)?;
        let stream = measure(&site, &replica, Carrier::Stream, args.nodes).await?;
        let object = measure(&site, &replica, Carrier::Object, args.nodes).await?;
        Ok(Figures { options, stream, object })
    })
}

async fn measure(site: &Streaming, replica: &Replica, carrier: Carrier, nodes: usize) -> Result<Reaction> {
    let (mut times, mut readings) = (Vec::new(), Readings::default());
    for number in 0..nodes {
        let name = format!("{carrier:?}-{number}").to_lowercase();
        eprintln!("breaking the GPUs of {name}");
        let mut node = MadeNode::new(MACHINE, &name)?;
        let mut agent = start(site, replica, carrier, &node).await?;
        replica.until_fits(&name, GPUS, true).await.with_context(|| agent.log_tail())?;
        times.extend(break_gpus(replica, &mut node).await.with_context(|| agent.log_tail())?);
        readings = readings.and(&Readings::of(&mut agent).await?);
        agent.kill()?;
    }
    let worst = times.iter().max().copied().unwrap_or_default();
    Ok(Reaction {
        faults: times.len(),
        latency: Sample::new(times).latency(),
        worst_us: worst.as_secs_f64() * 1e6,
        reading_mean_us: readings.mean_us(),
    })
}

async fn start(site: &Streaming, replica: &Replica, carrier: Carrier, node: &MadeNode) -> Result<Process> {
    let agent = site.agent_polling(node, NEVER).await?;
    if carrier == Carrier::Object {
        return site.plane.spawn(agent);
    }
    let token = site.plane.reports_token(Some(node.name())).await?;
    let agent = site.plane.spawn(site.streaming(agent, &[replica], &token).await?)?;
    replica.until_metric("berth_report_streams 1").await.with_context(|| agent.log_tail())?;
    Ok(agent)
}

/// Lets the GPUs of a node fail one by one; how long each took to count.
async fn break_gpus(replica: &Replica, node: &mut MadeNode) -> Result<Vec<Duration>> {
    let mut caller = Caller::connect(replica.extender).await?;
    let (mut events, mut times) = (String::new(), Vec::new());
    for gpu in 0..GPUS {
        let body = question(node.name(), GPUS - gpu);
        ensure!(fits(&mut caller, &body, node.name()).await?, "{} GPUs do not fit before", GPUS - gpu);
        tokio::time::sleep(BETWEEN).await;
        events += &format!("{{id: {}, gpu: {gpu}, xid: 79}}, ", gpu + 1);
        node.set_faults(&format!("events: [{events}]"))?;
        // The file is renamed into place last of all, so this is when the driver can know it.
        let broken = Instant::now();
        while fits(&mut caller, &body, node.name()).await? {
            ensure!(broken.elapsed() < WITHIN, "GPU {gpu} of {} never fails", node.name());
            tokio::time::sleep(ASK_EVERY).await;
        }
        times.push(broken.elapsed());
    }
    Ok(times)
}

fn question(node: &str, gpus: u32) -> Bytes {
    let mut pod = pod("probe", gpus, &[]);
    pod["metadata"]["namespace"] = json!("default");
    pod["metadata"]["uid"] = json!("probe");
    Bytes::from(json!({"Pod": pod, "NodeNames": [node]}).to_string())
}

async fn fits(caller: &mut Caller, body: &Bytes, node: &str) -> Result<bool> {
    let (_, answer) = caller.post("/filter", body.clone()).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    Ok(answer["NodeNames"].as_array().is_some_and(|names| names.iter().any(|name| name == node)))
}

/// Readings of the hardware, as agents count them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Readings {
    count: f64,
    seconds: f64,
}

impl Readings {
    async fn of(agent: &mut Process) -> Result<Self> {
        let url = berth_tests::made_node::admin_url(agent).await?;
        Ok(Self::parse(&agent.wait_for_http(&format!("{url}/metrics"), WITHIN).await?))
    }

    fn parse(metrics: &str) -> Self {
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or_default()
        };
        Self {
            count: value("berth_agent_probe_duration_seconds_count"),
            seconds: value("berth_agent_probe_duration_seconds_sum"),
        }
    }

    fn and(self, other: &Self) -> Self {
        Self { count: self.count + other.count, seconds: self.seconds + other.seconds }
    }

    fn mean_us(self) -> f64 {
        if self.count > 0.0 { (self.seconds / self.count * 1e6).round() } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_readings_is_of_all_agents_together() {
        let metrics = "# TYPE berth_agent_probe_duration_seconds histogram\n\
            berth_agent_probe_duration_seconds_sum 0.03\n\
            berth_agent_probe_duration_seconds_count 3\n";
        let one = Readings::parse(metrics);
        assert_eq!(one.mean_us(), 10_000.0);
        assert_eq!(one.and(&Readings { count: 1.0, seconds: 0.05 }).mean_us(), 20_000.0);
        assert_eq!(Readings::default().mean_us(), 0.0);
    }

    #[test]
    fn a_debug_build_measures_both_carriers() {
        let figures = run(&CarriersArgs { nodes: 1 }).unwrap();
        for reaction in [&figures.stream, &figures.object] {
            assert_eq!(reaction.faults, 8);
            assert!(reaction.latency.p50_us > 0.0 && reaction.latency.p50_us <= reaction.worst_us, "{figures:?}");
            assert!(reaction.reading_mean_us > 0.0, "{figures:?}");
        }
    }
}
