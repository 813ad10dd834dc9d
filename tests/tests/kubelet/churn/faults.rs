//! Owns what is killed, stopped and hung while pods come and go, and when it comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_tests::real_cluster::{RealCluster, SOON};

/// How long an agent stays away, or hangs.
const AWAY: Duration = Duration::from_secs(2);

/// What happens to whom. Nodes by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9`, and started again at once.
    AgentKilled(usize),
    /// `kill -9`, and started again at once.
    KubeletKilled(usize),
    /// berth-scheduler: `kill -9`, and started again at once.
    SchedulerKilled,
    /// Asked to end, and started again once it has.
    AgentEnded(usize),
    /// `kill -9`, and started again after a while.
    AgentAway(usize),
    /// Stopped in its tracks for a while.
    AgentHung(usize),
    /// kube-scheduler: `kill -9`, and started again at once.
    KubeSchedulerKilled,
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    All,
    /// Those after which every kubelet goes on and has its device plugin, or the scheduler was told before that it would not. A kubelet that
    /// lost its plugin has no healthy device, and where it aligns zones it refuses a pod for that as it does for zones.
    WithPlugins,
}

impl Fault {
    /// One after the other, on the first node and then on the second.
    pub(super) fn number(faults: Faults, number: usize, nodes: usize) -> Self {
        let kinds: &[usize] = if faults == Faults::All { &[0, 1, 2, 3, 4, 5, 6] } else { &[2, 3, 5, 6] };
        let at = (number / kinds.len()) % nodes;
        match kinds[number % kinds.len()] {
            0 => Self::AgentKilled(at),
            1 => Self::KubeletKilled(at),
            2 => Self::SchedulerKilled,
            3 => Self::AgentEnded(at),
            4 => Self::AgentAway(at),
            5 => Self::AgentHung(at),
            _ => Self::KubeSchedulerKilled,
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::AgentKilled(_) => "agent killed",
            Self::KubeletKilled(_) => "kubelet killed",
            Self::SchedulerKilled => "scheduler killed",
            Self::AgentEnded(_) => "agent ended",
            Self::AgentAway(_) => "agent killed and away",
            Self::AgentHung(_) => "agent hung",
            Self::KubeSchedulerKilled => "kube-scheduler killed",
        }
    }

    /// Does it.
    pub(super) async fn strike(self, cluster: &mut RealCluster) -> Result<()> {
        let RealCluster { nodes, running } = cluster;
        match self {
            Self::AgentKilled(at) => nodes[at].agent.as_mut().context("an agent")?.restart(),
            Self::KubeletKilled(at) => nodes[at].kill_kubelet(&running.plane).await,
            Self::SchedulerKilled => running.scheduler.restart(),
            Self::AgentEnded(at) => nodes[at].agent.as_ref().context("an agent")?.ask_to_end(),
            Self::AgentAway(at) => nodes[at].agent.as_mut().context("an agent")?.kill(),
            Self::AgentHung(at) => nodes[at].agent.as_ref().context("an agent")?.freeze(),
            Self::KubeSchedulerKilled => running.kube_scheduler.process.restart(),
        }
    }

    /// Mends what is left of it where its time has come; says whether nothing is left.
    pub(super) async fn mend(self, since: Instant, cluster: &mut RealCluster) -> Result<bool> {
        ensure!(since.elapsed() < SOON, "{} and not back after {SOON:?}", self.words());
        let RealCluster { nodes, running } = cluster;
        match self {
            Self::KubeletKilled(at) => {
                let status = nodes[at].kubelet.ended()?;
                ensure!(status.is_none(), "the kubelet ended, its log with\n{}", nodes[at].kubelet.log_tail());
                return nodes[at].is_ready(&running.plane).await;
            }
            Self::AgentEnded(at) => {
                let agent = nodes[at].agent.as_mut().context("an agent")?;
                if agent.ended()?.is_none() {
                    return Ok(false);
                }
                agent.restart()?;
            }
            Self::AgentAway(_) | Self::AgentHung(_) if since.elapsed() < AWAY => return Ok(false),
            Self::AgentAway(at) => nodes[at].agent.as_mut().context("an agent")?.restart()?,
            Self::AgentHung(at) => nodes[at].agent.as_ref().context("an agent")?.thaw()?,
            Self::AgentKilled(_) | Self::SchedulerKilled | Self::KubeSchedulerKilled => {}
        }
        Ok(true)
    }
}
