//! Fractional GPUs on a mixed cluster: replays of a trace in the form of Alibaba's openb files, for Berth and for its peers.
//!
//! The trace itself is never part of the project; [`trace::read`] takes it from files that the user names, and [`synthetic`]
//! makes a small one of the same kind for tests. Every policy sees the same arrivals and the same order of nodes.

pub mod arrive;
pub mod berth;
pub mod fgd;
pub mod host;
pub mod judge;
pub mod peers;
pub mod replay;
pub mod synthetic;
pub mod trace;

/// Milli-GPU of one whole GPU.
pub const GPU_MILLI: i64 = 1000;
/// Most GPUs of a host in the trace.
pub const GPUS_MAX: usize = 8;
