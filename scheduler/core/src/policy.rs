//! The policy: what operators tune. Checked once, at the edge; inside it is trusted.
//!
//! [`parse`] reads the ConfigMap's document; [`DEFAULT_DOCUMENT`] is every key with its comment and is what
//! [`Policy::default`] is read from, so that the two cannot differ.

mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::level::{LabelSet, Pool};
use crate::value::rooms::Rooms;
use crate::value::{Expected, Tuning, Typical};
use crate::wish::{Force, LinkWish};

/// Every key with its comment and default.
pub const DEFAULT_DOCUMENT: &str = include_str!("policy/default.yaml");

/// The `apiVersion` of the document.
pub const API_VERSION: &str = "config.berth.dev/v1alpha1";

/// What to do about a node without a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissing {
    /// Refuse the node.
    Reject,
    /// Place by number, name no devices, put the node last.
    ByCount,
}

/// What to do about a node with a stale report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStale {
    /// Use the last good report, put the node last.
    Deprioritize,
    /// Refuse the node.
    Reject,
    /// Use the last good report as if it were current.
    Ignore,
}

/// Which nodes to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Used nodes first.
    Binpack,
    /// The emptiest first.
    Spread,
}

/// How much each criterion counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Use of GPUs after placing.
    pub gpu: u32,
    /// Use of CPU after placing.
    pub cpu: u32,
    /// Use of memory after placing.
    pub memory: u32,
    /// How near the set's GPUs are.
    pub link: u32,
    /// How good the sets are that are still to be had afterwards.
    pub kept: u32,
    /// What is left behind for the pods that are expected; where it counts, `gpu`, `cpu` and `memory` do not.
    pub left: u32,
}

/// What holds for one class of workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Which nodes to fill.
    pub placement: Placement,
    /// How much each criterion counts.
    pub weights: Weights,
    /// Link wish of pods that name none.
    pub link: Option<LinkWish>,
    /// Rail wish of pods that name none.
    pub rail: Force,
    /// Zone wish of pods that name none.
    pub zone: Force,
}

/// How many nodes a filter answer names; `None` for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortList {
    /// For pods whose order is ours alone.
    pub size: Option<usize>,
    /// For pods with wishes that kube-scheduler weighs.
    pub size_soft: Option<usize>,
    /// Always kept of every zone.
    pub per_zone: usize,
}

/// Names of extended resources and what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Whole GPUs, or cards with a share each where a share is named beside.
    pub gpu: Vec<String>,
    /// Percent of a card's compute; `None` where there are no such shares.
    pub gpu_cores: Option<String>,
    /// MiB of a card's memory; `None` where there are no such shares.
    pub gpu_memory: Option<String>,
    /// What stands before a profile in the name of a MIG resource.
    pub mig_prefix: Option<String>,
    /// RDMA devices.
    pub rdma: Vec<String>,
}

impl Resources {
    /// The profile that a MIG resource names, as in `1g.10gb` of `nvidia.com/mig-1g.10gb`.
    #[must_use]
    pub fn mig_profile<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.mig_prefix.as_deref()?).filter(|profile| !profile.is_empty())
    }

    /// The two names of shares. kube-scheduler must not count them: no node offers them by number.
    pub fn shares(&self) -> impl Iterator<Item = &str> {
        [&self.gpu_cores, &self.gpu_memory].into_iter().flatten().map(String::as_str)
    }
}

/// What a share takes of a card's memory when it names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnnamedMemory {
    /// No claim: only cores bind.
    Nothing,
    /// All of it.
    All,
}

/// How cards are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharePolicy {
    /// The shares of a card may add up to this much of its compute.
    pub cores_overcommit_percent: u32,
    /// The shares of a card may add up to this much of its memory.
    pub memory_overcommit_percent: u32,
    /// What a share takes of the memory when it names none.
    pub unnamed_memory: UnnamedMemory,
}

/// A checked policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    resources: Resources,
    shares: SharePolicy,
    on_missing: OnMissing,
    on_stale: OnStale,
    stale_after_seconds: u64,
    short_list: ShortList,
    soft_steps: u32,
    group_label: Option<String>,
    default_class: String,
    classes: BTreeMap<String, Class>,
    tuning: Tuning,
    /// The pods that the document expects.
    seed: Vec<(Typical, u64)>,
    learned_pods: usize,
    expected: Option<Arc<Expected>>,
    levels: Vec<Pool>,
}

/// Why a document is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct PolicyError {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong and what would be right; names the key.
    pub message: String,
}

/// Reads a policy document.
///
/// # Errors
/// [`PolicyError`] with the place and the key of the first thing that is wrong.
pub fn parse(document: &str) -> Result<Policy, PolicyError> {
    spec::parse(document)
}

impl Policy {
    /// Names of extended resources and what they mean.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Names of extended resources that mean whole GPUs.
    pub fn gpu_resources(&self) -> impl Iterator<Item = &str> {
        self.resources.gpu.iter().map(String::as_str)
    }

    /// How cards are shared.
    #[must_use]
    pub fn shares(&self) -> SharePolicy {
        self.shares
    }

    /// What to do about a node without a report.
    #[must_use]
    pub fn on_missing(&self) -> OnMissing {
        self.on_missing
    }

    /// What to do about a node with a stale report.
    #[must_use]
    pub fn on_stale(&self) -> OnStale {
        self.on_stale
    }

    /// How long an agent must be not ready before its report counts as stale.
    #[must_use]
    pub fn stale_after_seconds(&self) -> u64 {
        self.stale_after_seconds
    }

    /// The pool that a node with these labels is in; of several the first.
    #[must_use]
    pub fn pool_of(&self, labels: &LabelSet) -> Option<&Pool> {
        self.levels.iter().find(|pool| pool.holds(labels))
    }

    /// How many nodes a filter answer names.
    #[must_use]
    pub fn short_list(&self) -> ShortList {
        self.short_list
    }

    /// How many steps the nodes of pods with soft wishes are ranked in.
    #[must_use]
    pub fn soft_steps(&self) -> u32 {
        self.soft_steps
    }

    /// The label that pods of one group have in common; `None` where groups do not count.
    #[must_use]
    pub fn group_label(&self) -> Option<&str> {
        self.group_label.as_deref()
    }

    /// The class of pods that name none.
    #[must_use]
    pub fn default_class(&self) -> &str {
        &self.default_class
    }

    /// A class by name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// All class names, in order.
    pub fn class_names(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }
}

impl Policy {
    /// How much each part of what is left behind counts.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// The pods that the document expects, before any came.
    #[must_use]
    pub fn seed(&self) -> &[(Typical, u64)] {
        &self.seed
    }

    /// Of how many of the newest pods the scheduler learns what to expect; 0 where only the document says it.
    #[must_use]
    pub fn learned_pods(&self) -> usize {
        self.learned_pods
    }

    /// The pods that are expected; `None` where nothing is.
    #[must_use]
    pub fn expected(&self) -> Option<&Expected> {
        self.expected.as_deref()
    }

    /// The same policy with another expectation: kinds of pods and how often each comes. What the document said stays known.
    #[must_use]
    pub fn expecting(mut self, counts: &[(Typical, u64)]) -> Self {
        self.expected = (!counts.is_empty()).then(|| Arc::new(Expected::of(counts, self.tuning)));
        self
    }

    /// The same policy as the cluster's room for pods of several GPUs is now; `None` where that makes no difference.
    #[must_use]
    pub fn seeing(&self, rooms: &Rooms) -> Option<Self> {
        let expected = self.expected.as_ref()?.seeing(rooms)?;
        Some(Self { expected: Some(Arc::new(expected)), ..self.clone() })
    }
}

impl Default for Policy {
    fn default() -> Self {
        spec::built_in()
    }
}

#[cfg(test)]
mod tests;
