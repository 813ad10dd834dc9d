//! Command line of the bench. The defaults are the sizes that the budgets speak of.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// Measures Berth against itself on one machine: ratios, never seconds.
#[derive(Debug, Parser)]
#[command(name = "berth-bench", version)]
pub(crate) struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The extender's HTTP calls, against an echo on the same HTTP stack.
    Serve(ServeArgs),
    /// Pods per second of a real kube-scheduler, with and without the extender.
    Scheduler(SchedulerArgs),
    /// What the node agent takes of a node on which nothing happens.
    Agent(AgentArgs),
    /// Time from a driver's error to a changed answer of filter, by stream and by object.
    Carriers(CarriersArgs),
    /// How full a cluster gets that is asked for more than it has: a trace's pods arrive, nothing leaves.
    Pack(PackArgs),
    /// What is lost at an offered load: a trace's pods come and go.
    Churn(ChurnArgs),
    /// MIG instances that come and go: how many requests each rule turns away.
    Mig(MigArgs),
    /// Jobs of whole GPUs come and go: how many get a set as good as the machine has, by kind of machine and policy.
    Sets(SetsArgs),
    /// A fill through the real HTTP path and a model of kube-scheduler, beside the same fill in process.
    Wire(WireArgs),
}

/// Which trace, which policy, which draws.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TraceArgs {
    /// Node list: sn,cpu_milli,memory_mib,gpu,model.
    #[arg(long, value_name = "CSV")]
    pub(crate) nodes: PathBuf,

    /// Pod list: name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec.
    #[arg(long, value_name = "CSV")]
    pub(crate) pods: PathBuf,

    /// Seeds; one run each, and the mean of them.
    #[arg(long, value_delimiter = ',', default_value = "42")]
    pub(crate) seed: Vec<u64>,

    /// Who decides.
    #[arg(long, value_parser = policies(), default_value = berth_pack::openb::berth::BERTH)]
    pub(crate) policy: String,
}

/// How large the `sets` run is.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct SetsArgs {
    /// Nodes of 8 GPUs, all of one kind.
    #[arg(long, default_value_t = 64)]
    pub(crate) nodes: usize,

    /// Jobs of 1, 2, 4 or 8 GPUs, of which the first fifth is not counted.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) jobs: usize,

    /// GPUs asked for at any moment, in multiples of those installed.
    #[arg(long, default_value_t = 0.9)]
    pub(crate) load: f64,

    /// Seeds, one run each.
    #[arg(long, value_delimiter = ',', default_value = "42,43,44")]
    pub(crate) seed: Vec<u64>,
}

/// How large the `wire` run is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WireArgs {
    /// Node list of a trace: columns `cpu_milli,memory_mib,gpu,model` among others.
    #[arg(long)]
    pub(crate) nodes: PathBuf,

    /// Pod list of a trace.
    #[arg(long)]
    pub(crate) pods: PathBuf,

    /// GPUs asked for, in multiples of those installed.
    #[arg(long, default_value_t = 1.3)]
    pub(crate) demand: f64,

    /// Seed of the draws.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
}

fn policies() -> Vec<&'static str> {
    let peers = berth_pack::openb::peers::NAMES.map(|(name, _)| name);
    use berth_pack::openb::berth::{BERTH, LEARNING};
    [BERTH, LEARNING].into_iter().chain(peers).collect()
}

/// How large the `pack` run is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PackArgs {
    /// Trace, policy and seeds.
    #[command(flatten)]
    pub(crate) trace: TraceArgs,

    /// GPUs asked for, in multiples of those installed.
    #[arg(long, default_value_t = 1.3)]
    pub(crate) demand: f64,
}

/// How large the `churn` run is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ChurnArgs {
    /// Trace, policy and seeds.
    #[command(flatten)]
    pub(crate) trace: TraceArgs,

    /// GPUs asked for at any moment, in multiples of those installed.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) load: f64,

    /// Pods that arrive; losses are counted over the second half.
    #[arg(long = "pod-count", default_value_t = 40_000)]
    pub(crate) pod_count: usize,
}

/// How large the `mig` run is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MigArgs {
    /// Cards; eight to a node.
    #[arg(long, default_value_t = 96, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) gpus: usize,

    /// Requests per run; the first fifth is not counted.
    #[arg(long, default_value_t = 60_000)]
    pub(crate) arrivals: usize,

    /// Seeds; one run each, and the mean of them.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    pub(crate) seed: Vec<u64>,

    /// Slots asked for at any moment, in percent of those installed.
    #[arg(long, value_delimiter = ',', default_value = "85,95,110", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) load: Vec<u32>,

    /// Who decides; by default everybody. First-fit always runs: the others are measured against it.
    #[arg(long, value_delimiter = ',', value_parser = berth_pack::mig::POLICIES.map(|(name, _)| name))]
    pub(crate) policy: Vec<String>,
}

/// How large the `serve` run is.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct ServeArgs {
    /// Nodes in the index.
    #[arg(long, default_value_t = 5000)]
    pub(crate) nodes: usize,

    /// Node names per call, least first; each a size of its own.
    #[arg(long, value_delimiter = ',', default_value = "500,5000")]
    pub(crate) names: Vec<usize>,

    /// A/B rounds; the answer is the median of their ratios.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,

    /// Timed calls of each arm in a round.
    #[arg(long, default_value_t = 300)]
    pub(crate) calls: usize,

    /// Names that stand together in every call of filter; the pieces come in another order each time. kube-scheduler's workers take
    /// the square root of the nodes at once; 1 leaves nothing in order.
    /// Source: k8s.io/kubernetes `pkg/scheduler/framework/parallelize`, `chunkSizeFor`.
    #[arg(long, default_value_t = 71)]
    pub(crate) piece: usize,

    /// Percent of all GPUs that pods hold.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) full_percent: u64,

    /// How much a pod object says beside what matters.
    #[arg(long, value_enum, default_value_t = PodForm::Lean)]
    pub(crate) pod: PodForm,

    /// Class of the pod (`berth.dev/class`).
    #[arg(long)]
    pub(crate) class: Option<String>,

    /// Calls are for pods that the watch has not told of yet: every one is read.
    #[arg(long)]
    pub(crate) unknown_pods: bool,

    /// Timed events of each kind.
    #[arg(long, default_value_t = 2000)]
    pub(crate) events: usize,
}

/// How much a pod object says beside what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PodForm {
    /// One container, as the API server stores it: about 1 KB.
    Lean,
    /// Three containers with a hundred variables, labels, volumes: about 12 KB.
    Fat,
}

/// How large the `scheduler` run is.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct SchedulerArgs {
    /// Node objects, each with eight GPUs and a report.
    #[arg(long, default_value_t = 5000)]
    pub(crate) nodes: usize,

    /// Pods per arm and round, of two GPUs each.
    #[arg(long, default_value_t = 500)]
    pub(crate) pods: usize,

    /// Rounds; the answer is the median of their ratios.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,

    /// Requests a second that kube-scheduler may send, in every arm. Its own default of 50 would be what is measured.
    #[arg(long, default_value_t = 5000)]
    pub(crate) qps: u32,

    /// The program berth-scheduler; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) berth_scheduler: Option<PathBuf>,
}

/// How long the `agent` run is.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct AgentArgs {
    /// How long it is watched, each of two times.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,

    /// How long it is left alone before that. After its start an agent reads everything three times, half a minute apart.
    #[arg(long, default_value_t = 100)]
    pub(crate) settle_seconds: u64,
}

/// How long the `carriers` run is.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct CarriersArgs {
    /// Nodes per carrier, one after the other; each loses its eight GPUs one by one.
    #[arg(long, default_value_t = 4)]
    pub(crate) nodes: usize,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_sizes_of_the_budgets() {
        let args = Args::try_parse_from(["berth-bench", "serve"]).unwrap();
        let Command::Serve(args) = args.command else { panic!("not serve") };
        assert_eq!((args.nodes, args.names, args.full_percent), (5000, vec![500, 5000], 60));
    }

    #[test]
    fn more_than_all_gpus_cannot_be_held() {
        assert!(Args::try_parse_from(["berth-bench", "serve", "--full-percent", "101"]).is_err());
    }
}
