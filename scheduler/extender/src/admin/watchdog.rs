//! Signs of life of the long tasks. A task that stops giving them makes `/livez` fail, and the kubelet restarts us.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
struct PulseState {
    name: &'static str,
    silence_max: Duration,
    last_beat: Mutex<Instant>,
}

/// All pulses. Cheap to clone; clones show the same pulses.
#[derive(Debug, Clone, Default)]
pub struct Watchdog(Arc<Mutex<Vec<Arc<PulseState>>>>);

impl Watchdog {
    /// No pulses: alive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task that must beat at least once in `silence_max`. It counts as having just beaten.
    #[must_use]
    pub fn add(&self, name: &'static str, silence_max: Duration) -> Pulse {
        let state = Arc::new(PulseState { name, silence_max, last_beat: Mutex::new(Instant::now()) });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&state));
        Pulse(state)
    }

    /// Name of each task and whether it still beats.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, bool)> {
        let pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulses
            .iter()
            .map(|pulse| {
                let last_beat = *pulse.last_beat.lock().unwrap_or_else(PoisonError::into_inner);
                (pulse.name, last_beat.elapsed() <= pulse.silence_max)
            })
            .collect()
    }
}

/// The pulse of one task.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<PulseState>);

impl Pulse {
    /// The task is alive now.
    pub fn beat(&self) {
        *self.0.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}
