//! The command line: every command and flag with its text. No behaviour.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default());

const EXIT_CODES: &str = "Exit status: 0 ok, 1 error, 2 wrong usage, 3 finding (what was checked is not in order).";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    about = "Shows what GPU nodes are, who holds which GPU, and why a pod is where it is",
    version,
    styles = STYLES,
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
    /// When to use colour; auto is on a terminal, and heeds NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the API server; the flags of kubectl.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ClusterFlags {
    /// Kubeconfig file instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) context: Option<String>,
    /// Namespace of pods instead of the context's
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) namespace: Option<String>,
    /// User to impersonate, as kubectl does
    #[arg(long = "as", global = true, value_name = "USER", help_heading = "Global options")]
    pub(crate) impersonate: Option<String>,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a node: zones, PCIe, NVLink, NICs, health
    Topo(TopoArgs),
    /// List the nodes: GPUs, free ones, links, holders
    Nodes(NodesArgs),
    /// List the pods that hold other GPUs than planned, or none; exit status 3 when there are any
    Drift(DriftArgs),
    /// Examine the nodes and say what is wrong, whom it hurts and what helps; exit status 3 when there is anything
    Doctor(DoctorArgs),
    /// Say why a pod is where it is, or nowhere
    Explain(ExplainArgs),
    /// Work with the policy and kube-scheduler's configuration
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Make the certificate of the report port, where there is no cert-manager
    Certs(CertsArgs),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Write a man page for every command
    Man {
        /// Existing directory to write berth.1, berth-topo.1, ... into
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print the version
    Version,
}

/// `berth topo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TopoArgs {
    #[command(subcommand)]
    pub(crate) command: Option<TopoCommand>,
    /// Read a machine file instead of this machine
    #[arg(long, value_name = "FILE", conflicts_with = "node")]
    pub(crate) machine: Option<PathBuf>,
    /// Read a report as -o json or yaml prints it instead of this machine; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["machine", "node"])]
    pub(crate) report: Option<PathBuf>,
    /// Read the report of a node of the cluster instead of this machine
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) local: LocalFlags,
    /// Print the matrix of `nvidia-smi topo -m`
    #[arg(short, long, conflicts_with = "output")]
    pub(crate) matrix: bool,
    /// Draw the node as an SVG, to standard output or into a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with_all = ["output", "matrix"])]
    pub(crate) svg: Option<PathBuf>,
    /// Form of the output; json and yaml are the NodeTopology object
    #[arg(short, long, value_name = "FORM", default_value = "tree")]
    pub(crate) output: TopoOutput,
}

/// How to read this machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalFlags {
    /// Directory that holds this machine's sys and proc
    #[arg(long, env = "BERTH_ROOT", value_name = "DIR", default_value = "/", hide_env = true)]
    pub(crate) root: PathBuf,
    /// The driver library, if not libnvidia-ml.so.1 of the loader's path
    #[arg(long, env = "BERTH_NVML_LIBRARY", value_name = "FILE", hide_env = true)]
    pub(crate) nvml_library: Option<PathBuf>,
}

/// What else `berth topo` does.
#[derive(Debug, Subcommand)]
pub(crate) enum TopoCommand {
    /// Say what differs between two reports; exit status 3 when something does
    Diff(DiffArgs),
    /// Look for what is wrong with nodes; exit status 3 for an error or a warning
    Lint(LintArgs),
    /// Make a machine file from a capture of `nvidia-smi topo -m` or `-mp`
    Import(ImportArgs),
}

/// `berth topo import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The capture, of any driver generation, whole or in part; - is standard input
    pub(crate) capture: PathBuf,
    /// Write the machine file here instead of printing it; what it assumes is printed on standard error
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What a report may come from, as the help says it.
const SOURCES: &str = "A source is a machine file, a capture of `nvidia-smi topo -m`, a report as `berth topo -o json|yaml` prints it (- is standard input), \
                       node/NAME for the report of a node of the cluster, or local for this machine.";

/// `berth topo diff`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct DiffArgs {
    /// How it was
    #[arg(value_name = "SOURCE")]
    pub(crate) before: String,
    /// How it is
    #[arg(value_name = "SOURCE")]
    pub(crate) after: String,
    #[command(flatten)]
    pub(crate) local: LocalFlags,
    /// Form of the output; json is a TopologyDiff
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub(crate) output: ReviewOutput,
}

/// `berth topo lint`.
#[derive(Debug, Args)]
#[command(after_help = SOURCES)]
pub(crate) struct LintArgs {
    /// What to look at, instead of this machine
    #[arg(value_name = "SOURCE", conflicts_with = "all_nodes")]
    pub(crate) sources: Vec<String>,
    /// Look at every node of the cluster that has a report
    #[arg(long)]
    pub(crate) all_nodes: bool,
    #[command(flatten)]
    pub(crate) local: LocalFlags,
    /// Form of the output; json is a TopologyFindings
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub(crate) output: ReviewOutput,
}

/// Forms of what was compared or looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReviewOutput {
    Text,
    Json,
}

/// Forms of `berth topo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopoOutput {
    Tree,
    Json,
    Yaml,
}

/// `berth nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Only these nodes
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only nodes with these labels, as kubectl's -l
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Form of the output; wide adds the holders, json and yaml are a NodeInventory
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub(crate) output: NodesOutput,
    /// Leave out the line of headings
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// `berth drift`.
#[derive(Debug, Args)]
pub(crate) struct DriftArgs {
    /// Form of the output; json and yaml are a DriftList
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub(crate) output: DriftOutput,
    /// Leave out the line of headings
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// `berth doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only these nodes, with every check
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Print what an Xid, the driver's error number, means and what helps; without a number all that are known. Asks no cluster
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, conflicts_with = "nodes")]
    pub(crate) xid: Option<Option<u64>>,
    /// Form of the output; json is a NodeExaminations, or with --xid an XidMeanings
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub(crate) output: ReviewOutput,
}

/// Forms of `berth drift`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriftOutput {
    Table,
    Json,
    Yaml,
}

/// Forms of `berth nodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodesOutput {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// `berth explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The pod's name; its namespace is that of -n
    pub(crate) pod: String,
    /// Ask berth-scheduler here instead of through a port-forward, e.g. http://127.0.0.1:8888
    #[arg(long, value_name = "URL")]
    pub(crate) extender_url: Option<String>,
}

/// `berth policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the default policy with a comment on every key
    Default,
    /// Check a policy file; exit status 3 and FILE:LINE:COLUMN where it is wrong
    Check {
        /// The policy document, not the ConfigMap around it; - is standard input
        file: PathBuf,
    },
    /// Print the KubeSchedulerConfiguration that calls Berth
    SchedulerConfig(SchedulerConfigArgs),
}

/// `berth policy scheduler-config`.
#[derive(Debug, Args)]
pub(crate) struct SchedulerConfigArgs {
    /// Policy file that names the GPU resources, instead of the default policy
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Add the GPU resources that the cluster's nodes offer
    #[arg(long)]
    pub(crate) from_cluster: bool,
    /// Whether Berth binds the pods or only scores
    #[arg(long, value_name = "MODE", default_value = "allocate")]
    pub(crate) mode: Mode,
}

/// What the scheduler lets Berth do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Filter, score and bind: every pod gets its plan
    Allocate,
    /// Filter and score only: Berth cannot know which devices a pod gets
    Score,
}

/// `berth certs`.
#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// Write ca.key, ca.crt, tls.key, tls.crt and manifests.yaml into this directory instead of printing the manifests
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Sign with ca.key and ca.crt of this directory instead of making an authority
    #[arg(long, value_name = "DIR")]
    pub(crate) authority: Option<PathBuf>,
    /// A further name or IP address for the certificate; it always has those of Service berth-reports
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Days until the certificate ends; berth-scheduler takes a new one without a restart
    #[arg(long, value_name = "COUNT", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub(crate) days: u64,
}
