//! Named conditions that must all hold before the scheduler answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct State {
    gates: Mutex<Vec<Arc<GateState>>>,
    draining: AtomicBool,
}

#[derive(Debug)]
struct GateState {
    name: &'static str,
    open: AtomicBool,
    why: Mutex<Option<String>>,
}

/// All gates. Cheap to clone; clones show the same gates.
#[derive(Debug, Clone, Default)]
pub struct Gates(Arc<State>);

impl Gates {
    /// No gates: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate. The name is what an operator reads: `nodes listed`, `policy loaded`.
    #[must_use]
    pub fn add(&self, name: &'static str) -> Gate {
        let state = Arc::new(GateState { name, open: AtomicBool::new(false), why: Mutex::default() });
        self.0.gates.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&state));
        Gate(state)
    }

    /// Name of each gate, in the order they were added, and why it is closed; `None` for an open one.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, Option<String>)> {
        let gates = self.0.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().map(|gate| (gate.name, gate.trouble())).collect()
    }

    /// Names of the closed gates. Calls are refused while there is one; a drain refuses nothing.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let gates = self.0.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter(|gate| !gate.open.load(Ordering::Acquire)).map(|gate| gate.name).collect()
    }

    /// Whether `/readyz` says yes: every gate open, and not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.missing().is_empty()
    }

    /// From now on `/readyz` says no, whatever the gates say.
    pub fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether a drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }
}

impl GateState {
    fn trouble(&self) -> Option<String> {
        if self.open.load(Ordering::Acquire) {
            return None;
        }
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        Some(why.clone().unwrap_or_else(|| "not yet".to_owned()))
    }
}

/// The hand on one gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<GateState>);

impl Gate {
    /// The condition holds. Opened gates stay open: readiness must not flap on staleness.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::Release);
    }

    /// Why it is still closed, for `/readyz`; the last word counts.
    pub fn say(&self, why: String) {
        *self.0.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }
}
