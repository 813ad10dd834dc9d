//! Command line and environment of the scheduler. No rule but the form of each value.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Chooses nodes and GPUs for pods, as an extender of the stock kube-scheduler.
#[derive(Debug, Clone, Parser)]
#[command(name = "berth-scheduler", version)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What else the binary can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Show the main job on a cluster of captured machines: no Kubernetes, no GPU.
    Demo,
}

/// How to serve.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Where kube-scheduler finds /filter, /prioritize, /bind and /explain. Keep it on loopback: there is no authentication.
    #[arg(long, env = "BERTH_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8888")]
    pub listen: SocketAddr,

    /// Where /livez, /readyz, /healthz and /metrics are served.
    #[arg(long, env = "BERTH_ADMIN_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:8889")]
    pub admin_listen: SocketAddr,

    /// Where agents stream their reports, e.g. 0.0.0.0:8890; not at all if absent. Beyond loopback it takes a certificate, and agents
    /// show their token.
    #[arg(long, env = "BERTH_REPORTS_LISTEN", value_name = "IP:PORT")]
    pub reports_listen: Option<SocketAddr>,

    /// PEM certificate of the report port, the server's own first. Read again when it changes.
    #[arg(long, env = "BERTH_REPORTS_CERT", value_name = "FILE", requires_all = ["reports_listen", "reports_key"])]
    pub reports_cert: Option<PathBuf>,

    /// PEM key of that certificate.
    #[arg(long, env = "BERTH_REPORTS_KEY", value_name = "FILE", requires = "reports_cert")]
    pub reports_key: Option<PathBuf>,

    /// Audience that the tokens of agents are for.
    #[arg(long, env = "BERTH_REPORTS_AUDIENCE", default_value = "berth")]
    pub reports_audience: String,

    /// Whether to bind, or to filter and score only.
    #[arg(long, env = "BERTH_MODE", value_enum, default_value_t = ModeArg::Allocate)]
    pub mode: ModeArg,

    /// Run without an API server: nodes from the machine files NAME.yaml of this folder and, with --reports-listen, from agents that
    /// run with --no-object; then the folder may be empty.
    #[arg(long, value_name = "DIR")]
    pub machines: Option<PathBuf>,

    /// Policy file for a run with --machines; otherwise the policy is a ConfigMap.
    #[arg(long, value_name = "FILE", requires = "machines")]
    pub policy: Option<PathBuf>,

    /// Namespace of the policy ConfigMap and of the agents.
    #[arg(long, env = "BERTH_NAMESPACE", default_value = "berth-system")]
    pub namespace: String,

    /// Name of the policy ConfigMap.
    #[arg(long, env = "BERTH_POLICY_CONFIGMAP", default_value = "berth-policy")]
    pub policy_configmap: String,

    /// Kubeconfig file; without it KUBECONFIG, the user's own file, or the pod's account, in this order.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Seconds that calls are still served after SIGTERM withdrew readiness.
    #[arg(long, env = "BERTH_PRE_STOP_SECONDS", default_value_t = 5)]
    pub pre_stop_seconds: u64,

    /// Form of the log.
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Whether to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Choose devices and bind.
    Allocate,
    /// Filter and score only: needs no right to write.
    Score,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
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
    fn a_policy_file_without_machines_is_refused() {
        let error = Args::try_parse_from(["berth-scheduler", "--policy", "p.yaml"]).unwrap_err().to_string();
        assert!(error.contains("--machines"), "{error}");
    }
}
