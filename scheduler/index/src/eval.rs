//! Verdicts of all nodes for one shape of pod, computed once per node state.
//!
//! One bound pod dirties one node; a filter call then evaluates that node and reads the rest. Answers are those of
//! [`berth_core::plan::decide`] afresh: a test compares them after every event.

mod keys;
mod ranking;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::place::{Chooser, Free, Rule, choose};
use berth_core::plan::decide;
use berth_core::score::Score;
use berth_core::unfit::Reason;
use berth_core::wish::Force;
use berth_core::{Fabric, Policy, Shape};
use berth_model::{GpuSet, NicSet};

use crate::recall::Listed;
use crate::snapshot::Snapshot;
use keys::Keys;
pub use keys::{Listing, Rules, Zoned};

/// Whether a node can take a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It can, this well.
    Fit(Score),
    /// It cannot.
    Unfit(Reason),
}

/// Shapes remembered: clusters see a few dozen; each costs 36 bytes a node.
const SHAPES_MAX: usize = 128;
/// Set choices remembered. Beyond it all are forgotten: they are cheap to make again.
const CHOICES_MAX: usize = 65_536;

/// Remembers verdicts by shape and node state.
#[derive(Debug, Default)]
pub struct Evaluator {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    policy: Option<Arc<Policy>>,
    shapes: HashMap<Shape, Remembered>,
    choices: Choices,
    calls: u64,
    evaluations: u64,
}

#[derive(Debug, Default)]
struct Remembered {
    last_call: u64,
    /// By position: the version of the node that the verdict is of. Version 0 is no node's.
    verdicts: Vec<Known>,
    keys: Keys,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    version: u64,
    verdict: Option<Verdict>,
}

/// Judges nodes for one shape.
struct Judge<'a> {
    shape: &'a Shape,
    policy: &'a Policy,
    choices: &'a mut Choices,
    evaluations: &'a mut u64,
}

impl Judge<'_> {
    /// What is known of the node at a position, judged anew where that is of another version.
    fn bring_up(&mut self, known: &mut Known, snapshot: &Snapshot, position: usize) -> Option<Verdict> {
        let version = snapshot.pages.live_version(position)?;
        if known.version != version {
            let slot = snapshot.slot(position)?;
            *self.evaluations = self.evaluations.saturating_add(1);
            let verdict = match decide(&slot.view, self.shape, self.policy, self.choices) {
                Ok(fit) => Verdict::Fit(fit.score),
                Err(reason) => Verdict::Unfit(reason),
            };
            *known = Known { version, verdict: Some(verdict) };
        }
        known.verdict
    }
}

impl Evaluator {
    /// The verdicts for the nodes at the given positions; `None` where the snapshot has no node there or no Node object.
    #[must_use]
    pub fn verdicts(
        &self,
        snapshot: &Snapshot,
        positions: &[Option<usize>],
        shape: &Shape,
        policy: &Arc<Policy>,
    ) -> Vec<Option<Verdict>> {
        let mut inner = self.lock();
        let (remembered, mut judge) = inner.open(snapshot, shape, policy);
        let one = |position: &Option<usize>| {
            let position = (*position)?;
            judge.bring_up(remembered.verdicts.get_mut(position)?, snapshot, position)
        };
        positions.iter().map(one).collect()
    }

    /// Which of the nodes a filter answer names: as [`berth_core::order::short_list`] says of the verdicts, and by place in the call.
    /// `None` where a node is named twice.
    #[must_use]
    pub fn short_list(
        &self,
        snapshot: &Snapshot,
        listed: &Listed,
        shape: &Shape,
        policy: &Arc<Policy>,
        rules: Rules,
    ) -> Option<Listing> {
        let mut inner = self.lock();
        let (remembered, mut judge) = inner.open(snapshot, shape, policy);
        keys::short_list(remembered, &mut judge, snapshot, listed, rules)
    }

    /// By place in the call what [`berth_core::order::unique_ranks`] says of the nodes that fit, and zero for the others. `None` where a
    /// node is named twice.
    #[must_use]
    pub fn ranks(
        &self,
        snapshot: &Snapshot,
        listed: &Listed,
        shape: &Shape,
        policy: &Arc<Policy>,
        clique: Option<u32>,
    ) -> Option<Vec<u32>> {
        let mut inner = self.lock();
        let (remembered, mut judge) = inner.open(snapshot, shape, policy);
        keys::ranks(remembered, &mut judge, snapshot, listed, clique)
    }

    /// Of every node that fits its place in the call, what orders it, and its zone. `None` where a node is named twice.
    #[must_use]
    pub fn zoned_keys(
        &self,
        snapshot: &Snapshot,
        listed: &Listed,
        shape: &Shape,
        policy: &Arc<Policy>,
        clique: Option<u32>,
    ) -> Option<Zoned> {
        let mut inner = self.lock();
        let (remembered, mut judge) = inner.open(snapshot, shape, policy);
        keys::zoned(remembered, &mut judge, snapshot, listed, clique)
    }

    /// How many nodes were evaluated so far, over all calls.
    #[must_use]
    pub fn evaluation_count(&self) -> u64 {
        self.lock().evaluations
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What is remembered of a shape, and who judges for it.
    fn open<'a>(
        &'a mut self,
        snapshot: &Snapshot,
        shape: &'a Shape,
        policy: &'a Arc<Policy>,
    ) -> (&'a mut Remembered, Judge<'a>) {
        self.prepare(shape, policy);
        let Self { shapes, choices, calls, evaluations, .. } = self;
        let remembered = shapes.entry(shape.clone()).or_default();
        remembered.last_call = *calls;
        if remembered.verdicts.len() < snapshot.pages.len() {
            remembered.verdicts.resize(snapshot.pages.len(), Known::default());
        }
        (remembered, Judge { shape, policy, choices, evaluations })
    }

    fn prepare(&mut self, shape: &Shape, policy: &Arc<Policy>) {
        self.calls = self.calls.saturating_add(1);
        if self.policy.as_ref().is_none_or(|known| !Arc::ptr_eq(known, policy)) {
            self.shapes.clear();
            self.policy = Some(Arc::clone(policy));
        }
        if self.shapes.len() >= SHAPES_MAX && !self.shapes.contains_key(shape) {
            let oldest = self.shapes.iter().min_by_key(|(_, r)| r.last_call).map(|(s, _)| s.clone());
            oldest.and_then(|s| self.shapes.remove(&s));
        }
    }
}

/// Set choices by fabric, free GPUs and rule. The fabric is kept alive, so that its address stays its own.
#[derive(Debug, Default)]
struct Choices {
    known: HashMap<(usize, Free, Rule), Choice>,
}

#[derive(Debug)]
struct Choice {
    set: Option<GpuSet>,
    _fabric: Arc<Fabric>,
}

impl Chooser for Choices {
    fn choose(&mut self, fabric: &Arc<Fabric>, free: Free, rule: Rule) -> Option<GpuSet> {
        // The fabric itself remembers these.
        if rule.is_plain() {
            return choose(fabric, free, rule);
        }
        let free = if rule.rail == Force::Off { Free { nics: NicSet::EMPTY, ..free } } else { free };
        if self.known.len() >= CHOICES_MAX {
            self.known.clear();
        }
        let key = (Arc::as_ptr(fabric).addr(), free, rule);
        let afresh = || Choice { set: choose(fabric, free, rule), _fabric: Arc::clone(fabric) };
        self.known.entry(key).or_insert_with(afresh).set
    }
}
