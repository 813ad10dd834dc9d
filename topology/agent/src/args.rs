//! Command line and environment of the agent. No rule but the form of each value.

mod plugin;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use berth_probe::xid::APPLICATION_XIDS;
use clap::{Parser, ValueEnum};

use crate::stream::Endpoint;

use plugin::PluginArgs;

/// Shortest interval taken: a probe of a large machine takes tens of milliseconds, and a zero would spin.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Reads this node's hardware and publishes it as its NodeTopology object, at start and when it changes.
#[derive(Debug, Clone, Parser)]
#[command(name = "berth-agent", version)]
pub(crate) struct Args {
    /// This node's name in Kubernetes; with --once, the host's name if absent.
    #[arg(long, env = "NODE_NAME", required_unless_present = "once")]
    pub(crate) node_name: Option<String>,

    /// Directory that holds the host's sys and proc.
    #[arg(long, env = "BERTH_ROOT", value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,

    /// The driver library, if not libnvidia-ml.so.1 of the loader's path.
    #[arg(long, env = "BERTH_NVML_LIBRARY", value_name = "FILE")]
    pub(crate) nvml_library: Option<PathBuf>,

    /// How long between two looks at the hardware, e.g. 5s: after so long a sick GPU is found that no event told of. Every sixth look
    /// reads all that may change, every sixtieth everything.
    #[arg(long, env = "BERTH_POLL_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub(crate) poll_interval: Duration,

    /// How long a GPU may take to answer before it is reported as unreachable, e.g. 10s; the driver as a whole gets three times as long.
    #[arg(long, env = "BERTH_GPU_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub(crate) gpu_timeout: Duration,

    /// Xids that blame the application and say nothing about the GPU; an empty text for none.
    #[arg(long, env = "BERTH_XIDS_IGNORED", value_name = "NUMBERS", default_value_t = Xids::default())]
    pub(crate) xids_ignored: Xids,

    /// How long until the agent looks whether its object is still as it left it, e.g. 5m.
    #[arg(long, env = "BERTH_VERIFY_INTERVAL", value_name = "TIME", default_value = "5m", value_parser = interval)]
    pub(crate) verify_interval: Duration,

    /// Where /livez, /readyz, /healthz and /metrics are served.
    #[arg(long, env = "BERTH_ADMIN_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:8891")]
    pub(crate) admin_listen: SocketAddr,

    /// Where schedulers take reports by stream, besides the object: every address of this name gets one.
    /// https://NAME:PORT, or http://127.0.0.1:PORT for a scheduler on this machine.
    #[arg(long, env = "BERTH_REPORTS_ENDPOINT", value_name = "URL")]
    pub(crate) reports_endpoint: Option<Endpoint>,

    /// Addresses of the schedulers, one stream each, where the endpoint's name is not to be looked up. A certificate must bear that
    /// name all the same.
    #[arg(
        long,
        env = "BERTH_REPORTS_ADDRESSES",
        value_name = "IP:PORT,...",
        value_delimiter = ',',
        requires = "reports_endpoint"
    )]
    pub(crate) reports_addresses: Vec<SocketAddr>,

    /// PEM certificates of the authority that signs the schedulers' certificate. Read at every connection.
    #[arg(long, env = "BERTH_REPORTS_CA", value_name = "FILE")]
    pub(crate) reports_ca: Option<PathBuf>,

    /// Token that names this node to the schedulers. Read at every connection.
    #[arg(long, env = "BERTH_REPORTS_TOKEN_FILE", value_name = "FILE")]
    pub(crate) reports_token_file: Option<PathBuf>,

    /// Socket of the kubelet's PodResources service, /var/lib/kubelet/pod-resources/kubelet.sock: pods that hold other GPUs than their
    /// plans name are told in the report. For clusters whose kubelets do not say it in the pods' status (before Kubernetes 1.36). Needs
    /// root, and the right to get pods.
    #[arg(long, env = "BERTH_POD_RESOURCES", value_name = "FILE", conflicts_with = "no_object")]
    pub(crate) pod_resources: Option<PathBuf>,

    /// How long between two looks at who holds what, e.g. 5s.
    #[arg(long, env = "BERTH_HOLDERS_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub(crate) holders_interval: Duration,

    #[command(flatten)]
    pub(crate) plugin: PluginArgs,

    /// Write no NodeTopology object and talk to no API server: streams alone carry the report, as on a laptop without a cluster.
    #[arg(long, env = "BERTH_NO_OBJECT", requires = "reports_endpoint", conflicts_with = "kubeconfig")]
    pub(crate) no_object: bool,

    /// Kubeconfig file; without it KUBECONFIG, the user's own file, or the pod's account, in this order.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Print this machine's report and exit; needs no API server.
    #[arg(long)]
    pub(crate) once: bool,

    /// Form of the printed report.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, requires = "once")]
    pub(crate) output: Format,
}

/// Numbers of driver errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xids(pub(crate) BTreeSet<u64>);

impl Default for Xids {
    fn default() -> Self {
        Self(BTreeSet::from(APPLICATION_XIDS))
    }
}

impl fmt::Display for Xids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Xids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split(',').map(str::trim).filter(|number| !number.is_empty());
        let wrong = |number: &str| format!("{number:?}: whole numbers with commas between are right, e.g. 13,31");
        numbers.map(|number| number.parse().map_err(|_| wrong(number))).collect::<Result<_, _>>().map(Self)
    }
}

/// Form of a printed report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object.
    Json,
    /// One YAML document.
    Yaml,
}

/// Reads `500ms`, `10s`, `5m`.
fn interval(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("a whole number with ms, s or m is right, e.g. 10s".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number must come before the unit".to_owned())?;
    let interval = Duration::from_millis(number.saturating_mul(ms_per_unit));
    if interval < INTERVAL_MIN {
        return Err(format!("at least {INTERVAL_MIN:?} is right"));
    }
    Ok(interval)
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
    fn the_ignored_xids_are_those_of_the_device_plugin_unless_said() {
        let xids = |text: &[&str]| {
            let line = ["berth-agent", "--once"].iter().chain(text);
            Args::try_parse_from(line).map(|args| args.xids_ignored.0)
        };
        assert_eq!(xids(&[]).unwrap(), BTreeSet::from(APPLICATION_XIDS));
        assert_eq!(xids(&["--xids-ignored", "94, 13"]).unwrap(), BTreeSet::from([13, 94]));
        assert_eq!(xids(&["--xids-ignored", ""]).unwrap(), BTreeSet::new());
        assert!(xids(&["--xids-ignored", "13;31"]).unwrap_err().to_string().contains("whole numbers"));
    }

    #[test]
    fn an_interval_has_a_number_and_a_unit() {
        assert_eq!(interval("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(interval("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "10", "s", "-1s", "1h", "1.5s", "0s", "99ms"] {
            assert!(interval(bad).is_err(), "{bad:?} was taken");
        }
    }
}
