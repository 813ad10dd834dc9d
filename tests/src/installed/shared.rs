//! One control plane for many tests of a program: its start costs more than most tests do. Each test uses objects of its own.

use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow};
use tokio::runtime::Runtime;

use super::Installed;

static SIDECAR: LazyLock<std::io::Result<Shared>> = LazyLock::new(|| Shared::start("sidecar"));
static AGENT_ONLY: LazyLock<std::io::Result<Shared>> = LazyLock::new(|| Shared::start("agent-only"));

/// What stays for as long as the program: connections live on the runtime that opened them.
struct Shared {
    runtime: Runtime,
    installed: Result<Installed>,
}

impl Shared {
    fn start(overlay: &str) -> std::io::Result<Self> {
        let runtime = Runtime::new()?;
        let installed = runtime.block_on(Installed::start(overlay));
        Ok(Self { runtime, installed })
    }

    fn run(
        shared: &'static std::io::Result<Self>,
        test: impl AsyncFnOnce(&'static Installed) -> Result<()>,
    ) -> Result<()> {
        let shared = shared.as_ref().context("start a runtime")?;
        let installed = shared.installed.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        shared.runtime.block_on(test(installed))
    }
}

/// Runs a test on the control plane with overlay `sidecar`.
///
/// # Errors
/// Those of the test, or the control plane did not start.
pub fn on_sidecar(test: impl AsyncFnOnce(&'static Installed) -> Result<()>) -> Result<()> {
    Shared::run(&SIDECAR, test)
}

/// Runs a test on the control plane with overlay `agent-only`.
///
/// # Errors
/// As [`on_sidecar`].
pub fn on_agent_only(test: impl AsyncFnOnce(&'static Installed) -> Result<()>) -> Result<()> {
    Shared::run(&AGENT_ONLY, test)
}
